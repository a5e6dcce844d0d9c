"""What choices mean for the nodes below them: where any place of a row is chosen, and which nodes may be infinite."""

from __future__ import annotations

from collections.abc import Iterable

from seqc.ir.graph import Node, node, topological
from seqc.ir.ops import holds
from seqc.ir.ops.elementwise import where


def any_of(chosen: Node, over: tuple[str, ...]) -> Node:
    """Whether a condition holds at any place along some dims."""
    if not over:
        return chosen
    return node("gt", node("amax", where(chosen, 1.0, 0.0), over=over), node("const", value=0.5))


def steep_nodes(roots: Iterable[Node]) -> dict[Node, bool]:
    """For each node, whether it or one below it may be infinite, or have an infinite slope, at finite leaves."""
    steep, moved = dict[Node, bool](), dict[Node, bool]()
    for n in topological(roots):
        moved[n] = n.op == "leaf" or any(moved[a] for a in n.args)
        own = holds(n, "steep") or (holds(n, "curved") and not holds(n, "finite"))
        steep[n] = (own and moved[n]) or any(steep[a] for a in n.args)
    return steep
