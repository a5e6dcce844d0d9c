"""Reads and writes at positions of a dim that whole numbers tell, by the judge. In: values. Out: values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.fuzz.values import Value, each, number, real


def at_places(x: Value, place: Value, dim: str) -> Value:
    """x at the positions of a dim that whole numbers tell; their dims come in, lined up with those that x has. A dim that tells
    its own positions stands in the result."""
    if dim in place.dims:
        own = tuple("told" if d == dim else d for d in place.dims)
        found = at_places(x, Value(place.x, own), dim)
        return Value(found.x, tuple(dim if d == "told" else d for d in found.dims))
    dims = tuple(dict.fromkeys((*(d for d in x.dims if d != dim), *place.dims)))
    sizes = {d: n for v in (x, place) for d, n in zip(v.dims, v.x.shape, strict=True)}
    one = {**{d: sizes[d] for d in dims}, dim: sizes[dim]}
    wide = Value(x.x, x.dims).x.permute([x.dims.index(d) for d in (*dims, dim) if d in x.dims])
    for i, d in enumerate(dims):
        wide = wide if d in x.dims else wide.unsqueeze(i)
    places = place.x.permute([place.dims.index(d) for d in dims if d in place.dims])
    for i, d in enumerate(dims):
        places = places if d in place.dims else places.unsqueeze(i)
    shape = [one[d] for d in dims]
    return Value(torch.gather(wide.expand(*shape, one[dim]), -1, places.expand(shape).unsqueeze(-1)).squeeze(-1), dims)


def with_rows(table: Value, places: Sequence[tuple[Value, str]], rows: Value) -> Value:
    """The table with other values at the positions that whole numbers tell, (of a dim, of further dims): of several for one
    place the last stays."""
    own = [d for d in places[0][0].dims if d not in table.dims]
    counts = [places[0][0].x.shape[places[0][0].dims.index(d)] for d in own]
    for at in torch.cartesian_prod(*(torch.arange(n) for n in counts)).reshape(-1, len(own)).tolist() if own else [()]:
        here, new = number(1.0), rows
        for spot, dim in places:
            for d, i in zip(own, at, strict=True):
                spot = _one(spot, d, i)
            counted = Value(torch.arange(table.x.shape[table.dims.index(dim)]), (dim,))
            here = each(torch.mul, here, each(lambda a, b: real(a == b), counted, spot))
        for d, i in zip(own, at, strict=True):
            new = _one(new, d, i)
        changed = each(torch.where, Value(here.x != 0, here.dims), new, table)
        table = Value(changed.x.permute([changed.dims.index(d) for d in table.dims]), table.dims)
    return table


def _one(value: Value, dim: str, at: int) -> Value:
    """The value at one position of a dim, if it has it."""
    if dim not in value.dims:
        return value
    return Value(value.x.select(value.dims.index(dim), at), tuple(d for d in value.dims if d != dim))


__all__ = ["at_places", "with_rows"]
