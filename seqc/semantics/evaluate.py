"""The float64 interpreter of the graph: the meaning of every operator, on numpy arrays.

In: outputs, a value per leaf (axes in the leaf's *declared* order, its `shape` attribute), extents of the dims.
Out: one array per output, axes in the node's sorted dims. It never approximates and never reorders: it is the oracle's core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqc.ir.dims import extent
from seqc.ir.graph import Dims, Node, topological
from seqc.ir.ops import TABLE


def align(x: Any, have: Dims, want: Dims) -> Any:
    """x with axes `have` as one that broadcasts against axes `want`."""
    order = [have.index(d) for d in want if d in have]
    x = np.transpose(x, order)
    return x[tuple(slice(None) if d in have else np.newaxis for d in want)]


def to_order(x: Any, have: Dims, want: Dims, sizes: Mapping[str, int]) -> Any:
    """x with axes `have`, transposed and broadcast to exactly the axes `want`."""
    return np.broadcast_to(align(x, have, want), tuple(extent(d, sizes) for d in want))


def evaluate(outputs: Mapping[str, Node], values: Mapping[Node, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Float64 values of `outputs`. LookupError if a leaf has no value."""
    done: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for n in topological(outputs.values()):
            done[n] = _apply(n, [done[a] for a in n.args], values, sizes)
    return {name: done[n] for name, n in outputs.items()}


def _apply(n: Node, args: list[Any], values: Mapping[Node, Any], sizes: Mapping[str, int]) -> Any:
    row = TABLE[n.op]
    if n in values:
        declared = n.names("shape") if n.op == "leaf" else n.dims
        x = np.asarray(values[n])
        return np.transpose(x if x.dtype == bool else x.astype(np.float64), [declared.index(d) for d in n.dims])
    if n.op == "index":
        return np.arange(extent(n.text("dim"), sizes), dtype=np.float64)
    if n.op == "block_index":
        return np.floor(np.arange(extent(n.text("dim"), sizes)) / n.number("block"))
    if n.op == "size":
        return np.float64(extent(n.text("dim"), sizes))
    if n.op == "expand":
        return np.array(to_order(args[0], n.args[0].dims, n.dims, sizes))
    if row.elementwise:
        ready = [align(x, a.dims, n.dims) for x, a in zip(args, n.args, strict=True)]
        shape = tuple(extent(d, sizes) for d in n.dims)
        return np.broadcast_to(row.ref(*ready), shape)
    return row.ref(n, *args)
