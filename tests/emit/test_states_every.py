"""`states_every=N`: the result, states at positions and their gradients, held against runs that end there."""

from itertools import pairwise
from typing import Any

import pytest
import torch

import seqc

SPEC = """spec station
dim D, N
input x[D, N], g in [-inf, 0]
param R[D, D], w[D] per batch
state h[D] = 0.5, c = 1, S[D, N] = 0
c = exp(g) * c[t-1] + 1
S = exp(g) * S[t-1] + x * w
h = tanh(sum[N](x * S) + c + R @ h[t-1] + 0.1 * h[t-2])
output h
output y = c * sum[D](w)
"""
STATES = ("h", "c", "S", "h_lag2")


@pytest.fixture(scope="module")
def station() -> Any:
    return seqc.compile(SPEC, backend="cpu")


def arguments(count: int, rows: int, steps: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(steps)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float64)

    given = {"x": normal(rows, steps, 3, 2), "g": -normal(rows, steps).abs(), "R": normal(3, 3) / 2, "w": normal(count, 3)}
    given |= {"h_0": normal(count, 3), "h_lag2_0": normal(count, 3), "c_0": normal(count), "S_0": normal(count, 3, 2)}
    return {name: x.requires_grad_() for name, x in given.items()}


def until(f: Any, given: dict[str, torch.Tensor], row: int, low: int, high: int, reverse: bool, rows: slice) -> Any:
    """The run of one sequence over the steps from low up to high."""
    own = {name: x if name == "R" else x[rows, low:high] if name in "xg" else x[row : row + 1] for name, x in given.items()}
    return f(**own, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("steps", "every"), [(7, 3), (6, 3), (2, 3), (0, 2), (4, 1)])
def test_states_are_those_of_runs_that_end_there(station: Any, steps: int, every: int, reverse: bool) -> None:
    given = arguments(2, 2, steps)
    whole = station(**given, reverse=reverse)
    found = station(**given, reverse=reverse, states_every=every)
    assert isinstance(found, type(whole))
    assert len(found) == len(whole)
    torch.testing.assert_close(tuple(found), tuple(whole), rtol=1e-12, atol=1e-12)
    pieces = steps // every
    wanted = {name: torch.zeros_like(getattr(found, f"{name}_every")) for name in STATES}
    for i in range(pieces):
        low, high = (steps - (i + 1) * every, steps) if reverse else (0, (i + 1) * every)
        for b in range(2):
            r = until(station, given, b, low, high, reverse, slice(b, b + 1))
            for name in STATES:
                wanted[name][b, i] = getattr(r, f"{name}_T")[0]
    ends = [getattr(found, f"{name}_every") for name in STATES]
    for end, name in zip(ends, STATES, strict=True):
        assert end.shape[:2] == (2, pieces)
        torch.testing.assert_close(end, wanted[name], rtol=1e-12, atol=1e-12)
    if pieces:
        slopes = [torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape) for x in ends]
        wrt = list(given.values())
        pair = (torch.autograd.grad(ys, wrt, slopes, allow_unused=True) for ys in (ends, list(wanted.values())))
        torch.testing.assert_close(*([*p] for p in pair), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_pack_has_the_states_of_each_sequence(station: Any, reverse: bool) -> None:
    bounds = [0, 5, 5, 11, 12]
    given = arguments(4, 1, 14)  # two steps behind the last sequence
    plain = station(**given, cu_seqlens=bounds, reverse=reverse)
    found = station(**given, cu_seqlens=bounds, reverse=reverse, states_every=2)
    torch.testing.assert_close(tuple(found), tuple(plain), rtol=1e-12, atol=1e-12)
    at = 0
    for i, (before, after) in enumerate(pairwise(bounds)):
        for piece in range((after - before) // 2):
            low, high = (after - 2 * piece - 2, after) if reverse else (before, before + 2 * piece + 2)
            r = until(station, given, i, low, high, reverse, slice(0, 1))
            for name in STATES:
                torch.testing.assert_close(getattr(found, f"{name}_every")[at], getattr(r, f"{name}_T")[0])
            at += 1
    assert at == len(found.h_every) == 5
    wrt = list(given.values())
    slopes = [torch.autograd.grad([y.sin().sum() for y in r], wrt) for r in (plain, found)]
    torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-11)


def test_a_run_goes_on_from_any_of_them_in_a_pack_too(station: Any) -> None:
    given = {name: x.detach() for name, x in arguments(2, 2, 9).items()}
    found = station(**given, states_every=3)
    for i in range(2):
        rest = {name: x[:, 3 * i + 3 :] if name in "xg" else x for name, x in given.items()}
        rest |= {f"{name}_0": getattr(found, f"{name}_every")[:, i] for name in STATES}
        torch.testing.assert_close(station(**rest).h, found.h[:, 3 * i + 3 :])
    tails = {name: torch.cat([given[name][0, 3:], given[name][1, 6:]])[None] for name in "xg"}  # two prefixes that were kept
    tails |= {"R": given["R"], "w": given["w"]}
    starts = {name: getattr(found, f"{name}_every") for name in STATES}
    tails |= {f"{name}_0": torch.stack([x[0, 0], x[1, 1]]) for name, x in starts.items()}
    pack = station(**tails, cu_seqlens=[0, 6, 9])
    torch.testing.assert_close(pack.h[0], torch.cat([found.h[0, 3:], found.h[1, 6:]]))


def test_any_axis_a_module_and_noise(station: Any) -> None:
    given = {name: x.detach() for name, x in arguments(6, 6, 5).items()}
    flat = station(**given, states_every=2)
    turned = {n: x if n == "R" else x.unflatten(0, (2, 3)) for n, x in given.items()}
    turned = {n: x.movedim(2, 0) if n in "xg" else x for n, x in turned.items()}
    found = station(**turned, axis=0, states_every=2)
    torch.testing.assert_close(found.S_every, flat.S_every.movedim(1, 0).unflatten(1, (2, 3)))
    torch.testing.assert_close(found.h, flat.h.movedim(1, 0).unflatten(1, (2, 3)))
    noisy = seqc.compile("spec noisy\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x + normal[D]()\noutput h", "torch")
    layer = noisy.Module(D=1)
    one, two = layer(given["g"][..., None], seed=5), layer(given["g"][..., None], seed=5, states_every=2)
    torch.testing.assert_close(one.h, two.h)
    torch.testing.assert_close(two.h_every, one.h[:, [1, 3]].to(two.h_every.dtype))


def test_what_cannot_be_cut_is_refused(station: Any) -> None:
    given = {name: x.detach() for name, x in arguments(2, 2, 4).items()}
    with pytest.raises(ValueError, match="station: states_every is 0"):
        station(**given, states_every=0)
    with pytest.raises(TypeError, match="states_every is a whole number"):
        station(**given, states_every=2.0)
    with pytest.raises(ValueError, match="station: axis is 5; x has 2 axes before its dims"):
        station(**given, axis=5, states_every=2)
    ahead = seqc.compile("spec ahead\ninput x\nstate h = 0\nh = 0.5 * h[t-1] + x[t+1]\noutput h", "torch")
    with pytest.raises(ValueError, match="ahead: states_every: a run cannot be cut: one step of ahead reads other steps of x"):
        ahead(given["g"], states_every=2)


def test_beside_a_convolution() -> None:
    """The file of a time-invariant system holds its convolution too, and the names of neither hide the other's."""
    spec = "spec average\ninput u\nparam a in [0, 1]\nstate x = 0\nx = a * x[t-1] + u\noutput x"
    average = seqc.compile(spec, backend="torch")
    u, a = torch.randn(2, 7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    found = average(u, a, states_every=2)
    torch.testing.assert_close(found.x_every, found.x[:, 1::2], rtol=1e-12, atol=1e-12)
