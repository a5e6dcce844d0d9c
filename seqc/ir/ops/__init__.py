"""The operator table: one row per operator, everything that the compiler knows of it. See `docs/add-an-op.md`."""

from __future__ import annotations

from seqc.ir.graph import Node
from seqc.ir.ops import dense, elementwise, indexing, random, structure
from seqc.ir.ops.row import Op

TABLE: dict[str, Op] = {
    row.name: row for row in (*structure.ROWS, *indexing.ROWS, *elementwise.ROWS, *dense.ROWS, *random.ROWS)
}


def holds(n: Node, law: str) -> bool:
    """Whether a node's operator has a law of its row."""
    return law in TABLE[n.op].laws


__all__ = ["TABLE", "Op", "holds"]
