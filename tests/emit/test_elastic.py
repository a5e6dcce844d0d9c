"""Elastic widths: one layer serves and trains every size of a dim, with the first positions of its parameters."""

from __future__ import annotations

import pytest
import torch

import seqc

SPEC = """spec elastic
dim I, D {2, 4, 6}
input x[I]
param W[D, I], R[D, D], C[I, D], b[D] init 0.1
buffer scale[D] init 1 + index[D] / 10
state h[D] = 0
h = tanh(W @ x + R @ h[t-1] + b) * scale
output y = C @ h
output share = mean[D](h)
"""


def by_hand(layer: torch.nn.Module, x: torch.Tensor, n: int) -> torch.Tensor:
    """The readout of the first n units, by a plain loop."""
    W, R, C = layer.W[:n], layer.R[:n, :n], layer.C[:, :n]
    h, rows = x.new_zeros(len(x), n), []
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ W.T + h @ R.T + layer.b[:n]) * layer.scale[:n]
        rows.append(torch.cat([h @ C.T, h.mean(-1, keepdim=True)], -1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_every_width_is_served_and_trained(backend: str) -> None:
    torch.manual_seed(0)
    layer = seqc.compile(SPEC, backend).Module(I=3, D=6, dtype=torch.float64)
    narrow = {n: layer.at(D=n) for n in (2, 4, 6)}
    assert {n: [*one.parameters()] for n, one in narrow.items()} == {2: [], 4: [], 6: []} and len(layer.state_dict()) == 5
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(2):  # what trains the layer trains its widths
        found = [torch.cat([r.y, r.share[..., None]], -1) for r in (one(x) for one in narrow.values())]
        wanted = [by_hand(layer, x, n) for n in narrow]
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        slopes = [torch.autograd.grad(sum(r.square().sum() for r in rows), [*layer.parameters()]) for rows in (found, wanted)]
        for a, b in zip(*slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
        for p, d in zip(layer.parameters(), slopes[0], strict=True):
            p.grad = d
        optimiser.step()
    step = narrow[4].step(x[:, 0])
    torch.testing.assert_close(step.y, narrow[4](x[:, :1]).y[:, 0], rtol=0, atol=1e-12)


def test_what_is_no_width_is_said() -> None:
    one = seqc.compile(SPEC, "torch")
    layer = one.Module(I=3, D=4)
    some = r"D may be \[2, 4\]"
    for wrong, words in (({"D": 6}, some), ({"D": 3}, some), ({"I": 2}, r"the widths are \['D'\]")):
        with pytest.raises(ValueError, match=words):
            layer.at(**wrong)
    with pytest.raises(AttributeError, match="nothing"):
        _ = layer.nothing
    assert not hasattr(seqc.compile("gru", "torch").Module(H=1, D=2), "at")
