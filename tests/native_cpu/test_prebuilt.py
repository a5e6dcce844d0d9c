"""Libraries built ahead by `seqc compile --prebuild`: found without a compiler, never run where they cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seqc.backends.native_cpu import loader
from seqc.cli.main import main

ROOT = Path(__file__).parents[2]
SIZES = "H=2,K=5,V=3"
WATCHED = """
spec watched
dim D
input x[D]
param R[D, D]
state h[D] = 0, peak[D] = 0
h = tanh(R @ h[t-1] + x)
peak = max(0.99 * peak[t-1], abs(h))
output h
"""
PROGRAM = """
import importlib.util, sys, torch, warnings
warnings.showwarning = lambda message, *_: print(message)
spec = importlib.util.spec_from_file_location("made", sys.argv[1])
made = importlib.util.module_from_spec(spec)
sys.modules["made"] = made
spec.loader.exec_module(made)
torch.manual_seed(0)
for K in map(int, sys.argv[2].split(",")):
    q, k, v, g = (torch.randn(2, 7, 2, size) for size in (K, K, 3, K))
    arguments = q, k, v, -g.abs(), torch.zeros(2, 2, K, 3)
    for x in arguments[:2]:
        x.requires_grad_()
    print(K, "native" if made._form(*arguments) is made._CPU else "torch")
    o, S_T = made.gla(*arguments[:4])
    gradients = torch.autograd.grad(o.sum() + S_T.sum(), arguments[:2])
    with torch.no_grad():
        want = made._forward_torch(*arguments)
        truth = made._backward_torch(*arguments, *want[2:], *(torch.ones_like(x) for x in want[:2]))
    step = made.gla_step(*(x[:, 0].detach() for x in arguments[:4]))
    for x, y in ((o, want[0]), (S_T, want[1]), (step.o, want[0][:, 0]), *zip(gradients, truth)):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
"""

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")


def made(folder: Path, backend: str) -> Path:
    """A file with a library for SIZES beside it."""
    path = folder / "made.py"
    spec = str(ROOT / "specs" / "gla.seq")
    assert main(["compile", spec, "--backend", backend, "-o", str(path), "--prebuild", SIZES]) == 0
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("built"), "auto")


@pytest.fixture
def file(built: Path, tmp_path: Path) -> Path:
    """A copy of the file and of its library, to be damaged."""
    shutil.copytree(built.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / built.name


def library(file: Path) -> Path:
    (found,) = file.with_suffix(".native").glob("*.so")
    return found


def run(file: Path, sizes: str = "5", compiler: bool = False) -> list[str]:
    """What a process says that runs the file for some sizes of K; without a compiler unless told."""
    env = {**os.environ, "XDG_CACHE_HOME": str(file.parent / "cache")}
    if not compiler:
        env = {**env, "PATH": "", "CXX": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(file), sizes], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_found_without_a_compiler_and_torch_for_other_sizes(file: Path) -> None:
    seen = run(file, "5,6,6")
    assert seen == [
        "5 native",
        "no native kernels for H=2, K=6, V=3 in torch.float32: CPU tensors take the plain torch form, "
        "for no C++ compiler found: install one or set CXX",
        "6 torch",
        "6 torch",
    ]
    assert not (file.parent / "cache").exists()


SEVERAL = """
import runpy, sys, torch
made = runpy.run_path(sys.argv[1])
x, R = torch.randn(2, 3, 4), torch.randn(4, 4, requires_grad=True)
found = made["watched"](x, R)
torch.autograd.grad(found.h.sum() + found.peak_T.sum(), R)
one = made["watched_step"](x[:, 0], R.detach())
torch.testing.assert_close(one.h, found.h[:, 0])
"""


def test_every_library_of_a_file(tmp_path: Path) -> None:
    """Of two recurrences, and of a step of both."""
    spec, path = tmp_path / "watched.seq", tmp_path / "made.py"
    spec.write_text(WATCHED)
    assert main(["compile", str(spec), "--backend", "cpu", "-o", str(path), "--prebuild", "D=4"]) == 0
    assert len([*path.with_suffix(".native").glob("*.so")]) == 3
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "", "CXX": ""}
    done = subprocess.run([sys.executable, "-c", SEVERAL, str(path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


EVENTS = """
spec events
dim N = 4, D
input x[D], w index N
param R[D, D]
state M[N, D] = 0
M[w] = tanh(R @ M[t-1, w] + x)
output o = M[t-1, w]
feedback x = 0.5 * o[t-1]
"""
LOOPED = """
import runpy, sys, torch, warnings
warnings.simplefilter("error")
made = runpy.run_path(sys.argv[1])
x, R, w = torch.randn(2, 5, 3), torch.randn(3, 3, requires_grad=True), torch.tensor([[0, 1, 1, 3, 0]] * 2)
made["events"](x, w, R).o.sum().backward()
made["events_step"](x[:, 0], w[:, 0], R.detach())
made["events_generate"](x[:, :2], w, R, steps=5).o.sum().backward()
"""


def test_libraries_of_what_is_between_rows_and_of_a_closed_loop(tmp_path: Path) -> None:
    spec, path = tmp_path / "events.seq", tmp_path / "made.py"
    spec.write_text(EVENTS)
    assert main(["compile", str(spec), "--backend", "cpu", "-o", str(path), "--prebuild", "D=3"]) == 0
    assert len([*path.with_suffix(".native").glob("*.so")]) == 2
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "", "CXX": ""}
    done = subprocess.run([sys.executable, "-c", LOOPED, str(path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_for_this_backend_alone_says_what_it_lacks(tmp_path: Path) -> None:
    path = made(tmp_path, "cpu")
    assert run(path) == ["5 native"]
    with pytest.raises(AssertionError, match="found: install one or set CXX"):
        run(path, "6")


def test_with_a_compiler_it_is_used_all_the_same(file: Path) -> None:
    assert run(file, compiler=True) == ["5 native"]
    assert not (file.parent / "cache").exists()


@pytest.mark.parametrize("compiler", [False, True])
def test_never_run_on_a_lesser_processor(file: Path, compiler: bool) -> None:
    note = library(file).with_suffix(".json")
    told = json.loads(note.read_text())
    told["processor"] = [*told["processor"][:2], "flags : avx9000"]
    note.write_text(json.dumps(told))
    seen = run(file, compiler=compiler)
    assert f"{library(file)} is not used: this processor lacks avx9000" in seen
    assert ("5 native" if compiler else "5 torch") in seen


def test_never_run_on_another_machine(file: Path) -> None:
    note = library(file).with_suffix(".json")
    told = json.loads(note.read_text())
    told["processor"] = ["Plan9", "vax"]
    note.write_text(json.dumps(told))
    assert f"{library(file)} is not used: it is for Plan9 vax, this is " in run(file)[0]


def test_a_damaged_one_is_not_loaded(file: Path) -> None:
    whole = library(file).read_bytes()
    library(file).write_bytes(whole[: len(whole) // 2])
    seen = run(file)
    assert seen[0] == f"{library(file)} is damaged and not used"
    assert seen[-1] == "5 torch"


def test_what_cannot_be_built_ahead_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(ROOT / "specs" / "gla.seq")
    path = tmp_path / "made.py"
    assert main(["compile", spec, "-o", str(path), "--backend", "cpu", "--prebuild", "H=2"]) == 1
    assert "there are none for K, V" in capsys.readouterr().err
    assert main(["compile", spec, "-o", str(path), "--backend", "torch", "--prebuild", SIZES]) == 1
    assert "the backend `torch` leaves it out" in capsys.readouterr().err
    assert main(["compile", spec, "-o", "-", "--prebuild", SIZES]) == 1
    assert "stdout is none" in capsys.readouterr().err
    assert not path.exists()


CELL = "spec cell\ndim D\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\nh = tanh(x + R @ h[t-1])\noutput h\n"
BATCHES = """
import importlib.util, sys, torch, warnings
warnings.simplefilter("error")
spec = importlib.util.spec_from_file_location("made", sys.argv[1])
made = importlib.util.module_from_spec(spec)
sys.modules["made"] = made
spec.loader.exec_module(made)
for batch in (1, 2, 7):
    x, R, h = torch.randn(batch, 5, 3), torch.randn(3, 3, requires_grad=True), torch.zeros(batch, 3)
    with torch.no_grad():
        made.cell_step(x[:, 0], R)
    made.cell(x, R).h.sum().backward()
    for kernels in (("forward",), ("step",), ("forward", "backward")):
        assert made._form(x, R, h, kernels=kernels) is made._CPU
"""


def test_one_library_serves_every_batch(tmp_path: Path) -> None:
    """Of a recurrence whose kernels are otherwise built for the rows of a batch."""
    spec, path = tmp_path / "cell.seq", tmp_path / "made.py"
    spec.write_text(CELL)
    assert main(["compile", str(spec), "-o", str(path), "--prebuild", "D=3"]) == 0
    assert library(path).is_file()
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "", "CXX": "", "SEQC_BATCHES": ""}
    done = subprocess.run([sys.executable, "-c", BATCHES, str(path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
