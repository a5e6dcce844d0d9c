"""The way of a spec through the compiler, one function per stretch: load, lower, emit."""

from __future__ import annotations

from seqc.block import Block
from seqc.program import Program


def lower(program: Program, form: str | None = None) -> Block:
    """The program's block form with its gradient. form: "step" | "scan" | "chunkwise", or None for the compiler's choice."""
    from seqc.passes.derive_backward import derive_backward

    forward = program.graph
    return Block(program, "step", 1, forward, derive_backward(program, "step", forward), names=program.definitions)
