"""Definitions that are read ahead, and are made of earlier values of others: results and gradients of a loop by hand."""

import pytest
import torch

import seqc

SPEC = """spec ahead
dim D
input x[D]
param a
state h[D] = 0
d = a * x
m = h + x
e = d[t-2] + x
k = m[t-2] * x
g = h[t-2] * 2 + e[t-1]
h = 0.5 * h[t-1] + e[t+1] + sin(e[t+2]) + e[t+3] * x
output y = k[t+1] + g[t+1] + h
output z = k[t+2], w = e[t+1]
"""


def by_hand(g: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    x, steps = g["x"], g["x"].shape[1]
    zero = torch.zeros_like(x[:, 0])
    d = [g["d_lag2_0"], g["d_lag1_0"], *(g["a"] * x).unbind(1)]  # d[t] is at place t + 2
    e = [d[t] + x[:, t] for t in range(steps)]
    later = lambda values, t: values[t] if t < steps else zero  # noqa: E731
    h, m, ys, zs = [g["h_lag2_0"], g["h_0"]], [g["m_lag2_0"], g["m_lag1_0"]], [], []
    past = [g["e_lag1_0"], *e]
    for t in range(steps):
        now = x[:, t]
        h.append(0.5 * h[-1] + later(e, t + 1) + torch.sin(later(e, t + 2)) + later(e, t + 3) * now)
        m.append(h[-1] + now)
        one, two = (x[:, t + k] if t + k < steps else zero for k in (1, 2))
        ahead = h[-2] * 2 + past[t + 1] if t + 1 < steps else zero
        ys.append(m[-2] * one + ahead + h[-1])
        zs.append(m[-1] * two)
    outputs = [torch.stack(rows, 1) for rows in (ys, zs, [later(e, t + 1) for t in range(steps)])]
    ends = {"h": h[-1], "h_lag2": h[-2], "d_lag1": d[-1], "d_lag2": d[-2], "m_lag1": m[-1], "m_lag2": m[-2], "e_lag1": e[-1]}
    return [*outputs, *(ends[name.removesuffix("_0")] for name in g if name.endswith("_0"))]


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_definition_of_earlier_values_is_read_ahead(steps: int, reverse: bool) -> None:
    f = seqc.compile(SPEC, "torch")
    make = torch.Generator().manual_seed(steps)
    sizes = {"B": 2, "T": steps, "D": 3}
    given = {
        name: torch.randn([sizes[d] for d in axes.split()], generator=make, dtype=torch.float64).requires_grad_()
        for name, axes in f.module._AXES.items() if "inside" not in name
    }  # fmt: skip
    found = f(**given, reverse=reverse)
    wanted = by_hand({**given, "x": given["x"].flip(1)} if reverse else given)
    wanted = [y.flip(1) if reverse and i < 3 else y for i, y in enumerate(wanted)]
    torch.testing.assert_close(list(found), wanted, rtol=1e-12, atol=1e-12)
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in wanted]
    losses = [sum((y * w).sum() for y, w in zip(one, weights, strict=True)) for one in (found, wanted)]
    pair = [torch.autograd.grad(loss, list(given.values()), allow_unused=True) for loss in losses]
    none = [[torch.zeros_like(x) if d is None else d for x, d in zip(given.values(), one, strict=True)] for one in pair]
    torch.testing.assert_close(*none, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("read", ["e = h[t-1] + x", "e = m[t-1] + x"])
def test_what_is_still_to_come_is_refused(read: str) -> None:
    text = f"spec s\ninput x\nstate h = 0\nm = h * 2\n{read}\nh = 0.5 * h[t-1] + x\noutput y = e[t+2]\n"
    with pytest.raises(seqc.SpecError, match="read 2 steps ahead"):
        seqc.compile(text, "torch")
    assert seqc.compile(text.replace("e[t+2]", "e[t+1]"), "torch")
