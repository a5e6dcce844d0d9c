"""Building and loading: concurrent, interrupted, impossible."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqc.backends.native_cpu import loader

ADD = 'extern "C" int add(int a, int b) { return a + b + SEQC_MORE; }\n'
WORKER = """
import sys
from seqc.backends.native_cpu import loader
loader.NATIVE_CACHE = sys.argv[1]
print(loader._native_library(sys.argv[2], {"SEQC_MORE": "1"}).add(2, 3))
"""

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")


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
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is used; what it lacks is built for this process alone."""
    held = loader._native_build(ADD, {"SEQC_MORE": "6"})
    monkeypatch.setattr(loader._os, "access", lambda *_: False)
    loader._native_tell.cache_clear()
    assert loader._native_build(ADD, {"SEQC_MORE": "6"}) == held
    with caplog.at_level(logging.WARNING, logger="seqc"):
        other = loader._native_build(ADD, {"SEQC_MORE": "7"})
    assert other.parent != cache and ctypes.CDLL(str(other)).add(1, 1) == 9
    assert [r.message for r in caplog.records] == [f"cannot write {cache}: native kernels are built for this process only"]


def test_a_file_where_the_cache_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(loader, "NATIVE_CACHE", str(tmp_path / "file" / "seqc"))
    assert loader._native_build(ADD, {"SEQC_MORE": "8"}).parent == loader._native_private()


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(loader._Path, "home", homeless)
    assert loader._native_cache() is None
    assert loader._native_build(ADD, {"SEQC_MORE": "9"}).parent == loader._native_private()


def test_a_text_that_does_not_compile_is_an_error(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not compile[\s\S]*error"):
        loader._native_build("int f( {", {})
    assert not list(cache.glob("*.so"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader._shutil, "which", lambda _: None)
    loader._native_compiler.cache_clear()
    try:
        assert loader._native_compiler() is None
        with pytest.raises(RuntimeError, match="set CXX"):
            loader._native_build(ADD, {})
    finally:
        loader._native_compiler.cache_clear()
