"""The plain torch part of a recurrence that is linear in its states: its step form, cut in pieces where a call is long.

In: a program and the block that plain torch has of it. Out: the block and the kernels that can cut, or the reason why not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.analysis.pieces import Pieces, pieces_of
from seqc.driver.compose.pieces import CALL, ELEMENT, compose_pieces
from seqc.driver.pipeline import lower
from seqc.ir.block import Block, Reason
from seqc.ir.program import Program
from seqc.passes.blocks.choose import EAGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from seqc.emit import Kernels

LONG = 4096  # steps of a sequence for which it is asked whether a piece can pay
SMALL = 4


def in_pieces(program: Program, block: Block, emit: Callable[[Block], Kernels], mark: str) -> tuple[Block, Kernels] | None:
    """The block and its kernels; None where the step form is not to be cut. emit: the kernels of a block; mark: what the names
    of this recurrence's functions end with, where a file has several."""
    from seqc.backends.torch_eager import lone, saved

    if block.form != "step" or program.wishes.form is not None:
        return None
    cut = pieces_of(program)
    if isinstance(cut, str):
        return None
    if cut.algebra == "log" and len(saved(block)) < len(program.states):
        return None  # the shares of a sum are made of the states before and after it
    gain = _gain(cut)
    if gain < 1:
        return None
    whole = lower(cut.whole, "step", None, EAGER) if cut.shifts else block
    ends, spans = (lone(lower(p, "step", None, EAGER), name, doc) for name, p, doc in (
        ("_ends", cut.ends, "The states after a piece, from those before it."),
        ("_spans", cut.spans, "What each state after a piece has of each state before it."),
    ))  # fmt: skip
    numbers = f"{len(cut.links)} number{'s' * (len(cut.links) > 1)}"
    text = (
        f"long sequences in pieces of time side by side, with {numbers} a place for what a piece makes of the states before "
        f"it: modelled time {1 / gain:.2g} of the step form for one sequence of {LONG} steps (open dims of {SMALL}); "
        "a call decides by its sizes"
    )
    block = replace(block, reasons=(*block.reasons, Reason("form", "pieces", text)))
    return block, compose_pieces(program, cut, emit(whole), ends, spans, mark)


def _gain(cut: Pieces) -> float:
    """How many times faster one long sequence is in pieces, as modelled."""
    sizes = {d.name: d.default or SMALL for d in cut.whole.dims.values()}  # an open size may be small: a call decides
    loads = cut.loads
    whole, calls = loads["whole"], sum(x.calls for x in loads.values())
    links = 3 * len(cut.links) + 3
    size = (LONG * links / max(calls, 1)) ** 0.5
    apart: float = LONG * (whole.calls * CALL + whole.size(sizes) * ELEMENT)
    elements = sum(x.size(sizes) for x in loads.values())
    taken: float = size * calls * CALL + LONG / size * links * CALL + 2 * LONG * elements * ELEMENT
    return apart / taken
