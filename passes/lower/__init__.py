"""Passes that backends ask for: a block, or a graph of it, in a form that is nearer to loops and arrays.

Each is a function of graphs, is verified after it has run, and stands in `seqc.passes.LOWERINGS` as a stage on a whole
block, so that `seqc pass` runs it on a dump. A backend asks for it with what only the backend knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seqc.ir.block import Block, cotangent_leaves
from seqc.ir.graph import BATCH, Node
from seqc.ir.keys import next_key, prev_key
from seqc.passes.lower.along import along
from seqc.passes.lower.hoist import hoist
from seqc.passes.lower.pieces import long_dims, pieces
from seqc.passes.lower.regroup import regroup
from seqc.passes.lower.unroll_steps import unroll_steps


def without_moves(block: Block) -> Block:
    """Shifts and running sums along dims of the spec as choices and sums: native code has no loop for them."""
    return replace(block, forward=along(block.forward), backward=along(block.backward))


def regrouped(block: Block) -> Block:
    """Factors of equal dims meet first, as native code multiplies them where it loops over all dims but the batch."""

    def local(dims: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(d for d in dims if d != BATCH))

    return replace(block, forward=regroup(block.forward, local)[0], backward=regroup(block.backward, local)[0])


def hoisted(block: Block) -> Block:
    """Scans out of the loop over blocks, as plain torch runs them for all blocks at once."""
    states = block.program.states
    given = cotangent_leaves(block.program, block.form)
    forward, _ = hoist(block.forward, block.program.carried, block.rows)
    backward, _ = hoist(block.backward, {given[next_key(s)]: prev_key(s) for s in states}, block.rows)
    return replace(block, forward=forward, backward=backward)


def in_pieces(block: Block) -> Block:
    """Long dims in pieces that one program of a GPU holds side by side."""
    return pieces(block, long_dims(block))


def two_steps(block: Block) -> dict[str, Node]:
    """The second of two steps that run as one, as native code runs several; the block's own graph where it has many rows."""
    if block.form != "step":
        return dict(block.forward)
    return unroll_steps(block.forward, block.program.carried, 2)[-1]
