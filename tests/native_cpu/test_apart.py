"""Elements that do not lie beside each other: whole vectors of them, and parts of vectors at the end of a dim."""

from __future__ import annotations

import pytest
import torch

import seqc
from seqc.backends.native_cpu import loader

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")
SPEC = """spec apart
dim D, G
input x[D, G], u[D]
param w[G]
state h[D, G] = 0
h = 0.5 * h[t-1] + x + shift[D](u, 2)
m = sum[D](h * h)
output y[G] = m * w
output z[D] = sum[G](h * w) + shift[D](u, -1)
"""


@pytest.mark.parametrize("extents", [(3, 2), (16, 2), (40, 3), (67, 5), (2, 33)])
def test_vectors_of_elements_that_lie_apart(extents: tuple[int, int]) -> None:
    D, G = extents
    torch.manual_seed(D)
    x = torch.randn(2, 4, D, G, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 4, D, dtype=torch.float64, requires_grad=True)
    w = torch.randn(G, dtype=torch.float64, requires_grad=True)
    h, ys, zs = torch.zeros(2, D, G, dtype=torch.float64), list[torch.Tensor](), list[torch.Tensor]()
    for t in range(4):
        moved = torch.zeros_like(u[:, t])
        moved[:, 2:] = u[:, t, :-2]
        ahead = torch.zeros_like(moved)
        ahead[:, :-1] = u[:, t, 1:]
        h = 0.5 * h + x[:, t] + moved[..., None]
        ys.append((h * h).sum(1) * w)
        zs.append((h * w).sum(-1) + ahead)
    want = torch.stack(ys, 1), torch.stack(zs, 1)
    got = seqc.compile(SPEC, backend="cpu")(x, u, w)
    torch.testing.assert_close((got.y, got.z), want)
    for one, other in zip(*(torch.autograd.grad((y.sin() + 0.1 * y).sum() + z.cos().sum(), (x, u, w))
                            for y, z in ((got.y, got.z), want)), strict=True):
        torch.testing.assert_close(one, other)
