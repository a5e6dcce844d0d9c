"""Selections, and what is not finite, in products along the time of a block.

Before: factors that are kept under a condition, or rows s that a matrix A[t, s], zero for s > t, adds up. After: the same with
nothing that a product with 0 could turn into NaN:

    where(c, k * v, 0)          ->  where(c, k, 0) * where(c, v, 0)
    sum_s A[t, s] * v_s         ->  where(a row s <= t is not finite, NaN, sum_s A[t, s] * where(v_s is finite, v_s, 0))

so that what is dropped leaves no trace, and what stands at a row reaches that row and later ones, as in a run step by step.
Finite values are the same to the bit, and so are gradients. See docs/decisions/selection.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from seqc.ir.graph import BATCH, COL, ROW, Node, const, index, leaves, node, renamed, size, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded

NAN = const(math.nan)
LEFT = size(ROW) - index(ROW)  # rows from this one to the end of the block


def finite(x: Node) -> Node:
    """Whether x is a number, and no infinity."""
    return node("lt", node("abs", x), const(math.inf))


def instead(value: Node, x: Node) -> Node:
    """The value in place of x, with the derivative of x: nothing of it stands in the way of gradients."""
    return node("surrogate", value, x, const(1.0))


def cleaned(x: Node, good: Node) -> Node:
    """x, 0 where it is not good."""
    return instead(where(good, x, 0.0), x)


def taken_off(x: Node, over: Sequence[str]) -> tuple[Node | None, Node]:
    """(c, y) where x is where(c, y, 0) with a condition that is the same along the dims `over`; (None, x) otherwise."""
    if x.op == "where" and _is_zero(x.args[2]) and not set(x.args[0].dims) & set(over):
        return x.args[0], x.args[1]
    return None, x


def kept(c: Node | None, x: Node) -> Node:
    """x where c holds, else 0; x itself for None."""
    return x if c is None else where(c, x, 0.0)


def _is_zero(x: Node) -> bool:
    return x.op == "const" and x.attr("value") == 0.0


def selected(c: Node, factors: Sequence[Node]) -> list[Node]:
    """Factors whose product is that of the given ones where c holds, and 0 elsewhere, whatever they hold there.

    A factor that lacks dims of c (an outer product, chosen for some of its columns alone) is made finite; where it was not,
    another factor, one with all dims of c, is NaN where c holds.
    """
    changing = {BATCH, ROW} & set(c.dims)
    out: list[Node] = []
    lacking: list[int] = []
    home = -1
    for i, f in enumerate(factors):
        if f.op == "const" or not (leaves([f], "input") or leaves([f], "state") or leaves([f], "cot")):
            out.append(f)  # no step of its own: it holds the same everywhere
        elif set(c.dims) <= set(f.dims) | changing:
            out.append(where(c, f, 0.0))
            home = i if set(c.dims) <= set(f.dims) and home < 0 else home
        else:
            lacking.append(i)
            out.append(f)
    if home < 0:
        out.append(where(c, 1.0, 0.0))
        home = len(out) - 1
    for i in lacking:
        f = out[i]
        good = finite(f)
        own = tuple(d for d in f.dims if d not in out[home].dims)
        bad = node("amax", where(good, 0.0, 1.0), over=own) if own else where(good, 0.0, 1.0)
        inside = out[home].args[1]
        out[home] = where(c, instead(where(node("gt", bad, const(0.0)), NAN, inside), inside), 0.0)
        out[i] = cleaned(f, good)
    return out


def causal_sum(
    matrix: Node, rows: Node, strict: bool = False, alive: Node | None = None, also: Node | None = None,
) -> Node:
    """[t, ...]: sum_s matrix[t, s] * rows_s, for a matrix that is zero where s > t (s >= t if strict).

    alive: [t, s], whether a row s still counts at t (no reset lies between). also: rows that are to be taken for finite.
    """
    rows = expanded(rows, (ROW,))
    if not leaves([rows]):
        return _sum(matrix, rows)
    good = finite(rows) if also is None else node("and", finite(rows), also)
    out = _sum(matrix, cleaned(rows, good))
    return instead(where(spoilt(good, strict, alive), NAN, out), out)


def spoilt(good: Node, strict: bool = False, alive: Node | None = None) -> Node:
    """[t, ...]: whether a row before t (t itself, unless strict) is not good."""
    if alive is None:
        most = node("amax", expanded(where(good, 0.0, LEFT), (ROW,)), over=(ROW,))  # rows from the first bad one to the end
        return node("gt" if strict else "ge", most, LEFT)
    order = node("gt" if strict else "ge", index(ROW), index(COL))
    return node("gt", _sum(where(node("and", order, alive), 1.0, 0.0), where(good, 0.0, 1.0)), const(0.0))


def _sum(matrix: Node, rows: Node) -> Node:
    """sum_s matrix[t, s] * rows_s; rows may have a time index s of their own, as a matrix has."""
    inner = COL + "'" if COL in rows.dims else COL
    moved = renamed(expanded(rows, (ROW,)), ROW, inner)
    return total((renamed(matrix, COL, inner) if inner != COL else matrix) * moved, (inner,))


def guarded(good: Sequence[Node], alive: Node | None = None) -> Callable[[Node], Node]:
    """x -> x with NaN from the first row on at which one of the matrices [t, s], or values [t], is not good.

    What comes of such a row is no number: the rows after it read what it has written.
    """
    if not good:
        return lambda x: x
    rows = [node("amax", where(g, 0.0, 1.0), over=(COL,)) if COL in g.dims else where(g, 0.0, 1.0) for g in good]
    bad = spoilt(node("eq", reduce(lambda a, b: node("max", a, b), rows), const(0.0)), False, alive)
    return lambda x: instead(where(bad, NAN, x), x)
