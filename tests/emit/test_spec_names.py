"""A spec may be called as locals of the emitted file's functions are."""

from __future__ import annotations

import pytest
import torch

import seqc

TEXT = """spec NAME
dim D
input u[D]
param a[D] in [0, 0.9]
state h[D] = 0
h = a * h[t-1] + u
output o = h
"""


NAMES = ("steps", "units", "answers", "first", "results", "states", "count", "own", "every", "given", "x")


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_call_finds_the_function(name: str) -> None:
    f = seqc.compile(TEXT.replace("NAME", name), "torch")
    made = torch.Generator().manual_seed(0)
    u = torch.randn(2, 7, 3, generator=made, dtype=torch.float64)
    a = torch.rand(3, generator=made, dtype=torch.float64)
    h, want = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(7):
        h = a * h + u[:, t]
        want.append(h)
    loop = torch.stack(want, 1)
    torch.testing.assert_close(f(u, a).o, loop)
    torch.testing.assert_close(f.convolution(u, a).o, loop)
    torch.testing.assert_close(f(u.movedim(1, 0), a, axis=0).o, loop.movedim(1, 0))
    kept = f(u, a, states_every=3)
    torch.testing.assert_close(kept.h_every, loop[:, [2, 5]])
