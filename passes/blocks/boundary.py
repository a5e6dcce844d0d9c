"""step graph -> block of C rows, for a state that is replaced at a boundary (`every N: S = EXPR`) which may lie in the block.

    rows up to the boundary:   the recurrence from S as the block begins; its end is S_p
    rows after it:             the same recurrence from EXPR(S_p), where there is a boundary, else from S_p
    a readout is the first one's up to the boundary, and the second one's after it

A block of at most N rows holds at most one boundary. Where it lies, a carried count tells at run time and for each batch
element, so a run may be split anywhere; rows that belong to the other part are neutral, like rows outside the sequence.
Needs: `seqc.analysis.boundaries`. Gives: `Boundary`, and `Parts`, which answers readouts like `coupled.System`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.analysis.boundaries import Hook
from seqc.ir.block import VALID
from seqc.ir.graph import ROW, Node, const, index, leaves, node, substitute, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded
from seqc.passes.blocks.chunkwise import Chunk


@dataclass(frozen=True)
class Boundary:
    """after: [B, t], whether a row comes after the boundary. reached: [B], whether it lies in the block. count: at its end."""

    after: Node
    reached: Node
    count: Node


def boundary(start: Node, period: int) -> Boundary:
    """The boundary of a block that begins `start` steps after the one before."""
    after = node("ge", start + index(ROW), const(period))
    rows = total(where(VALID, 1.0, 0.0), (ROW,))
    reached = node("ge", start + rows, const(period))
    since = total(where(after, where(VALID, 1.0, 0.0), 0.0), (ROW,))
    return Boundary(after, reached, node("stopgrad", where(reached, since, start + rows)))


def replaced(hook: Hook, state: Node) -> Node | None:
    """What a boundary makes of a state, or None where it reads more of its step than the state and parameters."""
    cut = substitute({"": hook.value}, {hook.free: expanded(const(0.0), hook.free.dims)})[""]
    if any(n.text("kind") != "param" for n in leaves([cut])):
        return None
    return substitute({"": hook.value}, {hook.free: state})[""]


@dataclass
class Parts:
    """One state: a chunk up to the boundary, and one after it."""

    after: Node
    chunks: tuple[Chunk, Chunk]

    def read(self, i: int, q: Node, over: tuple[str, ...], exclusive: bool) -> Node:
        """[t, ...]: sum[over](q * S) after the row's own update (before it if exclusive)."""
        first, second = (chunk.read(q, over, exclusive) for chunk in self.chunks)
        return where(self.after, second, first)
