"""A recurrence of two directions, over two axes, or with reads ahead -> a walk around one over one axis, in one direction.

    scan both       ->  one run, twice                         (`seqc.ir.both_ways`)
    axis t, u       ->  the recurrence over diagonals          (`seqc.ir.two_axes`)
    e = .., e[t+1]  ->  1 at every step, and the recurrence that reads these as an input   (`seqc.ir.inside`)

Needs: the step graph. Gives: a plan, or None where there is nothing of the kind.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.ir.both_ways import one_run
from seqc.ir.graph import const
from seqc.ir.inside import INSIDE, exposed
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program
from seqc.ir.two_axes import diagonals


def both(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """Both runs of `scan both`."""
    return None if stage.program.direction != "both" else _around("one_run", "both", stage, one_run(stage.program))


def over_diagonals(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """The diagonals of two axes."""
    return None if stage.program.plane is None else _around("wave", "diagonals", stage, diagonals(stage.program))


def _around(name: str, walk: str, stage: Stage, inner: Program) -> Plan:
    return Plan(stage.program, (Stage(name, walk, stage.program, Plan(inner, (replace(stage, program=inner),))),))


def ones(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """The ones that tell which steps exist."""
    told = exposed(stage.program)
    if told is stage.program:
        return None
    made = {INSIDE: replace(told.inputs[INSIDE], kind="output")}
    empty = replace(
        told, inputs={}, params={}, states={}, updates={}, outputs={INSIDE: const(1.0)}, output_decls=made, claims=(),
    )  # fmt: skip
    return Plan(stage.program, (Stage("inside", "ones", empty), replace(stage, program=told)))
