"""Every spec in every form that it can take, as emitted torch source, against the float64 reference.

Tolerance 1e-10 relative to the largest element: float64 roundoff times paths of at most 130 steps, with room for the
conditioning of triangular systems with repeated keys.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from seqc.backends.torch_eager import emit
from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.both_ways import one_run
from seqc.ir.program import Program
from tests.harness import check_causality, compare, compare_split, compare_steps, draw

ROOT = Path(__file__).parents[2]
PATHS = {p.stem: p for folder in ("specs", "tests/recurrences") for p in sorted((ROOT / folder).rglob("*.seq"))}
ROWS = 8
TOLERANCE = 1e-10


@cache
def compiled(name: str, form: str) -> tuple[Program, dict[str, Any]]:
    """A spec and the functions emitted for it; skips where the spec cannot take the form."""
    program = one_run(elaborate.load(PATHS[name]))
    try:
        block = lower(program, form, ROWS if form != "step" else None)
    except Unsupported as refusal:
        assert form != "step"
        pytest.skip(str(refusal).split("\n")[0])
    namespace: dict[str, Any] = {}
    exec(compile("import math\nimport torch\n" + emit(block).text, f"<{name} {form}>", "exec"), namespace)
    return program, namespace


every_form = pytest.mark.parametrize("form", ["step", "scan", "chunkwise"])
every_spec = pytest.mark.parametrize("name", PATHS)


@every_form
@every_spec
def test_against_the_reference(name: str, form: str) -> None:
    program, made = compiled(name, form)
    for steps, hard in [(0, False), (1, True), (ROWS - 1, False), (ROWS, True), (ROWS + 1, False), (2 * ROWS + 1, True),
                        (130, False)]:
        compare(draw(program, steps, hard=hard), made["_forward_torch"], made["_backward_torch"], TOLERANCE)


@every_form
@every_spec
def test_split_runs_steps_and_causality(name: str, form: str) -> None:
    program, made = compiled(name, form)
    case = draw(program, 21, hard=True, seed=1)
    if not any(n.number("offset") for n in _inputs(program)):
        compare_split(case, made["_forward_torch"], 10, TOLERANCE)
    if not program.no_step:
        compare_steps(case, made["_forward_torch"], made["_step_torch"], TOLERANCE)
    if not any(n.number("offset") < 0 for n in _inputs(program)):
        check_causality(draw(program, 40, seed=2), made["_forward_torch"], torch.float32)


def _inputs(program: Program) -> list[Any]:
    from seqc.ir.graph import leaves

    return leaves(program.graph.values(), "input")
