"""Conditions and positions that move: read tap by tap, or made in steps of a scan, they stay what they are, on every backend.

A variance is made of the last L squared shocks, negative ones with a weight of their own; where the sequence has no such step,
a constant stands for them; the variance is cut on either side (as in MIDAS models, Ghysels et al. 2006). The other side is a
loop over steps and lags in plain torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.fuzz.trial import Subject, Wish

SPEC = """spec shocks
dim L = 5
input r, lo in [0, inf], hi in [0, inf], one
param w, a, g, weights[L], start
there = one[t-1-index[L]] > 0
neg = r[t-1-index[L]] < 0
s = w + sum[L](where(there, (a * weights + g * weights * neg) * r[t-1-index[L]]^2, (a * weights + 0.5 * g * weights) * start))
output v = where(s < lo, lo, where(s > hi, hi + log(s / hi), s))
"""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def by_hand(given: dict[str, Any]) -> Any:
    """The variances of all steps."""
    rows = []
    for t in range(given["r"].shape[1]):
        s = given["w"] + torch.zeros_like(given["r"][:, t])
        for i in range(5):
            if t - i - 1 >= 0:
                shock = given["r"][:, t - i - 1]
                s = s + (given["a"] + given["g"] * (shock < 0)) * given["weights"][i] * shock**2
            else:
                s = s + (given["a"] + 0.5 * given["g"]) * given["weights"][i] * given["start"]
        lo, hi = given["lo"][:, t], given["hi"][:, t]
        rows.append(torch.where(s < lo, lo, torch.where(s > hi, hi + torch.log(s / hi), s)))
    return torch.stack(rows, 1)


WALK = """spec walk
dim N = 4, J = 3
input x[J], y[N]
state h = 0
a, ok = scan[J](a = h[t-1], ok = h[t-1] > 0, a, ok -> where(ok, 0.5 * a + x, a), ok and x > -0.5)
p = scan[J](argmax[N](y), at -> position[N](at + 1 + (x > 0)))
h = a[J = 2] + ok[J = 1] + sum[J](where(ok, a, 0.1) * y[p]) * y[p[J = 0]]
output h
output ok, p
"""


def walked(given: dict[str, Any]) -> Any:
    """h of all steps, and the conditions and positions of their scans."""
    h, rows = given["h_0"], []
    for t in range(given["x"].shape[1]):
        a, ok, place, made = h, h > 0, given["y"][:, t].argmax(-1), []
        for x in given["x"][:, t].unbind(-1):
            a, ok, place = torch.where(ok, 0.5 * a + x, a), ok & (x > -0.5), (place + 1 + (x > 0)).clamp(max=3)
            made.append((a, ok, place, given["y"][:, t].gather(1, place[:, None])[:, 0]))
        total = torch.stack([torch.where(ok, a, 0.1) * y for a, ok, _, y in made]).sum(0)
        h = made[2][0] + made[1][1].to(h.dtype) + total * made[0][3]
        rows.append((h, *(torch.stack([one[k] for one in made], -1).to(h.dtype) for k in (1, 2))))
    return [torch.stack(part, 1) for part in zip(*rows, strict=True)]


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float64), ("triton", torch.float32)])
def test_conditions_of_taps(backend: str, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    given = {"r": normal(2, 9), "lo": normal(2, 9).abs() * 0.2 + 0.3, "hi": normal(2, 9).abs() * 0.3 + 0.9,
             "one": torch.ones(2, 9), "w": torch.tensor(0.1), "a": torch.tensor(0.6), "g": torch.tensor(0.3),
             "weights": normal(5).softmax(0),
             "start": torch.tensor(0.7)}
    weight = normal(2, 9).to(dtype)
    found = []
    for call, kind in ((by_hand, torch.float64), (lambda x: Subject(SPEC, Wish(backend)).function(**x).v, dtype)):
        leaves = {n: x.to(dtype).to(kind).requires_grad_(n != "one") for n, x in given.items()}
        with np.errstate(all="ignore"):
            result = call(leaves)
            moved = [x for x in leaves.values() if x.requires_grad]
            found.append((result, *torch.autograd.grad((result * weight.to(kind)).sum(), moved)))
    v = found[0][0]
    assert bool((v == given["lo"].to(dtype)).any()) and bool((v > given["hi"]).any())  # every branch is taken
    for one, other in zip(*found, strict=True):
        assert float((one - other).detach().abs().max()) <= TOLERANCE[dtype] * max(1.0, float(one.detach().abs().max()))


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float64), ("triton", torch.float32)])
def test_scans_of_conditions_and_positions(backend: str, dtype: torch.dtype) -> None:
    rng, found = torch.Generator().manual_seed(2), []
    given = {n: torch.randn(shape, generator=rng, dtype=torch.float64) for n, shape in
             (("x", (3, 5, 3)), ("y", (3, 5, 4)), ("h_0", (3,)))}
    for call, kind in ((walked, torch.float64), (lambda x: Subject(WALK, Wish(backend)).function(**x)[:3], dtype)):
        leaves = {n: x.to(dtype).to(kind).requires_grad_() for n, x in given.items()}
        with np.errstate(all="ignore"):
            results = call(leaves)
            loss = (results[0] * torch.linspace(-1, 1, 15, dtype=kind).reshape(3, 5)).sum()
            found.append((*results, *torch.autograd.grad(loss, [*leaves.values()])))
    for one, other in zip(*found, strict=True):
        assert float((one - other).detach().abs().max()) <= TOLERANCE[dtype] * max(1.0, float(one.detach().abs().max()))
