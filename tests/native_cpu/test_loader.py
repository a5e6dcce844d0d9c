"""Building and loading: concurrent, interrupted, impossible."""

from __future__ import annotations

import logging
import subprocess
import sys
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


def test_what_a_killed_build_left_is_swept(cache: Path) -> None:
    import os

    old = cache / "build-old"
    old.mkdir()
    os.utime(old, (0, 0))
    loader._native_build(ADD, {"SEQC_MORE": "4"})
    assert not old.exists()


def test_a_text_that_does_not_compile_is_an_error(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not compile[\s\S]*error"):
        loader._native_build("int f( {", {})
    assert not list(cache.glob("*.so"))


def test_no_compiler_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(loader._shutil, "which", lambda _: None)
    loader._native_compiler.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="seqc"):
            assert loader._native_compiler() is None
            assert loader._native_compiler() is None
        assert [r.message for r in caplog.records] == [
            "no C++ compiler found (set CXX): CPU tensors take the plain torch form"
        ]
        with pytest.raises(RuntimeError, match="set CXX"):
            loader._native_build(ADD, {})
    finally:
        loader._native_compiler.cache_clear()
