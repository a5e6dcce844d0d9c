"""Building and loading: concurrent, interrupted, impossible."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from seqc.backends.native_cpu import loader
from seqc.cache import cache_folder

ADD = 'extern "C" int add(int a, int b) { return a + b + SEQC_MORE; }\n'
WORKER = """
import sys
from seqc.backends.native_cpu import loader
loader.NATIVE_CACHE = sys.argv[1]
print(loader._native_library(sys.argv[2], {"SEQC_MORE": "1"}).add(2, 3))
"""
BOTH = """
import sys
from functools import partial
from seqc.backends.native_cpu import loader
loader.NATIVE_CACHE = sys.argv[1]
try:
    loader._native_each([partial(loader._native_library, sys.argv[2], {"SEQC_MORE": n}) for n in "12"])
except KeyboardInterrupt:
    sys.exit(7)
"""

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """What a process remembers of its compiler is of each test alone."""
    loader._native_search.cache_clear()
    yield
    loader._native_search.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loader, "NATIVE_CACHE", str(tmp_path))
    return tmp_path


def test_built_once_and_found_again(cache: Path) -> None:
    first = loader._native_build(ADD, {"SEQC_MORE": "1"})
    stamp = first.stat().st_mtime_ns
    assert loader._native_build(ADD, {"SEQC_MORE": "1"}) == first
    assert first.stat().st_mtime_ns == stamp
    assert loader._native_build(ADD, {"SEQC_MORE": "2"}) != first
    assert loader._native_library(ADD, {"SEQC_MORE": "2"}).add(2, 3) == 7


def test_a_long_build_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is short, or done already, is not."""
    text = f"// seqc: adds, native CPU kernels.\n{ADD}"
    loader._native_build(text, {"SEQC_MORE": "3"})
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(loader, "NATIVE_PATIENCE", (0.0, 0.0))
    loader._native_build(text, {"SEQC_MORE": "3"})
    assert capsys.readouterr().err == ""
    loader._native_build(text, {"SEQC_MORE": "4", "SEQC_REAL": "float"})
    first, last = capsys.readouterr().err.splitlines()
    assert first == "seqc: adds: native kernels for MORE=4, REAL=float are being built: once, then they lie in the cache"
    assert last.startswith("seqc: adds: native kernels for MORE=4, REAL=float took ")


def test_processes_build_the_same_at_once(cache: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(cache), ADD]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [p.communicate()[0].strip() for p in running] == ["6"] * 4
    assert len(list(cache.glob("*.so"))) == 1
    assert not list(cache.glob("build-*"))


def test_an_interrupted_build_leaves_nothing_that_loads(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loader._os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            loader._native_build(ADD, {"SEQC_MORE": "3"})
    assert not list(cache.glob("*.so"))
    assert loader._native_library(ADD, {"SEQC_MORE": "3"}).add(0, 0) == 3


def test_a_build_killed_half_way_is_done_again(cache: Path) -> None:
    """The compiler of the first process never ends; the second one waits for the lock, and gets it with the kill."""
    slow = cache / "slow-c++"
    slow.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then exec c++ --version; fi\ntouch {cache}/begun\nsleep 60\n')
    slow.chmod(0o755)
    command = [sys.executable, "-c", WORKER, str(cache), ADD]
    with subprocess.Popen(command, env={**os.environ, "CXX": str(slow)}, start_new_session=True) as first:
        while not (cache / "begun").exists():
            assert first.poll() is None
            time.sleep(0.01)
        # the same digest: the slow compiler says that it is the usual one
        usual = {**os.environ, "CXX": "c++"}
        with subprocess.Popen(command, env=usual, stdout=subprocess.PIPE, text=True) as second:
            time.sleep(0.5)
            assert second.poll() is None, "the lock did not hold"
            os.killpg(first.pid, signal.SIGKILL)
            assert second.communicate(timeout=60)[0].strip() == "6"


def test_libraries_are_built_side_by_side_until_an_interruption(cache: Path) -> None:
    """Compilers that never end: two run at once where there are two cores, and Ctrl-C ends the process and all of them."""
    slow = cache / "slow-c++"
    slow.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then exec c++ --version; fi\necho > {cache}/begun-$$\nsleep 60\n')
    slow.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", BOTH, str(cache), ADD], env={**os.environ, "CXX": str(slow)}) as process:
        wanted = min(2, os.cpu_count() or 1)
        while len(list(cache.glob("begun-*"))) < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 7
    for path in cache.glob("begun-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name.partition("-")[2]), 0)
    assert not list(cache.glob("*.so")) and not list(cache.glob("build-*"))


def test_what_one_of_several_builds_says_is_raised(cache: Path) -> None:
    works = [partial(loader._native_library, text, {"SEQC_MORE": "9"}) for text in (ADD, "this is no C++")]
    with pytest.raises(RuntimeError, match="does not compile"):
        loader._native_each(works)
    first, second = loader._native_each([partial(loader._native_library, ADD, {"SEQC_MORE": n}) for n in ("1", "2")])
    assert (first.add(0, 0), second.add(0, 0)) == (1, 2)


def test_what_a_killed_build_left_is_swept(cache: Path) -> None:
    old = cache / "build-old"
    old.mkdir()
    os.utime(old, (0, 0))
    loader._native_build(ADD, {"SEQC_MORE": "4"})
    assert not old.exists()


@pytest.mark.parametrize("damage", ["truncated", "no note", "empty note"])
def test_a_library_that_is_not_whole_is_built_again(cache: Path, damage: str) -> None:
    path = loader._native_build(ADD, {"SEQC_MORE": "5"})
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[:1000])
    elif damage == "no note":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("")
    assert loader._native_note(path) is None
    assert loader._native_build(ADD, {"SEQC_MORE": "5"}) == path
    assert ctypes.CDLL(str(path)).add(1, 1) == 7


def test_a_cache_that_cannot_be_written(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is used; what it lacks is built for this process alone."""
    held = loader._native_build(ADD, {"SEQC_MORE": "6"})
    monkeypatch.setattr(loader._os, "access", lambda *_: False)
    loader._native_tell.cache_clear()
    assert loader._native_build(ADD, {"SEQC_MORE": "6"}) == held
    with pytest.warns(UserWarning, match=f"cannot write {cache}: native kernels are built for this process only") as told:
        other = loader._native_build(ADD, {"SEQC_MORE": "7"})
        assert loader._native_build(ADD, {"SEQC_MORE": "7"}) == other
    assert other.parent != cache and ctypes.CDLL(str(other)).add(1, 1) == 9
    assert len(told) == 1


def test_a_file_where_the_cache_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(loader, "NATIVE_CACHE", str(tmp_path / "file" / "seqc"))
    with pytest.warns(UserWarning, match="is not used, for File exists"):
        assert loader._native_build(ADD, {"SEQC_MORE": "8"}).parent == loader._native_private()


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(loader._Path, "home", homeless)
    assert loader._native_cache() is None
    loader._native_tell.cache_clear()
    with pytest.warns(UserWarning, match="there is no home folder"):
        assert loader._native_build(ADD, {"SEQC_MORE": "9"}).parent == loader._native_private()


def test_a_relative_folder_is_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The XDG base directory specification: paths that are not absolute are invalid, and ignored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "NATIVE_CACHE", None)
    for told, base in ((str(tmp_path), tmp_path), ("relative", Path.home() / ".cache"), ("", Path.home() / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", told)
        assert loader._native_cache() == cache_folder() == base / "seqc"


def test_a_text_that_does_not_compile_is_an_error(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not compile[\s\S]*error"):
        loader._native_build("int f( {", {})
    assert not list(cache.glob("*.so"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader._shutil, "which", lambda _: None)
    assert loader._native_compiler() is None
    with pytest.raises(RuntimeError, match="set CXX"):
        loader._native_build(ADD, {})


@pytest.mark.parametrize(("wish", "problem"), [
    ("no-such-compiler -O2", "CXX is `no-such-compiler -O2`, and there is no program `no-such-compiler`"),
    ("c++ 'a", "which is no command"),
    ("false", "`.*false --version` failed"),
])
def test_a_wish_that_cannot_be_met(wish: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", wish)
    assert loader._native_compiler() is None
    with pytest.raises(RuntimeError, match=problem):
        loader._native_build(ADD, {})


def test_flags_and_a_wrapper(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler with flags, behind a program that calls it, in a folder whose name has a space."""
    usual = loader._native_build(ADD, {"SEQC_MORE": "10"})
    wrapper = cache / "a wrapper"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {cache}/calls\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{wrapper}' c++ -DSEQC_MORE=11")
    loader._native_search.cache_clear()
    assert loader._native_build(ADD, {}) != usual
    assert loader._native_library(ADD, {}).add(0, 0) == 11
    assert "c++ -DSEQC_MORE=11 -std=c++17" in (cache / "calls").read_text()
    plain = cache / "plain"
    plain.symlink_to(wrapper)
    monkeypatch.setenv("CXX", str(wrapper))
    loader._native_search.cache_clear()
    assert loader._native_search()[2].startswith("the C++ compiler cannot be used")  # it is one word: a path with a space


@pytest.mark.parametrize("mark", ["--version", "-c"])
def test_a_compiler_that_hangs(cache: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """It is stopped with the programs that it has started, and the error says how long it was waited for."""
    slow = cache / "slow"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *{mark}*) sleep 61.7;; esac\nexec c++ "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(loader, "NATIVE_ANSWER" if mark == "--version" else "NATIVE_SECONDS", 1.0)
    loader._native_search.cache_clear()
    with pytest.raises(RuntimeError, match="did not end within 1 seconds"):
        loader._native_build(ADD, {"SEQC_MORE": "12"})
    running = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout
    assert "sleep 61.7" not in running
    assert not list(cache.glob("build-*"))


@pytest.mark.parametrize("fault", ["mode 777", "mode 775", "a link", "another's", "a folder above"])
def test_a_cache_that_others_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """It is neither read nor written; it is told once, and what is built lies in a folder of this process."""
    cache = tmp_path / "above" / "seqc"
    cache.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(loader, "NATIVE_CACHE", str(cache))
    held = loader._native_build(ADD, {"SEQC_MORE": "13"})
    if fault.startswith("mode"):
        cache.chmod(int(fault.split()[1], 8))
    elif fault == "a link":
        cache.rename(tmp_path / "elsewhere")
        cache.symlink_to(tmp_path / "elsewhere")
    elif fault == "another's":
        monkeypatch.setattr(loader._os, "geteuid", lambda: os.getuid() + 1)
    else:
        cache.parent.chmod(0o777)
    before = sorted(cache.iterdir())
    loader._native_tell.cache_clear()
    with pytest.warns(UserWarning, match=f"the cache {cache} is not used, for (it|others) .*: native kernels are") as told:
        made = loader._native_build(ADD, {"SEQC_MORE": "13"})
        loader._native_build(ADD, {"SEQC_MORE": "13"})
    assert made.name == held.name and made.parent != cache and ctypes.CDLL(str(made)).add(1, 1) == 15
    assert len(told) == 1 and sorted(cache.iterdir()) == before


@pytest.mark.parametrize("fault", ["link", "writable", "no library"])
def test_a_library_that_others_may_write_is_built_again(cache: Path, tmp_path: Path, fault: str) -> None:
    held = loader._native_build(ADD, {"SEQC_MORE": "14"})
    if fault == "link":
        held.rename(tmp_path / "elsewhere.so")
        held.symlink_to(tmp_path / "elsewhere.so")
    elif fault == "writable":
        held.chmod(0o777)
    else:  # whole by its note, but nothing that can be loaded
        held.write_bytes(b"no library")
        held.with_suffix(".json").write_text(loader._json.dumps({"sum": loader._native_sum(held)}))
    loader._native_loaded.clear()
    assert loader._native_library(ADD, {"SEQC_MORE": "14"}).add(1, 1) == 16
    assert not held.is_symlink() and not loader._native_distrust(held, folder=False)


def test_a_lock_that_is_a_link_is_not_followed(cache: Path) -> None:
    victim = cache / "victim"
    victim.write_text("kept")
    name = loader._native_build(ADD, {"SEQC_MORE": "15"})
    name.unlink()
    name.with_suffix(".so.lock").unlink()
    name.with_suffix(".so.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        loader._native_build(ADD, {"SEQC_MORE": "15"})
    assert victim.read_text() == "kept"
