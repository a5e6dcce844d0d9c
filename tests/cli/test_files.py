"""Files and interruptions: output is whole or not there, a spec stays what it was, and every failure is a diagnostic."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqc import files
from seqc.backends.native_cpu import loader
from seqc.diagnostics import Refusal

ROOT = Path(__file__).parents[2]
SPEC = "spec leaky\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n"
Seqc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "leaky.seq"
    path.write_text(SPEC)
    return path


def left(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "compile SPEC --backend torch -o DIR/none/x.py",
        "compile SPEC --backend torch -o DIR",
        "compile SPEC --backend torch -o DIR/leaky.seq/x.py",
        "compile SPEC --backend torch -o /dev/full",
        "compile SPEC --backend torch -o /proc/nothing/x.py",
        "compile SPEC --backend torch -o DIR/loop",
        "compile SPEC --backend torch -o DIR/x.py --dump /dev/null/x",
        "compile SPEC --backend torch -o DIR/x.py --dump SPEC",
        "compile SPEC --backend torch -o " + "n" * 300,
        "compile DIR",
        "compile /dev/zero",
        "compile DIR/loop",
        "compile SPEC --backend cpu -o /dev/null --prebuild D=4",
        "bench SPEC --size T=0",
        "check DIR /dev/full",
        "explain DIR/none.seq",
        "graph SPEC -o /dev/null",
        "graph SPEC -o DIR/leaky.seq/graphs",
        "fmt DIR",
        "new x -o DIR/none/x.seq",
        "new x -o DIR",
        "new x -o /dev/full",
        "report DIR",
        "tiles /dev/null",
        "bench DIR",
        "verify DIR",
        "verify SPEC --device gpu",
        "verify SPEC --device cuda:x",
        "verify SPEC --device cuda:99",
        "verify SPEC --device meta",
    ],
)
def test_no_path_and_no_device_ends_in_a_traceback(seqc: Seqc, spec: Path, tmp_path: Path, words: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = left(tmp_path)
    code, out, err = seqc(*words.replace("SPEC", str(spec)).replace("DIR", str(tmp_path)).split())
    assert (code, out) == (1, ""), err
    assert err.startswith(("error[", "unsupported[")) and "Traceback" not in err
    assert spec.read_text() == SPEC and [name for name in left(tmp_path) if name != "x.py"] == before
    assert not (tmp_path / "x.py").exists() or "--dump" not in words


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_may_not_be_written(seqc: Seqc, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert seqc("compile", spec, "--backend", "torch", "-o", tmp_path / "closed" / "x.py")[0] == 1


@pytest.mark.parametrize("how", ["itself", "link", "hard link", "other spelling"])
def test_the_spec_is_never_written(seqc: Seqc, spec: Path, tmp_path: Path, how: str) -> None:
    other = tmp_path / "other.py"
    if how == "link":
        other.symlink_to(spec)
    elif how == "hard link":
        other.hardlink_to(spec)
    path = {"itself": spec, "other spelling": f"{tmp_path}/./../{tmp_path.name}/leaky.seq"}.get(how, other)
    code, _, err = seqc("compile", spec, "--backend", "torch", "-o", path)
    assert code == 1 and "it is the spec itself" in err and spec.read_text() == SPEC


def test_devices_links_and_permissions(seqc: Seqc, spec: Path, tmp_path: Path) -> None:
    words = ("compile", spec, "--backend", "torch", "-o")
    assert seqc(*words, "/dev/null")[0] == 0 and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    target, link = tmp_path / "target.py", tmp_path / "link.py"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert seqc(*words, link)[0] == 0
    assert link.is_symlink() and "Made by seqc" in target.read_text() and stat.S_IMODE(target.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling.py"
    dangling.symlink_to(tmp_path / "fresh.py")
    assert seqc(*words, dangling)[0] == 0 and (tmp_path / "fresh.py").read_text() == target.read_text()
    assert left(tmp_path) == ["dangling.py", "fresh.py", "leaky.seq", "link.py", "target.py"]


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.py"
    path.write_text("old")

    def full(handle: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Refusal, match="No space left on device"):
            files.write(path, "new")
    assert path.read_text() == "old" and left(tmp_path) == ["x.py"]


@pytest.mark.parametrize(
    ("char", "place"), [("\0", "2:5"), ("\x1b[31m", "2:5"), ("\x85", "2:5"), ("\u202e", "2:5"), ("\f", "2:5")]
)
def test_control_characters_are_diagnostics(seqc: Seqc, tmp_path: Path, char: str, place: str) -> None:
    path = tmp_path / "bad.seq"
    path.write_text(f'spec n\n"""a{char}b"""\ninput x\noutput y = 2 * x\n', newline="")
    for command in ("compile", "check", "fmt", "explain"):
        code, _, err = seqc(command, path)
        assert code == 1 and "error[control-character]" in err and f"bad.seq:{place}" in err
        assert err.isascii() or char[0] not in err


def test_line_ends_of_other_systems_are_read(seqc: Seqc, spec: Path, tmp_path: Path) -> None:
    told = seqc("compile", spec, "--backend", "torch", "-o", "-")[1]
    for end in ("\r\n", "\r"):
        other = tmp_path / "other.seq"
        other.write_text(SPEC.replace("\n", end), newline="")
        assert seqc("compile", other, "--backend", "torch", "-o", "-")[1] == told


def started(*words: str, before: str = "", **streams: Any) -> subprocess.Popen[bytes]:
    """`seqc` in a process of its own. before: a statement that runs first."""
    program = f"from seqc.cli.main import main\n{before}\nraise SystemExit(main({list(words)}))"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, **(pipes | streams))


def test_what_standard_output_refuses_is_told_once(spec: Path) -> None:
    with open("/dev/full", "wb") as full, started("fmt", str(spec), stdout=full) as one:
        assert one.communicate(timeout=60)[1] == b"error[system]: No space left on device\n" and one.returncode == 1


def test_a_reader_that_goes_away_and_an_interruption_are_quiet() -> None:
    with started("fmt", "-") as one:
        assert one.stdout is not None
        one.stdout.close()
        one.stdout = None
        assert one.communicate(SPEC.encode(), timeout=60)[1] == b"" and one.returncode == 0
    heard = "import os, signal, threading; signal.signal(2, signal.default_int_handler)"  # a background job ignores it
    later = f"{heard}; threading.Timer(1, os.kill, (os.getpid(), 2)).start()"
    with started("check", "-", before=later) as one:  # waits for its input, and is interrupted
        assert one.wait(timeout=60) == 130 and one.communicate() == (b"", b"")


def test_standard_streams_that_are_closed(spec: Path) -> None:
    for closed in ("stdout", "stderr"):
        with started("check", str(spec), before=f"import sys\nsys.{closed} = None") as one:
            out, err = one.communicate(timeout=60)
            assert (one.returncode, err) == (0, b"") and (b"ok" in out) == (closed == "stderr")


def test_a_dump_that_is_none_and_a_compiler_that_is_none(
    seqc: Seqc, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = tmp_path / "a.ir"
    dump.write_text("garbage\n")
    code, _, err = seqc("pass", "simplify", dump)
    assert code == 1 and "is no dump" in err and "did you mean" not in err
    code, _, err = seqc("pass", "simplify", tmp_path / "missing.ir")
    assert code == 1 and err.count("missing.ir") == 1 and "Errno" not in err
    monkeypatch.setenv("CXX", "/missing")
    loader._native_search.cache_clear()
    try:
        code, _, err = seqc("verify", spec, "--backend", "cpu")
    finally:
        loader._native_search.cache_clear()
    assert code == 1 and err.startswith("unsupported[no-compiler]: CXX is `/missing`") and "--backend torch" in err
