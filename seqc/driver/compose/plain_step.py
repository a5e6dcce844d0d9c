"""The step that the plain form runs, where it is not the step that a caller may call.

In: a program. Out: the text of `_differentiated_step_torch`, and what its caller has to read. Each read of an input at another
step is an input of its own (`seqc.analysis.pieces.without_lags`), and a branch that is not chosen has no derivative
(`seqc.analysis.unchosen`), so the step is one like any other, in plain torch, and every derivative of it is torch's.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.analysis.pieces import Read, without_lags
from seqc.analysis.unchosen import without_unchosen
from seqc.ir.apart import apart
from seqc.ir.arguments import argument_table
from seqc.ir.block import Block
from seqc.ir.graph import leaves
from seqc.ir.inside import INSIDE, exposed
from seqc.ir.once import found_once
from seqc.ir.program import Program

Reads = tuple[tuple[int, int | range], ...]


def without_plain(program: Program) -> bool:
    """Whether a program lacks a plain form, for it has no single steps: two runs, or reads of other steps on two axes."""
    return bool(program.no_step) and _not_one_run(program)


def plain_reads(program: Program) -> Reads:
    """(place among the inputs of a call, steps back) of each input of the plain form's step, where that is its own; the ones
    that tell which steps exist have the place behind the last."""
    if not _own(program):
        return ()
    alone, shifts = _alone(program)
    places = {a.of: i for i, a in enumerate(a for a in argument_table(program) if a.timed)}
    timed = [a.of for a in argument_table(alone) if a.timed]
    return tuple((places.get(x, len(places)), back) for name in timed for x, back in [shifts.get(name, (name, 0))])


def plain_step(block: Block) -> str:
    """The text of `_differentiated_step_torch` and of its helpers; "" where the plain form runs the program's step. block: any
    of the program's."""
    from seqc.backends import torch_eager

    if not _own(block.program):
        return ""
    alone = without_unchosen(apart(_alone(block.program)[0]))
    return torch_eager.one_step(replace(block, program=alone))


def _own(program: Program) -> bool:
    """Whether the plain form has a step of its own."""
    return not _not_one_run(program) and (bool(program.no_step) or without_unchosen(program) is not program)


def _not_one_run(program: Program) -> bool:
    """Whether a program is more than one run over one axis, or half of two."""
    return program.half or program.direction == "both" or program.plane is not None


@found_once
def _alone(program: Program) -> tuple[Program, dict[str, Read]]:
    """The program with each read at another step as an input of its own; each such input -> (input, steps back)."""
    alone, shifts = without_lags(exposed(program))
    read = {n.text("name") for n in leaves(alone.graph.values(), "input")}
    inputs = {name: d for name, d in alone.inputs.items() if name != INSIDE or name in read}
    return replace(alone, inputs=inputs), shifts


__all__ = ["Reads", "plain_reads", "plain_step", "without_plain"]
