"""Sums over many lags of an input: results and gradients against loops in float64, in every backend, packed and backwards."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from tests.emit.taps import CASES, differences

ROOT = Path(__file__).parents[2]


@cache
def made(name: str, backend: str, more: str = "") -> tuple[ModuleType, Any]:
    """The module of a case, and its compiled file."""
    compiled = compile_program(load(CASES[name].text(name) + more), Options(backend))
    return load_emitted(compiled.text, compiled.signature.spec), compiled


@pytest.mark.parametrize("bounds", [None, (0, 3, 3, 60, 61, 75)], ids=["batch", "pack"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_taps(name: str, backend: str, reverse: bool, bounds: tuple[int, ...] | None) -> None:
    if name == "both" and reverse:
        pytest.skip("the two runs are exchanged: `test_two_runs`")
    module, compiled = made(name, backend)
    dtype = torch.float64 if backend == "torch" else torch.float32
    for what, value, truth in differences(name, module, compiled.signature, dtype, bounds, reverse):
        error = (value.to(torch.float64) - truth).abs().max() / truth.abs().max().clamp(min=1.0)
        assert error < (1e-12 if backend == "torch" else 1e-5), what


@pytest.mark.parametrize("name", CASES)
def test_stages(name: str) -> None:
    """A sum of products is one convolution; kernels see no lag but those of what is none."""
    _, compiled = made(name, "cpu")
    assert sum(stage.walk == "taps" for stage in compiled.plan.every()) == CASES[name].stages


@pytest.mark.parametrize("steps", [1, 2, 41])
def test_few_steps(steps: int) -> None:
    """Fewer steps than taps."""
    for name in ("fir", "dilated", "rising"):
        module, compiled = made(name, "torch")
        for what, value, truth in differences(name, module, compiled.signature, torch.float64, None, False, steps):
            assert torch.allclose(value, truth, rtol=1e-11, atol=1e-12), what


def test_in_the_interpreter() -> None:
    """Triton's kernels, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.emit.taps_interpreted"], capture_output=True, text=True, timeout=900, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
