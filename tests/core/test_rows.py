"""The rows of an update: one for each contraction of the old state that is written back, however it is spelled; and blocks
that have several of them at once, against the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqc.backends import torch_eager
from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.graph import topological
from seqc.ir.program import Program
from seqc.passes.blocks.rows import rows_of
from seqc.semantics import reference
from tests.block_runner import run_block
from tests.harness import compare, draw

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
    return elaborate.load(HEAD + update + "\n")


@pytest.mark.parametrize("update", SPELLINGS)
def test_one_row_for_each_contraction(update: str) -> None:
    made = program(update)
    rows, (whole,) = rows_of([made.updates["S"]], [made.states["S"].leaf()], ("K",))
    assert len(rows) == SPELLINGS[update]
    assert not any(term.over for term in whole.terms)
    assert all("K" not in row.node.dims for row in rows)


def test_a_row_reads_those_before_it_in_the_same_step() -> None:
    made = program("S = fold[J](exp(g) * S[t-1], P -> P + rates * keys * (values - sum[K](keys * P)))")
    rows, _ = rows_of([made.updates["S"]], [made.states["S"].leaf()], ("K",))
    for i, row in enumerate(rows):
        assert {term.state for term in row.form.terms if not term.over} == {r.node for r in rows[:i]}
        assert len([term for term in row.form.terms if term.over]) == 1


def test_coefficients_that_add_up_to_a_number_are_that_number() -> None:
    block = lower(program("S = (1 - beta) * S[t-1] + beta * (S[t-1] - k * sum[K](k * S[t-1])) + beta * k * v"))
    plans = [r.text for r in block.reasons if r.topic == "numerics"]
    assert plans == ["read over K: no decay between the rows of a block: plain products"]


SEVERAL = """spec several
dim H, K, V
dim R {2}
input q[H, K], k[H, R, K] unit[K], p[H, R, K], v[H, R, V], c[H, V], beta[H, R] in [0, 1], g[H, K] in [-inf, 0]
input decay[H] in [0, 1]
state S[H, K, V] = 0
output o = sum[K](q * S)
"""
BIASED = """state b[H, V] = 0, M[H, K, V] = 0, n[H, V] = 0
e = sum[K](q * S[t-1]) + b[t-1] - c
M = decay * M[t-1] - q * e
n = decay * n[t-1] - e
S = exp(g) * S[t-1] + M
b = b[t-1] + n
output r = b - e
"""
TOGETHER = {
    "in turn": "S = decay * S[t-1] + sum[R](beta * k * (v - sum[K](k * S[t-1])))\n",
    "jointly": "S = exp(g) * S[t-1] + sum[R](p * sum[K](k * S[t-1])) + q * c\n",
    "read twice": "S = decay * S[t-1] + sum[R](beta * k * (v - sum[K](k * S[t-1]))) + q * sum[R, K](p * S[t-1])\n",
    "mixed": "u = sum[K](k * S[t-1])\nS = exp(g) * S[t-1] - sum[R](p * (beta * sum[R](beta * u) - u))\n",
    "twice": "P = decay * S[t-1] + sum[R](beta * k * (v - sum[K](k * S[t-1])))\n"
             "S = P - sum[R](p * (sum[K](k * P) - beta * c))\n",
    "with a bias": BIASED.replace("exp(g) * ", ""),
}


@pytest.mark.parametrize("how", TOGETHER)
def test_rows_of_one_step_do_not_see_each_other(how: str) -> None:
    agrees_with_the_oracle(elaborate.load(SEVERAL + TOGETHER[how]))


def agrees_with_the_oracle(made: Program) -> None:
    """Blocks of 8 rows, over one step and over three blocks at the ends of the ranges."""
    block = lower(made, "chunkwise", 8)
    for steps in (1, 19):
        case = draw(made, steps, hard=steps > 1)
        with np.errstate(all="ignore"):
            want = reference.gradients(made, case.arrays, case.cotangents)
            got = run_block(block, case.arrays, case.cotangents)
        for found, right in zip(got, want, strict=True):
            for name, x in right.items():
                np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-11 * np.abs(x).max(initial=1.0), err_msg=name)


def test_a_rank_of_open_size_is_refused_with_what_to_write() -> None:
    made = elaborate.load(SEVERAL.replace("R {2}", "R") + TOGETHER["in turn"])
    with pytest.raises(Unsupported, match=r"a row for each index of R, which needs one fixed size \(`dim R \{4\}`"):
        lower(made, "chunkwise", 8)


def test_micro_steps_of_states_that_feed_each_other_do_not_grow() -> None:
    """Two reflections with one key, and momentum: the first alone would grow by 1.6 a step."""
    made = elaborate.load("""spec pair
dim K, V, J = 2
input k[J, K] unit[K], v[J, V], eta in [0, 1]
state S[K, V] = 0, M[K, V] = 0
S = fold[J](S[t-1] + eta * M[t-1], P -> P + 2 * k * (v - sum[K](k * P)))
M = eta * M[t-1] + S - S[t-1]
output o = sum[J, K](k * S)
""")
    case = draw(made, 32)
    case.arrays["k"][:] = case.arrays["k"][:, :1, :1]
    case.arrays["eta"][:] = np.where(case.arrays["eta"] < 0.5, 0.0, 0.5)
    scope: dict[str, Any] = {}
    exec("import math\nimport torch\n" + torch_eager.emit(lower(made, "chunkwise", 32)).text, scope)
    compare(case, scope["_forward_torch"], scope["_backward_torch"], 3e-3, torch.float32)


def test_a_block_is_as_large_for_many_rows_as_for_two() -> None:
    """What the rows of a step have in common is one value; only what they read in place of each other grows."""
    text = Path("specs/gated_delta_product.seq").read_text()
    sizes = [len(topological(lower(elaborate.load(text.replace("J = 3", f"J = {n}")), "chunkwise", 16).forward.values()))
             for n in (2, 12)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("rows", [16, 64])
def test_two_reflections_with_one_key_lose_no_more_than_the_roundoff_of_their_keys(rows: int) -> None:
    """Neighbours cancel before they add up: beta = 2 and the same key twice a step leave the state as it was, but for v."""
    program = elaborate.load(Path("specs/delta_product.seq"))
    scope: dict[str, Any] = {}
    exec("import math\nimport torch\n" + torch_eager.emit(lower(program, "chunkwise", rows)).text, scope)
    draw_one = torch.Generator().manual_seed(2)
    q, v = (torch.randn(*shape, generator=draw_one, dtype=torch.float64) for shape in ((1, 256, 2, 16), (1, 256, 2, 2, 16)))
    k = torch.nn.functional.normalize(torch.randn(16, generator=draw_one, dtype=torch.float64), dim=0).expand(1, 256, 2, 2, 16)
    beta, start = torch.full((1, 256, 2, 2), 2.0, dtype=torch.float64), torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    want = by_hand(q, v, k, beta, start)
    found = scope["_forward_torch"](*(x.float() for x in (q, v, k, beta, start)))[0].double()
    roundoff = 2 * 512 * 2.0**-24  # of the factor beta |k|^2 of 512 reflections, each the same way
    assert (found - want).abs().max() <= roundoff * want.abs().max()


def by_hand(q: torch.Tensor, v: torch.Tensor, k: torch.Tensor, beta: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """DeltaProduct step by step."""
    out = []
    for t in range(q.shape[1]):
        for j in range(k.shape[2]):
            kept = v[:, t, j] - torch.einsum("bhk,bhkv->bhv", k[:, t, j], S)
            S = S + beta[:, t, j, :, None, None] * k[:, t, j, :, :, None] * kept[:, :, None]
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S) / math.sqrt(q.shape[-1]))
    return torch.stack(out, 1)


def test_a_state_that_another_reads_whole_runs_in_blocks_with_it() -> None:
    made = elaborate.load("""spec averaged
dim K, V
input q[K], k[K] unit[K], v[V], c in [0, 1], g[K] in [-inf, 0]
state S[K, V] = 0, A[K, V] = 0
S = exp(g) * S[t-1] + k * (v - sum[K](k * S[t-1]))
A = (1 - c) * A[t-1] + c * S
output o = sum[K](q * A + k * S)
""")
    agrees_with_the_oracle(made)
