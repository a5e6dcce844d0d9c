"""graph -> the same values without operators along a dim that no loop nest has.

    shift[d](x), x the same along d or index[d]     ->   where(inside, x, 0)
    cumsum[d](x)                                    ->   sum[d'](where(index[d'] <= index[d], x[d -> d'], 0))

A shift of anything else stays: it is a read of other elements. Scans along a dim of the spec have no loop: they are refused by
the schedule. Needs: nothing. Gives: values equal to the bit, but for the order of a running sum.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.ir.dims import primed
from seqc.ir.graph import Node, const, index, node, renamed, size, total, transform
from seqc.ir.ops.elementwise import where
from seqc.ir.views import view


def along(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """The outputs; see the file's docstring."""
    return transform(outputs, _changed)


def _changed(n: Node) -> Node | None:
    if n.op == "shift":
        return _shift(n)
    return _cumsum(n) if n.op == "cumsum" and not n.number("block") else None


def _shift(n: Node) -> Node | None:
    dim, by, x = n.text("dim"), n.number("by"), n.args[0]
    v = view(x)
    at = index(dim)
    if v.base.op == "index" and v.index[0][1] == dim:
        x = at - float(by)
    elif any(dim in (i, getattr(i, "i", None)) for _, i in v.index):
        return None
    inside = node("ge", at, const(by)) if by > 0 else node("lt", at, size(dim) + float(by))
    return where(inside, x, 0.0) if by else x


def _cumsum(n: Node) -> Node:
    dim, x = n.text("dim"), n.args[0]
    other = primed(dim, n.dims)
    earlier = {(False, False): "le", (False, True): "lt", (True, False): "ge", (True, True): "gt"}
    mask = node(earlier[bool(n.number("reverse")), bool(n.number("exclusive"))], index(other), index(dim))
    return total(where(mask, renamed(x, dim, other), 0.0), (other,))
