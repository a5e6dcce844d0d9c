"""The way of a spec through the compiler, one function per stretch: load, lower, emit."""

from __future__ import annotations

from seqc.block import Block
from seqc.program import Program


def lower(program: Program, form: str | None = None, rows: int | None = None) -> Block:
    """The program's block with its gradient.

    form: "step" | "scan" | "chunkwise", rows: steps per block (a power of two); None leaves the choice to the spec's
    `schedule` and then to the cost model. Raises Unsupported when the recurrence cannot take a wished form.
    """
    from seqc.passes.choose_form import choose_form
    from seqc.passes.classify import classify
    from seqc.ranges import interval_of

    return choose_form(program, classify(program), interval_of(program), form, rows)
