"""Operators that read and write at positions which a value tells: rows of a table by an index.

An index is an array of whole numbers of dtype "int": a leaf, or numbers that a step has made whole. It has no derivative.
`gather` reads, `scatter` adds up what is meant for the same place: each is the other's derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.ir.graph import Dims, Node, const, index, node, total
from seqc.ir.intervals import Interval
from seqc.ir.ops.dense import placed
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.row import Op
from seqc.ir.ops.structure import expanded


def gather(x: Node, place: Node, dim: str) -> Node:
    """x at the positions `place` of its dim; dims that both have are lined up."""
    return node("gather", x, place, dim=dim)


def as_real(place: Node) -> Node:
    """An index as a number."""
    return node("as_real", place)


def as_place(x: Node) -> Node:
    """A whole number that a step has computed as an index: a position that there is."""
    return node("as_place", x)


def scatter(d: Node, place: Node, dim: str, over: Dims) -> Node:
    """y[dim = v] = the sum over `over` of d where place = v; 0 where nothing is meant for v."""
    dims = tuple(sorted({*d.dims, *place.dims}))
    return node("scatter", expanded(d, dims), place, dim=dim, over=tuple(sorted(over)))


def put(x: Node, rows: Node, place: Node, dim: str) -> Node:
    """x with `rows` at the positions `place` of its dim; of several rows for one position (along the one dim that `place` has
    and x has not) the last stays."""
    over = tuple(d for d in place.dims if d not in x.dims)
    assert len(over) < 2, over
    own = tuple(sorted({*(d for d in x.dims if d != dim), *place.dims}))
    return node("put", x, expanded(rows, own), place, dim=dim, over=over)


def _put_dims(n: Node) -> Dims:
    x, rows, place = n.args
    dim, over = n.text("dim"), n.names("over")
    assert dim in x.dims and dim not in (*rows.dims, *place.dims), (dim, x.dims, rows.dims, place.dims)
    assert set(over) <= set(place.dims), (over, place.dims)
    return (*x.dims, *(d for d in (*rows.dims, *place.dims) if d not in over))


def _np_put(n: Node, x: Any, rows: Any, place: Any) -> Any:
    over, dim = n.names("over"), n.text("dim")
    sizes: dict[str, int] = {}
    for a, value in zip(n.args, (x, rows, place), strict=True):
        sizes |= dict(zip(a.dims, value.shape, strict=True))
    if place.size and not (place.min() >= 0 and place.max() < sizes[dim]):
        raise IndexError(f"an index is outside of {dim}, whose size is {sizes[dim]}")
    left = tuple(d for d in n.dims if d != dim)
    out = np.array(_spread(x, n.args[0].dims, n.dims, sizes))
    rows = _spread(rows, n.args[1].dims, (*over, *left), sizes)
    place = np.moveaxis(place, [n.args[2].dims.index(d) for d in over], list(range(len(over))))
    dims = tuple(d for d in n.args[2].dims if d not in over)
    for i in range(sizes[over[0]] if over else 1):
        some, at = (rows[i], place[i]) if over else (rows, place)
        out[positions(n.dims, left, at, dims, dim, some.shape)] = some
    return out


def _spread(x: Any, have: Dims, want: Dims, sizes: dict[str, int]) -> Any:
    """x repeated along the dims that it lacks."""
    return np.broadcast_to(placed(x, have, want), [sizes[d] for d in want])


def _stays(n: Node) -> Node:
    """1 for the rows that a later one for the same position does not replace, else 0."""
    over, place = n.names("over"), as_real(n.args[2])
    if not over:
        return const(1.0)
    later = f"{over[0]}'"
    other = node("rename", place, old=over[0], new=later)
    hidden = node("and", node("eq", place, other), node("gt", index(later), index(over[0])))
    return where(node("gt", total(where(hidden, 1.0, 0.0), (later,)), const(0.0)), 0.0, 1.0)


def _put_vjp(n: Node, d: Node) -> Node:
    return put(expanded(d, n.dims), const(0.0), n.args[2], n.text("dim"))


def _put_rows_vjp(n: Node, d: Node) -> Node:
    return gather(expanded(d, n.dims), n.args[2], n.text("dim")) * _stays(n)


def _gather_dims(n: Node) -> Dims:
    x, place = n.args
    assert n.text("dim") in x.dims and n.text("dim") not in place.dims, (n.text("dim"), x.dims, place.dims)
    return tuple(d for d in (*x.dims, *place.dims) if d != n.text("dim"))


def _scatter_dims(n: Node) -> Dims:
    d, place = n.args
    missing = set(n.names("over")) - set(place.dims) or set(place.dims) - set(d.dims) or {n.text("dim")} & set(d.dims)
    assert not missing, f"scatter over {n.names('over')} of {d!r}"
    return (*(x for x in d.dims if x not in n.names("over")), n.text("dim"))


def positions(axes: Dims, whole: Dims, place: Any, place_dims: Dims, dim: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Index arrays, one for each of `axes`, that broadcast to the dims `whole`: `place` along `dim`, else all positions."""
    out = []
    for axis in axes:
        if axis == dim:
            order = [place_dims.index(d) for d in whole if d in place_dims]
            own = [place.shape[place_dims.index(d)] if d in place_dims else 1 for d in whole]
            out.append(np.transpose(place, order).reshape(own))
        else:
            at = whole.index(axis)
            out.append(np.arange(shape[at]).reshape([-1 if i == at else 1 for i in range(len(whole))]))
    return tuple(out)


def _np_gather(n: Node, x: Any, place: Any) -> Any:
    table, dim = n.args[0].dims, n.text("dim")
    if place.size and not (place.min() >= 0 and place.max() < x.shape[table.index(dim)]):
        raise IndexError(f"an index is outside of {dim}, whose size is {x.shape[table.index(dim)]}")
    sizes = {**dict(zip(table, x.shape, strict=True)), **dict(zip(n.args[1].dims, place.shape, strict=True))}
    shape = tuple(sizes[d] for d in n.dims)
    return np.broadcast_to(x[positions(table, n.dims, place, n.args[1].dims, dim, shape)], shape)


def _np_scatter(n: Node, d: Any, place: Any, extent: int) -> Any:
    have, dim = n.args[0].dims, n.text("dim")
    sizes = {**dict(zip(have, d.shape, strict=True)), dim: extent}
    out = np.zeros([sizes[x] for x in n.dims])
    np.add.at(out, positions(n.dims, have, place, n.args[1].dims, dim, d.shape), d)
    return out


def _gather_vjp(n: Node, d: Node) -> Node:
    x, place = n.args
    return scatter(d, place, n.text("dim"), tuple(a for a in place.dims if a not in x.dims))


def _scatter_vjp(n: Node, d: Node) -> Node:
    return gather(expanded(d, n.dims), n.args[1], n.text("dim"))


def _sum_interval(n: Node, a: tuple[Interval, ...]) -> Interval:
    return Interval(0.0 if a[0].lo >= 0 else -np.inf, 0.0 if a[0].hi <= 0 else np.inf)


ROWS: tuple[Op, ...] = (
    # as_real(place): an index as a number
    Op("as_real", 1, lambda n, x: x.astype(np.float64), (None,), lambda n, a: a[0], lambda n: n.args[0].dims, takes=("int",)),
    # as_place(x): a number as an index
    Op("as_place", 1, lambda n, x: x.astype(np.int64), (None,), lambda n, a: a[0], lambda n: n.args[0].dims, lambda n: "int"),
    Op("gather", 2, _np_gather, (_gather_vjp, None), lambda n, a: a[0], _gather_dims, laws=frozenset(("linear", "additive")),
       takes=("real", "int")),
    # put(x, rows, place): x with other rows at some positions
    Op("put", 3, _np_put, (_put_vjp, _put_rows_vjp, None), lambda n, a: a[0].union(a[1]), _put_dims,
       laws=frozenset(("linear", "additive")), takes=("real", "real", "int")),
    Op("scatter", 2, _np_scatter, (_scatter_vjp, None), _sum_interval, _scatter_dims, laws=frozenset(("linear", "additive")),
       takes=("real", "int")),
)
