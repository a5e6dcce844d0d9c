"""Updates that are linear over another semiring: sums of exponentials (log-sum-exp and +), and maxima (max and +).

    alpha = e + logsumexp[N'](A + alpha[t-1, N -> N'])      a product of matrices whose sum is logsumexp and whose product is +
    v = e + max[N'](A + v[t-1, N -> N'])                    the same with the largest instead

In: updates, state leaves. Out: the semiring, and the part of an update that is linear in the states: what sees no state is
the zero, -inf, where values are summed, and a factor where it is added. Criterion: sums of the semiring, additions of
values that are free of the states, choices by conditions that are, and what moves or names dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from seqc.analysis.affine import NotAffine
from seqc.analysis.running_maximum import NOTHING, logsumexp_of
from seqc.ir.graph import Node, const, depends, index, node, renamed, size, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded, shift, take

Part: TypeAlias = Callable[[Node], Node | None]  # the part of a value that is linear in the states
SUMS = {"log": ("logaddexp",), "max": ("max",)}  # of two values, in each semiring


def semiring_of(updates: Iterable[Node], states: Iterable[Node]) -> str | None:
    """"log" or "max", where all updates are linear over it; else None."""
    roots, starts = list(updates), list(states)
    active = depends(roots, starts)
    for algebra in SUMS:
        try:
            for n in roots:
                linear_part(n, {x: x for x in starts}, active, algebra)
        except NotAffine:
            continue
        return algebra
    return None


def linear_part(root: Node, table: Mapping[Node, Node], active: set[Node], algebra: str) -> Node | None:
    """The part of a value that is linear in the states of the table, put in their place; None: the zero. Raises NotAffine."""
    done: dict[Node, Node | None] = {}

    def part(n: Node) -> Node | None:
        if n not in active:
            return None
        if n not in done:
            done[n] = table.get(n) if n.op == "leaf" else rule(n)
        return done[n]

    def rule(n: Node) -> Node | None:
        if n.op in SUMS[algebra]:
            left, right = map(part, n.args)
            return left if right is None else right if left is None else node(n.op, left, right)
        if n.op in ("add", "sub"):
            return _scaled(n, part, active)
        if n.op == "where" and n.args[0] not in active:
            return _chosen(n, *map(part, n.args[1:]))
        if algebra == "log" and (inside := logsumexp_of(n) if n.op == "where" else None) is not None:
            x, over = part(inside), n.args[2].args[1].args[0].names("over")
            return None if x is None else logsumexp(expanded(x, over), over)
        if n.op == "amax" and algebra == "max":
            x = part(n.args[0])
            over = () if x is None else tuple(d for d in n.names("over") if d in x.dims)
            return node("amax", x, over=over) if x is not None and over else x
        return _moved(n, part)

    return part(root)


def logsumexp(x: Node, over: tuple[str, ...]) -> Node:
    """As the front end spells it."""
    top = node("stopgrad", node("amax", x, over=tuple(sorted(over))))
    inside = top + node("log", total(node("exp", x - top), over))
    return where(node("eq", top, NOTHING), NOTHING, inside)


def _scaled(n: Node, part: Part, active: set[Node]) -> Node | None:
    hit = [a in active for a in n.args]
    if all(hit) or (n.op == "sub" and hit[1]):
        raise NotAffine(n, "values that depend on the state are added, or one is subtracted")
    x = part(n.args[hit.index(True)])
    if x is None:
        return None
    return node(n.op, x, n.args[1]) if hit[0] else node(n.op, n.args[0], x)


def _chosen(n: Node, left: Node | None, right: Node | None) -> Node | None:
    if left is None and right is None:
        return None
    return where(n.args[0], NOTHING if left is None else left, NOTHING if right is None else right)


def _moved(n: Node, part: Part) -> Node | None:
    """What only moves or names dims."""
    if n.op not in ("expand", "rename", "take", "shift"):
        raise NotAffine(n, f"`{n.op}` is no sum and no product over a semiring")
    x = part(n.args[0])
    if x is None:
        return None
    match n.op:
        case "expand":
            return expanded(x, n.names("over"))
        case "rename":
            return renamed(x, n.text("old"), n.text("new"))
        case "take":
            return take(x, n.text("dim"), n.number("at")) if n.text("dim") in x.dims else x
    dim, by = n.text("dim"), n.number("by")
    moved = shift(expanded(x, (dim,)), dim, by)
    outside = node("lt", index(dim), const(float(by))) if by > 0 else node("ge", index(dim), size(dim) + float(by))
    return where(outside, NOTHING, moved)
