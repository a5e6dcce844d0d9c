"""`axis=`: the steps lie along any axis before the dims. Every call is compared with calls on arrays turned by hand."""

from itertools import product
from typing import Any

import pytest
import torch

import seqc

SPEC = """spec mixed
dim D, N
input x[D, N], g in [-inf, 0]
param R[D, D] per batch, w[D]
state h[D] = 0, c = 1
c = exp(g) * c[t-1] + 1
h = tanh(w * sum[N](x) + c + R @ h[t-1])
output h
output y = c * sum[D](w)
"""


@pytest.fixture(scope="module")
def mixed() -> Any:
    return seqc.compile(SPEC)


def arguments(lead: tuple[int, ...], steps: int, axis: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(len(lead) + axis)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float64)

    long = [*lead]
    long.insert(axis, steps)
    given = {"x": normal(*long, 3, 2), "g": -normal(*long).abs(), "R": normal(*lead, 3, 3) / 2, "w": normal(3)}
    given |= {"h_0": normal(*lead, 3), "c_0": normal(*lead)}
    return {name: x.requires_grad_() for name, x in given.items()}


@pytest.mark.parametrize(("lead", "axis", "reverse"), [
    ((2,), 0, False), ((2, 3), 0, True), ((2, 3), 1, False), ((2, 3), 2, True), ((), 0, False), ((2, 1, 3), 1, False),
    ((2, 0), 1, False),
])  # fmt: skip
def test_any_axis_is_single_sequences(mixed: Any, lead: tuple[int, ...], axis: int, reverse: bool) -> None:
    given = arguments(lead, 5, axis)
    found = mixed(**given, axis=axis, reverse=reverse)
    wanted = [torch.zeros_like(y) for y in found]
    rows = {name: x if name == "w" else x.movedim(axis, len(lead)) if name in "xg" else x for name, x in given.items()}
    for at in product(*map(range, lead)):
        one = mixed(**{name: x if name == "w" else x[at][None] for name, x in rows.items()}, reverse=reverse)
        for whole, y in zip((w.movedim(axis, len(lead)) if i < 2 else w for i, w in enumerate(wanted)), one, strict=True):
            whole[at] = y[0]
    for got, want in zip(found, wanted, strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    if 0 in lead:
        return
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in found]
    wrt = list(given.values())
    slopes = (torch.autograd.grad(ys, wrt, weights, allow_unused=True, retain_graph=True) for ys in (found, wanted))
    for got, want in zip(*slopes, strict=True):
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_an_axis_from_the_end_a_module_and_a_pack(mixed: Any) -> None:
    given = arguments((2, 3), 4, 2)
    layer = mixed.Module(D=3, axis=2).double()
    with torch.no_grad():
        layer.w.copy_(given["w"])
    called = layer(**{name: x for name, x in given.items() if name != "w"})
    for got, want in zip(called, mixed(**given, axis=-1), strict=True):
        assert torch.equal(got, want)
    pack = {name: x[0, :1].detach() for name, x in arguments((2, 1), 6, 2).items() if name in "xg"}
    own = {"R": given["R"][0, :2], "w": given["w"]}
    bounds = torch.tensor([0, 2, 6])
    plain = mixed(**pack, **own, cu_seqlens=bounds)
    turned = mixed(**{name: x.movedim(1, 0)[:, None] for name, x in pack.items()}, **own, cu_seqlens=bounds, axis=0)
    for got, want in zip(turned, [y.movedim(1, 0)[:, None] if i < 2 else y for i, y in enumerate(plain)], strict=True):
        assert torch.equal(got, want)


def test_no_copy_where_strides_allow(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: x.detach() for name, x in arguments((2, 3), 4, 2).items()}
    seen: list[Any] = []
    cast = mixed.module._cast
    monkeypatch.setattr(mixed.module, "_cast", lambda *inputs: seen.extend(inputs) or cast(*inputs))
    mixed(**given, axis=2)
    assert [x.data_ptr() for x in seen] == [given["x"].data_ptr(), given["g"].data_ptr()]
    assert seen[0].shape == (6, 4, 3, 2)


def test_what_does_not_fit_is_refused_by_name(mixed: Any) -> None:
    given = {name: x.detach() for name, x in arguments((2, 3), 4, 2).items()}
    with pytest.raises(ValueError, match=r"mixed: axis is 3; x has 3 axes before its dims: \[2, 3, 4, 3, 2\]"):
        mixed(**given, axis=3)
    with pytest.raises(ValueError, match=r"mixed: h_0 has shape \[2, 4, 3\] for \[2, 3, D\]; axis 2 of x has the steps"):
        mixed(**{**given, "h_0": torch.zeros(2, 4, 3)}, axis=2)
    with pytest.raises(TypeError, match="mixed: axis is a whole number, not a number"):
        mixed(**given, axis=1.0)
