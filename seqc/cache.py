"""A person's own folder of what took long to make: `$XDG_CACHE_HOME/seqc` or `~/.cache/seqc`.

In: a key, and a record to keep under it. Out: the record, in this process or a later one. What is emitted is code that runs,
so the folder and each file in it must belong to the user, and nobody else may write them: what does not hold is not read, and
its record is made again (`SECURITY.md`). A record carries its checksum, for a full disk may cut a file short. This module makes
nothing itself, and imports the standard library alone: `_native_distrust` is copied into emitted files, for native libraries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os as _os
import platform
import stat as _stat
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path as _Path
from typing import Any

KEEPS: bool = True
"""Whether compiles are kept for later processes. A process that changes the compiler while it runs must not keep them."""
LONGEST = 30 * 86400.0
"""How long a record lies unread before it may be removed, in seconds."""

_PACKAGE = _Path(__file__).parent


def cache_folder() -> _Path | None:
    """The folder, whether it is there or not; None where there is no home to keep it in."""
    told = _Path(_os.environ.get("XDG_CACHE_HOME", ""))  # one that is not absolute is to be ignored, says XDG's specification
    try:
        base = told if told.is_absolute() else _Path.home() / ".cache"
    except RuntimeError:  # no $HOME, and a user of whom the system knows none
        return None
    return base / "seqc"


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


@cache
def compiler() -> str:
    """A digest of the compiler: the text of its modules, grammar and tables, and the version of Python."""
    digest = hashlib.sha256(platform.python_version().encode())
    rooms = [_PACKAGE, *sorted(path for path in _PACKAGE.iterdir() if path.is_dir())]
    files = [path for i, room in enumerate(rooms) for path in (room.rglob("*") if i else room.glob("*"))]
    for path in sorted(path for path in files if path.suffix in (".py", ".lark", ".json")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def key(*parts: object) -> str:
    """The name of a record: a digest of what it follows from, of the compiler, and of what the toolchain said of own specs."""
    folder = cache_folder()
    said = b""
    with contextlib.suppress(OSError):
        said = (folder / "verdicts.json").read_bytes() if folder else b""
    return hashlib.sha256(repr((parts, compiler(), said)).encode()).hexdigest()[:32]


def recall(name: str) -> dict[str, Any] | None:
    """The record of this name; None where there is none that is whole and the user's alone."""
    path = _place(name)
    if path is None:
        return None
    try:
        if any(_native_distrust(folder, folder=True) for folder in (path.parents[1], path.parent)):
            return None
        if _native_distrust(path, folder=False):
            return None
        told = json.loads(path.read_text("utf-8"))
        if told["sum"] != _sum(told["record"]):
            return None
        if path.stat().st_mtime < time.time() - 86400:
            _os.utime(path)
        return dict(told["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(name: str, record: Mapping[str, Any]) -> None:
    """Keep a record. Where the folder cannot be written, or is not the user's alone, it is not kept: nothing else is lost."""
    path = _place(name)
    if path is None:
        return
    fresh = path.with_suffix(f".{_os.getpid()}")
    try:
        for folder in (path.parents[1], path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _native_distrust(folder, folder=True):
                return
        with contextlib.suppress(OSError):  # another process has swept it
            for old in path.parent.iterdir():
                if old.stat().st_mtime < time.time() - LONGEST:
                    old.unlink()
        with open(_os.open(fresh, _os.O_WRONLY | _os.O_CREAT | _os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"sum": _sum(record), "record": record}, file)
        _os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _place(name: str) -> _Path | None:
    folder = cache_folder() if KEEPS else None
    return folder and folder / "compiled" / f"{name}.json"


def _sum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
