"""C++ text -> a loaded library, built by the system compiler on first use and cached by content.

In: a translation unit, macro definitions. Out: a `ctypes` library. This file imports only the standard library: its text below
the first rule is copied into emitted files, with `_native_distrust`, so every name in it begins with `_native`.
A library's name is a digest of all that it depends on: text, definitions, flags, the compiler's version, the processor.
It is built in a folder of its own and renamed when it is complete, under a lock: processes may build the same one at
once, and an interrupted build leaves nothing that could be loaded. Beside it lies its note, which holds its checksum: what
a full disk or a crash has cut short is built again. A library is code that runs: the cache is a folder that belongs to
the user and that nobody else may write, or it is not read at all; no link in it is followed (`SECURITY.md`).
A text that does not compile, and a compiler that does not end, are errors; `_ready_cpu` decides what follows from them.
"""

from __future__ import annotations

# ---- copied into emitted files from here on ----
import atexit as _atexit
import concurrent.futures as _futures
import contextlib as _contextlib
import ctypes as _ctypes
import functools as _functools
import hashlib as _hashlib
import json as _json
import os as _os
import platform as _platform
import shlex as _shlex
import shutil as _shutil
import signal as _signal
import struct as _struct
import subprocess as _subprocess
import sys as _sys
import tempfile as _tempfile
import threading as _threading
import time as _time
import warnings as _warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path as _Path
from typing import Any

from seqc.cache import _native_distrust

# Where libraries are kept: None is $XDG_CACHE_HOME/seqc or ~/.cache/seqc.
NATIVE_CACHE: str | None = None
# How long a call of the compiler may take, in seconds; and its answer to `--version`.
NATIVE_SECONDS, NATIVE_ANSWER = 180.0, 20.0
# After how many seconds a build is told on stderr: on a terminal, and elsewhere.
NATIVE_PATIENCE = 1.0, 10.0

_native_loaded: dict[str, _ctypes.CDLL] = {}
_native_running: dict[int, _subprocess.Popen[str]] = {}  # the program that each thread runs


def _native_command(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program: (exit status, stdout, stderr). RuntimeError if it takes longer: it is stopped, with all that it began."""
    group = 0 if _os.name == "posix" else None
    with _subprocess.Popen(words, stdin=_subprocess.DEVNULL, stdout=_subprocess.PIPE, stderr=_subprocess.PIPE, text=True,
                           errors="replace", process_group=group) as running:
        _native_running[_threading.get_ident()] = running
        try:
            out, err = running.communicate(timeout=seconds)
        except BaseException as problem:
            _native_stop(running)
            if isinstance(problem, _subprocess.TimeoutExpired):
                raise RuntimeError(f"`{_shlex.join(words)}` did not end within {seconds:g} seconds") from None
            raise
        finally:
            del _native_running[_threading.get_ident()]
    return running.returncode, out, err


def _native_stop(running: _subprocess.Popen[str]) -> None:
    """End a program, with all that it began."""
    with _contextlib.suppress(ProcessLookupError):
        running.kill() if _os.name != "posix" else _os.killpg(running.pid, _signal.SIGKILL)


def _native_each(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gives. They build libraries side by side, as many as there are cores; where one fails, the others stop."""
    if len(works) < 2:
        return [work() for work in works]
    own = set[int]()
    with _futures.ThreadPoolExecutor(_os.cpu_count(), initializer=lambda: own.add(_threading.get_ident())) as pool:
        made = [pool.submit(work) for work in works]
        try:
            return [one.result() for one in made]
        except BaseException:
            for one in made:
                one.cancel()
            while not all(one.done() for one in made):
                for running in [x for thread, x in [*_native_running.items()] if thread in own]:
                    _native_stop(running)
                _futures.wait(made, timeout=0.05)
            raise


@_functools.cache
def _native_search() -> tuple[tuple[str, ...], str, str]:
    """(the words that call the C++ compiler, what it says of itself, why there is none: "" if there is one).

    $CXX may hold flags, and a program that calls the compiler (`ccache g++ -O2`); if it is set, nothing else is tried.
    """
    wish = _os.environ.get("CXX", "").strip()
    if not wish:
        path = next(filter(None, map(_shutil.which, ("c++", "g++", "clang++"))), None)
        if path is None:
            return (), "", "no C++ compiler found: install one or set CXX"
        words: tuple[str, ...] = (path,)
    else:
        try:
            words = (wish,) if _shutil.which(wish) else tuple(_shlex.split(wish))
        except ValueError as problem:
            return (), "", f"CXX is `{wish}`, which is no command: {problem}"
        path = _shutil.which(words[0]) if words else None
        if path is None:
            return (), "", f"CXX is `{wish}`, and there is no program `{words[0] if words else wish}`"
        words = (path, *words[1:])
    try:
        status, told, err = _native_command([*words, "--version"], NATIVE_ANSWER)
    except (OSError, RuntimeError) as problem:
        return (), "", f"the C++ compiler cannot be used: {problem}"
    if status:
        return (), "", f"the C++ compiler cannot be used: `{_shlex.join([*words, '--version'])}` failed\n{err[:1000]}"
    return words, told, ""


def _native_compiler() -> tuple[tuple[str, ...], str] | None:
    """The words that call the C++ compiler, and what it says of itself; None if there is none."""
    words, told, problem = _native_search()
    return None if problem else (words, told)


@_functools.cache
def _native_tell(words: str) -> None:
    """Warn, once."""
    _warnings.warn(words, stacklevel=2)


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
    host = "-march=native" if _platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    clang = "clang" in compiler[1]
    flags = ["-std=c++17", "-O3" if clang else "-O2", host, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    flags += ["-fPIC", "-w"]
    if not clang:  # what finds vectors, and values to keep, in plain loops: they are written out here
        flags += [f"-fno-{x}" for x in ("tree-pre", "tree-vectorize", "tree-loop-distribute-patterns")]
        # gcc's choice of counters for addresses makes loops faster with AVX2, slower with AVX-512, and takes a sixth of a build
        flags += ["-fno-ivopts"] if "avx512f" in _native_processor() else []
    cache = _os.sysconf("SC_LEVEL1_DCACHE_SIZE") if "SC_LEVEL1_DCACHE_SIZE" in _os.sysconf_names else 0
    if cache > 0:
        flags.append(f"-DSEQC_L1={cache}")
    link = ["-shared"]
    if _platform.system() != "Darwin":  # the system compiler there comes without OpenMP: one thread
        flags.append("-fopenmp")
        # torch has loaded an OpenMP library: share its threads if its symbols are in sight, else bring one
        if not hasattr(_ctypes.CDLL(None), _native_threads(compiler[1])):
            link.append("-fopenmp")
    return tuple(flags), tuple(link)


def _native_threads(compiler: str) -> str:
    """The function of the OpenMP library by which code of this compiler starts threads."""
    return "__kmpc_fork_call" if "clang" in compiler else "GOMP_parallel"


def _native_cache() -> _Path | None:
    """The folder of built libraries; None if there is no home to keep it in."""
    if NATIVE_CACHE:
        return _Path(NATIVE_CACHE)
    told = _Path(_os.environ.get("XDG_CACHE_HOME", ""))
    if told.is_absolute():  # another is to be ignored, says XDG's specification
        return told / "seqc"
    try:
        return _Path.home() / ".cache" / "seqc"
    except RuntimeError:  # no $HOME, and a user of whom the system knows none
        return None


def _native_trusted(cache: _Path | None) -> _Path:
    """The folder to read and to build in: the cache, made if it is not there, or a temporary one if it cannot be used."""
    if cache is None:
        _native_tell("there is no home folder for a cache: native kernels are built for this process only")
        return _native_private()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with _contextlib.suppress(FileExistsError):
            cache.mkdir(mode=0o700)
        problem = _native_distrust(cache, folder=True)
    except OSError as error:
        problem = f"{error.strerror}"
    if not problem:
        return cache
    _native_tell(f"the cache {cache} is not used, for {problem}: native kernels are built for this process only")
    return _native_private()


@_functools.cache
def _native_private() -> _Path:
    folder = _tempfile.mkdtemp(prefix="seqc-")
    _atexit.register(_shutil.rmtree, folder, ignore_errors=True)
    return _Path(folder)


@_contextlib.contextmanager
def _native_alone(path: _Path) -> Iterator[None]:
    """Hold a lock between processes, and between threads; it ends with the process that holds it."""
    with open(_os.open(path, _os.O_RDWR | _os.O_CREAT | getattr(_os, "O_NOFOLLOW", 0), 0o600), "w") as file:
        if _os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@_contextlib.contextmanager
def _native_told(text: str, defines: Mapping[str, str]) -> Iterator[None]:
    """Say on stderr that kernels are built, where it takes long, and how long it took."""
    sizes = _native_words(sorted(defines.items()))
    who = text.partition("// seqc: ")[2].partition(",")[0]
    begin, said = _time.monotonic(), list[str]()
    patience = NATIVE_PATIENCE[0 if _sys.stderr is not None and _sys.stderr.isatty() else 1]

    def say(words: str) -> None:
        said.append(words)
        if _sys.stderr is not None:
            print(f"seqc: {who}: native kernels for {sizes} {words}", file=_sys.stderr, flush=True)

    timer = _threading.Timer(patience, say, ["are being built: once, then they lie in the cache"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if said:
            say(f"took {_time.monotonic() - begin:.0f} s")


def _native_words(sizes: Iterable[tuple[str, object]]) -> str:
    """Macros and their values as a reader knows them: by the names of dims."""
    return ", ".join(f"{macro.removeprefix('SEQC_').removeprefix('DIM_')}={value}" for macro, value in sizes)


def _native_macros(defines: Mapping[str, str]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]


def _native_digest(*parts: str) -> str:
    return _hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _native_sum(library: _Path) -> str:
    return _hashlib.sha256(library.read_bytes()).hexdigest()


def _native_note(library: _Path, own: bool = True) -> dict[str, Any] | None:
    """What is noted of a library; None if it is not there, or not whole, or (own) not this user's alone."""
    try:
        if own and any(_native_distrust(path, folder=False) for path in (library, library.with_suffix(".json"))):
            return None
        note = _json.loads(library.with_suffix(".json").read_text())
        return note if note["sum"] == _native_sum(library) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _native_build(text: str, defines: Mapping[str, str]) -> _Path:
    """The library's file, built if it is not in the cache. RuntimeError with the compiler's words if it does not compile."""
    words, told, problem = _native_search()
    if problem:
        raise RuntimeError(problem)
    flags, link = _native_flags()
    parts = (text, *_native_macros(defines), *words[1:], *flags, *link, told, _native_processor())
    name = f"{_native_digest(*parts)}.so"
    cache = _native_cache()
    folder = _native_trusted(cache)
    if _native_note(folder / name) is not None:
        return folder / name
    if not _os.access(folder, _os.W_OK | _os.X_OK):
        _native_tell(f"cannot write {cache}: native kernels are built for this process only")
        folder = _native_private()
    with _native_told(text, defines), _native_alone(folder / f"{name}.lock"):
        if _native_note(folder / name) is None:
            _native_make(text, defines, link, folder / name, {})
    return folder / name


def _native_make(text: str, defines: Mapping[str, str], link: Sequence[str], target: _Path, note: dict[str, Any]) -> None:
    """Compile a library and put it at `target`, its note beside it."""
    compiler = _native_compiler()
    assert compiler is not None
    _native_sweep(target.parent)
    with _tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        source, part, built, told = (_Path(folder, f"kernel.{end}") for end in ("cpp", "o", "so", "json"))
        source.write_text(text)
        for command in (
            [*compiler[0], *_native_flags()[0], *_native_macros(defines), "-c", str(source), "-o", str(part)],
            [*compiler[0], *link, str(part), "-o", str(built)],
        ):
            status, _, err = _native_command(command, NATIVE_SECONDS)
            if status or not _Path(command[-1]).is_file():
                raise RuntimeError(f"the kernel does not compile: {_shlex.join(command)}\n{err[:4000]}")
        built.chmod(0o755)
        told.write_text(_json.dumps({**note, "sum": _native_sum(built)}, indent=1))
        told.chmod(0o644)
        _os.replace(built, target)
        _os.replace(told, target.with_suffix(".json"))


def _native_sweep(cache: _Path) -> None:
    """Remove what builds that were interrupted more than a day ago have left."""
    for folder in cache.glob("build-*"):
        with _contextlib.suppress(OSError):  # another process has swept it
            if folder.stat().st_mtime < _time.time() - 86400:
                _shutil.rmtree(folder, ignore_errors=True)


def _native_pointers(arrays: Sequence[Any]) -> bytes:
    """The addresses of tensors as a C array; of None, null."""
    return _struct.pack(f"{len(arrays)}P", *[0 if x is None else x.data_ptr() for x in arrays])


def _native_library(text: str, defines: Mapping[str, str]) -> _ctypes.CDLL:
    """The loaded library of a translation unit: built ahead, or built now."""
    key = _native_digest(text, *_native_macros(defines))
    if key not in _native_loaded:
        ahead = _native_prebuilt(text, defines)
        path = ahead or _native_build(text, defines)
        try:
            _native_loaded[key] = _ctypes.CDLL(str(path))
        except OSError:  # of a cache that another system has filled: what cannot be loaded here is built here
            if ahead:
                raise
            path.unlink(missing_ok=True)
            _native_loaded[key] = _ctypes.CDLL(str(_native_build(text, defines)))
    return _native_loaded[key]


# ---- libraries that were built ahead, by `seqc compile --prebuild` ----


def _native_lacks(note: Mapping[str, Any]) -> str:
    """What this machine lacks for a library with this note; "" if it can run it."""
    words, have = list(note["processor"]), _native_processor().splitlines()
    if words[:2] != have[:2]:
        return f"it is for {' '.join(words[:2])}, this is {' '.join(have[:2])}"

    def features(lines: Sequence[str]) -> set[str]:
        return {word for line in lines if not line.startswith("model name") for word in line.partition(":")[2].split()}

    lacking = features(words) - features(have)
    if lacking or (not features(words) and words != have):
        return f"this processor lacks {', '.join(sorted(lacking)) or 'a description'}"
    threads = note["threads"]
    return f"no OpenMP library with {threads} is loaded" if threads and not hasattr(_ctypes.CDLL(None), threads) else ""


def _native_ahead(folder: _Path, text: str, defines: Mapping[str, str]) -> _Path:
    """Where the library lies that was built ahead."""
    return folder / f"{_native_digest(text, *_native_macros(defines))}.so"


def _native_prebuilt(text: str, defines: Mapping[str, str]) -> _Path | None:
    """The library that was built ahead, if there is one that this machine can run; told once if there is another.

    It lies beside this file, in the folder `NAME.native`.
    """
    path = _native_ahead(_Path(__file__).with_suffix(".native"), text, defines)
    note = _native_note(path, own=False)
    if note is None:
        if path.exists():
            _native_tell(f"{path} is damaged and not used")
        return None
    lack = _native_lacks(note)
    if lack:
        _native_tell(f"{path} is not used: {lack}")
    return None if lack else path
