"""Files that commands write: whole or not at all, and never over the spec that they come from.

In: a path, a text, the files that must stay. Out: the file, or a `Refusal` with the reason in the system's words; what stood
there before is then untouched. A regular file is written beside its place and renamed; a device, a pipe or a descriptor
(`/dev/stdout`) is written as it is. A link is followed: what it points to is written, and it stays a link.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqc.diagnostics import Diagnostic, Refusal

STDOUT = "-"
"""The path that stands for standard output."""


def write(path: str | Path, text: str, *kept: str | Path) -> Path:
    """Write a text as UTF-8. kept: files that the path must not be, by whatever name or link. Raises Refusal."""
    path = Path(path)
    protect(path, *kept)
    data = text.encode("utf-8")
    try:
        mode = _mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise refused(path, "it is a directory", "name a file in it")
        if (mode is None or stat.S_ISREG(mode)) and not _descriptor(path):
            _replace(Path(os.path.realpath(path)), data, mode)
        else:
            with open(path, "wb", buffering=0) as device:
                _all(device.fileno(), data)
    except (OSError, ValueError) as error:
        raise failed(path, error) from error
    return path


def protect(path: str | Path, *kept: str | Path) -> None:
    """Refuse a path that is one of the files that must stay, be it by a link or by another name. Raises Refusal."""
    for one in kept:
        try:
            same = os.path.samefile(path, one)
        except (OSError, ValueError):  # one of them is not there: they differ
            continue
        if same:
            raise refused(path, "it is the spec itself", "give another name with -o")


def folder(path: str | Path, mode: int = 0o777) -> Path:
    """A folder, made with those above it where it is missing; mode: its own then, less the umask. Raises Refusal."""
    path = Path(path)
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise failed(path, error) from error
    return path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock among processes that ask for it, where the system has one; it ends with the process that has it."""
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def put(text: str) -> None:
    """A text on standard output as UTF-8, whatever the terminal's encoding: what is redirected is the file itself."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.flush()


def failed(path: str | Path, error: Exception) -> Refusal:
    """A failure of the system while a file is written, as a diagnostic."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    parent = Path(path).parent
    missing = isinstance(error, FileNotFoundError) and not parent.exists()
    return refused(path, words, f"there is no folder `{parent}`: make it first" if missing else "")


def refused(path: str | Path, reason: str, help: str = "") -> Refusal:
    """A file that is not written, and why."""
    return Refusal(Diagnostic("cannot-write", f"cannot write `{path}`: {reason}", help=help))


def _mode(path: Path) -> int | None:
    """The kind and permissions of what stands at a path; None where nothing does."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _descriptor(path: Path) -> bool:
    """Whether a path names an open descriptor of this process, whose file must not be renamed under it."""
    return os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    """Write a new file beside the target, then give it the target's name, and the permissions of what stood there."""
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(13, os.strerror(13))
    fresh = target.parent / f".seqc-{os.getpid()}-{secrets.token_hex(4)}"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            if mode is not None:
                os.fchmod(handle, stat.S_IMODE(mode))
            _all(handle, data)
        finally:
            os.close(handle)
        os.replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _all(handle: int, data: bytes) -> None:
    """Write every byte: one call may take a part only."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
