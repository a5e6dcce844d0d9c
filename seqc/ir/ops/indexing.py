"""Operators that read and write at positions which a value tells: rows of a table by an index.

An index is an array of whole numbers (a leaf of dtype "int"); it has no derivative. `gather` reads, `scatter` adds up what is
meant for the same place: each is the other's derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.ir.graph import Dims, Node, node
from seqc.ir.intervals import Interval
from seqc.ir.ops.row import Op
from seqc.ir.ops.structure import expanded


def gather(x: Node, place: Node, dim: str) -> Node:
    """x at the positions `place` of its dim; dims that both have are lined up."""
    return node("gather", x, place, dim=dim)


def as_real(place: Node) -> Node:
    """An index as a number."""
    return node("as_real", place)


def scatter(d: Node, place: Node, dim: str, over: Dims) -> Node:
    """y[dim = v] = the sum over `over` of d where place = v; 0 where nothing is meant for v."""
    dims = tuple(sorted({*d.dims, *place.dims}))
    return node("scatter", expanded(d, dims), place, dim=dim, over=tuple(sorted(over)))


def _gather_dims(n: Node) -> Dims:
    x, place = n.args
    assert n.text("dim") in x.dims and n.text("dim") not in place.dims, (n.text("dim"), x.dims, place.dims)
    return tuple(d for d in (*x.dims, *place.dims) if d != n.text("dim"))


def _scatter_dims(n: Node) -> Dims:
    d, place = n.args
    missing = set(n.names("over")) - set(place.dims) or set(place.dims) - set(d.dims) or {n.text("dim")} & set(d.dims)
    assert not missing, f"scatter over {n.names('over')} of {d!r}"
    return (*(x for x in d.dims if x not in n.names("over")), n.text("dim"))


def _positions(axes: Dims, whole: Dims, place: Any, place_dims: Dims, dim: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
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
    return np.broadcast_to(x[_positions(table, n.dims, place, n.args[1].dims, dim, shape)], shape)


def _np_scatter(n: Node, d: Any, place: Any, extent: int) -> Any:
    have, dim = n.args[0].dims, n.text("dim")
    sizes = {**dict(zip(have, d.shape, strict=True)), dim: extent}
    out = np.zeros([sizes[x] for x in n.dims])
    np.add.at(out, _positions(n.dims, have, place, n.args[1].dims, dim, d.shape), d)
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
    Op("as_real", 1, lambda n, x: x.astype(np.float64), (None,), lambda n, a: a[0], lambda n: n.args[0].dims),
    Op("gather", 2, _np_gather, (_gather_vjp, None), lambda n, a: a[0], _gather_dims, laws=frozenset({"linear"})),
    Op("scatter", 2, _np_scatter, (_scatter_vjp, None), _sum_interval, _scatter_dims, laws=frozenset({"linear"})),
)
