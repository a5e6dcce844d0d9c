"""C++ text -> a loaded library, built by the system compiler on first use and cached by content.

In: a translation unit, macro definitions. Out: a `ctypes` library. This file imports only the standard library: its text below
the first rule is copied into emitted files, so every name in it begins with `_native`.
A library's name is a digest of all that it depends on: text, definitions, flags, the compiler's version, the processor.
It is built under another name and renamed when it is complete, under a lock: processes may build the same one at once,
and an interrupted build leaves nothing that could be loaded. A text that does not compile is an error, never a reason
for another path.
"""

from __future__ import annotations

# ---- copied into emitted files from here on ----
import contextlib as _contextlib
import ctypes as _ctypes
import functools as _functools
import hashlib as _hashlib
import logging as _logging
import os as _os
import platform as _platform
import shutil as _shutil
import struct as _struct
import subprocess as _subprocess
import tempfile as _tempfile
import threading as _threading
import time as _time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as _Path
from typing import Any

# Where libraries are kept: None is $XDG_CACHE_HOME/seqc or ~/.cache/seqc.
NATIVE_CACHE: str | None = None

_native_lock = _threading.Lock()
_native_loaded: dict[str, _ctypes.CDLL] = {}


@_functools.cache
def _native_compiler() -> tuple[str, str] | None:
    """The C++ compiler and what it says of itself: $CXX, else c++, g++ or clang++; None (told once) if there is none."""
    for word in (_os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = _shutil.which(word) if word else None
        if path:
            told = _subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return path, told.stdout
    _logging.getLogger("seqc").warning("no C++ compiler found (set CXX): CPU tensors take the plain torch form")
    return None


@_functools.cache
def _native_processor() -> str:
    """What the build depends on of the processor."""
    words = [_platform.system(), _platform.machine()]
    info = _Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = {line for line in info.read_text().splitlines() if line.startswith(wanted)}
        words += sorted(lines)
    return "\n".join(words)


@_functools.cache
def _native_flags() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(flags to compile, flags to link). No fast-math: infinities, NaN and -0 keep their meaning."""
    compiler = _native_compiler()
    assert compiler is not None
    clang = "clang" in compiler[1]
    host = "-march=native" if _platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    flags = ["-std=c++17", "-O3", host, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-w"]
    link = ["-shared"]
    if _platform.system() != "Darwin":  # the system compiler there comes without OpenMP: one thread
        flags.append("-fopenmp")
        # torch has loaded an OpenMP library: share its threads if its symbols are in sight, else bring one
        if not hasattr(_ctypes.CDLL(None), "__kmpc_fork_call" if clang else "GOMP_parallel"):
            link.append("-fopenmp")
    return tuple(flags), tuple(link)


def _native_cache() -> _Path:
    """The folder of built libraries; a private temporary one if the usual place cannot be written."""
    base = NATIVE_CACHE or _os.path.join(_os.environ.get("XDG_CACHE_HOME") or _Path.home() / ".cache", "seqc")
    path = _Path(base)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _logging.getLogger("seqc").warning("cannot write %s (%s): kernels are built for this process only", path, error)
        return _native_private()
    return path if _os.access(path, _os.W_OK) else _native_private()


@_functools.cache
def _native_private() -> _Path:
    return _Path(_tempfile.mkdtemp(prefix="seqc-"))


@_contextlib.contextmanager
def _native_alone(path: _Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process that holds it."""
    with open(path, "w") as file:
        if _os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _native_build(text: str, defines: Mapping[str, str]) -> _Path:
    """The library's file, built if it is not in the cache. RuntimeError with the compiler's words if it does not compile."""
    compiler = _native_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler found: install one or set CXX")
    flags, link = _native_flags()
    macros = [f"-D{name}={value}" for name, value in sorted(defines.items())]
    parts = (text, *macros, *flags, *link, compiler[1], _native_processor())
    digest = _hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    cache = _native_cache()
    target = cache / f"{digest}.so"
    if target.exists():
        return target
    with _native_alone(cache / f"{digest}.lock"):
        if target.exists():
            return target
        _native_sweep(cache)
        with _tempfile.TemporaryDirectory(prefix="build-", dir=cache) as folder:
            source, part, built = (_os.path.join(folder, f"kernel.{end}") for end in ("cpp", "o", "so"))
            _Path(source).write_text(text)
            for command in (
                [compiler[0], *flags, *macros, "-c", source, "-o", part],
                [compiler[0], *link, part, "-o", built],
            ):
                done = _subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"the kernel does not compile: {' '.join(command)}\n{done.stderr[:4000]}")
            _os.replace(built, target)
    return target


def _native_sweep(cache: _Path) -> None:
    """Remove what builds that were interrupted more than a day ago have left."""
    for folder in cache.glob("build-*"):
        if folder.stat().st_mtime < _time.time() - 86400:
            _shutil.rmtree(folder, ignore_errors=True)


def _native_pointers(arrays: Sequence[Any]) -> bytes:
    """The addresses of tensors as a C array; of None, null."""
    return _struct.pack(f"{len(arrays)}P", *[0 if x is None else x.data_ptr() for x in arrays])


def _native_library(text: str, defines: Mapping[str, str]) -> _ctypes.CDLL:
    """The loaded library of a translation unit."""
    key = "\0".join((text, *(f"{name}={value}" for name, value in sorted(defines.items()))))
    with _native_lock:
        if key not in _native_loaded:
            _native_loaded[key] = _ctypes.CDLL(str(_native_build(text, defines)))
        return _native_loaded[key]
