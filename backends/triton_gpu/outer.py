"""Gradients of parameters that are sums of outer products over batch and time, as in `R @ h`.

In: the gradient of a parameter in one step. Out: its terms, each of two factors whose dims share nothing but what the
parameter shares. A kernel then stores the factors of every step, and one matrix product afterwards replaces an
accumulator as large as the parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.analysis.normal_forms import terms
from seqc.backends.triton_gpu.roles import Roles
from seqc.ir.block import BATCH
from seqc.ir.graph import Node, const, node


@dataclass(frozen=True)
class Factor:
    """One factor. array: what holds it for every step, [B, T, dims]; stored: whether just for this; constant: the array is a
    parameter, [dims], the same at every step of every sequence; pieces: dims before these along which programs leave parts."""

    node: Node
    array: str
    dims: tuple[str, ...]
    stored: bool
    constant: bool = False
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    """sign * the sum over batch and time of the product of two factors."""

    sign: int
    factors: tuple[Factor, Factor]


def outer_terms(root: Node, axes: tuple[str, ...], roles: Roles) -> tuple[tuple[int, Node, Node], ...]:
    """(sign, factor, factor) of each term of `root`, or () where some term is no outer product."""
    found = []
    for sign, term in terms(root):
        pair = _factors(term, axes, roles)
        if pair is None:
            return ()
        a, b = pair
        found.append((sign, a, b))
    return tuple(found)


def _factors(n: Node, axes: tuple[str, ...], roles: Roles) -> tuple[Node, Node] | None:
    parts = _summed(n)
    mine = [d for d in roles.order if d in axes and d != BATCH]
    groups: list[tuple[set[str], Node]] = []
    for f in parts:
        dims = {d for d in f.dims if d in mine}
        if set(roles.axes(f.dims)) - dims - {BATCH}:
            return None
        merged = f
        rest = []
        for other, value in groups:
            if other & dims or not other or not dims:
                dims, merged = dims | other, node("mul", value, merged)
            else:
                rest.append((other, value))
        groups = [*rest, (dims, merged)]
    covered = set().union(*(dims for dims, _ in groups))
    if len(groups) < 2 or covered != set(mine):
        return None
    (_, a), *others = groups
    b = const(1.0)
    for _, value in others:
        b = value if b.op == "const" else b * value
    return a, b


def _summed(n: Node) -> list[Node]:
    """The factors whose product, summed over the batch, is n; none where n is no such sum.

    A factor that lacks the batch may stand outside of the sum, as `b` does in the gradient of `W @ b` where `b` is a
    parameter: the sum over the batch takes it in, and so it counts once.
    """
    if n.op == "sum":
        return _product(n.args[0]) if set(n.names("over")) == {BATCH} else []
    parts = _product(n)
    sums = [f for f in parts if f.op == "sum" and BATCH in f.names("over")]
    others = [f for f in parts if f not in sums]
    if len(sums) != 1 or set(sums[0].names("over")) != {BATCH} or any(BATCH in f.dims for f in others):
        return []
    return [*_product(sums[0].args[0]), *others]


def _product(n: Node) -> list[Node]:
    if n.op == "mul":
        return _product(n.args[0]) + _product(n.args[1])
    return [n]
