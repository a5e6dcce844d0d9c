"""Tables: a case of a memory that events read and write, and steps in place whose cost does not know of the table's rows."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted

SPEC = """spec memory
dim N = 12, D = 3, I
input x[I], src index N
param W[D, I], R[D, D], b[D]
state M[N, D] = 0
o = M[t-1, src]
M[src] = tanh(W @ x + R @ o + b)
output o
"""
CASE = Path(__file__).parent / "cases" / "memory_one_write.npz"
BOUND = 1e-9


@pytest.fixture(scope="module", params=["torch", "cpu"])
def memory(request: pytest.FixtureRequest) -> ModuleType:
    return load_emitted(compile_spec(SPEC, Options(request.param)).text, f"memory_{request.param}")


def test_the_case_of_a_memory(memory: ModuleType) -> None:
    """200 events; the file says what another program found, with every gradient."""
    data = np.load(CASE)
    given = {x: torch.tensor(data[f"in.{x}"]) for x in ("x", "src", "W", "R", "b", "M0")}
    moved = [given[x].requires_grad_() for x in ("x", "W", "R", "b", "M0")]
    *arguments, start = given.values()
    found = memory.memory(*arguments, M_0=start)
    for value, name in zip(found, ("o", "M_T"), strict=True):
        torch.testing.assert_close(value, torch.tensor(data[f"out.{name}"]), rtol=0, atol=BOUND)
    loss = sum((torch.tensor(data[f"cot.{name}"]) * value).sum() for value, name in zip(found, ("o", "M_T"), strict=True))
    for slope, name in zip(torch.autograd.grad(loss, moved), ("x", "W", "R", "b", "M0"), strict=True):
        torch.testing.assert_close(slope, torch.tensor(data[f"grad.{name}"]), rtol=0, atol=BOUND)


def test_steps_in_place(memory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """They write rows into the table that is given, which is never copied, and give what a run gives."""
    torch.manual_seed(0)
    x, src = torch.randn(2, 9, 2, dtype=torch.float64), torch.randint(0, 12, (2, 9))
    W, R, b = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 2), (3, 3), (3,)))
    start = torch.randn(2, 12, 3, dtype=torch.float64)
    whole = memory.memory(x, src, W, R, b, M_0=start)
    table = start.clone()
    copied = memory.memory_step(x[:, 0], src[:, 0], W, R, b, M_0=table)
    assert copied.M_T is not table and torch.equal(table, start)
    monkeypatch.setattr(memory, "_table_step", None)  # what makes another table
    for t in range(9):
        step = memory.memory_step(x[:, t], src[:, t], W, R, b, M_0=table, inplace=True)
        assert step.M_T is table
        torch.testing.assert_close(step.o, whole.o[:, t], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(table, whole.M_T, rtol=1e-12, atol=1e-12)
    own = torch.zeros(0, 12, 3, dtype=torch.float64)
    assert memory.memory_step(x[:0, 0], src[:0, 0], W, R, b, M_0=own, inplace=True).o.shape == (0, 3)
    with pytest.raises(IndexError):
        memory.memory_step(x[:, 0], src[:, 0] + 12, W, R, b, M_0=table, inplace=True)


def test_what_a_gradient_needs_is_not_written(memory: ModuleType) -> None:
    given = [torch.randn(1, 2), torch.zeros(1, dtype=torch.int64), *(torch.randn(shape) for shape in ((3, 2), (3, 3), (3,)))]
    given[2].requires_grad_()
    with pytest.raises(RuntimeError, match="no_grad"):
        memory.memory_step(*given, M_0=torch.zeros(1, 12, 3), inplace=True)
    with torch.no_grad():
        table = torch.zeros(1, 12, 3)
        assert memory.memory_step(*given, M_0=table, inplace=True).M_T is table and table[0, 0].any() and not table[0, 1:].any()


BESIDE = """spec beside
dim N = 5, D = 30
input w index N, x[D]
param E[N, D], W[D, D], R[D, D], C[D, D]
state M[N, D] = 0.2
old = M[t-1, w]
new = tanh(E[w] + W @ x + R @ old)
M[w] = new
output y = C @ new
"""


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_what_needs_no_table_stands_beside_the_loop(backend: str) -> None:
    """Rows of a param, a product with an input, and a readout: in calls, packs, the other direction, and steps in place."""
    made = load_emitted(compile_spec(BESIDE, Options(backend)).text, f"beside_{backend}")
    torch.manual_seed(1)
    shapes = {"x": (2, 7, 30), "E": (5, 30), "W": (30, 30), "R": (30, 30), "C": (30, 30), "M_0": (2, 5, 30)}
    x, E, W, R, C, M_0 = (torch.randn(s, dtype=torch.float64).div(5).requires_grad_() for s in shapes.values())
    w = torch.randint(0, 5, (2, 7))
    rows, ends = [], []
    for b in range(2):
        table = list(M_0[b].unbind(0))
        for t in range(7):
            table[w[b, t]] = torch.tanh(E[w[b, t]] + W @ x[b, t] + R @ table[w[b, t]])
            rows.append(C @ table[w[b, t]])
        ends.append(torch.stack(table))
    want = torch.stack(rows).view(2, 7, 30), torch.stack(ends)
    got = made.beside(w, x, E, W, R, C, M_0=M_0)
    back = made.beside(w.flip(1), x.flip(1), E, W, R, C, M_0=M_0, reverse=True)
    torch.testing.assert_close(tuple(got), want, rtol=0, atol=1e-12)
    torch.testing.assert_close((back.y.flip(1), back.M_T), want, rtol=0, atol=1e-12)
    weights = [torch.randn_like(y) for y in want]
    losses = [sum((a * b).sum() for a, b in zip(ys, weights, strict=True)) for ys in (got, want)]
    for a, b in zip(*(torch.autograd.grad(loss, [x, E, W, R, C, M_0]) for loss in losses), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    with torch.no_grad():
        pack = made.beside(w.view(1, 14), x.view(1, 14, 30), E, W, R, C, M_0=M_0, cu_seqlens=torch.tensor([0, 7, 14]))
        torch.testing.assert_close((pack.y.view(2, 7, 30), pack.M_T), want, rtol=0, atol=1e-12)
        table = M_0.detach().clone()
        for t in range(7):
            step = made.beside_step(w[:, t], x[:, t], E, W, R, C, M_0=table, inplace=True)
            assert step.M_T is table
            torch.testing.assert_close(step.y, want[0][:, t], rtol=0, atol=1e-12)
