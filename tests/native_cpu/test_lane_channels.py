"""A few channels over a long time, in pieces over the lanes of a vector: the numbers of loops that are written by hand."""

from typing import Any

import pytest
import torch

import seqc
from seqc.backends.native_cpu.loader import _native_compiler

pytestmark = pytest.mark.skipif(_native_compiler() is None, reason="no C++ compiler")

FILTERS = """spec filters
dim D, C = 3, L = 2
input x[D], u[D]
param b[C, D], a[D, L], k, w[D]
state y[D] lag 2 = 0.5, z[D] = w
y = sum[C](b * x[t - index[C]]) * exp(k) - sum[L](a * y[t - 1 - index[L]])
z = sigmoid(u) * z[t-1] + k * y[t-1]
output y[D]
output e[D] = z * w + y[t-2]
"""
SIZES = {"C": 3, "L": 2}
STEPS = 2333


@pytest.fixture(scope="module", params=[2, 3, 5])
def filters(request: pytest.FixtureRequest) -> tuple[Any, int]:
    return seqc.compile(FILTERS, "cpu", dims={"D": request.param}), request.param


def by_hand(g: dict[str, Any]) -> dict[str, torch.Tensor]:
    """[B, T, D], step by step."""
    x, a = g["x"], g["a"]
    past, z, y, e = [g["y_lag2_0"], g["y_0"]], g["z_0"], [], []
    for t in range(x.shape[1]):
        fir = sum(g["b"][i] * x[:, t - i] for i in range(3) if t >= i) * g["k"].exp()
        now = fir - a[:, 0] * past[-1] - a[:, 1] * past[-2]
        z = torch.sigmoid(g["u"][:, t]) * z + g["k"] * past[-1]
        e.append(z * g["w"] + past[-2])
        past = [past[-1], now]
        y.append(now)
    return {"y": torch.stack(y, 1), "e": torch.stack(e, 1), "y_T": past[-1], "y_lag2_T": past[-2], "z_T": z}


def arguments(f: Any, channels: int, rows: int, count: int, steps: int) -> dict[str, torch.Tensor]:
    make, given = torch.Generator().manual_seed(channels), {}
    for name, axes in f.module._AXES.items():
        sizes = {"B": rows if "T" in axes else count, "T": steps, "D": channels, **SIZES}
        given[name] = (torch.rand([sizes[d] for d in axes.split()], generator=make, dtype=torch.float64) - 0.5) * 0.9
    return {n: x.requires_grad_() for n, x in given.items()}


@pytest.mark.parametrize("reverse", [False, True])
def test_channels_are_loops_by_hand(filters: tuple[Any, int], reverse: bool) -> None:
    f, channels = filters
    assert f"constexpr int D = {channels};" in f.source
    assert "lanes_backward::run_lanes" in f.source
    given = arguments(f, channels, 2, 2, STEPS)
    got = f(**given, reverse=reverse)
    turned = {n: x.flip(1) if reverse and n in ("x", "u") else x for n, x in given.items()}
    want = {n: x.flip(1) if reverse and n in ("y", "e") else x for n, x in by_hand(turned).items()}
    weights = {n: torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape) for n, x in want.items()}
    for name, x in want.items():
        torch.testing.assert_close(getattr(got, name), x, rtol=1e-11, atol=1e-12)
    found = torch.autograd.grad([getattr(got, n) for n in want], list(given.values()), list(weights.values()))
    wanted = torch.autograd.grad(list(want.values()), list(given.values()), list(weights.values()))
    for name, one, other in zip(given, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


def test_a_pack_is_its_sequences(filters: tuple[Any, int]) -> None:
    f, channels = filters
    bounds = [0, 5, 5, STEPS + 5, STEPS + 300]
    given = {n: x.detach() for n, x in arguments(f, channels, 1, 4, bounds[-1]).items()}
    with torch.no_grad():
        whole = f(**given, cu_seqlens=bounds)
        for i in (0, 2, 3):
            own = {n: x[:, bounds[i] : bounds[i + 1]] if n in ("x", "u") else x[i : i + 1] if n.endswith("_0") else x
                   for n, x in given.items()}
            for name, x in f(**own)._asdict().items():
                got = getattr(whole, name)
                assert torch.equal(got[:, bounds[i] : bounds[i + 1]] if name in ("y", "e") else got[i : i + 1], x)


def test_channels_that_meet_are_left() -> None:
    for text in (FILTERS.replace("k * y[t-1]", "sum[D](y[t-1])"), FILTERS.replace("exp(k)", "(exp(k) + index[D])")):
        assert "run_lanes" not in seqc.compile(text, "cpu", dims={"D": 2}).source
    assert "run_lanes" not in seqc.compile(FILTERS, "cpu", dims={"D": 6}).source
