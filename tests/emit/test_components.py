"""Specs whose states are recurrences of their own: emitted code against the oracle, on the backends that cut them."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import seqc
from seqc.check.verify_emitted import check
from seqc.driver.compile import Compiled, Options, compile_program
from seqc.frontend.elaborate import load
from tests.core.test_plans import CHAINED
from tests.triton import processes

SPECS = {
    "chained": CHAINED,
    "counted": """
spec counted
dim H, K, V
input q[H, K], k[H, K], v[H, V], g[H, K] in [-inf, 0]
state p = 0, S[H, K, V] = 0
p = mod(p[t-1] + 1, 4096)
S = exp(g) * S[t-1] + k * cos(0.1 * p) * v
output o = sum[K](q * S)
""",
    "refused": """
spec refused
dim H, K, V, N
input q[H, K], k[H, K], v[H, V], g[H, K] in [-inf, 0], u[N]
param A[N, N]
state S[H, K, V] = 0, w[N] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
output w = solve(eye[N] + 0.1 * tanh(A * sum[N](w[t-1])), u)
""",
}
"""The second one counts; of the third, kernels have no word for the system, whose size is open: that is left to plain torch."""


@cache
def compiled(name: str, backend: str) -> Compiled:
    return compile_program(load(SPECS[name]), Options(backend))


@pytest.mark.parametrize("name", SPECS)
def test_plain_torch(name: str) -> None:
    """Lengths around the blocks, packs, both directions, split runs, loops of steps, differences."""
    made = compiled(name, "torch")
    assert len(made.stages["torch"]) == (3 if name == "chained" else 2)
    assert [one.what for one in check(made, dict.fromkeys(made.program.dims, 2)) if one.error > one.allowed] == []


def test_kernels_leave_what_they_have_no_word_for() -> None:
    made = compiled("refused", "auto")
    assert list(made.chosen) == ["core_1"] and made.stages["triton"]["core_1"].form == "chunkwise"
    assert "def _core_2(" in made.text and "def _core_2_backward(" in made.text
    assert "a system of `N` equations" in made.missing["cpu"]  # native code keeps one recurrence


def test_second_derivatives() -> None:
    """Of single steps, one recurrence after the other."""
    made = seqc.compile(SPECS["chained"], backend="torch")
    given = {n: torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True) for n in "xq"}
    given |= {n: torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for n in ("R", "W_k", "W_v", "U", "P", "C")}
    assert torch.autograd.gradgradcheck(lambda *xs: made(**dict(zip(given, xs, strict=True))).y, tuple(given.values()))


def test_triton() -> None:
    done = processes.run(["-m", "tests.emit.components_interpreted"])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) <= 1.0


def test_explained() -> None:
    said = compiled("counted", "auto")
    from seqc.driver.explain.facts import facts
    from seqc.driver.explain.text import explanation

    text = " ".join(explanation(said).split())
    assert "plain torch: 2 recurrences, one after the other p: step by step" in text and "S: chunkwise" in text
    parts = facts(said)["parts"]["triton"]["recurrences"]
    assert [(one["states"], one["form"]) for one in parts] == [(["p"], "step"), (["S"], "chunkwise")]
