"""Warps of programs that walk step after step: many where time is what a step takes, few where it is what all steps take."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted

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
    text = inspect.getsource(mamba)
    for function in ("_forward_triton", "_infer_triton", "_backward_triton"):
        body = text.partition(f"def {function}(")[2].partition("\ndef ")[0]
        assert "num_warps=_warps(B * ND, u, 4, BD * BN)" in body


@pytest.mark.parametrize("kernel", ["forward", "infer"])
def test_a_walk_loads_a_step_ahead(kernel: str) -> None:
    """Each input is loaded before the walk, and in every step for the next one; only gradients go back over steps otherwise."""
    text = inspect.getsource(emitted("mamba")).partition(f"def mamba_{kernel}_kernel(")[2].partition("\n\n\n")[0]
    before, _, walk = text.partition("for i_t in range(")
    for name in ("u", "delta", "z", "Bt", "Ct"):
        assert f"n_{name} = tl.load(p_{name} + " in before and f"n_{name} = tl.load(p_{name} + " in walk, name
        assert walk.index(f"b_{name} = n_{name}.to(tl.float32)") < walk.index(f"n_{name} = tl.load(")
    assert "num_stages" not in text


def test_a_square_state_is_held_whole(tmp_path: Path) -> None:
    (tmp_path / "square.seq").write_text(SQUARE)
    made = compile_spec(tmp_path / "square.seq", Options("triton"))
    assert "_warps(B, x, 4, BN * BN)" in made.text


@pytest.mark.parametrize("name", ["hgrn", "lstm", "gla"])
def test_other_kernels_have_the_warps_that_they_were_tiled_for(name: str) -> None:
    """Vectors and scans along the steps, and whatever multiplies matrices."""
    assert "_warps(" not in inspect.getsource(emitted(name))


@pytest.mark.parametrize(("name", "has"), [("hgrn", True), ("rwkv4", False), ("gla", True), ("simple_gla", False)])
def test_threads_hold_whole_columns(name: str, has: bool) -> None:
    """Where sums or scans along the steps are of many columns, but not beside a gather of rows, nor for scalar decays."""
    text = inspect.getsource(emitted(name))
    assert ("tl.max_contiguous(tl.arange(0, B" in text) == has == ("COLUMNS=max(B" in text)
