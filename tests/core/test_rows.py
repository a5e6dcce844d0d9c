"""The rows of an update: one for each contraction of the old state that is written back, however it is spelled."""

from __future__ import annotations

import pytest

from seqc import build
from seqc.program import Program
from seqc.rows import rows_of

HEAD = """spec rows
dim H, K, V
dim J = 4
input q[H, K], k[H, K] unit[K], v[H, V], beta[H] in [0, 1], g[H] in [-inf, 0]
input keys[J, H, K] unit[K], values[J, H, V], rates[J, H] in [0, 2]
state S[H, K, V] = 0
output o = sum[K](q * S)
"""
SPELLINGS = {
    "S = S[t-1] + beta * k * (v - sum[K](k * S[t-1]))": 1,
    "S = S[t-1] - beta * k * sum[K](k * S[t-1]) + beta * k * v": 1,
    "S = (1 - beta) * S[t-1] + beta * (S[t-1] - k * sum[K](k * S[t-1])) + beta * k * v": 1,
    "S = exp(g) * (S[t-1] - sum[K](k * S[t-1]) * k * beta) + (beta * v) * k": 1,
    "S = S[t-1] + beta * k * (v - sum[K](k * S[t-1])) + beta * q * (sum[K](k * S[t-1]) + sum[K](q * S[t-1]))": 2,
    "S = fold[J](exp(g) * S[t-1], P -> P + rates * keys * (values - sum[K](keys * P)))": 4,
}


def program(update: str) -> Program:
    """The recurrence with one spelling of its update."""
    return build.load(HEAD + update + "\n")


@pytest.mark.parametrize("update", SPELLINGS)
def test_one_row_for_each_contraction(update: str) -> None:
    made = program(update)
    rows, whole = rows_of(made.updates["S"], made.states["S"].leaf(), ("K",))
    assert len(rows) == SPELLINGS[update]
    assert not any(term.over for term in whole.terms)
    assert all("K" not in row.node.dims for row in rows)


def test_a_row_reads_those_before_it_in_the_same_step() -> None:
    made = program("S = fold[J](exp(g) * S[t-1], P -> P + rates * keys * (values - sum[K](keys * P)))")
    rows, _ = rows_of(made.updates["S"], made.states["S"].leaf(), ("K",))
    for i, row in enumerate(rows):
        assert {term.state for term in row.form.terms if not term.over} == {r.node for r in rows[:i]}
        assert len([term for term in row.form.terms if term.over]) == 1


def test_coefficients_that_add_up_to_a_number_are_that_number() -> None:
    from seqc.driver import lower

    block = lower(program("S = (1 - beta) * S[t-1] + beta * (S[t-1] - k * sum[K](k * S[t-1])) + beta * k * v"))
    plans = [r.text for r in block.reasons if r.topic == "numerics"]
    assert plans == ["read over K: no decay between the rows of a block: plain products"]
