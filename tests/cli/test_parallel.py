"""Files whose products run before and after the recurrence: every part, as functions and as an operator; what is told of it.

float64 to 1e-10: roundoff times paths of at most 40 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType

import pytest
import torch

from seqc.driver.compile import Compiled
from seqc.driver.explain.facts import facts
from seqc.driver.explain.text import explanation
from seqc.driver.load_emitted import load_emitted
from seqc.ir.graph import leaves
from tests.cli.parallel import FOLDERS, compiled
from tests.harness import Case, check_causality, compare, compare_split, compare_steps, draw, tensors
from tests.triton import processes

TOLERANCE = 1e-10
SIZES = {"D": 6, "M": 5}
Call = Callable[..., tuple[torch.Tensor, ...]]
FEW = ["layer", "rwkv7_time_mix"]  # both ways out of the recurrence, with lags and without
every = pytest.mark.parametrize("name", FOLDERS)


@cache
def native(name: str) -> tuple[Compiled, ModuleType]:
    """A file with a native part, loaded."""
    made = compiled(name, "cpu")
    return made, load_emitted(made.text, name)


def contiguous(function: Call) -> Call:
    """The function behind a boundary that makes its arguments contiguous, as the emitted operator does."""
    return lambda *arguments: function(*(x.contiguous() for x in arguments))


def lagged(case: Case) -> bool:
    """Whether the spec reads an input at other steps, so that a run cannot be cut."""
    return any(n.number("offset") for n in leaves(case.program.graph.values(), "input"))


@every
def test_native_part(name: str) -> None:
    made, module = native(name)
    assert "_core_forward_cpu" in made.text
    for steps, hard in ((1, False), (2, True), (37, False)):
        case = draw(made.program, steps, SIZES, hard=hard, seed=steps)
        compare(case, module._forward_cpu, module._backward_cpu, TOLERANCE)
    for alone, saving in zip(module._infer_cpu(*tensors(case)), module._forward_cpu(*tensors(case)), strict=False):
        assert torch.equal(alone, saving)


@every
def test_split_runs_steps_and_causality(name: str) -> None:
    made, module = native(name)
    case = draw(made.program, 21, SIZES, seed=1)
    if not lagged(case):
        compare_split(case, contiguous(module._forward_cpu), 10, TOLERANCE)
        compare_steps(case, module._forward_cpu, contiguous(module._step_cpu), TOLERANCE)
    if all(n.number("offset") >= 0 for n in leaves(made.program.graph.values(), "input")):
        check_causality(draw(made.program, 40, SIZES, seed=2), contiguous(module._infer_cpu), torch.float32)


@every
def test_operator(name: str) -> None:
    """Registration, shapes for tracing, and gradients, as torch checks them."""
    made, module = native(name)
    case = draw(made.program, 5, SIZES)
    arguments = [x.requires_grad_() for x in tensors(case)]
    torch.library.opcheck(module._OPS.run.default, [*arguments, None, False])
    with torch.no_grad():
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(module._OPS.forward.default, [*tensors(case), None, False], test_utils=checks)


@pytest.mark.parametrize("names", [FEW, pytest.param([x for x in FOLDERS if x not in FEW], marks=pytest.mark.long)])
def test_triton_part(names: list[str]) -> None:
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.cli.parallel", *names])
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_product_stands_once_in_the_file() -> None:
    """Both parts call what plain torch holds."""
    text = compiled("layer", "auto").text
    assert text.count("def _before_core(") == text.count("def _after_core(") == 1
    assert text.count("= _before_core(") == 2 * 2  # forward and infer of two parts; a step of it alone reads no lag


def test_explanation_tells_what_leaves_and_why() -> None:
    made = compiled("rwkv7_time_mix", "auto")
    told = facts(made)["parallel"]
    assert told["W_k @ (x + d * mix_k)"].startswith("before the recurrence, saves 524288 operations")
    assert told["sum[K](r * k * r_k)"].startswith("inside the recurrence, would save")
    assert "leaves the recurrence where that saves 4 operations for each byte moved" in explanation(made)
    assert "W_k @ (x + d * mix_k): before the recurrence" in made.text
    assert made.signature.inputs[0].gate is False  # x reaches the decay through a product, which rounds
