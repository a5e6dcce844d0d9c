"""Layers at several rates: over a whole sequence against loops written by hand, and as it arrives against the whole."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

import seqc
from seqc import nn

LEAKY = "spec leaky\ndim D\ninput x[D]\nparam r[D] init 0.7\nstate h[D] = 0\noutput h = r * h[t-1] + x\n"
AHEAD = "spec ahead\ndim D\ninput x[D]\noutput y = x - 0.5 * x[t+2] + 0.25 * x[t-1]\n"
CUTS = ([0, 23], [0, 1, 4, 4, 11, 12, 20, 23], [*range(24)])


def leaky(width: int) -> torch.nn.Module:
    return seqc.compile(LEAKY, "torch").Module(D=width).double()


def ahead(width: int) -> torch.nn.Module:
    return seqc.compile(AHEAD, "torch", form="step").Module().double()


def sashimi(width: int) -> nn.Chain:
    """Two tiers, the lower at a quarter of the rate and twice as wide (Goel et al. 2022), with residuals."""
    low = nn.Chain(torch.nn.Linear(4 * width, 2 * width), nn.Residual(leaky(2 * width)), torch.nn.Linear(2 * width, 4 * width))
    return nn.Chain(nn.Residual(leaky(width)), nn.Residual(nn.Slower(low, 4)), nn.Residual(leaky(width))).double()


def test_two_tiers() -> None:
    torch.manual_seed(0)
    net = sashimi(3)
    x = torch.randn(2, 22, 3, dtype=torch.float64)
    (first, _, last), low = [one.inner for one in net], net[1].inner.inner
    rows, answers, h, g = [], [], torch.zeros(2, 3).double(), torch.zeros(2, 6).double()
    before = torch.zeros(2, 12).double()
    for t in range(22):
        h = first.r * h + x[:, t]
        rows.append(x[:, t] + h)
        answers.append(rows[-1] + before[:, t % 4 * 3 : t % 4 * 3 + 3])
        if t % 4 == 3:
            z = low[0](torch.cat(rows[-4:], -1))
            g = low[1].inner.r * g + z
            before = low[2](z + g)
    h, out = torch.zeros(2, 3).double(), []
    for y in answers:
        h = last.r * h + y
        out.append(y + h)
    torch.testing.assert_close(net(x), torch.stack(out, 1), rtol=1e-12, atol=1e-12)
    assert net.stream().latency == 0


def half_rate(inner: torch.nn.Module) -> nn.Slower:
    """The first frame alone, then means of two, repeated (Hao and Li 2022)."""
    return nn.Slower(inner, 2, "mean", "repeat", first=1, shift=0)


def test_means_of_frames() -> None:
    torch.manual_seed(0)
    net, x = half_rate(leaky(3)), torch.randn(2, 9, 3, dtype=torch.float64)
    h, out = torch.zeros(2, 3).double(), []
    for t in range(9):
        if t % 2 == 0:
            h = net.inner.r * h + (x[:, 0] if t == 0 else (x[:, t - 1] + x[:, t]) / 2)
        out.append(h)
    torch.testing.assert_close(net(x), torch.stack(out, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cut", CUTS, ids=("whole", "portions", "frames"))
@pytest.mark.parametrize(("make", "latency"), [
    (sashimi, 0), (lambda _: half_rate(leaky(3)), 0), (lambda _: nn.Residual(half_rate(ahead(3))), 4),
    (lambda _: nn.Slower(nn.Chain(ahead(6), leaky(6)), 2), 3), (lambda _: nn.Slower(ahead(3), 3, "sum", "repeat", shift=0), 8),
    (lambda _: nn.Slower(nn.Slower(leaky(3), 2, "last", "repeat"), 3, "mean", "repeat"), 0),
    (lambda _: nn.Chain(torch.nn.Linear(3, 8), nn.layer("gla", 8, backend="torch"), nn.Each(torch.sin)).double(), 0),
])  # fmt: skip
def test_as_it_arrives(make: Callable[[int], Any], latency: int, cut: list[int]) -> None:
    torch.manual_seed(0)
    net = make(3)
    x = torch.randn(2, 23, 3, dtype=torch.float64)
    stream, told = net.stream(), 0
    assert stream.latency == latency
    parts = []
    for a, b in pairwise(cut):
        parts.append(stream.push(x[:, a:b]))
        told += parts[-1].shape[1]
        assert told >= b - latency
    torch.testing.assert_close(torch.cat([*parts, stream.flush()], 1), net(x), rtol=1e-12, atol=1e-12)


def test_refused() -> None:
    with pytest.raises(TypeError, match=r"Conv1d has no stream: where it treats every step by itself, write Each\(Conv1d"):
        nn.Chain(torch.nn.Conv1d(1, 1, 1)).stream()
    with pytest.raises(ValueError, match="steps=0, first=None, shift=1"):
        nn.Slower(torch.nn.Identity(), 0)
    with pytest.raises(ValueError, match="down is one of stack, mean, sum, last"):
        nn.Slower(torch.nn.Identity(), 2, "max")
