"""A state that keeps positions: read at, written at and reckoned with, on every backend, against a loop in plain torch.

A ring of N rows with a pointer that inputs may move: each step reads the row at the pointer, and one at the pointer of two
steps ago, and writes a row at the new one. The pointer may begin as any number: it is rounded down, and cut to the ring.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.fuzz.trial import Subject, Wish

SPEC = """spec ring
dim N = 4, D
input x[D], skip
param E[N, D], r
state at index N = 0, M[N, D] = 0
at = mod(at[t-1] + where(skip > 0, 2, 1), N)
M[at] = r * M[t-1, at] + x
output y[D] = M[t-1][at[t-1]] + E[at[t-2]] * at + E[at]
"""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def by_hand(g: dict[str, Any]) -> dict[str, Any]:
    """Results by name; at_0 and at_lag2_0 are numbers."""
    batch, rows = range(len(g["x"])), []
    now, before, table = g["at_0"], g["at_lag2_0"], g["M_0"]
    for t in range(g["x"].shape[1]):
        def place(at: Any) -> Any:
            return at.floor().clamp(0, 3).long()

        new = torch.remainder(now + torch.where(g["skip"][:, t] > 0, 2.0, 1.0), 4.0)
        read = table[batch, place(now)] + g["E"][place(before)] * new[:, None] + g["E"][place(new)]
        written = g["r"] * table[batch, place(new)] + g["x"][:, t]
        here = torch.nn.functional.one_hot(place(new), 4)[..., None]
        table = table * (1 - here) + here * written[:, None]
        now, before = new, now
        rows.append(read)
    return {"y": torch.stack(rows, 1), "M_T": table, "at_T": now}


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float64), ("cpu", torch.float64), ("triton", torch.float32)])
def test_a_ring(backend: str, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    given = {"x": normal(3, 7, 2), "skip": normal(3, 7), "E": normal(4, 2), "r": torch.tensor(0.7), "M_0": normal(3, 4, 2),
             "at_0": torch.tensor([1.0, 2.75, 0.0]), "at_lag2_0": torch.tensor([-5.0, 9.0, 1.5])}
    numbers, found = ("at_0", "at_lag2_0", "skip"), []
    weights = {"y": normal(3, 7, 2), "M_T": normal(3, 4, 2)}
    subject = Subject(SPEC, Wish(backend))
    for call, kind in ((by_hand, torch.float64), (lambda x: subject.function(**x)._asdict(), dtype)):
        leaves = {n: x.to(dtype).to(kind).requires_grad_(n not in numbers) for n, x in given.items()}
        with np.errstate(all="ignore"):
            results = call(leaves)
            loss = torch.stack([(results[n] * w.to(dtype).to(kind)).sum() for n, w in weights.items()]).sum()
            slopes = torch.autograd.grad(loss, [x for x in leaves.values() if x.requires_grad])
        found.append((*(results[n] for n in ("y", "M_T", "at_T")), *slopes))
    for one, other in zip(*found, strict=True):
        assert float((one - other).detach().abs().max()) <= TOLERANCE[dtype] * max(1.0, float(one.detach().abs().max()))


def test_steps_and_format() -> None:
    from seqc.frontend.format import format_text

    subject = Subject(SPEC, Wish("torch"))
    assert format_text(SPEC) == format_text(format_text(SPEC)) and "state at index N = 0" in format_text(SPEC)
    given = {"x": torch.randn(2, 5, 3), "skip": torch.randn(2, 5), "E": torch.randn(4, 3), "r": torch.tensor(0.5)}
    whole, now, rows = subject.function(**given), {}, []
    for t in range(5):
        made = subject.module.ring_step(**{n: x[:, t] if n in ("x", "skip") else x for n, x in given.items()}, **now)
        now = {"at_0": made.at_T, "at_lag2_0": made.at_lag2_T, "M_0": made.M_T}
        rows.append(made.y)
    assert torch.allclose(torch.stack(rows, 1), whole.y, atol=1e-6)
