"""Closed loops whose inputs are read ahead: what is known in time is served, and what is not is told why. Judged by loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import seqc
from seqc.diagnostics import SpecError
from seqc.frontend.elaborate import load

STEPS, HEAD = 7, "spec ahead\ndim D\ninput x[D], u[D]\nparam R[D, D]\nstate h[D] = 0\n"
READOUT = f"""{HEAD}
h = tanh(R @ h[t-1] + x + u)
output y = h + 0.5 * x[t+1]
feedback x = 0.9 * h[t-1]
"""
DRIVEN = f"""{HEAD}
h = tanh(R @ h[t-1] + x + x[t+2])
output y = h
feedback x = 0.9 * x[t-1] + u
"""
LATE = f"""{HEAD}
h = tanh(R @ h[t-1] + x + 0.3 * x[t+2] + u)
e = h * h
output y = h
feedback x = e[t-3]
"""
WORDS = """
spec ahead
dim V, D
input w index V
param E[V, D], R[D, D], C[V, D]
state h[D] = 0
h = tanh(E[w] + R @ h[t-1])
chosen = argmax[V](C @ h)
output y = C @ h + sum[D](E[w[t+1]])
feedback w = chosen[t-1]
"""


def by_hand(text: str, x: Tensor, u: Tensor, R: Tensor) -> Tensor:
    """y, of one sequence [T, D]; x has the steps that are given."""
    zero = torch.zeros_like(R[0])
    given, steps, h, fed = list(x), len(u), zero, [zero]
    if text is DRIVEN:
        for t in range(steps):
            fed.append(given[t] if t < len(given) else 0.9 * fed[-1] + u[t])
        used = [*fed[1:], zero, zero]
        for t in range(steps):
            h = torch.tanh(R @ h + used[t] + used[t + 2])
            fed[t] = h
        return torch.stack(fed[:steps])
    hidden = list[Tensor]()

    def at(t: int) -> Tensor:
        """x at step t, of the values of h that are known."""
        if t >= steps or t < len(given):
            return zero if t >= steps else given[t]
        if text is READOUT:
            return 0.9 * hidden[t - 1] if t else zero
        return hidden[t - 3] ** 2 if t >= 3 else zero

    for t in range(steps):
        hidden.append(torch.tanh(R @ h + at(t) + u[t] + (0.3 * at(t + 2) if text is LATE else zero)))
        h = hidden[-1]
    return torch.stack([h + 0.5 * at(t + 1) if text is READOUT else h for t, h in enumerate(hidden)])


def compared(got: Tensor, want: Tensor, wrt: list[Tensor]) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)
    weights = torch.cos(torch.arange(want.numel(), dtype=want.dtype)).view_as(want)
    slopes = [torch.autograd.grad((y * weights).sum(), wrt, materialize_grads=True, allow_unused=True) for y in (got, want)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("text", [READOUT, DRIVEN, LATE], ids=["readout", "driven", "late"])
def test_what_is_known_in_time(text: str, backend: str) -> None:
    """Prompts of no step, some and all; the last step first; packs, whose sequences end apart."""
    made, R = seqc.compile(text, backend), draw(0, 3, 3)
    for given in (0, 2, 5, STEPS):
        x, u = draw(1, 2, given, 3), draw(2, 2, STEPS, 3)
        want = torch.stack([by_hand(text, *one, R) for one in zip(x, u, strict=True)])
        compared(made.generate(x, u, R, steps=STEPS).y, want, [x, u, R])
    x, u = draw(3, 1, 2, 3), draw(4, 1, STEPS, 3)
    back = by_hand(text, x[0].flip(0), u[0].flip(0), R).flip(0)[None]
    compared(made.generate(x, u, R, steps=STEPS, reverse=True).y, back, [x, u, R])
    runs, prompts = torch.tensor([0, 3, STEPS]), torch.tensor([0, 1, 3])
    x = draw(5, 1, 3, 3)
    parts = [by_hand(text, x[0, a:b], u[0, c:d], R) for a, b, c, d in ((0, 1, 0, 3), (1, 3, 3, STEPS))]
    got = made.generate(x, u, R, steps=STEPS, cu_seqlens=runs, cu_prompts=prompts).y
    compared(got, torch.cat(parts)[None], [x, u, R])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_word_ahead(backend: str) -> None:
    """After the last step a position is 0, as in an ordinary call."""
    made, E, R, C = seqc.compile(WORDS, backend), draw(0, 5, 3), draw(1, 3, 3), draw(2, 5, 3)
    prompt = torch.tensor([3, 1])
    h, words, hidden = torch.zeros(3, dtype=torch.float64), [*prompt.tolist()], list[Tensor]()
    for t in range(STEPS):
        words += [int((C @ h).argmax())] * (t >= len(prompt))
        h = torch.tanh(E[words[t]] + R @ h)
        hidden.append(h)
    want = torch.stack([C @ h + E[i].sum() for h, i in zip(hidden, [*words[1:], 0], strict=True)])[None]
    compared(made.generate(prompt[None], E, R, C, steps=STEPS).y, want, [E, R, C])


@pytest.mark.parametrize(("old", "new", "cause"), [
    ("x + u", "x[t+1] + u", "what it is then is made of `h` of this step, which needs it"),
    ("x[t+1]", "x[t+2]", "what it is then is made of a state at a later step than this one"),
    ("feedback x = 0.9 * h[t-1]", "feedback x = 0.9 * x[t+1]", "what it is then is made of it, 1 step later still"),
])  # fmt: skip
def test_why_it_is_not_known(old: str, new: str, cause: str) -> None:
    with pytest.raises(SpecError, match=cause):
        load(READOUT.replace(old, new))


def test_the_ordinary_call_reads_what_it_is_given() -> None:
    """Over a prompt of all steps the loop is the ordinary call."""
    made, x, u, R = seqc.compile(READOUT, "torch"), draw(1, 2, STEPS, 3), draw(2, 2, STEPS, 3), draw(0, 3, 3)
    torch.testing.assert_close(made.generate(x, u, R, steps=STEPS).y, made(x, u, R).y, rtol=0, atol=1e-12)
