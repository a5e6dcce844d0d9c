"""Pairs of rows of a block by levels: at level b, rows of the upper half of a segment of 2 b rows meet those of the lower half.

In: numbers of rows. Out: nodes, truth values of pairs [t, s]. What levels are for, `seqc.passes.blocks.decay` says.
"""

from __future__ import annotations

from seqc.ir.graph import COL, ROW, Node, index, node


def level_mask(block: int, rows: int) -> Node:
    """[t, s]: t in the upper and s in the lower half of one segment of 2 * block rows, in a block of `rows`."""
    later = node("gt", segment(ROW, block), segment(COL, block))
    return later if 2 * block == rows else node("and", same_segment(2 * block), later)


def segment(dim: str, rows: int) -> Node:
    """The number of the segment of `rows` rows that a row lies in."""
    return index(dim) if rows == 1 else node("block_index", dim=dim, block=rows)


def same_segment(rows: int) -> Node:
    """[t, s]: whether both lie in one segment."""
    return node("eq", segment(ROW, rows), segment(COL, rows))


def levels(rows: int) -> list[int]:
    """Half-block sizes from the widest level to single rows."""
    return [rows >> k for k in range(1, rows.bit_length())]
