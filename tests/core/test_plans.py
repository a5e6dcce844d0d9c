"""Plans: run stage after stage by the oracle, they are the program; printed, they are read back; a wrong one is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqc.check.sampling import sample, sample_sizes
from seqc.diagnostics import SeqcBug
from seqc.driver import dump
from seqc.driver.backends import KERNELS, torch_plan
from seqc.driver.options import DEFAULTS
from seqc.frontend.elaborate import load
from seqc.ir.plan import Plan, verify_plan
from seqc.ir.program import Program
from seqc.semantics import reference
from tests.emit.test_down import SPECS
from tests.plan_runner import run_plan

ROOT = Path(__file__).parents[2]
FOLDERS = ("specs", "tests/recurrences", "tests/planes", "tests/peers/specs")
PATHS = {p.stem: p for folder in FOLDERS for p in sorted((ROOT / folder).glob("*.seq"))}
TOLERANCE = 1e-12  # of the largest element: float64 roundoff, times sums of a few dozen terms over 6 steps
STEPS = 6

CHAINED = """
spec chained
dim D, K, V
input x[D], q[K]
param R[D, D], W_k[K, D], W_v[V, D], U[D, V], P[D, D], C[D, D]
state h[D] = 0, S[K, V] = 0, z[D] = 0
h = tanh(x + R @ h[t-1])
S = exp(logsigmoid(sum[D](h))) * S[t-1] + (W_k @ h) * (W_v @ h)
o = sum[K](q * S)
z = tanh(P @ z[t-1] + U @ o + 0.1 * h)
output y = C @ z
output h
"""
COUNTED = """
spec counted
dim H, K, V
input q[H, K], k[H, K], v[H, V], g[H, K] in [-inf, 0]
state p = 0, S[H, K, V] = 0
p = mod(p[t-1] + 1, 16)
S = exp(g) * S[t-1] + k * cos(p / 100) * v
output o = sum[K](q * S)
"""
BESIDE = """
spec beside
dim H, K, V
input q[H, K], k[H, K], v[H, V], f[H], x[H, V]
param R[H, V, V]
state C[H, K, V] = 0, h[H, V] = 0
C = sigmoid(f) * C[t-1] + k * v
output y = sum[K](q * C)
output h = tanh(x + R @ h[t-1])
"""
MUTUAL = """
spec mutual
dim H, K, V
input q[H, K], k[H, K], x[H, V], f[H]
param R[H, V, V]
state C[H, K, V] = 0, h[H, V] = 0
C = sigmoid(f) * C[t-1] + k * h[t-1]
h = tanh(x + R @ h[t-1] + sum[K](q * C))
output h
"""
CACHED = """
spec cached
dim D, N = 6
input q[D], k[D], f, pos index N
param R[D, D]
state M[N, D] = 0, bias[N] = 0, h[D] = 0
M[pos] = k
bias = where(index[N] == pos, 0, bias[t-1] + logsigmoid(f))
h = tanh(q + R @ h[t-1])
output y = sum[N](softmax[N](sum[D](q * M) + bias) * M) + h
output last[D] = M[t-1, pos]
"""
OTHERS = {
    "once": """spec once
dim N, D, M
input u[M]
param A[N, N], dt[D], B[D, N, M], C[D, N]
state x[D, N] = 0
x = zoh(A, dt) @ x[t-1] + B @ u
output y = sum[N](C * x)
""",
    "table": """spec table
dim N = 5, D
input src index N, w index N
input x[D]
param R[D, D], W[D, D]
state M[N, D] = 0, c[D] = 0
o = M[t-1, src]
c = 0.5 * c[t-1] + o
M[w] = tanh(W @ x + R @ o + c)
output o
""",
    "sized": """spec sized
dim D, K, V, N = 40
input x[D], q[K]
param R[D, D], W_k[K, D], W_v[V, D], C[N, V]
state h[D] = 0, S[K, V] = 0
h = tanh(x / N + R @ h[t-1])
S = exp(logsigmoid(sum[D](h))) * S[t-1] + (W_k @ h) * (W_v @ h)
output y = C @ sum[K](q * S)
""",
    "ahead": """spec ahead
dim D, M
scan both
input x[M]
param W[D, M], R[D, D]
state h[D] = 0
e = tanh(W @ x)
h = tanh(e + R @ h[t-1] + 0.5 * e[t+1])
output y = h + sum[M](x[t-1])
""",
    **SPECS, "chained": CHAINED, "counted": COUNTED, "beside": BESIDE, "mutual": MUTUAL, "cached": CACHED,
}


def plans(program: Program) -> list[Plan]:
    """The plans of plain torch and of Triton."""
    return [torch_plan(program, DEFAULTS), KERNELS["triton"].plan(program, DEFAULTS)]


def cut(program: Program) -> list[Plan]:
    """Those that are not the program as it is, each once."""
    torch, triton = plans(program)
    return [plan for plan in ([torch] if torch == triton else [torch, triton]) if plan.stages[0].program is not program]


def check(program: Program, plan: Plan, bounds: tuple[int, ...] | None = None, reverse: bool = False) -> None:
    sizes = sample_sizes(program, batch=len(bounds) - 1 if bounds else 2)
    arrays, cotangents = sample(program, sizes, STEPS, rows=1 if bounds else None)
    want = reference.gradients(program, arrays, cotangents, bounds, reverse)
    found = run_plan(plan, arrays, cotangents, bounds, reverse)
    for here, there in zip(found, want, strict=True):
        for key, x in there.items():
            scale = np.abs(x).max(initial=1.0)
            np.testing.assert_allclose(here.get(key, 0 * x), x, rtol=0, atol=TOLERANCE * scale, err_msg=f"{program.name} {key}")


@pytest.mark.parametrize("name", [*PATHS, *OTHERS])
def test_is_the_program(name: str) -> None:
    program = load(PATHS.get(name) or OTHERS[name])
    for plan in cut(program):
        check(program, plan)


PACKED = ("bidirectional_gru", "mixer", "layer", "plane", "chained", "counted", "once", "ahead", "table", *SPECS)


@pytest.mark.parametrize("name", PACKED)
def test_is_the_program_for_packs_and_backwards(name: str) -> None:
    program = load(PATHS.get(name) or OTHERS[name])
    plan = plans(program)[1]
    check(program, plan, reverse=True)
    if program.plane is None:
        check(program, plan, (0, 2, 2, 6))
        check(program, plan, (0, 1, 6), reverse=True)


FORMS = {  # the recurrences of each, with their states, and whether they go step by step
    "chained": [("h", "step"), ("S", None), ("z", "step")],
    "counted": [("p", "step"), ("S", None)],
    "beside": [("C", None), ("h", "step")],
    "mutual": [("C h", None)],
}


@pytest.mark.parametrize("name", FORMS)
def test_states_of_one_kind_are_a_recurrence_of_their_own(name: str) -> None:
    """And those that feed each other stay together."""
    for plan in plans(load(OTHERS[name])):
        assert [(" ".join(s.program.states), s.form) for s in plan.cores] == FORMS[name]


def test_a_cache_whose_rows_are_told_takes_blocks() -> None:
    """What is written at positions that no state tells is linear in its past; a choice of the state's own is not."""
    chosen = CACHED.replace("M[pos] =", "at = argmax[N](sum[D](M[t-1] * q))\nM[at] =")
    ring = CACHED.replace("M[pos] =", "state n = 0\nn = n[t-1] + 1\nat = position[N](mod(n[t-1], N))\nM[at] =")
    blocks, steps = [("M bias", None), ("h", "step")], [("bias", None), ("M h", "step")]
    for text, cores in ((CACHED, blocks), (chosen, steps), (ring, [("M bias n", None), ("h", "step")])):
        plan = torch_plan(load(text), DEFAULTS)
        assert [(" ".join(s.program.states), s.form) for s in plan.cores] == cores


def test_what_is_handed_over_is_small() -> None:
    """The cell hands over its state, and products of it run between the recurrences, for all steps at once."""
    plan = plans(load(CHAINED))[1]
    assert [(s.name, s.walk) for s in plan.stages] == [
        ("core_1", "steps"), ("before_core_2", "all"), ("core_2", "steps"), ("after_core_2", "all"), ("core_3", "steps"),
        ("after_core", "all"),
    ]
    assert list(plan.stages[0].program.outputs) == ["h"]


def test_a_wish_for_steps_keeps_one_recurrence() -> None:
    program = load(CHAINED + "schedule sequential\n")
    assert [stage.program for stage in plans(program)[0].cores] == [program]


@pytest.mark.parametrize("name", ["layer", "bidirectional_gru", "plane", "chained", "table", "once"])
def test_text_is_read_back(name: str) -> None:
    program = load(PATHS.get(name) or OTHERS[name])
    plan = plans(program)[1]
    text = dump.text_of("plan", plan, program)
    assert dump.read(text) == {f"stage {s.name}": dict(s.program.graph) for s in plan.every()}
    for stage in plan.every():
        assert f"# stage {stage.name}: {stage.walk}" in text


def test_a_wrong_plan_is_told() -> None:
    plan = plans(load(CHAINED))[1]
    first, *rest = plan.stages
    for stages, message in (
        (rest, "core_1|reads h"), ([*rest, first], "reads h"), ([first, *plan.stages], "write"),
        ([replace(first, walk="rows"), *rest], "has the walk rows"),
    ):
        with pytest.raises(SeqcBug, match=message):
            verify_plan(replace(plan, stages=tuple(stages)), "a test")
