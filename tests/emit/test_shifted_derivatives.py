"""Second derivatives and forward mode of specs that read inputs of other steps: windows, shifts, look-ahead, on every backend.

The judge is torch's autograd over a loop written here.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted

TAPS = """spec taps
dim D
dim L = 3
input x[D], g[D] in [-inf, 0], x_before1[D]
param w[L, D]
state h[D] = 0
e = tanh(x * x_before1)
u = silu(sum[L](w * x[t - index[L]])) + e[t+1]
h = exp(g) * h[t-1] + u * x_before1[t-1]
output o = h * g[t+2]
"""
BACKENDS = ("torch", "cpu", "triton")
BOUNDS = (0, 3, 4, 6)
Arguments = tuple[Tensor, ...]


@cache
def module(backend: str) -> Any:
    return load_emitted(compile_spec(TAPS, Options(backend)).text, "taps")


def loop(x: Tensor, g: Tensor, b: Tensor, w: Tensor, h: Tensor, back: bool) -> Arguments:
    steps, one, rows = x.shape[1], -1 if back else 1, {}

    def at(y: Tensor, t: int) -> Tensor:
        return y[:, t] if 0 <= t < steps else torch.zeros_like(y[:, 0])

    for t in reversed(range(steps)) if back else range(steps):
        seen = sum(w[k] * at(x, t - k * one) for k in range(3))
        u = torch.nn.functional.silu(seen) + torch.tanh(at(x, t + one) * at(b, t + one))
        h = torch.exp(g[:, t]) * h + u * at(b, t - one)
        rows[t] = h * at(g, t + 2 * one)
    return torch.stack([rows[t] for t in range(steps)], 1), h


def packed_loop(*given: Tensor, back: bool) -> Arguments:
    *inputs, w, h = given
    parts = [loop(*(y[:, i:j] for y in inputs), w, h[k : k + 1], back)
             for k, (i, j) in enumerate(pairwise(BOUNDS))]
    return torch.cat([o for o, _ in parts], 1), torch.cat([h for _, h in parts])


def drawn(pack: bool) -> Arguments:
    torch.manual_seed(1)
    rows, steps, states = (1, BOUNDS[-1], len(BOUNDS) - 1) if pack else (2, 5, 2)
    x, g, b = torch.randn(3, rows, steps, 2, dtype=torch.float64)
    return x, -g.abs(), b, torch.randn(3, 2, dtype=torch.float64), torch.randn(states, 2, dtype=torch.float64)


def scored(results: Arguments) -> Tensor:
    return sum((r * r * torch.arange(1, r.numel() + 1).view(r.shape)).sum() for r in results)  # type: ignore[return-value]


@pytest.mark.parametrize("pack", [False, True], ids=["batch", "pack"])
@pytest.mark.parametrize("back", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_and_tangents_are_those_of_a_loop(backend: str, back: bool, pack: bool) -> None:
    given, bounds = drawn(pack), torch.tensor(BOUNDS) if pack else None

    def call(*a: Tensor) -> Arguments:
        return tuple(module(backend).taps(*a[:4], h_0=a[4], reverse=back, cu_seqlens=bounds))

    def truth(*a: Tensor) -> Arguments:
        return packed_loop(*a, back=back) if pack else loop(*a, back)

    found = []
    for f in (call, truth):
        own = [y.clone().requires_grad_() for y in given]
        first = torch.autograd.grad(scored(f(*own)), own, create_graph=True)
        second = torch.autograd.grad(scored(first), own)
        moved = torch.func.jvp(f, given, tuple(torch.cos(y) for y in given))[1]
        found.append([*first, *second, *moved])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_levels_of_func() -> None:
    """`hessian` is forward mode over a gradient, `jacrev` of `jacrev` two levels of gradients; `vmap` is inside of both."""
    x, g, b, w, h = drawn(False)
    want = torch.autograd.functional.hessian(lambda w: scored(loop(x, g, b, w, h, False)), w)
    for second in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        torch.testing.assert_close(second(lambda w: scored(tuple(module("cpu").taps(x, g, b, w, h_0=h))))(w), want)
