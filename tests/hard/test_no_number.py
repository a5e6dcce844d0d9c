"""What elementwise functions make of NaN is the same on every backend, and in the float64 reference: what torch makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqc.semantics import reference
from tests.fuzz.trial import Subject, Wish

MADE = {  # a function of x, and what it is at x = NaN, 2 and -3
    "sign(x)": (0.0, 1.0, -1.0), "abs(x)": (math.nan, 2.0, 3.0), "relu(x)": (math.nan, 2.0, 0.0),
    "max(x, 1)": (math.nan, 2.0, 1.0),
    "min(1, x)": (math.nan, 1.0, -3.0), "clamp(x, -1, 1)": (math.nan, 1.0, -1.0), "floor(x / 2)": (math.nan, 1.0, -2.0),
    "where(x > 0, 1, 2)": (2.0, 1.0, 2.0), "where(not (x <= 0), 1, 2)": (1.0, 1.0, 2.0), "where(x == x, 1, 2)": (2.0, 1.0, 1.0),
}
SPEC = "spec no_number\ninput x\n" + "".join(f"output y{i} = {text}\n" for i, text in enumerate(MADE))
X = (math.nan, 2.0, -3.0)


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_of_nan(backend: str) -> None:
    subject = Subject(SPEC, Wish(backend))
    x = torch.tensor([X], dtype=torch.float32 if backend == "triton" else torch.float64, requires_grad=True)
    with np.errstate(all="ignore"):
        results = subject.function(x)
    for i, want in enumerate(MADE.values()):
        assert results[i][0].tolist() == pytest.approx(want, nan_ok=True)
    assert torch.autograd.grad(results[1].sum(), x)[0].tolist() == [[0.0, 1.0, -1.0]]


def test_of_the_reference() -> None:
    with np.errstate(all="ignore"):
        found = reference.run(Subject(SPEC, Wish("torch")).program, {"x": np.array([X])})
    for i, want in enumerate(MADE.values()):
        assert found[f"y{i}"][0].tolist() == pytest.approx(want, nan_ok=True)
