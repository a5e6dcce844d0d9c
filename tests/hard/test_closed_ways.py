"""Closed loops in every way to run: packs of prompts, the last step first, both directions, any axis, two axes, complex values.

Each against a loop in plain torch that knows which steps are given, in values and every gradient.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch

import seqc

CELL = '''spec fed_cell
"""A cell that reads its input twice, and is fed an output and a state of the step before."""
dim D, M
WAY
input x[M], u
param W[D, M], R[D, D], C[M, D]
state h[D] = 0
h = tanh(R @ h[t-1] + W @ x + u + 0.1 * sum[M](x[t-2]))
output y[M] = C @ h
feedback x = y[t-1] + 0.3 * sum[D](h[t-1])
'''
PIXELS = '''spec pixels
"""An image that is drawn cell by cell: each is fed what was made above, and what was used beside it."""
axis t, u
scan u backward
dim D, M
input x[M]
param W[D, M], R[D, D], Q[D, D], C[M, D]
state h[D] = 0
h = tanh(R @ h[t-1] + Q @ h[u-1] + W @ x)
output y[M] = C @ h
feedback x = y[t-1] + 0.3 * x[u-1]
'''
TURNS = '''spec turns
"""Complex oscillators that are driven by their own past."""
dim N
input x[N] complex
param a[N] complex
state s[N] complex = 0
s = a * s[t-1] + 0.5 * x + 0.2i * x[t-1]
output y = s
feedback x = 0.5i * y[t-1] - 0.3 * x[t-1]
'''
BACKENDS = ("torch", "cpu")
WAYS = [("forward", "torch"), ("both sum shared", "torch"), *((way, name) for way in ("backward", "both") for name in BACKENDS)]


@cache
def cell(way: str, backend: str) -> Any:
    return seqc.compile(CELL.replace("WAY", f"scan {way}"), backend)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [(0.5 * torch.randn(shape, generator=made, dtype=torch.float64)).requires_grad_() for shape in shapes]


def alike(got: list[torch.Tensor], want: list[torch.Tensor], wrt: list[torch.Tensor]) -> None:
    """Values to 1e-12, gradients of a random loss to 1e-11."""
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    weights = [x.detach() for x in drawn(9, *(x.shape for x in got))]
    slopes = [torch.autograd.grad(sum((x * w).sum() for x, w in zip(found, weights, strict=True)), wrt, retain_graph=True)
              for found in (got, want)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def ends(got: Any) -> list[torch.Tensor]:
    """The output, and h after the last step of each run."""
    return [getattr(got, name) for name in ("y", "h_T", "h_reverse_T") if hasattr(got, name)]


def one_run(
    x: torch.Tensor, given: list[bool], u: torch.Tensor, params: list[torch.Tensor], h: torch.Tensor, back: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs [T, M], the last state) of one sequence: x [T, M] counts where it is given."""
    W, R, C = params
    used, y, out = [h.new_zeros(len(C))] * 2, h.new_zeros(len(C)), {}
    for t in range(len(given))[:: -1 if back else 1]:
        now = x[t] if given[t] else y + 0.3 * h.sum()
        h = torch.tanh(R @ h + W @ now + u[t] + 0.1 * used[-2].sum())
        used.append(now)
        y = out[t] = C @ h
    return torch.stack([out[t] for t in sorted(out)]) if out else h.new_zeros(0, len(C)), h


class ByHand:
    """Both runs of a way by hand, one sequence at a time. params: of the runs."""

    def __init__(self, way: str, reverse: bool, params: list[list[torch.Tensor]]) -> None:
        self.way, self.params, self.back = way, params, (way == "backward") != reverse

    def __call__(self, x: torch.Tensor, given: list[bool], u: torch.Tensor, h: list[torch.Tensor]) -> list[torch.Tensor]:
        """[outputs, last states of the runs]"""
        first = one_run(x, given, u, self.params[0], h[0], self.back)
        if "both" not in self.way:
            return list(first)
        second = one_run(x, given, u, self.params[-1], h[1], not self.back)
        y = first[0] + second[0] if "sum" in self.way else torch.cat([first[0], second[0]], -1)
        return [y, first[1], second[1]]

    def begins(self, steps: int, prompt: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        """x with all steps, and which are given, of a prompt that the run begins with."""
        rest = prompt.new_zeros(steps - len(prompt), *prompt.shape[1:])
        flags = [t < len(prompt) for t in range(steps)]
        return (torch.cat([rest, prompt]), flags[::-1]) if self.back else (torch.cat([prompt, rest]), flags)


def setting(way: str, batch: int) -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor], list[torch.Tensor]]:
    """(params of the runs, arguments by name, first states of the runs)"""
    shapes = ((5, 3), (5, 5), (3, 5))
    runs = 2 if "both" in way else 1
    params = [drawn(run, *shapes) for run in range(1 if "shared" in way else runs)]
    states = drawn(5, *[(batch, 5)] * runs)
    names = [f"{name}{mark}" for _, mark in zip(params, ("", "_reverse"), strict=False) for name in "WRC"]
    named = dict(zip(names, [x for own in params for x in own], strict=True))
    return params, named | dict(zip(("h_0", "h_reverse_0"), states, strict=False)), states


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("way", "backend"), WAYS)
def test_a_run_begins_with_its_prompt(way: str, backend: str, reverse: bool) -> None:
    """Of a batch, along the axis behind it and along the first one."""
    params, named, states = setting(way, 2)
    x, u = drawn(3, (2, 4, 3), (2, 9))
    hand = ByHand(way, reverse, params)
    rows = [hand(*hand.begins(9, x[b]), u[b], [h[b] for h in states]) for b in range(2)]
    want = [torch.stack(parts) for parts in zip(*rows, strict=True)]
    got = cell(way, backend).generate(x, u, **named, steps=9, reverse=reverse)
    alike(ends(got), want, [x, u, *named.values()])
    turned = cell(way, backend).generate(x.movedim(1, 0), u.T, **named, steps=9, reverse=reverse, axis=0)
    torch.testing.assert_close(turned.y.movedim(0, 1), want[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("way", "backend"), WAYS)
def test_each_sequence_of_a_pack_begins_with_its_own(way: str, backend: str, reverse: bool) -> None:
    """Prompts of any lengths in a row of their own, with a step behind them that is none of theirs; then a mask for the row."""
    runs, prompts = [3, 0, 5, 1, 2], [2, 0, 0, 1, 1]
    bounds, own = (list(accumulate(x, initial=0)) for x in (runs, prompts))
    params, named, states = setting(way, 5)
    x, row, u = drawn(4, (1, 5, 3), (1, 11, 3), (1, 11))
    hand, one = ByHand(way, reverse, params), cell(way, backend)

    def joined(make: Any) -> list[torch.Tensor]:
        rows = [hand(*make(i, a, b), u[0, a:b], [h[i] for h in states]) for i, (a, b) in enumerate(pairwise(bounds))]
        y, *last = zip(*rows, strict=True)
        return [torch.cat(y)[None], *map(torch.stack, last)]

    pack = {"steps": 11, "cu_seqlens": torch.tensor(bounds), "reverse": reverse}
    got = one.generate(x, u, **named, **pack, cu_prompts=torch.tensor(own))
    alike(ends(got), joined(lambda i, a, b: hand.begins(b - a, x[0, own[i] : own[i + 1]])), [x, u, *named.values()])
    given = torch.tensor([True, False, False, True, False, True, True, False, True, False, True])
    got = one.generate(torch.where(given[:, None], row, torch.nan), u, **named, **pack, given=given)
    alike(ends(got), joined(lambda _, a, b: (row[0, a:b], given[a:b].tolist())), [row, u, *named.values()])


def drawn_by_hand(x: torch.Tensor, given: torch.Tensor, params: list[torch.Tensor], back: bool) -> torch.Tensor:
    """y [T, U, M] of one image: x [T, U, M] counts where it is given."""
    W, R, Q, C = params
    (rows, columns), nothing, used, h, y = given.shape, x.new_zeros(len(C)), {}, {}, {}
    for t in range(rows)[:: -1 if back else 1]:
        for u in range(columns)[::-1]:
            above, beside = (t + (1 if back else -1), u), (t, u + 1)
            used[t, u] = x[t, u] if given[t, u] else y.get(above, nothing) + 0.3 * used.get(beside, nothing)
            state = [h.get(place, x.new_zeros(len(R))) for place in (above, beside)]
            h[t, u] = torch.tanh(R @ state[0] + Q @ state[1] + W @ used[t, u])
            y[t, u] = C @ h[t, u]
    return torch.stack([torch.stack([y[t, u] for u in range(columns)]) for t in range(rows)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_is_drawn_cell_by_cell(backend: str) -> None:
    """Rows that are given, from above and from below, and single cells."""
    one, params = seqc.compile(PIXELS, backend), drawn(1, (5, 3), (5, 5), (5, 5), (3, 5))
    rows, x = drawn(2, (2, 2, 3, 3), (2, 4, 3, 3))
    none = rows.new_zeros(2, 2, 3, 3)
    for back in (False, True):
        whole = torch.cat([none, rows] if back else [rows, none], 1)
        given = (torch.arange(4) >= 2 if back else torch.arange(4) < 2)[:, None].expand(4, 3)
        want = torch.stack([drawn_by_hand(image, given, params, back) for image in whole])
        alike([one.generate(rows, *params, steps=4, reverse=back).y], [want], [rows, *params])
    given = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    want = torch.stack([drawn_by_hand(*own, params, False) for own in zip(x, given, strict=True)])
    got = one.generate(torch.where(given[..., None], x, torch.nan), *params, steps=4, given=given)
    alike([got.y], [want], [x, *params])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_complex_input_is_fed_back(backend: str) -> None:
    parts = drawn(1, (2, 3, 4), (2, 3, 4), (4,), (4,))
    x, a = torch.complex(*parts[:2]), torch.complex(*parts[2:])
    s = before = x.new_zeros(2, 4)
    rows = []
    for t in range(8):
        now = x[:, t] if t < 3 else 0.5j * s - 0.3 * before
        s, before = a * s + 0.5 * now + 0.2j * before, now
        rows.append(s)
    want = torch.stack(rows, 1)
    got = seqc.compile(TURNS, backend).generate(*parts, steps=8)
    alike([got.y_re, got.y_im], [want.real, want.imag], parts)


def test_what_is_wrong_with_prompts_is_said() -> None:
    one, (_, named, _) = cell("forward", "torch"), setting("forward", 2)
    x, u = drawn(3, (1, 4, 3), (1, 6))
    pack = {"steps": 6, "cu_seqlens": torch.tensor([0, 2, 6])}
    for wrong, words in (
        ({**pack, "cu_prompts": torch.tensor([0, 3, 4])}, "no prompt is longer than its run"),
        ({**pack, "cu_prompts": torch.tensor([0, 1, 5])}, "ends with 4 or less"),
        ({**pack, "cu_prompts": torch.tensor([0, 1])}, "as many as cu_seqlens"),
        ({"steps": 6, "cu_prompts": torch.tensor([0, 4])}, "as many as cu_seqlens"),
        ({**pack, "cu_prompts": torch.tensor([0, 1, 4]), "given": torch.ones(6)}, "take no given="),
        (pack, "x has all of them beside cu_seqlens="),
        ({"steps": 6, "axis": 2}, "axis is 2; x has 2 axes"),
    ):
        with pytest.raises(ValueError, match=words):
            one.generate(x, u, **named, **wrong)


def test_a_module_runs_along_its_axis() -> None:
    layer = cell("forward", "torch").Module(D=5, M=3, axis=0, dtype=torch.float64)
    x, u = drawn(3, (4, 2, 3), (9, 2))
    want = cell("forward", "torch").generate(x.movedim(0, 1), u.T, layer.W, layer.R, layer.C, steps=9, reverse=True)
    assert torch.equal(layer.generate(x, u, steps=9, reverse=True).y.movedim(0, 1), want.y)
