"""Positions that a step chooses (`argmax[V](x)`, `position[V](x)`), and what is read and written at positions.

In: values and nodes. Out: values and nodes. What an input `index V` tells is whole as it is given. A position that the step has
chosen itself is a number, and so may be one that a state keeps: it is cut to the positions that there are.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.frontend.values import Misuse, Value, apply, number, real, reduced
from seqc.ir.dims import primed
from seqc.ir.graph import Node, const, index, node, renamed, size
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.indexing import as_place, gather, put

CHOICES = ("argmax", "argmin", "sample", "position")
"""The functions that tell positions."""


def chosen(x: Value, dims: tuple[str, ...]) -> Value:
    """`argmax[V](x)`: the first position of the largest element; the last position where one is NaN."""
    if len(dims) != 1:
        raise Misuse("a position is one of one dim", help="write `argmax[V](x)`")
    x, dim = real(x), dims[0]
    largest = apply("eq", x, reduced("amax", x, dims))
    last = apply("sub", Value(size(dim)), number(1.0))
    first = apply("where", largest, Value(index(dim), (dim,)), last)
    low = apply("neg", reduced("amax", apply("neg", first), dims))
    return Value(low.node, low.order, None, low.written, dim)


def position(x: Value, dims: tuple[str, ...]) -> Value:
    """`position[V](x)`: a number as a position, rounded down and cut to those that V has; NaN is the first one."""
    x = real(x)
    if len(dims) != 1:
        raise Misuse("a position is one of one dim", help="write `position[V](x)`")
    largest = apply("sub", Value(size(dims[0])), number(1.0))
    cut = apply("where", apply("gt", x, number(0.0)), apply("min", x, largest), number(0.0))
    return replace(apply("floor", cut), places=dims[0])


def _place(place: Node, dim: str) -> Node:
    """A position as whole numbers."""
    if place.op == "as_real":
        return place.args[0]
    low = where(node("gt", place, const(0.0)), place, 0.0)  # NaN: the first position
    return as_place(node("min", low, size(dim) - 1.0))


def _apart(x: Node, place: Value) -> tuple[Node, Node, str]:
    """x, positions as whole numbers, and the dim of x that they are of: positions may have that dim too, which x then calls
    by another name."""
    dim, at = place.places, place.node
    other = primed(dim, {*x.dims, *at.dims}) if dim in at.dims else dim
    return renamed(x, dim, other), _place(at, dim), other


def rows_at(x: Node, place: Value) -> Node:
    """x at positions of one of its dims."""
    return gather(*_apart(x, place))


def written_rows(x: Node, rows: Node, place: Value) -> Node:
    """x with `rows` at positions of one of its dims; of several rows for one position the last stays."""
    x, at, other = _apart(x, place)
    return renamed(put(x, rows, at, other), other, place.places)
