"""Counting by reflections: eigenvalues of exactly 1 and -1 over as many as 200,000 steps, in float32 and bfloat16.

A step of the delta rule with a unit key and beta = 2 is a reflection; two of them turn the state by twice the angle between
their keys. So a state that starts at the identity holds the sum of all inputs modulo m as an angle, and modulo 2 as a sign
(Grazzi et al. 2024, arXiv:2411.12537). Nothing may grow, fade or drift. Keys are float32 numbers whose norm is one to 1e-8 or
so (`unit`); roundoff of 6e-8 a step, at random, is 3e-5 after 200,000 steps and 1e-2 if it all went one way: 1e-3 is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.backends import native_cpu, torch_eager
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from tests.parts import loaded

ROOT = Path(__file__).parents[2]
DRIFT = 1e-3
STEPS = {"native": 200_000, "chunks": 20_000}
Call = Callable[..., Any]


@cache
def infer(name: str, backend: str) -> Call:
    """A spec's results, given its arguments by name: native code, or blocks of 64 rows in plain torch."""
    program = elaborate.load(ROOT / "specs" / f"{name}.seq")
    if backend == "native":
        function = loaded(native_cpu.emit(lower(program, "step")).alone, program, name)._infer_cpu
    else:
        block = lower(program, "chunkwise", 64)
        function = loaded(torch_eager.emit(block).text, program, name)._forward_torch
    order = [*program.inputs, *program.params, *(f"{s}_0" for s in program.states)]
    return lambda **given: function(*(given[key].contiguous() for key in order))


def unit(angle: float) -> Any:
    """The key at an angle: of the float32 pairs near it, the one whose norm is nearest to one."""
    exact = np.float32([np.cos(angle), np.sin(angle)])
    around = [[x + np.float32(i) * np.spacing(x) for i in range(-8, 9)] for x in exact]
    pairs = np.array([(x, y) for x in around[0] for y in around[1]], dtype=np.float64)
    return pairs[np.argmin(np.abs((pairs**2).sum(1) - 1))]


@pytest.mark.parametrize("backend", STEPS)
@pytest.mark.parametrize("modulus", [2, 3, 5, 60])
def test_two_reflections_a_step_count_modulo_m(modulus: int, backend: str) -> None:
    steps = STEPS[backend]
    x = np.random.default_rng(modulus).integers(0, modulus, steps)
    k = torch.zeros(1, steps, 2, 1, 2)
    k[0, :, 0, 0, 0] = 1.0
    k[0, :, 1, 0] = torch.tensor(np.array([unit(np.pi * i / modulus) for i in range(modulus)])[x]).float()
    q = torch.tensor([2**0.5, 0.0]).expand(1, steps, 1, 2)  # the readout is divided by the square root of 2
    o = infer("delta_product", backend)(
        q=q, k=k, v=torch.zeros(1, steps, 2, 1, 2), beta=torch.full((1, steps, 2, 1), 2.0), S_0=torch.eye(2)[None, None]
    )[0][0, :, 0].double().numpy()
    turns = np.arctan2(-o[:, 1], o[:, 0]) * modulus / (2 * np.pi)
    assert np.array_equal(np.rint(turns) % modulus, np.cumsum(x) % modulus)
    assert np.abs(np.linalg.norm(o, axis=1) - 1).max() <= DRIFT
    assert np.abs(turns - np.rint(turns)).max() <= 0.1


@pytest.mark.parametrize("backend", STEPS)
def test_parity_is_exact(backend: str) -> None:
    steps = STEPS[backend]
    x = np.random.default_rng(0).integers(0, 2, steps)
    one = torch.zeros(1, steps, 1, 4)
    one[..., 0] = 1.0
    beta = torch.tensor(2.0 * x).float()[None, :, None]
    o = infer("delta_rule", backend)(
        q=one, k=one, v=torch.zeros(1, steps, 1, 1), beta=beta, S_0=torch.ones(1, 1, 4, 1)
    )[0].flatten()
    assert np.array_equal(o.numpy(), np.where(np.cumsum(x) % 2, -0.5, 0.5))


def test_parity_is_exact_in_bfloat16() -> None:
    steps = 4000
    rule = seqc.compile(ROOT / "specs" / "delta_rule.seq")
    x = np.random.default_rng(0).integers(0, 2, steps)
    one = torch.zeros(1, steps, 1, 4, dtype=torch.bfloat16)
    one[..., 0] = 1.0
    beta = torch.tensor(2.0 * x).to(torch.bfloat16)[None, :, None]
    o, last = rule(one, torch.zeros(1, steps, 1, 1, dtype=torch.bfloat16), one, beta, S_0=torch.ones(1, 1, 4, 1))
    assert o.dtype == torch.bfloat16 and last.dtype == torch.float32
    assert np.array_equal(o.float().flatten().numpy(), np.where(np.cumsum(x) % 2, -0.5, 0.5))
    assert torch.equal(last.abs(), torch.ones_like(last))
