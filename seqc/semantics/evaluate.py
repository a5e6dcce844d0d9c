"""The float64 interpreter of the graph: the meaning of every operator, on numpy arrays.

In: outputs, a value per leaf (axes in the leaf's *declared* order, its `shape` attribute), extents of the dims.
Out: one array per output, axes in the node's sorted dims. It never approximates and never reorders: it is the oracle's core.
What depends on the graph alone, the order of its nodes and how arguments broadcast, is found once for each graph: a recurrence
evaluates the same small graph at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from seqc.ir.dims import extent
from seqc.ir.graph import Dims, Node, topological
from seqc.ir.ops import TABLE
from seqc.ir.ops.dense import placed

Cut = tuple[Any, ...]


class Entry(NamedTuple):
    """A node of a graph: the places of its arguments, (elementwise) what indexes each so that it broadcasts, its reference."""

    node: Node
    args: tuple[int, ...]
    cuts: tuple[Cut | None, ...]
    elementwise: bool
    ref: Callable[..., Any]


class Extents(dict[str, int]):
    """The extent of each dim that is asked for, found once."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def __missing__(self, dim: str) -> int:
        return self.setdefault(dim, extent(dim, self.sizes))


def to_order(x: Any, have: Dims, want: Dims, sizes: Mapping[str, int]) -> Any:
    """x with axes `have`, transposed and broadcast to exactly the axes `want`."""
    shape = tuple(extent(d, sizes) for d in want)
    return x if have == want and np.shape(x) == shape else np.broadcast_to(placed(x, have, want), shape)


def evaluate(outputs: Mapping[str, Node], values: Mapping[Node, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Float64 values of `outputs`. LookupError if a leaf has no value."""
    entries, places = _entries(tuple(outputs.values()))
    done: list[Any] = []
    extents = Extents(sizes)
    with np.errstate(all="ignore"):
        for entry in entries:
            done.append(_value(entry, done, values, extents))
    return {name: done[place] for name, place in zip(outputs, places, strict=True)}


@lru_cache(maxsize=64)
def _entries(outputs: tuple[Node, ...]) -> tuple[list[Entry], list[int]]:
    """The nodes below some outputs, arguments before users, and the place of each output among them."""
    order = topological(outputs)
    places = {n: i for i, n in enumerate(order)}
    entries = []
    for n in order:
        op = TABLE[n.op]
        cuts = tuple(_cut(a.dims, n.dims) for a in n.args) if op.elementwise else ()
        entries.append(Entry(n, tuple(places[a] for a in n.args), cuts, op.elementwise, op.ref))
    return entries, [places[n] for n in outputs]


def _cut(have: Dims, want: Dims) -> Cut | None:
    """The index that aligns an array of axes `have` with `want`, both sorted; None where numpy's own rule does it."""
    if want[len(want) - len(have) :] == have:
        return None
    return tuple(slice(None) if d in have else np.newaxis for d in want)


def _value(entry: Entry, done: list[Any], values: Mapping[Node, Any], extents: Extents) -> Any:
    n = entry.node
    if n in values:
        declared = n.names("shape") if n.op == "leaf" else n.dims
        x = np.asarray(values[n])
        if n.dtype == "int":
            x = x.astype(np.int64)
        elif x.dtype not in (bool, np.float64):
            x = x.astype(np.float64)
        return x if declared == n.dims else np.transpose(x, [declared.index(d) for d in n.dims])
    if entry.elementwise:
        made = entry.ref(*[done[i] if cut is None else done[i][cut] for i, cut in zip(entry.args, entry.cuts, strict=True)])
        shape = tuple([extents[d] for d in n.dims])
        return made if np.shape(made) == shape else np.broadcast_to(made, shape)
    args = [done[i] for i in entry.args]
    if n.op == "index":
        return np.arange(extents[n.text("dim")], dtype=np.float64)
    if n.op == "block_index":
        return np.floor(np.arange(extents[n.text("dim")]) / n.number("block"))
    if n.op == "size":
        return np.float64(extents[n.text("dim")])
    if n.op == "expand":
        return np.array(to_order(args[0], n.args[0].dims, n.dims, extents.sizes))
    if n.op == "scatter":
        return entry.ref(n, *args, extents[n.text("dim")])
    return entry.ref(n, *args)
