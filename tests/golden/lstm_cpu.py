# Made by seqc from the spec `lstm`. Edit the spec, not this file.
"""lstm: Long short-term memory with block-diagonal heads: each head has its own recurrent matrices.

i, f, o = sigmoid(x + R h_{t-1}),  z = tanh(x_z + R_z h_{t-1}),  c_t = f c_{t-1} + i z,  h_t = o tanh(c_t)
(Hochreiter and Schmidhuber 1997; heads as in Poeppel et al. 2024, arXiv:2412.07752). The inputs are the gates'
pre-activations without the recurrent part: W x + b.

The spec:

    dim H, D

    input x_i[H, D], x_f[H, D], x_z[H, D], x_o[H, D]
    param R_i[H, D, D], R_f[H, D, D], R_z[H, D, D], R_o[H, D, D]

    state h[H, D] = 0, c[H, D] = 0

    i = sigmoid(x_i + R_i @ h[t-1])
    f = sigmoid(x_f + R_f @ h[t-1])
    z = tanh(x_z + R_z @ h[t-1])
    o = sigmoid(x_o + R_o @ h[t-1])
    c = f * c[t-1] + i * z
    output h = o * tanh(c)

How it is computed:

    h, c: nonlinear: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    h: not known: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    c: not known: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    in plain torch:
        step: no block form: h: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @
            h[t-1])`
    in native code for CPUs:
        step: one step at a time; no other form was asked for

Inputs and outputs are [B, T, dims], states [B, dims], parameters [dims]; each function says its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

# What is called has types; kernels and operators have none that a checker could follow.
# mypy: ignore-errors

__all__ = ["LSTM", "LSTMResult", "lstm", "lstm_step", "LSTMStates"]


# ---------- the recurrence in plain torch: every device, every dtype --------------------------------------------------


def _forward_torch(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """Outputs, final states, and the states as the blocks begin."""
    x_i = x_i.transpose(0, 1)
    x_f = x_f.transpose(0, 1)
    x_z = x_z.transpose(0, 1)
    x_o = x_o.transpose(0, 1)

    # the recurrence itself: one step or block after the other
    h = h_0
    h_all = [h]
    c = c_0
    c_all = [c]
    R2 = torch.cat([R_o, R_f, R_i, R_z], -2).mT
    for x_o_t, x_f_t, x_i_t, x_z_t in zip(x_o, x_f, x_i, x_z):
        p, p2, p3, p4 = (h.transpose(0, 1) @ R2).transpose(0, 1).chunk(4, -1)
        # o = sigmoid(x_o + R_o @ h[t-1])
        o = torch.sigmoid(x_o_t + p)
        # i = sigmoid(x_i + R_i @ h[t-1])
        i = torch.sigmoid(x_i_t + p3)
        # z = tanh(x_z + R_z @ h[t-1])
        z = torch.tanh(x_z_t + p4)
        # f = sigmoid(x_f + R_f @ h[t-1])
        f = torch.sigmoid(x_f_t + p2)
        # c = f * c[t-1] + i * z
        c_next = torch.addcmul(i * z, f, c)
        # output h = o * tanh(c)
        h, c = o * torch.tanh(c_next), c_next
        h_all.append(h)
        c_all.append(c)

    h_all = torch.stack(h_all)
    c_all = torch.stack(c_all)
    return h_all[1:].transpose(0, 1).clone(), h, c, h_all, c_all


def _backward_torch(
    x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, h_all, c_all, d_h, d_h_T, d_c_T, *, needs=(True,) * 10
):
    """Gradients of every input, parameter and initial state."""
    need_x_i, need_x_f, need_x_z, need_x_o, need_R_i, need_R_f, need_R_z, need_R_o, need_h_0, need_c_0 = needs

    x_i = x_i.transpose(0, 1)
    x_f = x_f.transpose(0, 1)
    x_z = x_z.transpose(0, 1)
    x_o = x_o.transpose(0, 1)
    d_h = d_h.transpose(0, 1)
    x = h_all[:-1]
    R = torch.cat([R_o, R_i, R_z, R_f], -2)
    p, p2, p3, p4 = torch.einsum("nbhd,hDd->nbhD", x, R).chunk(4, -1)
    # o = sigmoid(x_o + R_o @ h[t-1])
    o = torch.sigmoid(x_o + p)
    x2 = torch.tanh(c_all[1:])
    x3 = o * (1.0 - x2 * x2)
    # i = sigmoid(x_i + R_i @ h[t-1])
    i = torch.sigmoid(x_i + p2)
    # z = tanh(x_z + R_z @ h[t-1])
    z = torch.tanh(x_z + p3)
    x4 = i * (1.0 - z * z)
    x5 = z * i * (1.0 - i)
    # f = sigmoid(x_f + R_f @ h[t-1])
    f = torch.sigmoid(x_f + p4)
    x6 = c_all[:-1] * f * (1.0 - f)
    x7 = x2 * o * (1.0 - o)

    # the recurrence itself: one step or block after the other
    d_h2 = d_h_T
    d_h_all = [d_h2]
    d_c = d_c_T
    d_c_all = [d_c]
    R2 = torch.cat([R_z, R_i, R_f, R_o], -2)
    for d_h_t, x3_t, x4_t, x5_t, x6_t, x7_t, f_t in reversed(list(zip(d_h, x3, x4, x5, x6, x7, f))):
        x8 = d_h_t + d_h2
        x9 = torch.addcmul(d_c, x8, x3_t)
        d_x_z = x9 * x4_t
        d_x_i = x9 * x5_t
        d_x_f = x9 * x6_t
        d_x_o = x8 * x7_t
        d_h2, d_c = (torch.cat([d_x_z, d_x_i, d_x_f, d_x_o], -1).transpose(0, 1) @ R2).transpose(0, 1), x9 * f_t
        d_h_all.append(d_h2)
        d_c_all.append(d_c)

    if need_x_i or need_x_f or need_x_z or need_x_o or need_R_i or need_R_f or need_R_z or need_R_o:
        d_h_all = torch.stack(d_h_all[::-1])
        x10 = d_h + d_h_all[1:]
    if need_x_i or need_x_f or need_x_z or need_R_i or need_R_f or need_R_z:
        d_c_all = torch.stack(d_c_all[::-1])
        x11 = d_c_all[1:] + x10 * x3
    if need_x_o or need_R_o:
        d_x_o2 = x10 * x7
    if need_x_f or need_R_f:
        d_x_f2 = x11 * x6
    if need_x_i or need_R_i:
        d_x_i2 = x11 * x5
    if need_x_z or need_R_z:
        d_x_z2 = x11 * x4
    return (
        d_x_i2.transpose(0, 1) if need_x_i else None,
        d_x_f2.transpose(0, 1) if need_x_f else None,
        d_x_z2.transpose(0, 1) if need_x_z else None,
        d_x_o2.transpose(0, 1) if need_x_o else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_i2, x) if need_R_i else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_f2, x) if need_R_f else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_z2, x) if need_R_z else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_o2, x) if need_R_o else None,
        d_h2.clone() if need_h_0 else None,
        d_c,
    )


def _step_torch(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """One step: outputs and new states."""
    R = torch.cat([R_o, R_f, R_i, R_z], -2)
    p, p2, p3, p4 = (h_0.transpose(0, 1) @ R.mT).transpose(0, 1).chunk(4, -1)
    # o = sigmoid(x_o + R_o @ h[t-1])
    o = torch.sigmoid(x_o + p)
    # f = sigmoid(x_f + R_f @ h[t-1])
    f = torch.sigmoid(x_f + p2)
    # i = sigmoid(x_i + R_i @ h[t-1])
    i = torch.sigmoid(x_i + p3)
    # z = tanh(x_z + R_z @ h[t-1])
    z = torch.tanh(x_z + p4)
    # c = f * c[t-1] + i * z
    c = f * c_0 + i * z
    # output h = o * tanh(c)
    h = o * torch.tanh(c)
    return h, h, c


# ---------- the recurrence in native code: CPUs -----------------------------------------------------------------------

import atexit as _atexit
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
import stat as _stat
import struct as _struct
import subprocess as _subprocess
import sys as _sys
import tempfile as _tempfile
import threading as _threading
import time as _time
import warnings as _warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as _Path
from typing import Any

# Where libraries are kept: None is $XDG_CACHE_HOME/seqc or ~/.cache/seqc.
NATIVE_CACHE: str | None = None
# How long a call of the compiler may take, in seconds; and its answer to `--version`.
NATIVE_SECONDS, NATIVE_ANSWER = 180.0, 20.0
# After how many seconds a build is told on stderr: on a terminal, and elsewhere.
NATIVE_PATIENCE = 1.0, 10.0

_native_lock = _threading.Lock()
_native_loaded: dict[str, _ctypes.CDLL] = {}


def _native_command(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program: (exit status, stdout, stderr). RuntimeError if it takes longer: it is stopped, with all that it began."""
    group = 0 if _os.name == "posix" else None
    with _subprocess.Popen(words, stdin=_subprocess.DEVNULL, stdout=_subprocess.PIPE, stderr=_subprocess.PIPE, text=True,
                           errors="replace", process_group=group) as running:
        try:
            out, err = running.communicate(timeout=seconds)
        except BaseException as problem:
            with _contextlib.suppress(ProcessLookupError):
                running.kill() if group is None else _os.killpg(running.pid, _signal.SIGKILL)
            if isinstance(problem, _subprocess.TimeoutExpired):
                raise RuntimeError(f"`{_shlex.join(words)}` did not end within {seconds:g} seconds") from None
            raise
    return running.returncode, out, err


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
    flags = ["-std=c++17", "-O3", host, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-w"]
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
    if NATIVE_CACHE or _os.environ.get("XDG_CACHE_HOME"):
        return _Path(NATIVE_CACHE or _os.path.join(_os.environ["XDG_CACHE_HOME"], "seqc"))
    try:
        return _Path.home() / ".cache" / "seqc"
    except RuntimeError:  # no $HOME, and a user of whom the system knows none
        return None


def _native_distrust(path: _Path, folder: bool) -> str:
    """Why what lies here must not be loaded; "" if it belongs to this user and nobody else may write it."""
    if _os.name != "posix":
        return ""
    found = path.lstat()
    if not (_stat.S_ISDIR if folder else _stat.S_ISREG)(found.st_mode):
        return f"it is {'a link' if _stat.S_ISLNK(found.st_mode) else 'no folder' if folder else 'no file'}"
    if found.st_uid != _os.geteuid():
        return f"it belongs to another user ({found.st_uid})"
    if found.st_mode & 0o022:
        return f"others may write it (its mode is {_stat.S_IMODE(found.st_mode):o})"
    own = path.parent.resolve()
    for above in (own, *own.parents) if folder else ():
        mode = above.stat().st_mode
        if mode & 0o002 and not mode & _stat.S_ISVTX:
            return f"others may replace it (the mode of {above} is {_stat.S_IMODE(mode):o})"
    return ""


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
    """Hold a lock between processes; it ends with the process that holds it."""
    with open(_os.open(path, _os.O_RDWR | _os.O_CREAT | getattr(_os, "O_NOFOLLOW", 0), 0o600), "w") as file:
        if _os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@_contextlib.contextmanager
def _native_told(text: str, defines: Mapping[str, str]) -> Iterator[None]:
    """Say on stderr that kernels are built, where it takes long, and how long it took."""
    sizes = _native_words(sorted(defines.items()))
    who = text.strip().partition("\n")[0].partition(",")[0].strip("/ ")
    begin, said = _time.monotonic(), list[str]()
    patience = NATIVE_PATIENCE[0 if _sys.stderr is not None and _sys.stderr.isatty() else 1]

    def say(words: str) -> None:
        said.append(words)
        if _sys.stderr is not None:
            print(f"{who}: native kernels for {sizes} {words}", file=_sys.stderr, flush=True)

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
    with _native_lock:
        if key not in _native_loaded:
            ahead = _native_prebuilt(text, defines)
            path = ahead or _native_build(text, defines)
            try:
                _native_loaded[key] = _ctypes.CDLL(str(path))
            except OSError:  # of a cache that another system has filled: what cannot be loaded here is built here
                if ahead:
                    raise
                path.unlink()
                _native_loaded[key] = _ctypes.CDLL(str(_native_build(text, defines)))
        return _native_loaded[key]


# ---- libraries that were built ahead, by `seqc compile --prebuild` ----


def _native_needs() -> dict[str, Any]:
    """What a library that is built here asks of a machine that loads it."""
    compiler = _native_compiler()
    assert compiler is not None
    threads = "" if _platform.system() == "Darwin" else _native_threads(compiler[1])
    return {"processor": _native_processor().splitlines(), "threads": threads}


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


_NATIVE_SOURCE = r"""
// seqc: lstm, native CPU kernels. Dims are compile-time constants (SEQC_DIM_NAME), B and T are not.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>

using real = SEQC_REAL;
using i64 = std::int64_t;

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__AVX512F__)  // this header is most of what there is to read: only where its functions are called
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int W = BYTES / int(sizeof(real));  // lanes of a vector
using whole = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;
typedef real vec __attribute__((vector_size(BYTES)));
typedef whole mask __attribute__((vector_size(BYTES)));  // all bits of a lane: its truth value; or integers

// A call: B sequences of T steps, or a pack of B in one row: sequence i has the steps from bounds[i] up to bounds[i + 1].
// way: 1 from the first step to the last, -1 from the last to the first.
struct Call {
  i64 B, T, way;
  const i64* bounds;
  i64 rows() const { return bounds ? bounds[B] : B * T; }
  i64 steps(i64 i) const { return bounds ? bounds[i + 1] - bounds[i] : T; }
  i64 row(i64 i) const { return bounds ? bounds[i] : i * T; }
  // where the segments of sequence i begin: bounds[i] / every + i leaves each sequence of a pack as many as it needs
  i64 segment(i64 i, i64 every) const { return bounds ? bounds[i] / every + i : i * ((T + every - 1) / every); }
};

#define INLINE inline __attribute__((always_inline))
#define ONCE inline __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")

constexpr i64 chunks(i64 n) { return (n + W - 1) / W; }  // vectors that n values fill
constexpr i64 padded(i64 n) { return chunks(n) * W; }
constexpr i64 quotient(i64 n, i64 by) { return (n + by - 1) / by; }  // rounded up
constexpr i64 divisor(i64 n, i64 most) {  // the largest divisor of n that is at most `most`
  i64 d = std::max<i64>(1, std::min(n, most));
  while (n % d) --d;
  return d;
}

INLINE vec splat(real x) { return x - vec{}; }
INLINE vec splat(vec x) { return x; }
INLINE mask truth(bool x) { return mask{} - whole(x); }
INLINE mask truth(mask x) { return x; }
INLINE vec lanes() {  // 0, 1, 2, ...
  vec r{};
  for (int i = 0; i < W; ++i) r[i] = real(i);
  return r;
}

// Loads and stores. `full`: the extent is a multiple of W, known when compiled; else `left` values are inside. No
// memcpy: GCC 12 stores 64 bytes of known numbers that end in zeros as if the first were repeated in all of them.
typedef vec loose __attribute__((aligned(alignof(real)), may_alias));
INLINE vec load(const real* p) { return *reinterpret_cast<const loose*>(p); }
INLINE void store(real* p, vec x) { *reinterpret_cast<loose*>(p) = x; }
INLINE void store(real* p, real x) { store(p, splat(x)); }
// The first `left` elements, and 0 in the other lanes: one instruction where the processor has it, which touches nothing else.
#if defined(__AVX512F__)
INLINE unsigned first(i64 left) { return left > 0 ? (1u << left) - 1 : 0; }
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)_mm512_maskz_loadu_ps(__mmask16(first(left)), p);
  else return (vec)_mm512_maskz_loadu_pd(__mmask8(first(left)), p);
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) _mm512_mask_storeu_ps(p, __mmask16(first(left)), (__m512)x);
  else _mm512_mask_storeu_pd(p, __mmask8(first(left)), (__m512d)x);
}
#elif defined(__AVX2__) && !defined(__clang__)
typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef int ints __attribute__((vector_size(BYTES)));
typedef long long longs __attribute__((vector_size(BYTES)));
INLINE mask first(i64 left) { return lanes() < splat(real(left)); }
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)__builtin_ia32_maskloadps256((const floats*)p, (ints)first(left));
  else return (vec)__builtin_ia32_maskloadpd256((const doubles*)p, (longs)first(left));
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) __builtin_ia32_maskstoreps256((floats*)p, (ints)first(left), (floats)x);
  else __builtin_ia32_maskstorepd256((doubles*)p, (longs)first(left), (doubles)x);
}
#else
INLINE vec load_some(const real* p, i64 left) {
  vec r{};
  for (int i = 0; i < W; ++i)
    if (i < left) r[i] = p[i];
  return r;
}
INLINE void store_some(real* p, vec x, i64 left) {
  for (int i = 0; i < W; ++i)
    if (i < left) p[i] = x[i];
}
#endif
template <bool full>
INLINE vec load(const real* p, i64 left) { return full || left >= W ? load(p) : load_some(p, left); }
template <bool full>
INLINE void store(real* p, vec x, i64 left) { return full || left >= W ? store(p, x) : store_some(p, x, left); }
template <bool full>
INLINE void store(real* p, real x, i64 left) { store<full>(p, splat(x), left); }
// The same, and the next step's element is fetched into the cache: `ahead` is the distance to it.
template <bool full>
INLINE vec load_early(const real* p, i64 left, i64 ahead) {
  __builtin_prefetch(p + ahead, 0);
  return load<full>(p, left);
}
INLINE void stream(real* p, vec x) {  // past the caches, so that the memory there need not be read first; p is aligned
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)x);
#elif defined(__AVX__) && defined(__clang__)
  __builtin_nontemporal_store(x, reinterpret_cast<vec*>(p));
#elif defined(__AVX__)
  typedef long long quads __attribute__((vector_size(BYTES)));
  __builtin_ia32_movntdq256(reinterpret_cast<quads*>(p), (quads)x);
#else
  store(p, x);
#endif
}
INLINE void streamed() {  // what was streamed is visible to other threads from here on
#if defined(__AVX__)
  __builtin_ia32_sfence();
#endif
}
template <bool full, class X>
INLINE void store_early(real* p, X x, i64 left, i64 ahead, bool large) {  // large: too large an array for the caches
  if (full && large && reinterpret_cast<std::uintptr_t>(p) % BYTES == 0) return stream(p, splat(x));
  __builtin_prefetch(p + ahead, 1);
  store<full>(p, x, left);
}
INLINE vec gather(const real* p, i64 stride, i64 left) {
  vec r{};
  for (int i = 0; i < W; ++i)
    if (i < left) r[i] = p[i * stride];
  return r;
}
INLINE void scatter(real* p, vec x, i64 stride, i64 left) {
  for (int i = 0; i < W; ++i)
    if (i < left) p[i * stride] = x[i];
}
INLINE void scatter(real* p, real x, i64 stride, i64 left) { scatter(p, splat(x), stride, left); }
// The vector of elements from `at` on that lie between `low` and `high`, and 0 elsewhere; p points at the first of them.
INLINE vec moved(const real* p, i64 stride, i64 at, i64 low, i64 high) {
  vec r{};
  for (int i = 0; i < W; ++i)
    if (at + i >= low && at + i < high) r[i] = p[i * stride];
  return r;
}
template <bool full>
INLINE vec keep(vec x, i64 left, real otherwise) {  // lanes outside are replaced before a sum over lanes
  if (full || left >= W) return x;
  for (int i = 0; i < W; ++i)
    if (i >= left) x[i] = otherwise;
  return x;
}

// Sums over lanes, for W rows at once: lane r of the result is the sum (or the maximum) of row r, in a fixed order.
template <int d, int... l>
INLINE vec pair_low(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : l)...);
}
template <int d, int... l>
INLINE vec pair_high(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : (l ^ d))...);
}
INLINE real seqc_max(real a, real b) { return a > b || a != a ? a : b; }
INLINE vec seqc_max(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }
INLINE real seqc_min(real a, real b) { return a < b || a != a ? a : b; }
INLINE vec seqc_min(vec a, vec b) { return ((a < b) | (a != a)) ? a : b; }
template <bool most, int d>
INLINE void fold_rows(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < d; ++i) {
      const vec low = pair_low<d>(r[i], r[i + d], l), high = pair_high<d>(r[i], r[i + d], l);
      r[i] = most ? seqc_max(low, high) : low + high;
    }
    fold_rows<most, d / 2>(r);
  }
}
template <bool most = false>
INLINE void across(const real* rows, real* out, i64 n) {  // rows: n vectors; out: n values, padded
  for (i64 i = 0; i < n; i += W) {
    vec r[W];
    UNROLL for (int j = 0; j < W; ++j) r[j] = i + j < n ? load(rows + (i + j) * W) : vec{};
    fold_rows<most, W / 2>(r);
    store(out + i, r[0]);
  }
}
template <bool most>
INLINE real total(vec x) {
  alignas(BYTES) real out[W];
  alignas(BYTES) real row[W];
  store(row, x);
  across<most>(row, out, 1);
  return out[0];
}

// Choice and truth values, for scalars and vectors alike.
template <class C, class A, class B>
INLINE auto seqc_where(C c, A a, B b) {
  if constexpr (std::is_same_v<C, bool>)
    return c ? splat(a) : splat(b);
  else
    return c ? splat(a) : splat(b);
}
INLINE real seqc_where(bool c, real a, real b) { return c ? a : b; }
INLINE bool seqc_and(bool a, bool b) { return a && b; }
INLINE bool seqc_or(bool a, bool b) { return a || b; }
INLINE bool seqc_not(bool a) { return !a; }
template <class A, class B>
INLINE mask seqc_and(A a, B b) { return truth(a) & truth(b); }
template <class A, class B>
INLINE mask seqc_or(A a, B b) { return truth(a) | truth(b); }
INLINE mask seqc_not(mask a) { return ~a; }
INLINE real as_real(bool x) { return x ? real(1) : real(0); }
INLINE vec as_real(mask x) { return x ? splat(real(1)) : vec{}; }
INLINE real as_real(real x) { return x; }
INLINE vec as_real(vec x) { return x; }

template <int d, int... l>
INLINE vec pair_first(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : l)...);
}
template <int d, int... l>
INLINE vec pair_second(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : (l ^ d))...);
}
template <int d>
INLINE void turn(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < W; ++i)
      if (!(i & d)) {
        const vec first = pair_first<d>(r[i], r[i + d], l), second = pair_second<d>(r[i], r[i + d], l);
        r[i] = first, r[i + d] = second;
      }
    turn<d / 2>(r);
  }
}
// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. Of many instructions: compiled once.
ONCE void transpose(const real* from, i64 from_stride, real* to, i64 to_stride, i64 rows, i64 columns) {
  for (i64 i0 = 0; i0 < rows; i0 += W)
    for (i64 j0 = 0; j0 < columns; j0 += W) {
      vec r[W];
      UNROLL for (int i = 0; i < W; ++i)
        r[i] = i0 + i < rows ? load<false>(from + (i0 + i) * from_stride + j0, columns - j0) : vec{};
      turn<W / 2>(r);
      UNROLL for (int j = 0; j < W; ++j)
        if (j0 + j < columns) store<false>(to + (j0 + j) * to_stride + i0, r[j], rows - i0);
    }
}

// Threads that share a program: each takes a part of the vectors of every loop nest, and all meet after it.
struct Team {
  struct Common {
    alignas(64) std::atomic<i64> arrived{0};
    alignas(64) std::atomic<i64> turn{0};
    void* memory = nullptr;
  };
  Common* common;
  i64 member, members;
  bool first() const { return member == 0; }
  i64 from(i64 blocks) const { return blocks * member / members; }
  i64 upto(i64 blocks) const { return blocks * (member + 1) / members; }
  // every second step goes backwards, so that it begins with what the caches still have of the step before
  i64 there(i64 b, i64 blocks, i64 step) const { return step & 1 ? from(blocks) + upto(blocks) - 1 - b : b; }
  void meet() const {
    if (members == 1) return;
    const i64 now = common->turn.load(std::memory_order_relaxed);
    if (common->arrived.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
      common->arrived.store(0, std::memory_order_relaxed);
      common->turn.store(now + 1, std::memory_order_release);
      return;
    }
    for (int waited = 0; common->turn.load(std::memory_order_acquire) == now; ++waited) {
      if (waited > 64) std::this_thread::yield();  // another one may need this core to arrive
#if defined(__x86_64__)
      else __builtin_ia32_pause();
#endif
    }
  }
};


// Runs all programs on so many threads: each by one of them, or (wide, and fewer programs than half the threads) by a team.
template <class Run>
int run_programs(i64 programs, i64 threads, bool wide, const Run& run) {
  int failed = 0;
#if defined(_OPENMP)
  const i64 members = wide && programs ? threads / programs : 1;
  if (members > 1) {
    std::unique_ptr<Team::Common[]> teams(new (std::nothrow) Team::Common[programs]);
    if (!teams) return 1;
    bool alone = false;
#pragma omp parallel num_threads(int(members * programs)) reduction(| : failed)
    {
      const i64 thread = omp_get_thread_num();
      if (omp_get_num_threads() == members * programs)
        failed |= run(thread / members, Team{&teams[thread / members], thread % members, members});
      else if (thread == 0)
        alone = true;  // the system has not as many threads to give
    }
    if (!alone) return failed;
  }
#endif
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (threads > 1)
  for (i64 program = 0; program < programs; ++program) {
    Team::Common own;
    failed |= run(program, Team{&own, 0, 1});
  }
  return failed;
}

template <class Scratch>
Scratch* scratch() {  // one per thread and kernel, kept between calls; zero at first
  static thread_local std::unique_ptr<Scratch> kept;
  if (!kept) kept.reset(new (std::nothrow) Scratch());
  return kept.get();
}
constexpr bool single = sizeof(real) == 4;
constexpr real infinity = std::numeric_limits<real>::infinity();
constexpr int FRACTION = single ? 23 : 52;  // bits of a fraction
constexpr int BIAS = single ? 127 : 1023;

INLINE mask bits(vec x) {
  mask r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}
INLINE vec number(mask x) {
  vec r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}
INLINE vec power2(mask n) { return number((n + whole(BIAS)) << FRACTION); }  // 2^n, n a normal exponent
#if defined(__AVX512F__)  // one instruction each; NaN passes through all of them
INLINE vec at_most(real top, vec x) {
  if constexpr (single) return (vec)_mm512_min_ps((__m512)splat(top), (__m512)x);
  else return (vec)_mm512_min_pd((__m512d)splat(top), (__m512d)x);
}
INLINE vec at_least(real bottom, vec x) {
  if constexpr (single) return (vec)_mm512_max_ps((__m512)splat(bottom), (__m512)x);
  else return (vec)_mm512_max_pd((__m512d)splat(bottom), (__m512d)x);
}
INLINE vec scaled(vec x, vec n) {  // x 2^n, n whole
  if constexpr (single) return (vec)_mm512_scalef_ps((__m512)x, (__m512)n);
  else return (vec)_mm512_scalef_pd((__m512d)x, (__m512d)n);
}
#else
INLINE vec at_most(real top, vec x) { return x > top ? splat(top) : x; }
INLINE vec at_least(real bottom, vec x) { return x < bottom ? splat(bottom) : x; }
INLINE vec scaled(vec x, vec n) {  // in two factors: the result may lie outside of the normal exponents
  const mask k = __builtin_convertvector(n == n ? n : vec{}, mask), half = k >> 1;
  return x * power2(half) * power2(k - half);
}
#endif
INLINE vec seqc_abs(vec x) { return number(bits(x) & std::numeric_limits<whole>::max()); }
INLINE vec signed_as(vec x, vec sign) {
  return number(bits(seqc_abs(x)) | (bits(sign) & std::numeric_limits<whole>::min()));
}

template <int n>
INLINE vec horner(vec x, const real (&c)[n]) {
  vec r = splat(c[n - 1]);
  UNROLL for (int i = n - 2; i >= 0; --i) r = r * x + c[i];
  return r;
}

struct Reduced {
  vec n;  // x = n ln 2 + r, n whole
  vec p;   // exp(r) - 1
};
INLINE Reduced reduce(vec x) {
  constexpr real magic = single ? real(12582912.0) : real(6755399441055744.0);  // 1.5 * 2^FRACTION: rounds to integers
  constexpr real high = single ? real(0.693145751953125) : real(0.69314718036912381649);
  constexpr real low = single ? real(1.4286068203094172e-6) : real(1.9082149292705877e-10);
  const vec shifted = x * real(1.4426950408889634074) + magic;
  const vec n = shifted - magic;
  const vec r = (x - n * high) - n * low;
  vec q;
  if constexpr (single) {
    constexpr real c[] = {0.5, 0.16666576666119928, 0.041666554212984150, 0.0083632328836826182, 0.0013926250831497612};
    q = horner(r, c);
  } else {
    constexpr real c[] = {0.5, 0.1666666666666667103, 0.041666666666666669783, 0.0083333333333260831202,
                          0.0013888888888883711167, 0.00019841269875002278793, 0.0000248015873256774619,
                          2.7557255170000887438e-6, 2.7557273478718580474e-7, 2.5105312729622101787e-8,
                          2.09147553258932022e-9};
    q = horner(r, c);
  }
  return {n, r + r * r * q};
}
INLINE vec seqc_exp(vec x) {
  constexpr real top = single ? 89 : 710, bottom = single ? -104 : -746;
  const Reduced e = reduce(at_least(bottom, at_most(top, x)));
  return scaled(e.p + real(1), e.n);
}
INLINE vec seqc_expm1(vec x) {
  constexpr real top = single ? 89 : 710;
  const Reduced e = reduce(at_least(real(-50), at_most(top, x)));
  const vec scale = scaled(splat(real(1)), e.n - real(1));
  const vec y = (e.p * scale + (scale - real(0.5))) * real(2);
  return x == vec{} ? x : y;
}
INLINE vec seqc_log(vec x) {
  constexpr real high = single ? real(0.693145751953125) : real(0.69314718036912381649);
  constexpr real low = single ? real(1.4286068203094172e-6) : real(1.9082149292705877e-10);
  constexpr real lift = single ? real(33554432.0) : real(18014398509481984.0);  // 2^25, 2^54: out of the subnormals
  constexpr whole root = single ? whole(0x3f3504f3) : whole(0x3fe6a09e667f3bcdLL);  // sqrt(1/2)
  const mask tiny = x < std::numeric_limits<real>::min();
  const mask raw = bits(tiny ? x * lift : x);
  const mask n = (raw - root) >> FRACTION;
  const vec f = number(raw - (n << FRACTION)) - real(1);
  const mask down = tiny & whole(single ? 25 : 54);
  const vec k = __builtin_convertvector(n - down, vec);
  const vec s = f / (f + real(2)), z = s * s;
  vec p;
  if constexpr (single) {
    constexpr real c[] = {0.6666666655404201243, 0.40000122211810649396, 0.28550778633191965434,
                          0.23331614471843499235};
    p = z * horner(z, c);
  } else {
    constexpr real c[] = {0.66666666666666666463, 0.40000000000000883236, 0.28571428570799785031,
                          0.22222222392581045097, 0.18181795547521136235, 0.15386244737621666606,
                          0.13268638369266823879, 0.1308803485092755383};
    p = z * horner(z, c);
  }
  const vec square = f * f * real(0.5);
  const vec y = k * high - ((square - (s * (square + p) + k * low)) - f);
  const vec outside = x == vec{} ? splat(-infinity) : x < vec{} ? splat(std::numeric_limits<real>::quiet_NaN()) : x;
  return ((x > vec{}) & (x < infinity)) ? y : outside;  // inf and NaN are their own logarithms
}
INLINE vec seqc_log1p(vec x) {
  const vec u = x + real(1);
  const vec y = seqc_log(u) + (x - (u - real(1))) / u;
  return ((x > real(-1)) & (x < infinity)) ? (x == vec{} ? x : y) : seqc_log(u);
}
INLINE vec seqc_sigmoid(vec x) {
  const vec e = seqc_exp(-seqc_abs(x)), r = real(1) / (e + real(1));
  return x >= vec{} ? r : e * r;
}
INLINE vec seqc_softplus(vec x) {
  const vec positive = x < vec{} ? vec{} : x;  // NaN stays
  return positive + seqc_log1p(seqc_exp(-seqc_abs(x)));
}
INLINE vec seqc_logsigmoid(vec x) { return -seqc_softplus(-x); }
INLINE vec seqc_logaddexp(vec a, vec b) {
  const vec high = seqc_max(a, b), gap = seqc_abs(a - b);
  return a == b ? a + real(0.693147180559945309417) : high + seqc_log1p(seqc_exp(-gap));
}
INLINE vec seqc_tanh(vec x) {
  const vec e = seqc_expm1(seqc_abs(x) * real(-2));
  return signed_as(e / (e + real(2)), x);
}
INLINE vec seqc_sign(vec x) {
  const vec one = splat(real(1));
  return x > vec{} ? one : (x < vec{} ? -one : x);
}
INLINE vec seqc_sqrt(vec x) {
  vec r;
  for (int i = 0; i < W; ++i) r[i] = std::sqrt(x[i]);
  return r;
}
#define SEQC_BY_LANE(name)                              \
  INLINE vec seqc_##name(vec x) {                       \
    vec r;                                              \
    for (int i = 0; i < W; ++i) r[i] = std::name(x[i]); \
    return r;                                           \
  }
SEQC_BY_LANE(erf)
SEQC_BY_LANE(sin)
SEQC_BY_LANE(cos)
INLINE vec seqc_pow(vec x, vec y) {
  vec r;
  for (int i = 0; i < W; ++i) r[i] = std::pow(x[i], y[i]);
  return r;
}
INLINE vec seqc_pow(vec x, real y) {
  if (y == real(2)) return x * x;
  if (y == real(1)) return x;
  if (y == real(-1)) return real(1) / x;
  return seqc_pow(x, splat(y));
}
INLINE vec seqc_pow(real x, vec y) { return seqc_pow(splat(x), y); }
INLINE vec seqc_logaddexp(real a, vec b) { return seqc_logaddexp(splat(a), b); }
INLINE vec seqc_logaddexp(vec a, real b) { return seqc_logaddexp(a, splat(b)); }
INLINE vec seqc_min(real a, vec b) { return seqc_min(splat(a), b); }
INLINE vec seqc_min(vec a, real b) { return seqc_min(a, splat(b)); }
INLINE vec seqc_max(real a, vec b) { return seqc_max(splat(a), b); }
INLINE vec seqc_max(vec a, real b) { return seqc_max(a, splat(b)); }

// Scalars go through one lane, so that they agree with vectors to the bit.
#define SEQC_SCALAR(name) \
  INLINE real seqc_##name(real x) { return seqc_##name(splat(x))[0]; }
SEQC_SCALAR(exp)
SEQC_SCALAR(expm1)
SEQC_SCALAR(log)
SEQC_SCALAR(log1p)
SEQC_SCALAR(sigmoid)
SEQC_SCALAR(softplus)
SEQC_SCALAR(logsigmoid)
SEQC_SCALAR(tanh)
INLINE real seqc_abs(real x) { return std::fabs(x); }
INLINE real seqc_sqrt(real x) { return std::sqrt(x); }
INLINE real seqc_sign(real x) { return x > 0 ? real(1) : (x < 0 ? real(-1) : x); }
INLINE real seqc_erf(real x) { return std::erf(x); }
INLINE real seqc_sin(real x) { return std::sin(x); }
INLINE real seqc_cos(real x) { return std::cos(x); }
INLINE real seqc_pow(real x, real y) { return y == real(2) ? x * x : std::pow(x, y); }
INLINE real seqc_logaddexp(real a, real b) { return seqc_logaddexp(splat(a), splat(b))[0]; }
}  // namespace

namespace {
// The processor: bytes of its first-level cache, and the vector registers that sums may fill.
#if defined(__AVX512F__)  // x86-64-v4 (AVX-512)
constexpr i64 usual_l1 = 32768, spare = 24;
#elif defined(__AVX__)  // x86-64-v3 (AVX2)
constexpr i64 usual_l1 = 32768, spare = 12;
#elif defined(__aarch64__)  // arm64
constexpr i64 usual_l1 = 65536, spare = 24;
#else  // any other
constexpr i64 usual_l1 = 32768, spare = 12;
#endif
#ifndef SEQC_L1
#define SEQC_L1 usual_l1
#endif
constexpr i64 l1 = SEQC_L1, size = sizeof(real);

constexpr i64 n_H = SEQC_DIM_H;
constexpr i64 n_D = SEQC_DIM_D;
constexpr i64 w_D = n_D, m_D = n_D, z_D = padded(n_D);
constexpr bool e_D = n_D % W == 0;
constexpr i64 n_D_ = SEQC_DIM_D;
constexpr i64 w_D_ = n_D_, m_D_ = n_D_, z_D_ = padded(n_D_);
constexpr bool e_D_ = n_D_ % W == 0;
// The rows of the batch that one reading of the matrices serves: the least cost of those that fit, tried one by one.
// - a sum of every row and matrix has a register
constexpr bool fits(i64 rows) {
  return 4 * rows <= std::max<i64>(spare, 4);
}
constexpr i64 cost(i64 rows) {
  return quotient(8, rows) * (1 + quotient(n_D * n_D_, W) + quotient(n_D * n_D_, W) + quotient(n_D * n_D_, W) + quotient(n_D * n_D_, W)) * (rows + 2);
}
constexpr i64 least() {
  i64 best = 0;
  constexpr i64 domain[] = {4, 2, 1};
  for (i64 x : domain)
    if (fits(x) && (!best || cost(x) < cost(best))) best = x;
  return best;
}
constexpr i64 chosen_rows = least();
static_assert(chosen_rows > 0, "no choice fits");
// Which blocks of rows there is a kernel for: those that the batches of this library have.
#ifndef SEQC_ROWS
#define SEQC_ROWS 7
#endif
constexpr bool built(i64 rows) {
  return rows == chosen_rows ? SEQC_ROWS >= rows : rows < chosen_rows && (SEQC_ROWS & rows) != 0;
}
constexpr bool serves(i64 rows) {
  const i64 fours = chosen_rows >= 4 ? rows / 4 : 0, twos = chosen_rows >= 2 ? (rows - 4 * fours) / 2 : 0;
  return (!fours || built(4)) && (!twos || built(2)) && (rows == 4 * fours + 2 * twos || built(1));
}
constexpr i64 panels = 1;
}  // namespace

namespace {
struct Forward {
  const real* g_x_i;
  const real* g_x_f;
  const real* g_x_z;
  const real* g_x_o;
  const real* g_R_i;
  const real* g_R_f;
  const real* g_R_z;
  const real* g_R_o;
  const real* g_h_0;
  const real* g_c_0;
  real* g_h;
  real* g_h_T;
  real* g_c_T;
  real* g_kept_0;
  real* g_kept_1;
  real* g_kept_2;
  real* g_kept_3;
  real* g_h_kept;
  real* g_c_kept;
};

template <int w_B>
struct ForwardScratch {
  static constexpr i64 z_B = padded(w_B);
  alignas(64) real s_h[w_B * z_D];
  alignas(64) real s_c[w_B * z_D];
  alignas(64) real s_x0[w_B * z_D];
  alignas(64) real s_x1[w_B * z_D];
  alignas(64) real s_x2[w_B * z_D];
  alignas(64) real s_x3[w_B * z_D];
  alignas(64) real s_R_o_by_D[w_D_ * z_D];
  alignas(64) real s_R_f_by_D[w_D_ * z_D];
  alignas(64) real s_R_i_by_D[w_D_ * z_D];
  alignas(64) real s_R_z_by_D[w_D_ * z_D];
};

template <bool save, int w_B>
int forward_program(const Forward& a, const Call& call, i64 o_B, i64 i_H, i64 panel, const Team& team) {
  if (team.first()) team.common->memory = scratch<ForwardScratch<w_B>>();
  team.meet();
  ForwardScratch<w_B>* const memory = static_cast<ForwardScratch<w_B>*>(team.common->memory);
  if (!memory) return 1;
  ForwardScratch<w_B>& w = *memory;
  constexpr i64 m_B = w_B, z_B = padded(w_B);
  const i64 B = call.B, T = call.steps(o_B), rows = call.rows(), way = call.way;
  const i64 row = call.row(o_B), segment_0 = call.segment(o_B, 1), t_0 = way > 0 ? 0 : T - 1;
  const real* __restrict const p_R_o = a.g_R_o + i_H * n_D * n_D_;
  const real* __restrict const p_R_f = a.g_R_f + i_H * n_D * n_D_;
  const real* __restrict const p_R_i = a.g_R_i + i_H * n_D * n_D_;
  const real* __restrict const p_R_z = a.g_R_z + i_H * n_D * n_D_;
  const real* __restrict const p_h_0 = a.g_h_0 + o_B * n_H * n_D + i_H * n_D;
  const real* __restrict const p_c_0 = a.g_c_0 + o_B * n_H * n_D + i_H * n_D;
  if (team.first()) {
    for (i64 at = 0; at < m_D; at += W)
      transpose(p_R_o + at * n_D_, n_D_, w.s_R_o_by_D + at * w_D_, W, std::min<i64>(W, m_D - at), m_D_);
  }
  team.meet();
  if (team.first()) {
    for (i64 at = 0; at < m_D; at += W)
      transpose(p_R_f + at * n_D_, n_D_, w.s_R_f_by_D + at * w_D_, W, std::min<i64>(W, m_D - at), m_D_);
  }
  team.meet();
  if (team.first()) {
    for (i64 at = 0; at < m_D; at += W)
      transpose(p_R_i + at * n_D_, n_D_, w.s_R_i_by_D + at * w_D_, W, std::min<i64>(W, m_D - at), m_D_);
  }
  team.meet();
  if (team.first()) {
    for (i64 at = 0; at < m_D; at += W)
      transpose(p_R_z + at * n_D_, n_D_, w.s_R_z_by_D + at * w_D_, W, std::min<i64>(W, m_D - at), m_D_);
  }
  team.meet();
  {
    constexpr i64 CB = divisor(z_D / W, 2);
    constexpr i64 blocks = z_D / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec x0 = load<e_D>(p_h_0 + i_B * n_H * n_D + at, n_D - at);
          const vec x1 = load<e_D>(p_c_0 + i_B * n_H * n_D + at, n_D - at);
          store(w.s_h + i_B * z_D + at, x0);
          store(w.s_c + i_B * z_D + at, x1);
        }
      }
    }
  }
  team.meet();
  i64 step = 0;
  for (; step < T; ++step) {
    const i64 t = t_0 + way * step;
    const real* __restrict const p_x_o = a.g_x_o + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_f = a.g_x_f + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_i = a.g_x_i + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_z = a.g_x_z + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_h = a.g_h + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_kept_0 = a.g_kept_0 + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_kept_1 = a.g_kept_1 + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_kept_2 = a.g_kept_2 + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_kept_3 = a.g_kept_3 + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_h_kept = a.g_h_kept + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_c_kept = a.g_c_kept + (row + t) * n_H * n_D + i_H * n_D;
    {
      constexpr i64 CB = divisor(z_D / W, 2);
      constexpr i64 blocks = z_D / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * b;
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec v_h_old = load(w.s_h + i_B * z_D + at);
            const vec v_c_old = load(w.s_c + i_B * z_D + at);
            if (save) store<e_D>(p_h_kept + i_B * T * n_H * n_D + at, v_h_old, n_D - at);
            if (save) store<e_D>(p_c_kept + i_B * T * n_H * n_D + at, v_c_old, n_D - at);
          }
        }
      }
    }
    team.meet();
    {
      constexpr i64 CB = divisor(z_D / W, std::max<i64>(1, std::min<i64>(8, spare / (4 * w_B + 0))));
      constexpr i64 blocks = z_D / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * team.there(b, blocks, step);
        vec r0[w_B][CB]{};
        vec r1[w_B][CB]{};
        vec r2[w_B][CB]{};
        vec r3[w_B][CB]{};
        for (i64 i_D_ = 0; i_D_ < m_D_; ++i_D_) {
          real x1[w_B];
          UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
            x1[i_B] = w.s_h[i_B * z_D + i_D_];
          }
          vec v_R_o[CB];
          vec v_R_f[CB];
          vec v_R_i[CB];
          vec v_R_z[CB];
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            v_R_o[c] = load(w.s_R_o_by_D + i_D_ * W + at * w_D_);
            v_R_f[c] = load(w.s_R_f_by_D + i_D_ * W + at * w_D_);
            v_R_i[c] = load(w.s_R_i_by_D + i_D_ * W + at * w_D_);
            v_R_z[c] = load(w.s_R_z_by_D + i_D_ * W + at * w_D_);
          }
          UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
            UNROLL for (int c = 0; c < CB; ++c) {
              const vec x2 = v_R_o[c] * x1[i_B];
              const vec x4 = v_R_f[c] * x1[i_B];
              const vec x6 = v_R_i[c] * x1[i_B];
              const vec x8 = v_R_z[c] * x1[i_B];
              r0[i_B][c] += x2;
              r1[i_B][c] += x4;
              r2[i_B][c] += x6;
              r3[i_B][c] += x8;
            }
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x0 + i_B * z_D + at, r0[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x1 + i_B * z_D + at, r1[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x2 + i_B * z_D + at, r2[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x3 + i_B * z_D + at, r3[i_B][c]);
          }
        }
      }
    }
    team.meet();
    // o = sigmoid(x_o + R_o @ h[t-1])
    // f = sigmoid(x_f + R_f @ h[t-1])
    // i = sigmoid(x_i + R_i @ h[t-1])
    // z = tanh(x_z + R_z @ h[t-1])
    // c = f * c[t-1] + i * z
    // output h = o * tanh(c)
    {
      constexpr i64 CB = divisor(z_D / W, 2);
      constexpr i64 blocks = z_D / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * b;
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec v_x_o = load<e_D>(p_x_o + i_B * T * n_H * n_D + at, n_D - at);
            const vec x1 = load(w.s_x0 + i_B * z_D + at);
            const vec x2 = v_x_o + x1;
            const vec v_o = seqc_sigmoid(x2);
            const vec v_x_f = load<e_D>(p_x_f + i_B * T * n_H * n_D + at, n_D - at);
            const vec x5 = load(w.s_x1 + i_B * z_D + at);
            const vec x6 = v_x_f + x5;
            const vec v_f = seqc_sigmoid(x6);
            const vec v_c_old = load(w.s_c + i_B * z_D + at);
            const vec x9 = v_f * v_c_old;
            const vec v_x_i = load<e_D>(p_x_i + i_B * T * n_H * n_D + at, n_D - at);
            const vec x11 = load(w.s_x2 + i_B * z_D + at);
            const vec x12 = v_x_i + x11;
            const vec v_i = seqc_sigmoid(x12);
            const vec v_x_z = load<e_D>(p_x_z + i_B * T * n_H * n_D + at, n_D - at);
            const vec x15 = load(w.s_x3 + i_B * z_D + at);
            const vec x16 = v_x_z + x15;
            const vec v_z = seqc_tanh(x16);
            const vec x18 = v_i * v_z;
            const vec v_c = x9 + x18;
            const vec x20 = seqc_tanh(v_c);
            const vec v_h = v_o * x20;
            store<e_D>(p_h + i_B * T * n_H * n_D + at, v_h, n_D - at);
            if (save) store<e_D>(p_kept_0 + i_B * T * n_H * n_D + at, x5, n_D - at);
            if (save) store<e_D>(p_kept_1 + i_B * T * n_H * n_D + at, x11, n_D - at);
            if (save) store<e_D>(p_kept_2 + i_B * T * n_H * n_D + at, x15, n_D - at);
            if (save) store<e_D>(p_kept_3 + i_B * T * n_H * n_D + at, x1, n_D - at);
            store(w.s_h + i_B * z_D + at, v_h);
            store(w.s_c + i_B * z_D + at, v_c);
          }
        }
      }
    }
    team.meet();
  }
  real* __restrict const p_h_T = a.g_h_T + o_B * n_H * n_D + i_H * n_D;
  real* __restrict const p_c_T = a.g_c_T + o_B * n_H * n_D + i_H * n_D;
  {
    constexpr i64 CB = divisor(z_D / W, 2);
    constexpr i64 blocks = z_D / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_h_old = load(w.s_h + i_B * z_D + at);
          const vec v_c_old = load(w.s_c + i_B * z_D + at);
          store<e_D>(p_h_T + i_B * n_H * n_D + at, v_h_old, n_D - at);
          store<e_D>(p_c_T + i_B * n_H * n_D + at, v_c_old, n_D - at);
        }
      }
    }
  }
  team.meet();
  return 0;
}

}  // namespace

extern "C" int seqc_forward(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  const Forward a{
      static_cast<const real*>(arrays[0]),
      static_cast<const real*>(arrays[1]),
      static_cast<const real*>(arrays[2]),
      static_cast<const real*>(arrays[3]),
      static_cast<const real*>(arrays[4]),
      static_cast<const real*>(arrays[5]),
      static_cast<const real*>(arrays[6]),
      static_cast<const real*>(arrays[7]),
      static_cast<const real*>(arrays[8]),
      static_cast<const real*>(arrays[9]),
      static_cast<real*>(arrays[10]),
      static_cast<real*>(arrays[11]),
      static_cast<real*>(arrays[12]),
      static_cast<real*>(arrays[13]),
      static_cast<real*>(arrays[14]),
      static_cast<real*>(arrays[15]),
      static_cast<real*>(arrays[16]),
      static_cast<real*>(arrays[17]),
      static_cast<real*>(arrays[18]),
  };
  // blocks of 4 rows, of 2, and of 1, as those of a pack are
  const i64 whole = bounds ? 0 : B;
  const i64 fours = chosen_rows >= 4 ? whole / 4 : 0, twos = chosen_rows >= 2 ? (whole - 4 * fours) / 2 : 0;
  const i64 blocks = B - 3 * fours - twos;
  if (!serves(bounds ? 1 : B)) return 2;
  const i64 programs = blocks * n_H * panels;
  const bool several = threads > 1 && call.rows() * (n_H * n_D + n_H * n_D + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_) > 1048576;  // else one thread is faster
  const auto run = [&](i64 program, const Team& team) __attribute__((noinline)) {
    int failed = 0;
    i64 rest = program;
    const i64 panel = rest % panels;
    rest /= panels;
    const i64 i_H = rest % n_H;
    rest /= n_H;
    if (rest < fours) {
      if constexpr (built(4)) failed |= (save ? forward_program<true, 4>(a, call, 4 * rest, i_H, panel, team) : forward_program<false, 4>(a, call, 4 * rest, i_H, panel, team));
    } else if (rest < fours + twos) {
      if constexpr (built(2)) failed |= (save ? forward_program<true, 2>(a, call, 4 * fours + 2 * (rest - fours), i_H, panel, team) : forward_program<false, 2>(a, call, 4 * fours + 2 * (rest - fours), i_H, panel, team));
    } else {
      if constexpr (built(1)) failed |= (save ? forward_program<true, 1>(a, call, 3 * fours + twos + rest, i_H, panel, team) : forward_program<false, 1>(a, call, 3 * fours + twos + rest, i_H, panel, team));
    }
    return failed;
  };
  constexpr bool wide = n_H * n_D + n_H * n_D + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ > 131072;  // whether a step is worth several meetings of threads
  return run_programs(programs, several ? threads : 1, wide, run);
}

namespace {
struct Backward {
  const real* g_x_i;
  const real* g_x_f;
  const real* g_x_z;
  const real* g_x_o;
  const real* g_R_i;
  const real* g_R_f;
  const real* g_R_z;
  const real* g_R_o;
  const real* g_kept_0;
  const real* g_kept_1;
  const real* g_kept_2;
  const real* g_kept_3;
  const real* g_h_kept;
  const real* g_c_kept;
  const real* g_d_h;
  const real* g_d_h_T;
  const real* g_d_c_T;
  real* g_d_x_o;
  real* g_d_x_f;
  real* g_d_x_i;
  real* g_d_x_z;
  real* g_d_h_0;
  real* g_d_c_0;
};

template <int w_B>
struct BackwardScratch {
  static constexpr i64 z_B = padded(w_B);
  alignas(64) real d_h[w_B * z_D];
  alignas(64) real d_c[w_B * z_D];
  alignas(64) real s_x0[w_B * z_D];
  alignas(64) real s_x1[w_B * z_D];
  alignas(64) real s_x2[w_B * z_D];
  alignas(64) real s_x3[w_B * z_D];
  alignas(64) real s_x4[w_B * z_D_];
  alignas(64) real s_x5[w_B * z_D_];
  alignas(64) real s_x6[w_B * z_D_];
  alignas(64) real s_x7[w_B * z_D_];
  alignas(64) real s_x8[w_B * z_D_];
  alignas(64) real s_R_z_by_D_[w_D * z_D_];
  alignas(64) real s_R_i_by_D_[w_D * z_D_];
  alignas(64) real s_R_f_by_D_[w_D * z_D_];
  alignas(64) real s_R_o_by_D_[w_D * z_D_];
};

template <int w_B>
int backward_program(const Backward& a, const Call& call, i64 o_B, i64 i_H, i64 panel, const Team& team) {
  if (team.first()) team.common->memory = scratch<BackwardScratch<w_B>>();
  team.meet();
  BackwardScratch<w_B>* const memory = static_cast<BackwardScratch<w_B>*>(team.common->memory);
  if (!memory) return 1;
  BackwardScratch<w_B>& w = *memory;
  constexpr i64 m_B = w_B, z_B = padded(w_B);
  const i64 B = call.B, T = call.steps(o_B), rows = call.rows(), way = call.way;
  const i64 row = call.row(o_B), segment_0 = call.segment(o_B, 1), t_0 = way > 0 ? 0 : T - 1;
  const real* __restrict const p_R_z = a.g_R_z + i_H * n_D * n_D_;
  const real* __restrict const p_R_i = a.g_R_i + i_H * n_D * n_D_;
  const real* __restrict const p_R_f = a.g_R_f + i_H * n_D * n_D_;
  const real* __restrict const p_R_o = a.g_R_o + i_H * n_D * n_D_;
  const real* __restrict const p_d_h_T = a.g_d_h_T + o_B * n_H * n_D + i_H * n_D;
  const real* __restrict const p_d_c_T = a.g_d_c_T + o_B * n_H * n_D + i_H * n_D;
  {
    constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / 1)));
    constexpr i64 blocks = z_D_ / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      for (i64 i_D = 0; i_D < m_D; ++i_D) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_R_z = load<e_D_>(p_R_z + i_D * n_D_ + at, n_D_ - at);
          store(w.s_R_z_by_D_ + i_D * W + at * w_D, v_R_z);
        }
      }
    }
  }
  team.meet();
  {
    constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / 1)));
    constexpr i64 blocks = z_D_ / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      for (i64 i_D = 0; i_D < m_D; ++i_D) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_R_i = load<e_D_>(p_R_i + i_D * n_D_ + at, n_D_ - at);
          store(w.s_R_i_by_D_ + i_D * W + at * w_D, v_R_i);
        }
      }
    }
  }
  team.meet();
  {
    constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / 1)));
    constexpr i64 blocks = z_D_ / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      for (i64 i_D = 0; i_D < m_D; ++i_D) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_R_f = load<e_D_>(p_R_f + i_D * n_D_ + at, n_D_ - at);
          store(w.s_R_f_by_D_ + i_D * W + at * w_D, v_R_f);
        }
      }
    }
  }
  team.meet();
  {
    constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / 1)));
    constexpr i64 blocks = z_D_ / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      for (i64 i_D = 0; i_D < m_D; ++i_D) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_R_o = load<e_D_>(p_R_o + i_D * n_D_ + at, n_D_ - at);
          store(w.s_R_o_by_D_ + i_D * W + at * w_D, v_R_o);
        }
      }
    }
  }
  team.meet();
  {
    constexpr i64 CB = divisor(z_D / W, 2);
    constexpr i64 blocks = z_D / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec x0 = load<e_D>(p_d_h_T + i_B * n_H * n_D + at, n_D - at);
          const vec x1 = load<e_D>(p_d_c_T + i_B * n_H * n_D + at, n_D - at);
          store(w.d_h + i_B * z_D + at, x0);
          store(w.d_c + i_B * z_D + at, x1);
        }
      }
    }
  }
  team.meet();
  for (i64 step = T - 1; step >= 0; --step) {
    const i64 t = t_0 + way * step;
    const real* __restrict const p_x_f = a.g_x_f + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_i = a.g_x_i + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_z = a.g_x_z + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_x_o = a.g_x_o + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_kept_0 = a.g_kept_0 + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_kept_1 = a.g_kept_1 + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_kept_2 = a.g_kept_2 + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_kept_3 = a.g_kept_3 + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_d_h = a.g_d_h + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_d_x_o = a.g_d_x_o + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_d_x_f = a.g_d_x_f + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_d_x_i = a.g_d_x_i + (row + t) * n_H * n_D + i_H * n_D;
    real* __restrict const p_d_x_z = a.g_d_x_z + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_h_kept = a.g_h_kept + (row + t) * n_H * n_D + i_H * n_D;
    const real* __restrict const p_c_kept = a.g_c_kept + (row + t) * n_H * n_D + i_H * n_D;
    {
      constexpr i64 CB = divisor(z_D / W, 2);
      constexpr i64 blocks = z_D / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * b;
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec v_d_h = load<e_D>(p_d_h + i_B * T * n_H * n_D + at, n_D - at);
            const vec v_d_h_next = load(w.d_h + i_B * z_D + at);
            const vec x2 = v_d_h + v_d_h_next;
            const vec v_x_f = load<e_D>(p_x_f + i_B * T * n_H * n_D + at, n_D - at);
            const vec v_kept_0 = load<e_D>(p_kept_0 + i_B * T * n_H * n_D + at, n_D - at);
            const vec x5 = v_x_f + v_kept_0;
            const vec x6 = seqc_sigmoid(x5);
            const vec v_c_old = load<e_D>(p_c_kept + i_B * T * n_H * n_D + at, n_D - at);
            const vec x8 = x6 * v_c_old;
            const vec v_x_i = load<e_D>(p_x_i + i_B * T * n_H * n_D + at, n_D - at);
            const vec v_kept_1 = load<e_D>(p_kept_1 + i_B * T * n_H * n_D + at, n_D - at);
            const vec x11 = v_x_i + v_kept_1;
            const vec x12 = seqc_sigmoid(x11);
            const vec v_x_z = load<e_D>(p_x_z + i_B * T * n_H * n_D + at, n_D - at);
            const vec v_kept_2 = load<e_D>(p_kept_2 + i_B * T * n_H * n_D + at, n_D - at);
            const vec x15 = v_x_z + v_kept_2;
            const vec x16 = seqc_tanh(x15);
            const vec x17 = x12 * x16;
            const vec x18 = x8 + x17;
            const vec x19 = seqc_tanh(x18);
            const vec x20 = x2 * x19;
            const vec v_x_o = load<e_D>(p_x_o + i_B * T * n_H * n_D + at, n_D - at);
            const vec v_kept_3 = load<e_D>(p_kept_3 + i_B * T * n_H * n_D + at, n_D - at);
            const vec x23 = v_x_o + v_kept_3;
            const vec x24 = seqc_sigmoid(x23);
            const vec x25 = x20 * x24;
            const vec x26 = real(1.0) - x24;
            const vec x27 = x25 * x26;
            const vec v_d_c_next = load(w.d_c + i_B * z_D + at);
            const vec x29 = x2 * x24;
            const vec x30 = x19 * x19;
            const vec x31 = real(1.0) - x30;
            const vec x32 = x29 * x31;
            const vec x33 = v_d_c_next + x32;
            const vec x34 = x33 * v_c_old;
            const vec x35 = x34 * x6;
            const vec x36 = real(1.0) - x6;
            const vec x37 = x35 * x36;
            const vec x38 = x33 * x16;
            const vec x39 = x38 * x12;
            const vec x40 = real(1.0) - x12;
            const vec x41 = x39 * x40;
            const vec x42 = x33 * x12;
            const vec x43 = x16 * x16;
            const vec x44 = real(1.0) - x43;
            const vec x45 = x42 * x44;
            const vec x46 = x33 * x6;
            store<e_D>(p_d_x_o + i_B * T * n_H * n_D + at, x27, n_D - at);
            store<e_D>(p_d_x_f + i_B * T * n_H * n_D + at, x37, n_D - at);
            store<e_D>(p_d_x_i + i_B * T * n_H * n_D + at, x41, n_D - at);
            store<e_D>(p_d_x_z + i_B * T * n_H * n_D + at, x45, n_D - at);
            store(w.s_x0 + i_B * z_D + at, x45);
            store(w.s_x1 + i_B * z_D + at, x41);
            store(w.s_x2 + i_B * z_D + at, x37);
            store(w.s_x3 + i_B * z_D + at, x27);
            store(w.d_c + i_B * z_D + at, x46);
          }
        }
      }
    }
    team.meet();
    {
      constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / (4 * w_B + 0))));
      constexpr i64 blocks = z_D_ / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * team.there(b, blocks, step);
        vec r0[w_B][CB]{};
        vec r1[w_B][CB]{};
        vec r2[w_B][CB]{};
        vec r3[w_B][CB]{};
        for (i64 i_D = 0; i_D < m_D; ++i_D) {
          real x0[w_B];
          real x3[w_B];
          real x6[w_B];
          real x9[w_B];
          UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
            x0[i_B] = w.s_x0[i_B * z_D + i_D];
            x3[i_B] = w.s_x1[i_B * z_D + i_D];
            x6[i_B] = w.s_x2[i_B * z_D + i_D];
            x9[i_B] = w.s_x3[i_B * z_D + i_D];
          }
          vec v_R_z[CB];
          vec v_R_i[CB];
          vec v_R_f[CB];
          vec v_R_o[CB];
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            v_R_z[c] = load(w.s_R_z_by_D_ + i_D * W + at * w_D);
            v_R_i[c] = load(w.s_R_i_by_D_ + i_D * W + at * w_D);
            v_R_f[c] = load(w.s_R_f_by_D_ + i_D * W + at * w_D);
            v_R_o[c] = load(w.s_R_o_by_D_ + i_D * W + at * w_D);
          }
          UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
            UNROLL for (int c = 0; c < CB; ++c) {
              const vec x2 = x0[i_B] * v_R_z[c];
              const vec x5 = x3[i_B] * v_R_i[c];
              const vec x8 = x6[i_B] * v_R_f[c];
              const vec x11 = x9[i_B] * v_R_o[c];
              r0[i_B][c] += x2;
              r1[i_B][c] += x5;
              r2[i_B][c] += x8;
              r3[i_B][c] += x11;
            }
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x4 + i_B * z_D_ + at, r0[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x5 + i_B * z_D_ + at, r1[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x6 + i_B * z_D_ + at, r2[i_B][c]);
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            store(w.s_x7 + i_B * z_D_ + at, r3[i_B][c]);
          }
        }
      }
    }
    team.meet();
    {
      constexpr i64 CB = divisor(z_D_ / W, 2);
      constexpr i64 blocks = z_D_ / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * b;
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec x0 = load(w.s_x4 + i_B * z_D_ + at);
            const vec x1 = load(w.s_x5 + i_B * z_D_ + at);
            const vec x2 = x0 + x1;
            const vec x3 = load(w.s_x6 + i_B * z_D_ + at);
            const vec x4 = x2 + x3;
            const vec x5 = load(w.s_x7 + i_B * z_D_ + at);
            const vec x6 = x4 + x5;
            store(w.s_x8 + i_B * z_D_ + at, x6);
          }
        }
      }
    }
    team.meet();
    {
      constexpr i64 CB = divisor(z_D / W, 2);
      constexpr i64 blocks = z_D / W / CB;
      for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
        const i64 c0 = CB * b;
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec x0 = load(w.s_x8 + i_B * z_D_ + at);
            store(w.d_h + i_B * z_D + at, x0);
          }
        }
      }
    }
    team.meet();
  }
  real* __restrict const p_d_h_0 = a.g_d_h_0 + o_B * n_H * n_D + i_H * n_D;
  real* __restrict const p_d_c_0 = a.g_d_c_0 + o_B * n_H * n_D + i_H * n_D;
  {
    constexpr i64 CB = divisor(z_D / W, 2);
    constexpr i64 blocks = z_D / W / CB;
    for (i64 b = team.from(blocks); b < team.upto(blocks); ++b) {
      const i64 c0 = CB * b;
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_d_h_next = load(w.d_h + i_B * z_D + at);
          const vec v_d_c_next = load(w.d_c + i_B * z_D + at);
          store<e_D>(p_d_h_0 + i_B * n_H * n_D + at, v_d_h_next, n_D - at);
          store<e_D>(p_d_c_0 + i_B * n_H * n_D + at, v_d_c_next, n_D - at);
        }
      }
    }
  }
  team.meet();
  return 0;
}

}  // namespace

extern "C" int seqc_backward(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  const Backward a{
      static_cast<const real*>(arrays[0]),
      static_cast<const real*>(arrays[1]),
      static_cast<const real*>(arrays[2]),
      static_cast<const real*>(arrays[3]),
      static_cast<const real*>(arrays[4]),
      static_cast<const real*>(arrays[5]),
      static_cast<const real*>(arrays[6]),
      static_cast<const real*>(arrays[7]),
      static_cast<const real*>(arrays[8]),
      static_cast<const real*>(arrays[9]),
      static_cast<const real*>(arrays[10]),
      static_cast<const real*>(arrays[11]),
      static_cast<const real*>(arrays[12]),
      static_cast<const real*>(arrays[13]),
      static_cast<const real*>(arrays[14]),
      static_cast<const real*>(arrays[15]),
      static_cast<const real*>(arrays[16]),
      static_cast<real*>(arrays[17]),
      static_cast<real*>(arrays[18]),
      static_cast<real*>(arrays[19]),
      static_cast<real*>(arrays[20]),
      static_cast<real*>(arrays[21]),
      static_cast<real*>(arrays[22]),
  };
  // blocks of 4 rows, of 2, and of 1, as those of a pack are
  const i64 whole = bounds ? 0 : B;
  const i64 fours = chosen_rows >= 4 ? whole / 4 : 0, twos = chosen_rows >= 2 ? (whole - 4 * fours) / 2 : 0;
  const i64 blocks = B - 3 * fours - twos;
  if (!serves(bounds ? 1 : B)) return 2;
  const i64 programs = blocks * n_H * panels;
  const bool several = threads > 1 && call.rows() * (n_H * n_D + n_H * n_D + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_) > 1048576;  // else one thread is faster
  const auto run = [&](i64 program, const Team& team) __attribute__((noinline)) {
    int failed = 0;
    i64 rest = program;
    const i64 panel = rest % panels;
    rest /= panels;
    const i64 i_H = rest % n_H;
    rest /= n_H;
    if (rest < fours) {
      if constexpr (built(4)) failed |= backward_program<4>(a, call, 4 * rest, i_H, panel, team);
    } else if (rest < fours + twos) {
      if constexpr (built(2)) failed |= backward_program<2>(a, call, 4 * fours + 2 * (rest - fours), i_H, panel, team);
    } else {
      if constexpr (built(1)) failed |= backward_program<1>(a, call, 3 * fours + twos + rest, i_H, panel, team);
    }
    return failed;
  };
  constexpr bool wide = n_H * n_D + n_H * n_D + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ > 131072;  // whether a step is worth several meetings of threads
  return run_programs(programs, several ? threads : 1, wide, run);
}

namespace {
struct Step {
  const real* g_x_i;
  const real* g_x_f;
  const real* g_x_z;
  const real* g_x_o;
  const real* g_R_i;
  const real* g_R_f;
  const real* g_R_z;
  const real* g_R_o;
  const real* g_h_0;
  const real* g_c_0;
  real* g_h;
  real* g_h_T;
  real* g_c_T;
};

template <int w_B>
struct StepScratch {
  static constexpr i64 z_B = padded(w_B);
  alignas(64) real s_x0[w_B * z_D];
  alignas(64) real s_x1[w_B * z_D];
  alignas(64) real s_x2[w_B * z_D];
  alignas(64) real s_x3[w_B * z_D];
  alignas(64) real rows_0[w_B * z_D * W];
  alignas(64) real rows_1[w_B * z_D * W];
  alignas(64) real rows_2[w_B * z_D * W];
  alignas(64) real rows_3[w_B * z_D * W];
};

template <int w_B>
int step_program(const Step& a, const Call& call, i64 o_B, i64 i_H, i64 panel) {
  StepScratch<w_B>* const memory = scratch<StepScratch<w_B>>();
  if (!memory) return 1;
  StepScratch<w_B>& w = *memory;
  constexpr i64 m_B = w_B, z_B = padded(w_B);
  const real* __restrict const p_R_o = a.g_R_o + i_H * n_D * n_D_;
  const real* __restrict const p_R_f = a.g_R_f + i_H * n_D * n_D_;
  const real* __restrict const p_R_i = a.g_R_i + i_H * n_D * n_D_;
  const real* __restrict const p_R_z = a.g_R_z + i_H * n_D * n_D_;
  const real* __restrict const p_x_i = a.g_x_i + o_B * n_H * n_D + i_H * n_D;
  const real* __restrict const p_x_f = a.g_x_f + o_B * n_H * n_D + i_H * n_D;
  const real* __restrict const p_x_z = a.g_x_z + o_B * n_H * n_D + i_H * n_D;
  const real* __restrict const p_x_o = a.g_x_o + o_B * n_H * n_D + i_H * n_D;
  const real* const p_h_0 = a.g_h_0 + o_B * n_H * n_D + i_H * n_D;
  const real* const p_c_0 = a.g_c_0 + o_B * n_H * n_D + i_H * n_D;
  real* __restrict const p_h = a.g_h + o_B * n_H * n_D + i_H * n_D;
  real* const p_h_T = a.g_h_T + o_B * n_H * n_D + i_H * n_D;
  real* const p_c_T = a.g_c_T + o_B * n_H * n_D + i_H * n_D;
  {
    constexpr i64 CB = divisor(z_D_ / W, std::max<i64>(1, std::min<i64>(8, spare / (1 * w_B + 0))));
    for (i64 c0 = 0; c0 < z_D_ / W; c0 += CB) {
      vec x1[w_B][CB];
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          x1[i_B][c] = load<e_D_>(p_h_0 + i_B * n_H * n_D + at, n_D_ - at);
        }
      }
      for (i64 i_D = 0; i_D < m_D; ++i_D) {
        vec r0[w_B]{};
        vec r1[w_B]{};
        vec r2[w_B]{};
        vec r3[w_B]{};
        vec v_R_o[CB];
        vec v_R_f[CB];
        vec v_R_i[CB];
        vec v_R_z[CB];
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          v_R_o[c] = load<e_D_>(p_R_o + i_D * n_D_ + at, n_D_ - at);
          v_R_f[c] = load<e_D_>(p_R_f + i_D * n_D_ + at, n_D_ - at);
          v_R_i[c] = load<e_D_>(p_R_i + i_D * n_D_ + at, n_D_ - at);
          v_R_z[c] = load<e_D_>(p_R_z + i_D * n_D_ + at, n_D_ - at);
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          UNROLL for (int c = 0; c < CB; ++c) {
            const i64 at = (c0 + c) * W;
            const vec x2 = v_R_o[c] * x1[i_B][c];
            const vec x4 = v_R_f[c] * x1[i_B][c];
            const vec x6 = v_R_i[c] * x1[i_B][c];
            const vec x8 = v_R_z[c] * x1[i_B][c];
            r0[i_B] += keep<e_D_>(x2, n_D_ - at, real(0));
            r1[i_B] += keep<e_D_>(x4, n_D_ - at, real(0));
            r2[i_B] += keep<e_D_>(x6, n_D_ - at, real(0));
            r3[i_B] += keep<e_D_>(x8, n_D_ - at, real(0));
          }
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          store(w.rows_0 + (i_B * z_D + i_D) * W, c0 ? load(w.rows_0 + (i_B * z_D + i_D) * W) + r0[i_B] : r0[i_B]);
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          store(w.rows_1 + (i_B * z_D + i_D) * W, c0 ? load(w.rows_1 + (i_B * z_D + i_D) * W) + r1[i_B] : r1[i_B]);
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          store(w.rows_2 + (i_B * z_D + i_D) * W, c0 ? load(w.rows_2 + (i_B * z_D + i_D) * W) + r2[i_B] : r2[i_B]);
        }
        UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
          store(w.rows_3 + (i_B * z_D + i_D) * W, c0 ? load(w.rows_3 + (i_B * z_D + i_D) * W) + r3[i_B] : r3[i_B]);
        }
      }
    }
    across<false>(w.rows_0, w.s_x0, w_B * z_D);
    across<false>(w.rows_1, w.s_x1, w_B * z_D);
    across<false>(w.rows_2, w.s_x2, w_B * z_D);
    across<false>(w.rows_3, w.s_x3, w_B * z_D);
  }
  // o = sigmoid(x_o + R_o @ h[t-1])
  // f = sigmoid(x_f + R_f @ h[t-1])
  // i = sigmoid(x_i + R_i @ h[t-1])
  // z = tanh(x_z + R_z @ h[t-1])
  // c = f * c[t-1] + i * z
  // output h = o * tanh(c)
  {
    constexpr i64 CB = divisor(z_D / W, 2);
    for (i64 c0 = 0; c0 < z_D / W; c0 += CB) {
      UNROLL for (int i_B = 0; i_B < w_B; ++i_B) {
        UNROLL for (int c = 0; c < CB; ++c) {
          const i64 at = (c0 + c) * W;
          const vec v_x_o = load<e_D>(p_x_o + i_B * n_H * n_D + at, n_D - at);
          const vec x1 = load(w.s_x0 + i_B * z_D + at);
          const vec x2 = v_x_o + x1;
          const vec v_o = seqc_sigmoid(x2);
          const vec v_x_f = load<e_D>(p_x_f + i_B * n_H * n_D + at, n_D - at);
          const vec x5 = load(w.s_x1 + i_B * z_D + at);
          const vec x6 = v_x_f + x5;
          const vec v_f = seqc_sigmoid(x6);
          const vec v_c_old = load<e_D>(p_c_0 + i_B * n_H * n_D + at, n_D - at);
          const vec x9 = v_f * v_c_old;
          const vec v_x_i = load<e_D>(p_x_i + i_B * n_H * n_D + at, n_D - at);
          const vec x11 = load(w.s_x2 + i_B * z_D + at);
          const vec x12 = v_x_i + x11;
          const vec v_i = seqc_sigmoid(x12);
          const vec v_x_z = load<e_D>(p_x_z + i_B * n_H * n_D + at, n_D - at);
          const vec x15 = load(w.s_x3 + i_B * z_D + at);
          const vec x16 = v_x_z + x15;
          const vec v_z = seqc_tanh(x16);
          const vec x18 = v_i * v_z;
          const vec v_c = x9 + x18;
          const vec x20 = seqc_tanh(v_c);
          const vec v_h = v_o * x20;
          store<e_D>(p_h + i_B * n_H * n_D + at, v_h, n_D - at);
          store<e_D>(p_h_T + i_B * n_H * n_D + at, v_h, n_D - at);
          store<e_D>(p_c_T + i_B * n_H * n_D + at, v_c, n_D - at);
        }
      }
    }
  }
  return 0;
}

}  // namespace

extern "C" int seqc_step(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  const Step a{
      static_cast<const real*>(arrays[0]),
      static_cast<const real*>(arrays[1]),
      static_cast<const real*>(arrays[2]),
      static_cast<const real*>(arrays[3]),
      static_cast<const real*>(arrays[4]),
      static_cast<const real*>(arrays[5]),
      static_cast<const real*>(arrays[6]),
      static_cast<const real*>(arrays[7]),
      static_cast<const real*>(arrays[8]),
      static_cast<const real*>(arrays[9]),
      static_cast<real*>(arrays[10]),
      static_cast<real*>(arrays[11]),
      static_cast<real*>(arrays[12]),
  };
  // blocks of 4 rows, of 2, and of 1, as those of a pack are
  const i64 whole = bounds ? 0 : B;
  const i64 fours = chosen_rows >= 4 ? whole / 4 : 0, twos = chosen_rows >= 2 ? (whole - 4 * fours) / 2 : 0;
  const i64 blocks = B - 3 * fours - twos;
  if (!serves(bounds ? 1 : B)) return 2;
  const i64 programs = blocks * n_H * panels;
  const bool several = threads > 1 && call.rows() * (n_H * n_D + n_H * n_D + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_ + n_H * n_D * n_D_) > 1048576;  // else one thread is faster
  int failed = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (several)
  for (i64 program = 0; program < programs; ++program) {
    i64 rest = program;
    const i64 panel = rest % panels;
    rest /= panels;
    const i64 i_H = rest % n_H;
    rest /= n_H;
    if (rest < fours) {
      if constexpr (built(4)) failed |= step_program<4>(a, call, 4 * rest, i_H, panel);
    } else if (rest < fours + twos) {
      if constexpr (built(2)) failed |= step_program<2>(a, call, 4 * fours + 2 * (rest - fours), i_H, panel);
    } else {
      if constexpr (built(1)) failed |= step_program<1>(a, call, 3 * fours + twos + rest, i_H, panel);
    }
  }
  return failed;
}

// The step as a function that Python calls with tensors. Declared is what it needs of Python's stable interface and of DLPack.
namespace {
struct Object;
struct Tensor {
  void* data;
  std::int32_t device, number, axes;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  const i64 *sizes, *strides;
  std::uint64_t offset;
};
struct Direct {  // made by Python: pointers, in this order
  Object* (*type)(Object*);
  void (*hold)(Object*);
  void (*drop)(Object*);
  Object* (*call)(Object*, Object*);
  Object* (*tuple)(std::ptrdiff_t);
  int (*put)(Object*, std::ptrdiff_t, Object*);
  Object* (*item)(Object*, std::ptrdiff_t);
  void (*forget)();
  i64 (*number)(Object*);
  Object* (*whole)(i64);
  void* (*unlock)();
  void (*lock)(void*);
  Object* (*no_memory)();
  int (*read)(Object*, Tensor*);
  int (*run)(i64, i64, i64, const i64*, i64, i64, void* const*);
  Object *none, *yes, *tensor, *parameter, *result, *empty_like, *is_neg, *changed, *threads;
  Object *watches[8], *answers[8];  // what tells whether something watches, and what it answers where nothing does
  const i64* counts;  // arguments; states, which are the last of them; outputs
  const i64* sizes;   // of arguments, then outputs: how many axes, and their extents; -1 is the batch
  const i64* shared;  // of each state: whether several programs of the kernel read what one of them writes
  const i64* alike;   // of each output: the argument that has its shape, or -1
  Object* const* fresh;  // of each output: what makes one for a batch
};
constexpr int MOST = 128;  // tensors
void* (*inside)(Object*, const char*);  // PyCapsule_GetPointer

bool calm(const Direct& d) {
  for (int i = 0; i < 8 && d.watches[i]; ++i) {
    Object* const answer = d.call(d.watches[i], nullptr);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer != d.answers[i]) return false;
  }
  return true;
}

// Reads a tensor if it is of the kind that is taken: shape as `sizes` says, where B is -1 until the first tensor tells it.
bool taken(const Direct& d, Object* x, Tensor& t, const i64* sizes, i64& B, i64& bytes) {
  Object* const type = d.type(x);
  d.drop(type);  // a class lives on
  if (type != d.tensor && type != d.parameter) return false;
  if (d.read(x, &t)) return d.forget(), false;
  if (t.device != 1 || t.code != 2 || t.bits != 8 * sizeof(real) || t.lanes != 1 || !t.data || t.axes != *sizes) return false;
  i64 size = 1;
  for (i64 i = t.axes; i-- > 0;) {
    i64 wanted = sizes[1 + i];
    if (wanted < 0) {
      if (B < 0) B = t.sizes[i];
      wanted = B;
    }
    if (t.sizes[i] != wanted || (wanted != 1 && t.strides[i] != size)) return false;
    size *= wanted;
  }
  if (size == 0) return false;
  if (size == 1) {  // a view that stands for its negative is contiguous only where it has one element
    Object* const one = d.tuple(1);
    d.hold(x);
    d.put(one, 0, x);
    Object* const answer = d.call(d.is_neg, one);
    d.drop(one);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer == d.yes) return false;
  }
  t.data = static_cast<char*>(t.data) + t.offset;
  bytes = size * i64(sizeof(real));
  return true;
}

Object* made(const Direct& d, Object* maker, Object* argument) {  // argument: ours
  Object* const one = d.tuple(1);
  d.put(one, 0, argument);
  Object* const x = d.call(maker, one);
  d.drop(one);
  return x;
}

struct Written {  // the tensors that the step writes; ours
  const Direct& d;
  Object* x[MOST];
  int count = 0;
  ~Written() {
    for (int i = 0; i < count; ++i) d.drop(x[i]);
  }
};
}  // namespace

extern "C" void seqc_direct_begin(void* (*pointer)(Object*, const char*)) { inside = pointer; }

// given: the arguments of a step, whether it is in place, and the earlier result that is written, or None.
extern "C" Object* seqc_direct(Object* self, Object* const* given, std::ptrdiff_t count) {
  const Direct& d = *static_cast<const Direct*>(inside(self, "seqc"));
  const i64 arguments = d.counts[0], states = d.counts[1], outputs = d.counts[2], results = outputs + states;
  const auto declined = [&] { return d.hold(d.none), d.none; };
  if (count != arguments + 2 || arguments + results > MOST || !calm(d)) return declined();
  const bool in_place = given[arguments] == d.yes;
  Object* const out = given[arguments + 1] == d.none ? nullptr : given[arguments + 1];
  if (out) {
    Object* const type = d.type(out);
    d.drop(type);
    if (type != d.result) return declined();
  }
  Tensor t[MOST];
  void* arrays[MOST];
  i64 B = -1, bytes[MOST], sum = 0;
  const i64 *sizes = d.sizes, *starts[MOST];
  for (i64 i = 0; i < arguments + outputs; ++i, sizes += 1 + *sizes) {
    starts[i] = sizes;
    if (i >= arguments) continue;
    if (!taken(d, given[i], t[i], sizes, B, bytes[i])) return declined();
    arrays[i] = t[i].data;
    sum += bytes[i];
  }
  if (!serves(B)) return declined();
  Written written{d};
  bool old = out || in_place;  // whether what is written was there before
  for (i64 i = 0; i < results; ++i) {
    const i64 at = arguments + i, state = i - outputs, before = arguments - states + state;
    Object* x;
    if (state >= 0 && in_place) {
      x = given[before];
      d.hold(x);
    } else if (out) {
      x = d.item(out, i);
      d.hold(x);
    } else if (const i64 like = state >= 0 ? before : d.alike[i]; like >= 0) {
      d.hold(given[like]);
      x = made(d, d.empty_like, given[like]);
    } else {
      x = made(d, d.fresh[i], d.whole(B));
    }
    if (!x) return d.forget(), declined();
    written.x[written.count++] = x;
    if (!taken(d, x, t[at], starts[state >= 0 ? before : at], B, bytes[at])) return declined();
    arrays[at] = t[at].data;
    for (i64 j = 0; old && j < at; ++j) {  // no other array may lie where this one is written
      const char *a = static_cast<char*>(arrays[at]), *b = static_cast<char*>(arrays[j]);
      if (a < b + bytes[j] && b < a + bytes[at] && !(j == before && a == b)) return declined();
    }
  }
  thread_local std::unique_ptr<char[]> aside;  // new states, where several programs read the old ones
  thread_local i64 room = 0;
  i64 used = 0;
  const auto moved = [&](i64 state) {
    return d.shared[state] && arrays[arguments + outputs + state] == arrays[arguments - states + state];
  };
  for (i64 s = 0; s < states; ++s) used += moved(s) ? bytes[arguments - states + s] : 0;
  if (used > room) aside.reset(new (std::nothrow) char[used]), room = aside ? used : 0;
  if (used > room) return declined();
  used = 0;
  for (i64 s = 0; s < states; ++s) {
    if (!moved(s)) continue;
    arrays[arguments + outputs + s] = aside.get() + used;
    used += bytes[arguments - states + s];
  }
  Object* const told = d.call(d.threads, nullptr);
  if (!told) return d.forget(), declined();
  const i64 threads = d.number(told);
  d.drop(told);
  const bool large = sum > i64(1) << 20;  // other threads may run meanwhile
  void* const held = large ? d.unlock() : nullptr;
  const int failed = d.run(B, 1, 1, nullptr, threads, 0, arrays);
  for (i64 s = 0; used && !failed && s < states; ++s) {
    const i64 at = arguments + outputs + s;
    if (arrays[at] != t[at].data) std::memcpy(t[at].data, arrays[at], bytes[at]);
  }
  if (large) d.lock(held);
  if (failed) return d.no_memory();
  bool same = out;  // whether all that is written is the earlier result's
  for (i64 i = outputs; out && i < results; ++i) same &= written.x[i] == d.item(out, i);
  Object* const tensors = d.tuple(results);
  for (i64 i = 0; i < results; ++i) d.hold(written.x[i]), d.put(tensors, i, written.x[i]);
  if (old) {
    d.hold(tensors);
    Object* const counted = made(d, d.changed, tensors);
    if (!counted) return d.drop(tensors), nullptr;
    d.drop(counted);
  }
  Object* const result = same ? (d.hold(out), out) : d.call(d.result, tensors);
  d.drop(tensors);
  return result;
}
extern "C" int seqc_panels() { return int(panels); }

// Pages of two megabytes, where the system grants them, for the part of an array that fills such pages.
extern "C" void seqc_large_pages(void* array, i64 bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(array), end = begin + std::uintptr_t(bytes);
  const std::uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: it may be refused
#endif
}
"""


_NATIVE_SIZES = "SEQC_ROWS SEQC_DIM_H SEQC_DIM_D".split()


_NATIVE_STEPS: list[Callable] = []  # the step of each library as a function: for calls that need nothing of torch's dispatcher
_native_held: list[Any] = []  # what these functions point to

_NATIVE_PYTHON = (
    "PyObject_Type Py_IncRef Py_DecRef PyObject_CallObject PyTuple_New PyTuple_SetItem PyTuple_GetItem PyErr_Clear "
    "PyLong_AsLongLong PyLong_FromLongLong PyEval_SaveThread PyEval_RestoreThread PyErr_NoMemory"
).split()


class _NativeMethod(_ctypes.Structure):
    """A function as Python keeps it."""

    _fields_ = [("name", _ctypes.c_char_p), ("call", _ctypes.c_void_p), ("flags", _ctypes.c_int), ("doc", _ctypes.c_char_p)]


@_functools.cache
def _native_watches() -> dict[Any, Any]:
    """What tells whether something watches or changes what operators do, and its answer where nothing does."""
    return {
        torch.is_grad_enabled: False,
        torch._C._are_functorch_transforms_active: False,
        torch._C._len_torch_dispatch_stack: 0,
        torch._C._len_torch_function_stack: 0,
        torch._C._get_tracing_state: None,
        torch._C._is_any_autocast_enabled: False,
        torch._C._autograd._profiler_enabled: False,
    }


@_functools.cache
def _native_exchange() -> int:
    """Where torch's function lies that describes a tensor to other libraries; 0 if it, or Python's interface, is not there."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None or _platform.python_implementation() != "CPython":
        return 0
    get = _ctypes.PYFUNCTYPE(_ctypes.c_void_p, _ctypes.py_object, _ctypes.c_char_p)(("PyCapsule_GetPointer", _ctypes.pythonapi))
    table = (_ctypes.c_void_p * 6).from_address(get(capsule, b"dlpack_exchange_api"))
    version = (table[0] or 0) & 0xFFFFFFFF  # the table begins with the version of the interface; pointers follow
    return table[5] or 0 if version == 1 else 0


def _native_place(function: Any) -> int:
    """Where a function lies."""
    return _ctypes.cast(function, _ctypes.c_void_p).value or 0


def _native_numbers(*values: int) -> Any:
    return (_ctypes.c_int64 * len(values))(*values)


def _native_direct(library: Any, result: Any, dtype: torch.dtype, states: int, shapes: Sequence[Any], shared: Any) -> None:
    """Add the step of a library to `_NATIVE_STEPS`. shapes: of the arguments, then of the outputs; -1 is the batch."""
    read = _native_exchange()
    if not read:
        return
    outputs = len(result._fields) - states
    count = len(shapes) - outputs
    given, made = shapes[: count - states], shapes[count:]
    alike = [next((i for i, x in enumerate(given) if x == shape), -1) for shape in made]
    fresh = [_functools.partial(_native_fresh, dtype, shape[1:]) for shape in made]
    objects = [None, True, torch.Tensor, torch.nn.Parameter, result, torch.empty_like, torch.is_neg,
               torch._C._increment_version, torch.get_num_threads]
    watches = _native_watches()
    sizes = [n for shape in shapes for n in (len(shape), *shape)]
    tables = [*(_native_numbers(*row) for row in ((count, states, outputs), sizes, shared, alike)),
              (_ctypes.c_void_p * outputs)(*map(id, fresh))]
    words = [*(_native_place(getattr(_ctypes.pythonapi, name)) for name in _NATIVE_PYTHON), read]
    words += [_native_place(library.seqc_step), *map(id, objects), *[*map(id, watches), 0, 0][:8]]
    words += [*[*map(id, watches.values()), 0, 0][:8], *map(_ctypes.addressof, tables)]
    entry = (_ctypes.c_void_p * len(words))(*words)
    library.seqc_direct_begin.argtypes = [_ctypes.c_void_p]
    library.seqc_direct_begin(_native_place(_ctypes.pythonapi.PyCapsule_GetPointer))
    name, pointer, thing = _ctypes.create_string_buffer(b"seqc"), _ctypes.c_void_p, _ctypes.py_object
    capsule = _ctypes.PYFUNCTYPE(thing, pointer, pointer, pointer)(("PyCapsule_New", _ctypes.pythonapi))(
        _ctypes.addressof(entry), _ctypes.addressof(name), None
    )
    method = _NativeMethod(b"seqc_direct", _native_place(library.seqc_direct), 0x80, None)  # METH_FASTCALL
    function = _ctypes.PYFUNCTYPE(thing, pointer, thing, pointer)(("PyCFunction_NewEx", _ctypes.pythonapi))(
        _ctypes.addressof(method), capsule, None
    )
    _native_held.append((entry, name, method, tables, fresh, objects, watches))
    _NATIVE_STEPS.append(function)


def _native_fresh(dtype: torch.dtype, sizes: Sequence[int], B: int) -> Tensor:
    """A new tensor of a batch of B."""
    return torch.empty((B, *sizes), dtype=dtype, device="cpu")


def _native_entry(library, panels, dtype, _rows, H, D):
    """Add the step of a library, for dims of these sizes, to the functions that take tensors."""
    _native_direct(
        library, LSTMResult, dtype, 2,
        [
            (-1, H, D),
            (-1, H, D),
            (-1, H, D),
            (-1, H, D),
            (H, D, D),
            (H, D, D),
            (H, D, D),
            (H, D, D),
            (-1, H, D),
            (-1, H, D),
            (-1, H, D),
        ],
        [False, False],
    )


# Kernels take 4, 2 or 1 rows of the batch at a time. Those that a batch needs are built for it (SEQC_BATCHES=all: all of them).
_NATIVE_ALL_ROWS = _os.environ.get("SEQC_BATCHES") == "all"


def _native_rows(B):
    """Which kernels B rows take: 4 if some take four at a time, + 2 if some take two, + 1 if one is alone. An extent that is
    open in a trace stays as it is."""
    return B if type(B) is not int else 7 if _NATIVE_ALL_ROWS else 4 * (B > 3) + B % 4 or 1


def _native_defines(dtype, *sizes):
    """The macros of the kernels for dims of these sizes."""
    defines = {macro: str(int(size)) for macro, size in zip(_NATIVE_SIZES, sizes, strict=True)}
    return {**defines, "SEQC_REAL": "double" if dtype == torch.float64 else "float"}


@_functools.cache
def _native_kernel(dtype, *sizes):
    """The kernels for dims of these sizes, built on first use, and the number of panels that the last free dim is cut into."""
    every = (7, *sizes[1:])
    if sizes != every and _native_prebuilt(_NATIVE_SOURCE, _native_defines(dtype, *every)):
        return _native_kernel(dtype, *every)
    library = _native_library(_NATIVE_SOURCE, _native_defines(dtype, *sizes))
    for function in (library.seqc_forward, library.seqc_backward, library.seqc_step):
        whole, pointer = _ctypes.c_int64, _ctypes.c_void_p
        function.argtypes = [whole, whole, whole, pointer, whole, whole, pointer]
    library.seqc_large_pages.argtypes = [_ctypes.c_void_p, _ctypes.c_int64]
    library.seqc_large_pages.restype = None
    panels = library.seqc_panels()
    _native_entry(library, panels, dtype, *sizes)
    return library, panels


def _native_run(function, B, T, way, bounds, save, *arrays):
    """Call a kernel on contiguous tensors; None is an array that it does not write. bounds: of a pack's sequences, or None."""
    pointer = None if bounds is None else bounds.data_ptr()
    if function(B, T, way, pointer, torch.get_num_threads(), save, _native_pointers(arrays)):
        raise MemoryError("a native kernel found no memory for its buffers")


def _native_new(library, like, *shape):
    """A new array. A large one begins on a large page: the first touch of each small page would cost more than writing it."""
    count, size = math.prod(shape), like.element_size()
    if count * size < 1 << 21:
        return like.new_empty(shape)
    page = (1 << 21) // size
    whole = like.new_empty(count + page)
    made = like.new_empty(0).set_(whole.untyped_storage(), -(whole.data_ptr() // size) % page, shape)
    library.seqc_large_pages(made.data_ptr(), made.nbytes)
    return made


def _native_ready(dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0. What cannot be built or loaded is an error."""
    return 0 not in sizes


def _ready_cpu(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """Whether native code can run on these: built now, or built ahead for their sizes."""
    double = torch.float64 in [
        x_i.dtype, x_f.dtype, x_z.dtype, x_o.dtype, R_i.dtype, R_f.dtype, R_z.dtype, R_o.dtype, h_0.dtype, c_0.dtype
    ]
    return _native_ready(
        torch.float64 if double else torch.float32, _native_rows(x_i.shape[0]), x_i.shape[-2], x_i.shape[-1]
    )


def _forward_cpu(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, *, cu_seqlens=None, reverse=False):
    """Results, and what backward needs."""
    B, T, H, D = x_i.shape
    _rows = _native_rows(B)
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, _ = _native_kernel(x_i.dtype, _rows, H, D)
    out_h = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_h_T = x_i.new_empty(B, H, D)
    out_c_T = x_i.new_empty(B, H, D)
    out_kept_0 = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_kept_1 = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_kept_2 = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_kept_3 = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_h_kept = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_c_kept = _native_new(library, x_i, *x_i.shape[:2], H, D)
    _native_run(
        library.seqc_forward,
        B,
        T,
        way,
        cu_seqlens,
        1,
        x_i,
        x_f,
        x_z,
        x_o,
        R_i,
        R_f,
        R_z,
        R_o,
        h_0,
        c_0,
        out_h,
        out_h_T,
        out_c_T,
        out_kept_0,
        out_kept_1,
        out_kept_2,
        out_kept_3,
        out_h_kept,
        out_c_kept,
    )
    return out_h, out_h_T, out_c_T, out_kept_0, out_kept_1, out_kept_2, out_kept_3, out_h_kept, out_c_kept


def _infer_cpu(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, *, cu_seqlens=None, reverse=False):
    """Results only."""
    B, T, H, D = x_i.shape
    _rows = _native_rows(B)
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, _ = _native_kernel(x_i.dtype, _rows, H, D)
    out_h = _native_new(library, x_i, *x_i.shape[:2], H, D)
    out_h_T = x_i.new_empty(B, H, D)
    out_c_T = x_i.new_empty(B, H, D)
    _native_run(
        library.seqc_forward,
        B,
        T,
        way,
        cu_seqlens,
        0,
        x_i,
        x_f,
        x_z,
        x_o,
        R_i,
        R_f,
        R_z,
        R_o,
        h_0,
        c_0,
        out_h,
        out_h_T,
        out_c_T,
        None,
        None,
        None,
        None,
        None,
        None,
    )
    return out_h, out_h_T, out_c_T


def _backward_cpu(
    x_i,
    x_f,
    x_z,
    x_o,
    R_i,
    R_f,
    R_z,
    R_o,
    h_0,
    c_0,
    kept_0,
    kept_1,
    kept_2,
    kept_3,
    h_kept,
    c_kept,
    d_h,
    d_h_T,
    d_c_T,
    *,
    cu_seqlens=None,
    reverse=False,
    needs=(True,) * 10,
):
    """Gradients of inputs, params, initial states; products of params that are not asked for are left out."""
    B, T, H, D = x_i.shape
    _rows = _native_rows(B)
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, _ = _native_kernel(x_i.dtype, _rows, H, D)
    grad_x_o = _native_new(library, x_i, *x_i.shape[:2], H, D)
    grad_x_f = _native_new(library, x_i, *x_i.shape[:2], H, D)
    grad_x_i = _native_new(library, x_i, *x_i.shape[:2], H, D)
    grad_x_z = _native_new(library, x_i, *x_i.shape[:2], H, D)
    grad_h_0 = x_i.new_empty(B, H, D)
    grad_c_0 = x_i.new_empty(B, H, D)
    _native_run(
        library.seqc_backward,
        B,
        T,
        way,
        cu_seqlens,
        0,
        x_i,
        x_f,
        x_z,
        x_o,
        R_i,
        R_f,
        R_z,
        R_o,
        kept_0,
        kept_1,
        kept_2,
        kept_3,
        h_kept,
        c_kept,
        d_h,
        d_h_T,
        d_c_T,
        grad_x_o,
        grad_x_f,
        grad_x_i,
        grad_x_z,
        grad_h_0,
        grad_c_0,
    )
    grad_R_i = None
    if needs[4]:
        grad_R_i = torch.einsum("btac,btad->acd", grad_x_i, h_kept)
    grad_R_f = None
    if needs[5]:
        grad_R_f = torch.einsum("btac,btad->acd", grad_x_f, h_kept)
    grad_R_z = None
    if needs[6]:
        grad_R_z = torch.einsum("btac,btad->acd", grad_x_z, h_kept)
    grad_R_o = None
    if needs[7]:
        grad_R_o = torch.einsum("btac,btad->acd", grad_x_o, h_kept)
    return grad_x_i, grad_x_f, grad_x_z, grad_x_o, grad_R_i, grad_R_f, grad_R_z, grad_R_o, grad_h_0, grad_c_0


def _step_cpu(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """Results of one step."""
    B, H, D = x_i.shape
    library, _ = _native_kernel(x_i.dtype, _native_rows(B), H, D)
    out_h = x_i.new_empty(B, H, D)
    out_h_T = x_i.new_empty(B, H, D)
    out_c_T = x_i.new_empty(B, H, D)
    _native_run(
        library.seqc_step, B, 1, 1, None, 0, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, out_h, out_h_T, out_c_T
    )
    return out_h, out_h_T, out_c_T


# ---------- the choice of a form --------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """One way to run the recurrence; `prepare` brings tensors into the dtypes and the layout that it takes."""

    prepare: Callable
    infer: Callable
    forward: Callable
    backward: Callable
    saved: Callable
    step: Callable


def _prepare_torch(carry, *tensors):
    """Contiguous, in the carried dtype."""
    return [x if x.dtype == carry and x.is_contiguous() else x.to(carry).contiguous() for x in tensors]


# T: an entry per step; B: one per sequence; -: neither
_ARGUMENTS = "TTTT----BB"
_RESULTS = "TBB"


def _turned(tensors, kinds, reverse):
    """The tensors, those with steps from the last to the first where `reverse`."""
    return [x.flip(1) if reverse and kind == "T" and x is not None else x for x, kind in zip(tensors, kinds)]


def _parts(tensors, kinds, i, steps):
    """What sequence i of a pack has of the tensors, as views."""
    views = {"T": lambda x: x[:, steps], "B": lambda x: x[i : i + 1], "-": lambda x: x}
    return [views[kind](x) for x, kind in zip(tensors, kinds)]


def _copies(tensors, kinds, part, reverse):
    """Sequence `part` of a pack, in memory of its own: a BLAS may round by the address at which an array begins."""
    own = zip(_parts(tensors, kinds, *part), kinds)
    return _turned([x if kind == "-" else x.clone() for x, kind in own], kinds, reverse)


def _each(cu_seqlens):
    """The sequences of a pack that have steps, as (index, slice). Reads the bounds: of a GPU's, it waits for them."""
    bounds = cu_seqlens.tolist()
    steps = map(slice, bounds[:-1], bounds[1:])
    return [(i, own) for i, own in enumerate(steps) if own.start < own.stop]


def _one_by_one(infer, forward, backward):
    """(infer, forward, backward) that take packs and `reverse`, of functions of whole batches that run forward.

    The sequences of a pack run one after the other. It saves nothing: backward runs them again.
    """

    def run(function, tensors, cu_seqlens, reverse):
        if cu_seqlens is None:
            results = function(*_turned(tensors, _ARGUMENTS, reverse))
            return [*_turned(results, _RESULTS, reverse), *results[3:]]
        results = [*_fake_run(*tensors, cu_seqlens, reverse)[:1], *(s.clone() for s in tensors[8:])]
        for part in _each(cu_seqlens):
            found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
            for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                whole.copy_(own)
        return results

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:10], everything[10:-3], everything[-3:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), _ARGUMENTS, reverse)
        gradients = [torch.zeros_like(x) for x in tensors[:8]] + [d.clone() for d in cotangents[1:]]
        for part in _each(cu_seqlens):
            own = _copies(tensors, _ARGUMENTS, part, reverse)
            ends = _copies(cotangents, _RESULTS, part, reverse)
            found = _turned(backward(*own, *forward(*own)[3:], *ends, needs=needs), _ARGUMENTS, reverse)
            for whole, x, kind in zip(_parts(gradients, _ARGUMENTS, *part), found, _ARGUMENTS):
                if x is not None:
                    whole.add_(x) if kind == "-" else whole.copy_(x)
        return gradients

    def run_infer(*tensors, cu_seqlens, reverse):
        return run(infer, tensors, cu_seqlens, reverse)

    def run_forward(*tensors, cu_seqlens, reverse):
        return run(forward, tensors, cu_seqlens, reverse)

    return run_infer, run_forward, run_back


def _saved_torch(packed, B, T, H, D, io, carry):
    """Shapes and dtypes of what forward saves: h_all, c_all; nothing of a pack, which runs again."""
    if packed:
        return []
    return [((T + 1, B, H, D), carry), ((T + 1, B, H, D), carry)]


def _infer_torch(*tensors):
    """Forward without what backward needs."""
    return _forward_torch(*tensors)[:3]


def _saved_cpu(packed, B, T, H, D, io, carry):
    """Shapes and dtypes of what forward saves: kept_0, kept_1, kept_2, kept_3, h_kept, c_kept."""
    if packed:
        return [
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
        ]
    return [
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
    ]


_TORCH = _Form(_prepare_torch, *_one_by_one(_infer_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)
_CPU = _Form(_prepare_torch, _infer_cpu, _forward_cpu, _backward_cpu, _saved_cpu, _step_cpu)


def _form(*tensors):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    x = tensors[0]
    if x.device.type == "cpu" and _ready_cpu(*tensors):
        return _CPU
    return _TORCH


# ---------- the torch operators ---------------------------------------------------------------------------------------

_AXES = {
    "x_i": "B T H D",
    "x_f": "B T H D",
    "x_z": "B T H D",
    "x_o": "B T H D",
    "R_i": "H D D",
    "R_f": "H D D",
    "R_z": "H D D",
    "R_o": "H D D",
    "h_0": "B H D",
    "c_0": "B H D",
}


def _shape_error(time, cu_seqlens, **tensors):
    """The first tensor whose shape disagrees with those before it, as an error that names dims and sizes."""
    sizes = {}
    for name, x in tensors.items():
        axes = [axis for axis in _AXES[name].split() if time or axis != "T"]
        shape = list(x.shape)
        if cu_seqlens is not None and "T" not in axes:
            sizes["B"] = (len(cu_seqlens) - 1, "cu_seqlens")
        if len(shape) != len(axes):
            return ValueError(f"lstm: {name} has shape {shape}; its axes are [{', '.join(axes)}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{axis} is {size} here and {told} in {by}"
                return ValueError(f"lstm: {name} has shape {shape} for [{want}]; {why}")
    return ValueError(f"lstm: shapes disagree: {_AXES}")


CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lstm: cu_seqlens is {cu_seqlens.dtype}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"lstm: cu_seqlens has shape {shape}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"lstm: cu_seqlens is on {cu_seqlens.device}, the inputs are on {x.device}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"lstm: the inputs have B = {x.shape[0]}; {why}: [1, T, ...]")
    return cu_seqlens.shape[0] - 1


def _steps(cu_seqlens, x):
    """How many steps of the row T the sequences of a pack have; ValueError where its bounds are wrong.

    The bounds of a GPU are not read, for it would have to be waited for: there the answer is T, and kernels leave zeros
    behind the last sequence.
    """
    steps = x.shape[1]
    if cu_seqlens is None or (cu_seqlens.device.type != "cpu" and not CHECK_BOUNDS):
        return steps
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] > steps or bounds != sorted(bounds):
        want = f"it begins with 0, never decreases, and ends with T = {steps} or less"
        raise ValueError(f"lstm: cu_seqlens is {cu_seqlens}; {want}")
    return bounds[-1]


def _resized(x, shape):
    """x cut to a shape, or with zeros up to it."""
    part = x[tuple(map(slice, shape))]
    if part.shape == torch.Size(shape):
        return part.contiguous()
    whole = x.new_zeros(shape)
    whole[tuple(map(slice, part.shape))] = part
    return whole


def _own_rows(tensors, kinds, steps):
    """The tensors, those with steps ("T" in kinds) without the rows behind the last sequence of a pack."""
    cut = [x is not None and kind == "T" for x, kind in zip(tensors, kinds)]
    return [x[:, :steps].contiguous() if own else x for x, own in zip(tensors, cut)]


def _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens):
    """Sizes of the dims B, T, H, D; ValueError where shapes disagree."""
    if x_i.dim() != 4:
        raise _shape_error(True, cu_seqlens, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    B, T, H, D = x_i.shape
    if (
        x_f.shape != (B, T, H, D)
        or x_z.shape != (B, T, H, D)
        or x_o.shape != (B, T, H, D)
        or R_i.shape != (H, D, D)
        or R_f.shape != (H, D, D)
        or R_z.shape != (H, D, D)
        or R_o.shape != (H, D, D)
    ):
        raise _shape_error(True, cu_seqlens, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    if cu_seqlens is not None:
        B = _sequences(cu_seqlens, x_i)
    return B, T, H, D


def _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o):
    """Sizes of the dims B, H, D; ValueError where shapes disagree."""
    if x_i.dim() != 3:
        raise _shape_error(False, None, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    B, H, D = x_i.shape
    if (
        x_f.shape != (B, H, D)
        or x_z.shape != (B, H, D)
        or x_o.shape != (B, H, D)
        or R_i.shape != (H, D, D)
        or R_f.shape != (H, D, D)
        or R_z.shape != (H, D, D)
        or R_o.shape != (H, D, D)
    ):
        raise _shape_error(False, None, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    return B, H, D


# kinds of devices that have autocast: asking another one for it is an error
_AUTOCAST = frozenset(filter(torch.amp.is_autocast_available, "cpu cuda hpu mps mtia xla xpu".split()))


def _carry(x):
    """The dtype of states and sums, whatever the storage dtype of the inputs."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _dense(x, dtype):
    """x as the operators promise it: in this dtype, contiguous."""
    return x if x.dtype == dtype and x.is_contiguous() else x.to(dtype).contiguous()


def _copy(x, dtype):
    """A contiguous copy: an operator never returns its argument."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _autocast_off(function):
    """Autocast has done its part before an operator is called; inside, dtypes are the operator's own."""

    def call(*tensors):
        device = tensors[0].device.type
        if device not in _AUTOCAST or not torch.is_autocast_enabled(device):
            return function(*tensors)
        with torch.autocast(device, enabled=False):
            return function(*tensors)

    return call


def _fake_run(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, cu_seqlens, reverse):
    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""
    B, T, H, D = _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens)
    return (
        x_i.new_zeros((*x_i.shape[:2], H, D)),
        x_i.new_zeros((B, H, D), dtype=_carry(x_i)),
        x_i.new_zeros((B, H, D), dtype=_carry(x_i)),
    )


def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[0], arguments[10], _form(*arguments[:10])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:8], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[13], arguments[:10])]


@_autocast_off
def _run(*arguments):
    """Operator `run`: h, h_T, c_T."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "TTTT------", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:1]), *results[1:]]
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[8:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: h, h_T, c_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "TTTT------", steps), cu_seqlens, reverse)
        shapes = [y.shape for y in (*_fake_run(*arguments)[:1], *results[1:], *_fake_forward(*arguments)[-1])]
        results = [_resized(y, shape) for y, shape in zip([*results, *saved], shapes, strict=True)]
        return *results[:3], results[3:]
    if 0 in x.shape[:2]:
        return *_run(*arguments), _fake_forward(*arguments)[-1]
    results = form.forward(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    outputs, states, saved = results[:1], results[1:3], results[3:]
    return *(_dense(o, x.dtype) for o in outputs), *(_dense(s, carry) for s in states), list(saved)


_WATCHED = (0,)  # results without which a part of the recurrence has no cotangent


def _spoilt(gradients, cotangents):
    """Whether zero times infinity may have spoilt the gradients. A GPU is waited for, unless its work is recorded."""
    if not gradients or not any(cotangents[i] is None for i in _WATCHED):
        return False
    if gradients[0].device.type == "cpu":
        return not all(math.isfinite(d.sum()) for d in gradients)
    if gradients[0].device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return False
    return not torch.stack([d.isfinite().all() for d in gradients]).all()


def _apart(tensors, cu_seqlens, reverse, needs, cotangents):
    """The gradients by single steps, whose autograd leaves out what no cotangent reaches."""
    differentiable = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with differentiable, torch.enable_grad():
        tensors = [x.detach().requires_grad_() for x in tensors]
        return _pulled(_plain(*tensors, cu_seqlens, reverse), cotangents, _asked(needs, tensors))


def _filled(cotangents, carry, *arguments):
    """The cotangents, with zeros for those that are not there."""
    outputs, states = cotangents[:1], cotangents[1:]
    if any(d is None for d in outputs):
        outputs = [z if d is None else d for d, z in zip(outputs, _fake_run(*arguments))]
    starts = zip(states, arguments[8:10], strict=True)
    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0 those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:10], arguments[10:14]
    cotangents = whole = arguments[14:]
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        own = _own_rows(tensors, "TTTT------", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "T--", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, needs, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, _asked(needs, tensors), strict=True)]
    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:12])
    if 0 in x.shape[:2]:
        final = zip(tensors[8:], whole[1:], strict=True)
        gradients = [torch.zeros_like(x) for x in tensors[:8]]
        return _asked(needs, [*gradients, *(_copy(d, s.dtype) for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *whole)
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, tensors), gradients, strict=True)]


def _fake_step(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """What `step` returns: for tracing, and for no sequences."""
    B, H, D = _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    return (
        x_i.new_empty((B, H, D)),
        x_i.new_empty((B, H, D), dtype=_carry(x_i)),
        x_i.new_empty((B, H, D), dtype=_carry(x_i)),
    )


@_autocast_off
def _step(*tensors):
    """Operator `step`: h, h_T, c_T."""
    x = tensors[0]
    if x.shape[0] == 0:
        return [*_fake_step(*tensors)]
    form, carry = _form(*tensors), _carry(x)
    if form is _TORCH:
        results = _unshared(tensors, _plain_step(*tensors))
    else:
        results = form.step(*form.prepare(carry, *tensors))
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


def _unshared(tensors, results):
    """The results, copied where one shares memory with an argument or with another result."""
    taken, out = {x.untyped_storage().data_ptr() for x in tensors}, []
    for x in results:
        place = x.untyped_storage().data_ptr()
        out.append(x.clone() if place in taken else x)
        taken.add(place)
    return out


@_autocast_off
def _plain_step(*tensors):
    """One step in plain torch operators."""
    x = tensors[0]
    results = _step_torch(*_prepare_torch(_carry(x), *tensors))
    return [*(o.to(x.dtype) for o in results[:1]), *results[1:]]


class _StepDerivative(torch.autograd.Function):
    """One step with its gradient: that of a run of one step."""

    @staticmethod
    def forward(ctx, *tensors):
        run = [*(x[:, None] for x in tensors[:4]), *tensors[4:], None, False]
        *results, saved = _below(_OPS.forward.default, *run)
        _Derivative.keep(ctx, (*tensors, None, False), saved)
        return *(o[:, 0].clone() for o in results[:1]), *results[1:]

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:10], list(kept[10 + 1 :])
        run = [*(x[:, None] for x in given[:4]), *given[4:], None, False]
        ends = [*(d if d is None else d[:, None] for d in cotangents[:1]), *cotangents[1:]]
        needs = ctx.needs_input_grad
        gradients = _at_asked(needs, _backward_below(*run, saved, list(needs), *ends))
        return *(d if d is None else d[:, 0] for d in gradients[:4]), *gradients[4:]


def _differentiable_step(*tensors):
    if _needs_plain(tensors):
        return _plain_step(*tensors)
    if _needs_gradient(tensors):
        return list(_applied(_StepDerivative, *tensors))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.step.default(*tensors)


def _plain(*arguments):
    """What `run` gives, by single steps in plain torch operators, all of whose derivatives torch knows."""
    *tensors, cu_seqlens, reverse = arguments
    if cu_seqlens is not None:
        return _plain_pack(tensors, cu_seqlens, reverse)
    if 0 in tensors[0].shape[:2]:
        return [*_fake_run(*arguments)[:1], *(x.clone() for x in tensors[8:])]
    inputs, params, states = tensors[:4], tensors[4:8], tensors[8:]
    steps = [x.unbind(1) for x in inputs]
    order = range(inputs[0].shape[1])
    order = order if not reverse else order[::-1]
    rows = {}
    for t in order:
        results = _plain_step(*(x[t] for x in steps), *params, *states)
        rows[t], states = results[:1], results[1:]
    outputs = [torch.stack(column, 1) for column in zip(*(rows[t] for t in sorted(rows)))]
    return [*outputs, *states]


def _plain_pack(tensors, cu_seqlens, reverse):
    """The same of a pack, one sequence after the other."""
    found, bounds = [], cu_seqlens.tolist()
    for i, (start, end) in enumerate(zip(bounds[:-1], bounds[1:])):
        own = [x[:, start:end] for x in tensors[:4]]
        own += [x[i : i + 1] if _OWN[k] == "B" else x for k, x in enumerate(tensors[4:], 4)]
        found.append(_plain(*own, None, reverse))
    nothing = _fake_run(*tensors, cu_seqlens, reverse)
    if not found:
        return list(nothing)
    behind = [x[:, bounds[-1] :] if k < 1 else x[:0] for k, x in enumerate(nothing)]  # the last sequence
    return [torch.cat(parts, int(k < 1)) for k, parts in enumerate(zip(*found, behind))]


def _at_asked(needs, gradients):
    """Gradients at the places of those that were asked for; None at the others."""
    found = iter(gradients)
    return [next(found) if need else None for need in needs]


class _Derivative(torch.autograd.Function):
    """lstm with its gradient; backward is an operator too, so autograd and compilers never look inside."""

    @staticmethod
    def forward(ctx, *arguments):
        *results, saved = _below(_OPS.forward.default, *arguments)
        _Derivative.keep(ctx, arguments, saved)
        return tuple(results)

    @staticmethod
    def keep(ctx, arguments, saved):
        """What backward takes; a result that a loss does not use has no cotangent, not one of zeros."""
        *given, ctx.reverse = arguments
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *saved)

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:11], list(kept[11:])
        needs = ctx.needs_input_grad[:10]
        gradients = _backward_below(*given, ctx.reverse, saved, list(needs), *cotangents[:3])
        return *_at_asked(needs, gradients), None, None


class _DerivativeAndSaved(torch.autograd.Function):
    """The same, which also gives what backward needs: `forward` where its arguments require a gradient."""

    @staticmethod
    def forward(ctx, *arguments):
        *results, saved = _below(_OPS.forward.default, *arguments)
        _Derivative.keep(ctx, arguments, saved)
        ctx.mark_non_differentiable(*saved)
        return *results, *saved

    backward = _Derivative.backward


class _SecondDerivative(torch.autograd.Function):
    """The gradient; its own gradient is that of the plain form."""

    @staticmethod
    def forward(ctx, count, needs, *flat):
        saved, cotangents = list(flat[12 : 12 + count]), flat[12 + count :]
        ctx.reverse, ctx.needs = flat[11], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:11], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:12], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:10], *kept[11:])]
        tensors, cu_seqlens, cotangents = alike[:10], kept[10], alike[10:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:10], None, None, *saved, *left[10:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[14:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    cotangents = arguments[14:]
    batched = [d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in cotangents]
    columns = [torch._remove_batch_dim(d, level, 1, 0) if own else d for d, own in zip(cotangents, batched)]
    members = next(d.shape[0] for d, own in zip(columns, batched) if own)
    rows = [[d[i] if own else d for d, own in zip(columns, batched)] for i in range(members)]
    found = [_backward_below(*arguments[:14], *row) for row in rows]
    return [torch._add_batch_dim(torch.stack(parts), 0, level) for parts in zip(*found)]


def _pulled(results, cotangents, wrt, create_graph=False):
    """The gradients of the results that have a cotangent; zeros where none of these depends on an argument."""
    used = [(r, d) for r, d in zip(results, cotangents, strict=True) if d is not None and r.requires_grad]
    if not used:
        return [torch.zeros_like(x) for x in wrt]
    ends, weights = zip(*used)
    return torch.autograd.grad(ends, wrt, weights, create_graph=create_graph, materialize_grads=True)


def _needs_gradient(tensors):
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _needs_plain(tensors):
    """Whether the plain form must run: for tangents (forward mode), or for torch.func's derivatives of derivatives."""
    if not torch._C._are_functorch_transforms_active():
        if forward_ad._current_level < 0:
            return False
        return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)
    kinds = [level.key().name for level in torch._C._functorch.get_interpreter_stack()]
    return "Jvp" in kinds or kinds.count("Grad") > 1


def _no_tangent():
    what = "a derivative in forward mode of a gradient that is recorded already"
    return NotImplementedError(f"lstm: {what} is not served; take it of the call: torch.func.jvp")


def _applied(derivative, *arguments):
    """`derivative.apply`, inside a level of torch.func too: this is where it differentiates."""
    if not torch._C._are_functorch_transforms_active():
        return derivative.apply(*arguments)
    with torch._functorch.utils.enable_single_level_autograd_function():
        return super(torch.autograd.Function, derivative).apply(*arguments)


def _below(operator, *arguments):
    """The operator without its derivative; inside a level of torch.func the next one may record it again."""
    with torch._C._AutoDispatchBelowAutograd():
        if not torch._C._are_functorch_transforms_active():
            return operator(*arguments)
        with torch.enable_grad():
            return operator(*arguments)


def _differentiable_run(*arguments):
    tensors = arguments[:10]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:10]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_DerivativeAndSaved, *arguments)
        return *results[:3], list(results[3:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:12], arguments[12:14], arguments[14:]
    tensors = [*given[:10], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)


_OWN = "BBBB----BB"  # B: an argument has a batch axis; -: it is shared by the batch


def _folded(x, dim, members):
    """x [.., members, .., B, ..] as [members * B, ...]; repeated where it is not batched."""
    x = x.unsqueeze(0).expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _member(x, dim, i):
    """Member i of an argument, or of a list of them."""
    if isinstance(x, (list, tuple)):
        return [_member(y, d, i) for y, d in zip(x, dim, strict=True)]
    return x if dim is None else x.select(dim, i)


def _in_turn(operator, members, dims, arguments):
    """The results for one member after the other, put together along a new first axis."""
    found = [operator(*_member(arguments, dims, i)) for i in range(members)]
    together = [
        [torch.stack(part) for part in zip(*column)] if isinstance(column[0], (list, tuple)) else torch.stack(column)
        for column in zip(*found)
    ]
    return together, [[0] * len(x) if isinstance(x, list) else 0 for x in together]


def _rule(name, differentiates):
    """How an operator acts on batched arguments. differentiates: whether gradients of shared ones must stay apart."""

    def rule(info, dims, *arguments):
        operator, members = getattr(_OPS, name).default, info.batch_size
        tensors, here = arguments[:10], dims[:10]
        shared = any(d is not None and own == "-" for d, own in zip(here, _OWN))
        packed = name != "step" and arguments[10] is not None
        if shared or packed or differentiates or all(d is None for d in here):
            return _in_turn(operator, members, dims, arguments)
        size = tensors[0].shape[0] if here[0] is None else tensors[0].movedim(here[0], 0).shape[1]
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(tensors, here, _OWN)]
        if name == "backward":
            *more, saved, needs = arguments[10:14]
            ends = [None if x is None else _folded(x, d, members) for x, d in zip(arguments[14:], dims[14:])]
            return _unfolded(operator(*flat, *more, saved, needs, *ends), members, size)
        results = operator(*flat, *arguments[10:])
        if name != "forward":
            return _unfolded(results, members, size)
        results, places = _unfolded(results[:-1], members, size), results[-1]
        return (*results[0], places), (*results[1], [None] * len(places))

    return rule


def _unfolded(results, members, size):
    """Results of the larger batch with the members' axis in front again, and the place of that axis."""
    return [x.unflatten(0, (members, size)) for x in results], [0] * len(results)


def _rules():
    """Operator -> its rule."""
    apart = True  # whether an argument is shared, whose gradient each member has for itself
    return {"run": _rule("run", False), "step": _rule("step", False)} | {
        name: _rule(name, apart) for name in ("forward", "backward")
    }


def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_lstm_55a45a22caee", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_lstm_55a45a22caee_{tries}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {x}" for x in "x_i x_f x_z x_o R_i R_f R_z R_o h_0 c_0".split()]
    results = [f"Tensor {x}" for x in "h h_T c_T".split()]
    cotangents = [f"Tensor? d_{x}" for x in "h h_T c_T".split()]
    once, given = ", ".join(arguments), ", ".join(results)
    taken = f"{once}, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({taken}) -> ({given})")
    library.define(f"forward({taken}) -> ({given}, Tensor[] saved)")
    library.define(f"backward({taken}, Tensor[] saved, bool[] needs, {', '.join(cotangents)}) -> Tensor[]")
    library.define(f"step({once}) -> ({given})")
    fakes = {"run": _fake_run, "forward": _fake_forward, "backward": _fake_backward, "step": _fake_step}
    kernels = {"run": _run, "forward": _forward, "backward": _backward, "step": _step}
    derivatives = {
        "run": _differentiable_run,
        "forward": _differentiable_forward,
        "backward": _differentiable_backward,
        "step": _differentiable_step,
    }
    rules = _rules()
    for operator, kernel in kernels.items():
        library.impl(operator, kernel, "CPU")
        library.impl(operator, kernel, "CUDA")
        library.impl(operator, derivatives[operator], "Autograd")
        torch.library.register_fake(f"{name}::{operator}", fakes[operator], lib=library)
        torch.library.register_vmap(f"{name}::{operator}", rules[operator], lib=library)
    getattr(torch.ops, name).library = library  # compiled graphs call the operators by name
    return getattr(torch.ops, name)


_OPS = _register()


# ---------- what to call ----------------------------------------------------------------------------------------------


class LSTMResult(NamedTuple):
    """Outputs, and the states after the last step: the next call's NAME_0, to go on from."""

    h: Tensor  # [B, T, H, D]
    h_T: Tensor  # [B, H, D]
    c_T: Tensor  # [B, H, D]


def _cast(x_i, x_f, x_z, x_o):
    """The inputs in the dtypes that the operators take."""
    main = x_i.dtype
    if (
        x_f.dtype != main
        or x_z.dtype != main
        or x_o.dtype != main
        or main not in _FLOATS
        or (x_i.device.type in _AUTOCAST and torch.is_autocast_enabled(x_i.device.type))
    ):
        return _fit(x_i, x_f, x_z, x_o)
    return x_i, x_f, x_z, x_o


def _fit(*inputs):
    """The inputs, cast where autocast asks for it; TypeError where their dtypes do not fit together.

    Under autocast gates become float32 and the others the autocast dtype, as a matrix product's would; float64 stays.
    """
    device, main = inputs[0].device.type, inputs[0].dtype
    if not _FLOATS.issuperset(x.dtype for x in inputs):
        raise _dtype_error(**dict(zip(_INPUTS, inputs, strict=True)))
    if device in _AUTOCAST and torch.is_autocast_enabled(device) and main != torch.float64:
        main = torch.get_autocast_dtype(device)
        inputs = [x.to(torch.float32 if name in _GATES else main) for name, x in zip(_INPUTS, inputs, strict=True)]
    for name, x in zip(_INPUTS, inputs):
        if x.dtype != main and not (name in _GATES and x.dtype == torch.float32):
            raise TypeError(f"lstm: {name} is {x.dtype}, {_INPUTS[0]} is {main}; inputs share a dtype")
    return inputs


def _dtype_error(**tensors):
    """The first tensor whose dtype is not served, as an error that says what to do."""
    name, dtype = next((name, x.dtype) for name, x in tensors.items() if x.dtype not in _FLOATS)
    what = "inputs" if name in _INPUTS else "initial states" if name.endswith("_0") else "parameters"
    if dtype.is_complex:
        help = "give real and imaginary parts as arguments of their own (x.real, x.imag)"
    elif dtype.is_floating_point:
        help = "convert it first, with its scale: x.to(torch.bfloat16)"
    else:
        help = "convert it first: x.to(torch.float32)"
    kinds = f"{what} are floating-point numbers of 64, 32 or 16 bits"
    return TypeError(f"lstm: {name} is {dtype}; {kinds}: {help}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{name: x})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("x_i x_f x_z x_o".split())
_GATES = frozenset("".split())


def _call(operator, *arguments):
    """The operator's results; under `no_grad` without the stop at autograd that inference mode leaves out by itself."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return operator(*arguments)
    if forward_ad._current_level >= 0:  # tangents pass through autograd, with or without gradients
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _along(axis, cu_seqlens, reverse, *tensors):
    """The call whose steps lie along one of the axes before the dims; the others are batch, by views if possible."""
    main = tensors[0]
    count = main.dim() - 2
    if not -count <= axis < count:
        raise ValueError(f"lstm: axis is {axis}; x_i has {count} axes before its dims: {list(main.shape)}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {}
    for x, (name, axes) in zip(tensors, _AXES.items(), strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {axis} of x_i has the steps"
                raise ValueError(f"lstm: {name} has shape {list(x.shape)} for [{want}]; {why}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = lstm(**given, cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:1]]
    states = results[1:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return LSTMResult(*outputs, *states)


class LSTMStates(LSTMResult):
    """What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.

    NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:
    those of the first sequence, then those of the next; a sequence of n steps has n // N of them.
    """

    h_every: Tensor  # [B, pieces, H, D]
    c_every: Tensor  # [B, pieces, H, D]


def _in_pieces(every, axis, cu_seqlens, reverse, /, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main = given["x_i"]
    count = main.dim() - 2
    at = 1 if axis is None else axis % count
    if every < 1:
        why = f"states_every is {every}; states are kept after every so many steps, 1 or more"
        raise ValueError(f"lstm: {why}")
    if axis is not None and (cu_seqlens is not None or not -count <= axis < count):
        why = f"x_i has {count} axes before its dims" if cu_seqlens is None else "states_every of a pack takes none"
        raise ValueError(f"lstm: axis is {axis}; {why}")
    steps = main.shape[at]
    bounds = [0, steps]
    if cu_seqlens is not None:  # pieces are cut from each sequence: its bounds are read, and a GPU is waited for
        _sequences(cu_seqlens, main)
        _steps(cu_seqlens.cpu(), main)
        bounds = cu_seqlens.tolist()
    last = reverse is not False  # whether runs begin at the last step
    lengths = [after - before for before, after in zip(bounds, bounds[1:])]
    results, places, kept = [], [], []
    for start in range(0, max(lengths + [1]), every):
        rows = []
        for before, size in zip(bounds, lengths):
            low, high = min(start, size), min(start + every, size)
            rows.append((before + size - high, before + size - low) if last else (before + low, before + high))
        cuts, own = None, dict(given)
        if cu_seqlens is None:
            low, high = rows[0]
            own |= {x: given[x].narrow(at, low, high - low) for x in _STEPPED if given[x] is not None}
        else:
            index = torch.cat([torch.arange(*row, device=main.device) for row in rows or [(0, 0)]])
            own |= {x: given[x].index_select(1, index) for x in _STEPPED if given[x] is not None}
            sizes = torch.tensor([0] + [high - low for low, high in rows], device=main.device)
            cuts = sizes.cumsum(0).to(cu_seqlens.dtype)
            places.append(index)
        result = lstm(**own, cu_seqlens=cuts, reverse=reverse, axis=axis)
        given |= dict(zip(("h_0", "c_0"), result[1:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:1] for result in results)):
        joined = torch.cat(parts if cu_seqlens is not None or not last else parts[::-1], at)
        if cu_seqlens is not None:
            joined = joined.new_zeros(1, steps, *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = LSTMStates(*whole, *results[-1][1:])
    order = sorted((i, piece) for piece, ones in enumerate(kept) for i in ones)
    for name, state in zip(found._fields[1:], found[1:]):
        if cu_seqlens is not None:
            parts = [getattr(results[piece], name)[i] for i, piece in order]
            stacked = torch.stack(parts) if parts else state.new_zeros(0, *state.shape[1:])
        else:
            parts = [getattr(results[piece], name) for _, piece in order]
            stacked = torch.stack(parts, at) if parts else state.new_zeros(*state.shape[:at], 0, *state.shape[at:])
        setattr(found, name[:-1] + "every", stacked)
    return found


_STEPPED = tuple("x_i x_f x_z x_o".split())


def lstm(
    x_i: Tensor,
    x_f: Tensor,
    x_z: Tensor,
    x_o: Tensor,
    R_i: Tensor,
    R_f: Tensor,
    R_z: Tensor,
    R_o: Tensor,
    *,
    h_0: Tensor | None = None,
    c_0: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    axis: int | None = None,
    states_every: int | None = None,
) -> LSTMResult:
    """Run lstm over a sequence.

    Shapes:
        x_i: [B, T, H, D]
        x_f: [B, T, H, D]
        x_z: [B, T, H, D]
        x_o: [B, T, H, D]
        R_i: [H, D, D]
        R_f: [H, D, D]
        R_z: [H, D, D]
        R_o: [H, D, D]
        h_0: [B, H, D]
        c_0: [B, H, D]

    States are float32 (float64 for float64 inputs); one that is not given starts at its default.

    cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are
        [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on
        the inputs' device. One entry per sequence: h_0, c_0.
    reverse: every sequence runs from its last step to its first.
    axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.
    states_every: the result is a LSTMStates, with the states after every so many steps.
    """
    if states_every is not None:
        return _in_pieces(
            states_every,
            axis,
            cu_seqlens,
            reverse,
            x_i=x_i,
            x_f=x_f,
            x_z=x_z,
            x_o=x_o,
            R_i=R_i,
            R_f=R_f,
            R_z=R_z,
            R_o=R_o,
            h_0=h_0,
            c_0=c_0,
        )
    if axis is not None:
        return _along(axis, cu_seqlens, reverse, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0)
    x_i, x_f, x_z, x_o = _cast(x_i, x_f, x_z, x_o)
    B, T, H, D = _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens)
    carry = _carry(x_i)
    if h_0 is None:
        h_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif h_0.shape != (B, H, D):
        raise _shape_error(
            True, cu_seqlens, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o, h_0=h_0
        )
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    if c_0 is None:
        c_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif c_0.shape != (B, H, D):
        raise _shape_error(
            True, cu_seqlens, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o, c_0=c_0
        )
    elif c_0.dtype != carry:
        c_0 = _to_carry("c_0", c_0, carry)
    if R_i.dtype not in _FLOATS or R_f.dtype not in _FLOATS or R_z.dtype not in _FLOATS or R_o.dtype not in _FLOATS:
        raise _dtype_error(R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    return LSTMResult(*_call(_OPS.run.default, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, cu_seqlens, reverse))


def _written(result, given, inplace, into):
    """The result in tensors of the caller: states in those that were given (inplace), the rest in an earlier result."""
    if any(x.requires_grad for x in result):
        why = "inplace= and into= keep nothing that a gradient needs: call it under torch.no_grad()"
        raise RuntimeError(f"lstm_step: {why}")
    places = list(result if into is None else into)
    if inplace:
        places[1:] = [y if x is None else x for x, y in zip(given, places[1:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{list(place.shape)} of {place.dtype}, and the step gives {list(x.shape)} of {x.dtype}"
            raise ValueError(f"lstm_step: a tensor to write has shape {said}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("lstm_step: one tensor is to be written twice: give every state its own")
    for place, x in zip(places, result, strict=True):
        if place is not x:
            place.copy_(x)
    return type(result)(*places)


def lstm_step(
    x_i: Tensor,
    x_f: Tensor,
    x_z: Tensor,
    x_o: Tensor,
    R_i: Tensor,
    R_f: Tensor,
    R_z: Tensor,
    R_o: Tensor,
    *,
    h_0: Tensor | None = None,
    c_0: Tensor | None = None,
    inplace: bool = False,
    into: LSTMResult | None = None,
) -> LSTMResult:
    """Run lstm for one step: one token of decoding.

    Shapes:
        x_i: [B, H, D]
        x_f: [B, H, D]
        x_z: [B, H, D]
        x_o: [B, H, D]
        R_i: [H, D, D]
        R_f: [H, D, D]
        R_z: [H, D, D]
        R_o: [H, D, D]
        h_0: [B, H, D]
        c_0: [B, H, D]

    inplace: the new states are written over the old ones, and returned as these.
    into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,
        no step allocates anything.
    """
    if not torch.compiler.is_compiling() and forward_ad._current_level < 0 and h_0 is not None and c_0 is not None:
        for _direct in _NATIVE_STEPS:
            _result = _direct(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, inplace, into)
            if _result is not None:
                return _result
    _given = (h_0, c_0)
    x_i, x_f, x_z, x_o = _cast(x_i, x_f, x_z, x_o)
    B, H, D = _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    carry = _carry(x_i)
    if h_0 is None:
        h_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif h_0.shape != (B, H, D):
        raise _shape_error(False, None, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o, h_0=h_0)
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    if c_0 is None:
        c_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif c_0.shape != (B, H, D):
        raise _shape_error(False, None, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o, c_0=c_0)
    elif c_0.dtype != carry:
        c_0 = _to_carry("c_0", c_0, carry)
    if R_i.dtype not in _FLOATS or R_f.dtype not in _FLOATS or R_z.dtype not in _FLOATS or R_o.dtype not in _FLOATS:
        raise _dtype_error(R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    _result = LSTMResult(*_call(_OPS.step.default, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0))
    return _written(_result, _given, inplace, into) if inplace or into is not None else _result


class LSTM(torch.nn.Module):
    """lstm as a layer: it owns R_i, R_f, R_z, R_o.

    axis: which of the inputs' axes has the steps, of every call that does not say it; see the function.
    """

    def __init__(
        self,
        *,
        H: int,
        D: int,
        axis: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.dims = {"H": H, "D": D}
        self.R_i = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_f = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_z = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_o = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every parameter its initial value."""
        D = self.dims["D"]
        self.R_i.normal_(std=D**-0.5)
        self.R_f.normal_(std=D**-0.5)
        self.R_z.normal_(std=D**-0.5)
        self.R_o.normal_(std=D**-0.5)

    def forward(
        self,
        x_i: Tensor,
        x_f: Tensor,
        x_z: Tensor,
        x_o: Tensor,
        *,
        h_0: Tensor | None = None,
        c_0: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        axis: int | None = None,
        states_every: int | None = None,
    ) -> LSTMResult:
        """The recurrence over a sequence; see `lstm`."""
        return lstm(
            x_i,
            x_f,
            x_z,
            x_o,
            self.R_i,
            self.R_f,
            self.R_z,
            self.R_o,
            h_0=h_0,
            c_0=c_0,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
            axis=self.axis if axis is None else axis,
            states_every=states_every,
        )

    def step(
        self,
        x_i: Tensor,
        x_f: Tensor,
        x_z: Tensor,
        x_o: Tensor,
        *,
        h_0: Tensor | None = None,
        c_0: Tensor | None = None,
        inplace: bool = False,
        into: LSTMResult | None = None,
    ) -> LSTMResult:
        """One step; see `lstm_step`."""
        return lstm_step(
            x_i, x_f, x_z, x_o, self.R_i, self.R_f, self.R_z, self.R_o, h_0=h_0, c_0=c_0, inplace=inplace, into=into
        )

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.dims.items())


# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("lstm")
torch.fx.wrap("lstm_step")
