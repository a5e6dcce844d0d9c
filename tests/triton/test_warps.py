"""Warps of programs that walk step after step: many where time is what a step takes, few where it is what all steps take."""

from __future__ import annotations

import inspect
import re
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqc.backends.triton_gpu.launcher import warps_of_call
from seqc.backends.triton_gpu.tuning.verdicts import VerdictTable
from seqc.driver.compile import Options, compile_spec
from seqc.driver.explain.gpu_costs import Shape, costs
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load

SQUARE = """spec square
dim N
input x[N]
state P[N, N'] = 0
P = tanh(P[t-1]) + x * x[N -> N']
output y = sum[N'](P)
"""
SPECS = Path(__file__).parents[2] / "specs"


def emitted(name: str) -> ModuleType:
    made = compile_spec(SPECS / f"{name}.seq", Options("triton"))
    return load_emitted(made.text, made.signature.spec)


def test_programs_that_fill_the_device_have_few_warps() -> None:
    """A state of 32 x 16 elements is one warp's where programs are many, one of 32 x 64 keeps its four."""
    mamba = emitted("mamba")
    x = torch.empty(1)
    assert [mamba._warps(programs, x, 4, 32 * 16) for programs in (1, 396, 397, 100_000)] == [4, 4, 1, 1]
    assert [mamba._warps(100_000, x, 4, 32 * n) for n in (1, 16, 32, 64, 256)] == [1, 1, 2, 4, 4]
    for programs, n in product((1, 396, 397, 100_000), (16, 64)):
        assert warps_of_call(programs, 132, 4, 32 * n) == mamba._warps(programs, x, 4, 32 * n)


def test_a_report_counts_the_warps_of_a_call() -> None:
    many, few = costs(load(SPECS / "mamba.seq"), "sm_90", [Shape(8, 64, 32, 128), Shape(1, 64, 1, 64)], {}, VerdictTable())
    assert {" 1 warp," in one.tiles for one in many.training} == {True}
    assert {" 1 warp," in one.tiles for one in few.training} == {False}


def test_a_call_says_how_many_programs_there_are(tmp_path: Path) -> None:
    """Of a spec that the toolchain was not asked about: its tiles have several warps."""
    (tmp_path / "unasked.seq").write_text((SPECS / "mamba.seq").read_text().replace("spec mamba", "spec unasked"))
    text = compile_spec(tmp_path / "unasked.seq", Options("triton")).text
    for function in ("_forward_triton", "_infer_triton", "_backward_triton"):
        body = text.partition(f"def {function}(")[2].partition("\ndef ")[0]
        assert re.search(r"num_warps=_warps\(B \* -\(-D // BD\), u, [48], BD \* BN\)", body), function


@pytest.mark.parametrize("kernel", ["forward", "infer", "backward"])
def test_a_walk_loads_two_steps_ahead(kernel: str) -> None:
    """What a step loads was sent for two steps before, and the steps are printed two by two, so that no register is copied; the
    walk back from step to step sends for the states that it left in scratch too."""
    text = inspect.getsource(emitted("mamba")).partition(f"def mamba_{kernel}_kernel(")[2].partition("\n\n\n")[0]
    before, _, walk = text.rpartition("for i_t in tl.range(")
    assert text.count("loop_unroll_factor=2):") == text.count("for i_t in ") == (2 if kernel == "backward" else 1)
    names = ["u", "delta", "z", "Bt", "Ct"]
    for name in [*names, *(["d_y", "h_again"] if kernel == "backward" else [])]:
        loads = re.findall(rf"(n_\w+) = tl.load\(p_{name} \+ at_", walk)
        assert len(loads) == 1 and before.count(f"{loads[0]} = tl.load(p_{name} + ") >= 1, name
        near = loads[0].removesuffix("_1")
        places = [f" = {near}.to(tl.float32)", f"{near} = {loads[0]}\n", f"tl.load(p_{name} +"]
        assert [*map(walk.index, places)] == sorted(map(walk.index, places))
    assert "num_stages" not in text


def test_exponentials_of_a_walk_are_powers_of_two() -> None:
    """Of tiles as large as the state, the factor on the part that has fewer elements."""
    text = inspect.getsource(emitted("mamba"))
    assert text.count("b_dt * 1.4426950408889634)[:, None] * b_exp_A_log)") == 3 and "tl.exp((" not in text
    assert "tl.exp2(" not in inspect.getsource(emitted("gla"))


def test_a_square_state_is_held_whole(tmp_path: Path) -> None:
    (tmp_path / "square.seq").write_text(SQUARE)
    made = compile_spec(tmp_path / "square.seq", Options("triton"))
    assert "_warps(B, x, 4, BN * BN)" in made.text


@pytest.mark.parametrize("name", ["hgrn", "lstm", "gla"])
def test_other_kernels_have_the_warps_that_they_were_tiled_for(name: str) -> None:
    """Vectors and scans along the steps, and whatever multiplies matrices."""
    assert "_warps(" not in inspect.getsource(emitted(name))


@pytest.mark.parametrize(("name", "has"), [("hgrn", True), ("rwkv4", True), ("gla", True), ("simple_gla", False)])
def test_threads_hold_whole_columns(name: str, has: bool) -> None:
    """Where sums or scans along the steps are of many columns, rows shifted by one too, but not for scalar decays."""
    text = inspect.getsource(emitted(name))
    assert ("tl.max_contiguous(tl.arange(0, B" in text) == has == ("COLUMNS=max(B" in text)
