"""What ranges and constants make idle is dropped: short programs before and after; values and gradients of a compiled one."""

from __future__ import annotations

import pytest
import torch

import seqc
from seqc.frontend.elaborate import load
from seqc.ir.formula import spell
from seqc.ir.plan import Stage
from seqc.ir.program import Program
from seqc.passes.plan.pruned import idle

HEAD = """spec idle
dim D
input x[D] in [0, 1], y[D], g[D] in [-inf, 0], m[D] in [2, 3]
param R[D, D]
state h[D] = 0, top[D] = -inf
top = max(top[t-1], y)
"""
DROPPED = {
    "where(x >= 0, x, exp(y))": "x", "where(x > 1, exp(y), x)": "x", "where(x > 1 or m < 2, y, x)": "x",
    "where(not (m > x), y, m)": "m", "max(x, m)": "m", "min(x, m)": "x", "clamp(x, 0, 1)": "x",
    "x + 0 * y": "x", "x + 0 * (R @ h[t-1])": "x", "x + 0 * y * h[t-1]": "x", "where(x[t-1] >= 0, x, y)": "x",
    "clamp(m, 0, 1) + x": "1 + x", "x + (1 - clamp(m, 0, 1)) * y": "x", "x + relu(2 * (x - m)) * y": "x",
}  # fmt: skip
KEPT = ("where(x > 0, x, y)", "max(x, 1)", "0 * g", "0 * top[t-1]", "0 * (y / x)", "0 * log(x)", "where(m[t-1] > 1, x, y)",
        "relu(x)", "where(stopgrad(y) > 0, x, y)", "where(m == 1, x, y)")


def left(text: str) -> Program | None:
    """What is left of a program; None where nothing is idle."""
    found = idle(Stage("core", "steps", load(text)))
    return found.stages[0].program if found else None


@pytest.mark.parametrize("text", DROPPED)
def test_what_is_idle_is_dropped(text: str) -> None:
    kept = left(f"{HEAD}h = {text}\noutput h\n")
    assert kept is not None
    want = load(f"{HEAD}h = {DROPPED[text]}\noutput h\n")
    found = spell(kept.updates["h"]).removesuffix(" + 0")
    assert found == spell(want.updates["h"])


@pytest.mark.parametrize("text", KEPT)
def test_what_may_count_is_kept(text: str) -> None:
    """Zero times what may be infinite, ends that touch, and what lies outside of the sequence."""
    assert left(f"{HEAD}h = 0.5 * h[t-1] + {text}\noutput h\n") is None


TEXT = """spec idle_cell
dim D
input x[D] in [0, 1], y[D]
param R[D, D], S[D, D]
const scale = 0
state h[D] = 0
h = tanh(where(x >= 0, x, S @ h[t-1]) + R @ h[t-1] + scale * (S @ h[t-1]) * y)
output h
"""


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_values_and_gradients_stay(backend: str) -> None:
    made = torch.Generator().manual_seed(0)
    x = torch.rand(2, 5, 3, generator=made, dtype=torch.float64).requires_grad_()
    y, R, S = (torch.randn(s, generator=made, dtype=torch.float64).requires_grad_() for s in ((2, 5, 3), (3, 3), (3, 3)))
    got = seqc.compile(TEXT, backend)(x, y, R, S).h
    h, rows = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(5):
        h = torch.tanh(x[:, t] + h @ R.T)
        rows.append(h)
    want = torch.stack(rows, 1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    found = torch.autograd.grad(got.square().sum(), [x, R, y, S])
    for a, b in zip(found, torch.autograd.grad(want.square().sum(), [x, R]), strict=False):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not found[2].any() and not found[3].any()


def test_explain_says_what_was_dropped_and_what_it_saves() -> None:
    said = " ".join(seqc.explain(TEXT, "torch").split())
    for words in (
        "left out, forward and backward", "`x >= 0` always holds in the declared ranges",
        "S: nothing that is left reads this param: its gradient is 0", "operations of a step forward",
    ):
        assert words in said, said


def test_explain_names_states_that_no_output_depends_on() -> None:
    """Nor what only such states read; a state whose past an output reads is none."""
    text = """spec aside
dim D
input x[D], z[D]
param Q[D, D]
state h[D] = 0, seen[D] = 0, dead[D] = 0, other[D] = 0
seen = 0.5 * seen[t-1] + x
dead = tanh(Q @ dead[t-1] + other[t-1] + z)
other = tanh(dead[t-1])
h = tanh(x + seen[t-1] + h[t-1])
output h
"""
    said = " ".join(seqc.explain(text, "torch").split())
    assert said.count("no output depends on it: 95% of a step's operations are for its last value alone") == 1
    assert said.index("dead[D], other[D]") < said.index("no output depends on it") < said.index("transition of dead")
    assert "no output depends" not in " ".join(seqc.explain("lstm", "torch").split())
