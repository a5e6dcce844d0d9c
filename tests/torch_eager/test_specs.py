"""Every spec in every form that it can take, against the float64 reference: its block alone, and as emitted torch source.

`specs/` are the published ones, `tests/recurrences/` are others, for which nobody tuned the compiler. A form that a recurrence
cannot take is refused with a reason; which forms there are is asserted (`tests/forms.tsv`).

Tolerances are relative to the largest element. Torch 1e-10: float64 roundoff times paths of at most 130 steps, with room for
the conditioning of triangular systems with repeated keys. A block in numpy 1e-11: the same, of at most 17 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from seqc.backends.torch_eager import emit
from seqc.frontend import elaborate
from seqc.ir.block import Block
from seqc.ir.both_ways import one_run
from seqc.ir.graph import leaves
from seqc.ir.program import Program
from tests import forms
from tests.block_runner import run_block
from tests.harness import Case, check_causality, compare, compare_split, compare_steps, draw

ROWS = 8
TOLERANCE, OF_BLOCKS = 1e-10, 1e-11
# steps; whether arguments are extreme; whether the block alone is run as well
LENGTHS = [(0, False, True), (1, True, True), (ROWS - 1, False, False), (ROWS, True, True), (ROWS + 1, False, True),
           (2 * ROWS + 1, True, True), (130, False, False)]


@contextmanager
def told(words: str) -> Iterator[None]:
    """Failures inside say the words too."""
    try:
        yield
    except Exception as error:
        error.add_note(words)
        raise


@pytest.mark.parametrize("name", forms.PATHS)
def test_every_form(name: str) -> None:
    program = one_run(elaborate.load(forms.PATHS[name]))
    blocks = forms.blocks(program, ROWS)
    assert not (words := forms.changed(name, "torch", [*blocks])), words
    if len(blocks) > 1 and len(forms.kept()[name, "triton"]) == 1:  # `triton/test_kernels` tells of the others
        assert not (words := forms.changed(name, "triton", forms.on_gpu(forms.for_kernels(program)))), words
    made: dict[str, dict[str, Any]] = {}
    for form, block in blocks.items():
        assert block.form == form
        made[form] = dict[str, Any]()
        exec(compile("import math\nimport torch\n" + emit(block).text, f"<{name} {form}>", "exec"), made[form])
    for steps, hard, alone in LENGTHS:
        case = draw(program, steps, hard=hard)
        for form, block in blocks.items():
            with told(f"{form}, torch"):
                compare(case, made[form]["_forward_torch"], made[form]["_backward_torch"], TOLERANCE)
            if alone:
                with told(f"{form}, the block alone"):
                    compare_block(case, block)
    for form in blocks:
        with told(form):
            others(program, made[form])


def compare_block(case: Case, block: Block) -> None:
    """The results and gradients of the block, run in numpy."""
    want, slopes = case.truth()
    with np.errstate(all="ignore"):
        results, gradients = run_block(block, case.arrays, case.cotangents)
    moved = {name: torch.as_tensor(x.copy()) for name, x in gradients.items()}
    found = {**results, **{f"d.{name}": case.kept(name, x).numpy() for name, x in moved.items()}}
    for name, x in {**want, **{f"d.{name}": x for name, x in slopes.items()}}.items():
        scale = np.abs(x).max(initial=1.0)
        np.testing.assert_allclose(found[name], x, rtol=0, atol=OF_BLOCKS * scale, err_msg=name)


def others(program: Program, made: dict[str, Any]) -> None:
    """Runs in two parts, single steps, and that no output sees a later step."""
    offsets = [n.number("offset") for n in leaves(program.graph.values(), "input")]
    case = draw(program, 21, hard=True, seed=1)
    if not any(offsets):
        compare_split(case, made["_forward_torch"], 10, TOLERANCE)
    if not program.no_step:
        compare_steps(case, made["_forward_torch"], made["_step_torch"], TOLERANCE)
    if min(offsets, default=0) >= 0:
        check_causality(draw(program, 40, seed=2), made["_forward_torch"], torch.float32)
