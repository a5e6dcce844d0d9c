"""Native code behind stages in plain torch: values that are not made yet when it is asked whether it can run."""

from __future__ import annotations

import torch

import seqc

SPEC = """spec a
dim D
input x[D]
param A[D, D], W[D, D]
state h[D] = 0
e = tanh(W @ x)
h = tanh(e + e[t+1] + A @ h[t-1])
output o = h
"""


def test_a_value_of_inputs_is_read_ahead() -> None:
    """The first of the recurrence's inputs has no dims, and a param has the Module's name."""
    torch.manual_seed(0)
    x, A, W = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5, 4), (4, 4), (4, 4)))
    e = torch.tanh(x @ W.T)
    h, rows = torch.zeros(3, 4, dtype=torch.float64), []
    for t in range(5):
        ahead = e[:, t + 1] if t < 4 else torch.zeros_like(h)
        h = torch.tanh(e[:, t] + ahead + h @ A.T)
        rows.append(h)
    wanted = torch.stack(rows, 1)
    found = seqc.compile(SPEC, backend="cpu")(x, A, W).o
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weights = torch.randn_like(wanted)
    for one, other in zip(*(torch.autograd.grad((weights * y).sum(), [x, A, W]) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
