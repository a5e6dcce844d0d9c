"""States that no output depends on: a recurrence of their own, of which nothing runs back unless a loss has a last value."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import seqc
from seqc.driver.backends import KERNELS, torch_plan
from seqc.driver.compile import Options, compile_program
from seqc.driver.explain.facts import facts
from seqc.driver.options import DEFAULTS
from seqc.emit.signature import Signature
from seqc.frontend.elaborate import load
from tests.emit.ends_loops import SPECS, compared, given, gradients, loop, losses
from tests.plan_runner import run_plan


@cache
def signed(text: str, backend: str) -> Signature:
    return compile_program(load(text), Options(backend)).signature


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", SPECS)
def test_results_and_gradients_of_every_loss(name: str, backend: str) -> None:
    kept = SPECS[name]
    made = seqc.compile(kept.text, backend=backend)
    assert {*signed(kept.text, backend).optional} == {*kept.ends}
    for what, mine, want in compared(kept, made, made.step, torch.float64):
        torch.testing.assert_close(mine, want, rtol=1e-10, atol=1e-12, msg=lambda text, what=what: f"{what}: {text}")


def test_triton() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.emit.ends_interpreted"], capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) <= 1.0, done.stdout


def noted(function: Callable[..., Any], called: list[str]) -> Callable[..., Any]:
    """The function, whose name is entered where it is called."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        called.append(function.__name__)
        return function(*arguments, **keywords)

    return run


WILD = """
spec wild
dim D
input x[D]
param R[D, D]
state h[D] = 0, m[D] = 1
h = tanh(R @ h[t-1] + x)
m = m[t-1]^4 * x
output h
"""
STAYS = """
spec stays
dim D, K
input x[D], k[K]
param R[D, D]
state h[D] = 0, S[D, K] = 0, n[D, K] = 0
h = tanh(R @ h[t-1] + x)
S = 0.9 * S[t-1] + h * k
n = S * S
output y = sum[D, K](S)
"""


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_nothing_runs_back_and_nothing_is_kept(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of such a recurrence are called back where one of its last values has a cotangent, and else are not."""
    kept = SPECS["watched"]
    made = seqc.compile(kept.text, backend=backend)
    module: Any = made.module
    late = [x for x in vars(module) if x.startswith("_core_2") and x.endswith(f"_backward_{backend}")]
    called: list[str] = []
    for x in late:
        monkeypatch.setattr(module, x, noted(getattr(module, x), called))
    a = given(kept, torch.float64)
    results = made(**a)._asdict()
    seen = {}
    for names in losses(kept):
        called.clear()
        gradients(results, names, [*a.values()])
        seen[names] = sorted(called)
    assert late
    for names, found in seen.items():
        assert found == (sorted(late) if any(f"{x}_T" in names for x in kept.ends) else [])
    saved = [x.name for x in signed(kept.text, backend).backends[backend].saved]
    assert not any(x.startswith(end) for x in saved for end in kept.ends), saved


def test_an_infinite_slope_of_what_no_loss_has_spoils_nothing() -> None:
    """`m` runs to infinity; where only h counts, no product of 0 with it is made."""
    made = seqc.compile(WILD, backend="torch")
    made.module._apart = None  # the way out by single steps is not taken
    x, R = torch.full((1, 12, 2), 100.0, requires_grad=True), torch.randn(2, 2, requires_grad=True)
    found = made(x, R)
    assert found.m_T.isinf().all()
    found.h.sum().backward()
    assert x.grad is not None and R.grad is not None and x.grad.isfinite().all() and R.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(SPECS.keys() - {"delayed"}))  # whose oracle has another name for an earlier value
def test_plans_are_the_program(name: str) -> None:
    """Run stage after stage by the oracle."""
    kept = SPECS[name]
    program = load(kept.text)
    a = given(kept, torch.float64)
    extra = {f"{x}_0": torch.zeros(2, dtype=torch.float64) for x in program.states if x not in kept.states}
    exact = loop(kept, a)
    arrays = {x: v.detach().numpy() for x, v in (a | extra).items()}
    ends = exact | {f"{x.removesuffix('_0')}_T": v for x, v in extra.items()}
    for plan in (torch_plan(program, DEFAULTS), KERNELS["cpu"].plan(program, DEFAULTS)):
        found, _ = run_plan(plan, arrays, {x: 0.0 * v.detach().numpy() for x, v in ends.items()})
        for x, want in exact.items():
            torch.testing.assert_close(torch.as_tensor(found[x]), want.detach(), rtol=1e-12, atol=1e-12)


def test_both_runs_and_what_stays() -> None:
    """Of `scan both` each run has its own; where the hand-over would cost more than it saves, a state stays where it is."""
    text = SPECS["watched"].text.replace("dim D", "dim D\nscan both")
    assert len(signed(text, "torch").optional) == 6
    assert signed(STAYS, "torch").optional == ()


def test_matrices_that_are_made_once_stand_in_one_stage() -> None:
    made = "spec made\ndim N = 3\ninput u[N]\nparam A[N, N], B[N, N]\nstate x[N] = 0, y[N] = 0\n"
    made += "x = expm(A) @ x[t-1] + u\ny = expm(B) @ y[t-1] + u\noutput o = x\n"
    assert signed(made, "torch").optional == ()


def test_explained() -> None:
    said = facts(compile_program(load(SPECS["watched"].text)))["ends"]
    assert [*said] == ["mean, n, peak"]
    assert "reads h" in said["mean, n, peak"] and "unless a loss has mean_T or n_T or peak_T" in said["mean, n, peak"]
