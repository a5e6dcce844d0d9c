"""Which nodes are positions: made of where an element stands, and of extents, and of no value.

In: nodes. Out: truth values. They are printed as integers where they are compared, and anew wherever they are read.
"""

from __future__ import annotations

from seqc.ir.graph import Node, topological


def is_position(n: Node) -> bool:
    """Whether n is made of positions, extents and whole constants alone."""
    if n.op == "const":
        return float(n.attr("value")).is_integer()  # type: ignore[arg-type]
    if n.op in ("add", "sub"):
        return all(is_position(a) for a in n.args)
    return not n.args and n.op != "leaf"


def has_positions(n: Node) -> bool:
    """Whether a position stands below n."""
    return any(x.op in ("index", "block_index") for x in topological([n]))
