"""Conditions of several taps at once, read tap by tap: a truth value that moves stays one, on every backend.

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
