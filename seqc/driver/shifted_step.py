"""A step that is given what it reads of other steps: what the plain form runs of a spec that reads inputs of other steps.

In: a program. Out: the text of `_shifted_step_torch`, and what a caller of it has to read. Each read of an input at another
step is an input of its own (`seqc.analysis.pieces.without_lags`), so the step is one like any other, in plain torch, and every
derivative of it is torch's.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.analysis.pieces import without_lags
from seqc.ir.apart import apart
from seqc.ir.arguments import argument_table
from seqc.ir.block import Block
from seqc.ir.graph import leaves
from seqc.ir.inside import INSIDE, exposed
from seqc.ir.program import Program

Reads = tuple[tuple[int, int], ...]


def serves(program: Program) -> bool:
    """Whether a program lacks a step for its reads at other steps alone: it is one run over one axis."""
    return bool(program.no_step) and not program.half and program.direction != "both" and program.plane is None


def reads(program: Program) -> Reads:
    """(place among the inputs of a call, steps back) of each input of the step; the ones that tell which steps exist have the
    place behind the last."""
    alone, shifts = _alone(program)
    places = {a.of: i for i, a in enumerate(a for a in argument_table(program) if a.timed)}
    timed = [a.of for a in argument_table(alone) if a.timed]
    return tuple((places.get(x, len(places)), back) for name in timed for x, back in [shifts.get(name, (name, 0))])


def shifted_step(block: Block) -> str:
    """The text of `_shifted_step_torch` and of its helpers. block: any of the program's."""
    from seqc.backends import torch_eager

    alone, _ = _alone(block.program)
    return torch_eager.one_step(replace(block, program=apart(alone)), "_shifted_step_torch")


def _alone(program: Program) -> tuple[Program, dict[str, tuple[str, int]]]:
    """The program with each read at another step as an input of its own; each such input -> (input, steps back)."""
    alone, shifts = without_lags(exposed(program))
    read = {n.text("name") for n in leaves(alone.graph.values(), "input")}
    inputs = {name: d for name, d in alone.inputs.items() if name != INSIDE or name in read}
    return replace(alone, inputs=inputs), shifts


__all__ = ["Reads", "reads", "serves", "shifted_step"]
