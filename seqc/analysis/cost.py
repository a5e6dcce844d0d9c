"""What a graph costs: operations and bytes, per node, for given extents. The middle's one cost model.

In: roots and extents of dims. Out: `Cost`. A sum over a product tree counts as a contraction (never as its elementwise
product); contractions in which both operands are reused run at matrix rate. The weights are relative and coarse: they
choose between forms, they do not predict seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from seqc.ir.dims import extent
from seqc.ir.graph import Node, leaves, operands, topological
from seqc.ir.ops import TABLE
from seqc.ir.ops.row import COSTS

MATRIX_RATE = 16.0  # multiply-adds of a matrix product in the time of one elementwise operation


@dataclass(frozen=True)
class Cost:
    """flops: multiply-adds and elementwise operations; matrix: the part of them in matrix products; weighted: modelled
    time in units of one elementwise operation; bytes: leaves read plus results written, at 4 bytes each."""

    flops: float
    matrix: float
    weighted: float
    bytes: float
    largest: float


def cost(outputs: Iterable[Node], sizes: Mapping[str, int]) -> Cost:
    """Cost of one evaluation of all `outputs`; `sizes` must hold every dim (primed dims follow their base)."""
    roots = list(outputs)
    fused = fused_products(roots)
    flops = matrix = weighted = largest = 0.0
    for n in topological(roots):
        if n in fused or TABLE[n.op].cost == "none":
            continue
        points = volume(n.dims, sizes)
        if n.op == "sum":
            factors = operands(n.args[0], lambda x: x in fused and x.op == "mul")
            points = volume(sorted({d for f in factors for d in f.dims}), sizes)
            wide = [f for f in factors if len(f.dims) > 0]
            product = len(wide) >= 2 and points > 8 * max(volume(f.dims, sizes) for f in wide)
            flops += 2 * points
            matrix += 2 * points if product else 0.0
            weighted += points / MATRIX_RATE if product else points
            continue
        largest = max(largest, points)
        each = weight(n, sizes)
        flops += points * max(each, 1.0) if TABLE[n.op].elementwise else points * each
        weighted += points * each
    read = sum(volume(n.dims, sizes) for n in leaves(roots) if n.text("kind") != "param")
    written = sum(volume(n.dims, sizes) for n in roots)
    return Cost(flops, matrix, weighted, 4.0 * (read + written), largest)


def weight(n: Node, sizes: Mapping[str, int]) -> float:
    """Operations for each element of a value that is no sum, in units of one cheap elementwise operation."""
    if n.op in ("cumsum", "affine_scan", "max_scan"):
        steps = max(extent(n.text("dim"), sizes).bit_length() - 1, 1)
        return float(steps * (1 if n.op == "cumsum" else 3))
    if n.op == "tri_inv":
        return volume(n.names("row"), sizes) / MATRIX_RATE * 4
    return COSTS[TABLE[n.op].cost]


def volume(dims: Iterable[str], sizes: Mapping[str, int]) -> float:
    """The number of elements of a value with these dims."""
    return float(prod(extent(d, sizes) for d in dims))


def fused_products(roots: Iterable[Node]) -> set[Node]:
    """Products that are only ever summed: they need not exist as values."""
    users: dict[Node, list[Node]] = {}
    order = topological(roots)
    keep = set(roots)
    for n in order:
        for a in n.args:
            users.setdefault(a, []).append(n)
    fused: set[Node] = set()
    for n in reversed(order):
        above = users.get(n, [])
        if n.op != "mul" or n in keep or not all(u.op == "sum" or u in fused for u in above):
            continue
        outer = any(set(n.dims) != set(a.dims) for a in n.args)
        if outer or all(u.op == "sum" for u in above):
            fused.add(n)
    return fused
