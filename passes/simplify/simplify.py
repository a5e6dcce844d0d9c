"""graph -> the same values with fewer operators.

Needs: nothing. Gives: constants folded (by the float64 reference), neutral elements and double signs gone, factors
pulled out of sums, nested sums merged, broadcasting as late as possible; equal subexpressions are one node, and dead
ones are gone, because nodes are interned. Dims of a root stay as they are, but a broadcast at a root is dropped.

The laws, and what each may change, are in `seqc.passes.simplify.laws`.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.ir.graph import Node
from seqc.ir.rewrite import rewrite
from seqc.passes.simplify.laws import RULES


def simplify(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """The outputs, simplified; a root may lose dims along which it is constant."""
    return {name: _unbroadcast(n) for name, n in rewrite(outputs, RULES)[0].items()}


def simplify_named(
    outputs: Mapping[str, Node], names: Mapping[Node, str]
) -> tuple[dict[str, Node], dict[Node, str]]:
    """The same, with the names that nodes were given carried along to what they have become."""
    new, image = rewrite(outputs, RULES)
    kept: dict[Node, str] = {}
    for old, name in names.items():
        now = _unbroadcast(image.get(old, old))
        if now.op not in ("leaf", "const"):
            kept.setdefault(now, name)
    return {name: _unbroadcast(n) for name, n in new.items()}, kept


def _unbroadcast(n: Node) -> Node:
    while n.op == "expand":
        n = n.args[0]
    return n
