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
from collections.abc import Mapping, Sequence
from functools import reduce

from seqc.ir.graph import (
    BATCH,
    COL,
    ROW,
    Node,
    combined,
    const,
    index,
    leaves,
    node,
    rebuild,
    renamed,
    size,
    topological,
    total,
)
from seqc.ir.ops.elementwise import finite, where
from seqc.ir.ops.structure import expanded

NAN = const(math.nan)
LEFT = size(ROW) - index(ROW)  # rows from this one to the end of the block


def instead(value: Node, x: Node) -> Node:
    """The value in place of x, with the derivative of x: nothing of it stands in the way of gradients."""
    return node("surrogate", value, x, const(1.0))


def cleaned(x: Node, good: Node) -> Node:
    """x, 0 where it is not good."""
    return instead(where(good, x, 0.0), x)


def settled(
    outputs: Mapping[str, Node], names: Mapping[Node, str]
) -> tuple[dict[str, Node], dict[Node, str]]:
    """The same values without what guards say of derivatives, once these are taken; and the names that nodes have."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        guard = n.op == "surrogate" and n.args[2] is const(1.0) and n.args[0].dtype != "bool"
        done[n] = done[n.args[0]] if guard else rebuild(n, tuple(done[a] for a in n.args))
    kept_names: dict[Node, str] = {}
    for n, name in names.items():
        kept_names.setdefault(done.get(n, n), name)
    return {key: done[n] for key, n in outputs.items()}, kept_names


def taken_off(x: Node, over: Sequence[str]) -> tuple[Node | None, Node]:
    """(c, y) where x is where(c, y, 0) with a condition that is the same along the dims `over`; (None, x) otherwise."""
    if x.op == "where" and x.args[2] is const(0.0) and not set(x.args[0].dims) & set(over):
        return x.args[0], x.args[1]
    return None, x


def kept(c: Node | None, x: Node) -> Node:
    """x where c holds, else 0; x itself for None."""
    return x if c is None else where(c, x, 0.0)


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
    matrix: Node, rows: Node, strict: bool = False, alive: Node | None = None, rank: Sequence[str] = (),
) -> Node:
    """[t, ...]: sum_s matrix[t, s] * rows_s, for a matrix that is zero where s > t (s >= t if strict).

    alive: [t, s], whether a row s still counts at t (no reset lies between). rank: as of `added_up`.
    """
    rows = expanded(rows, (ROW,))
    if not leaves([rows]):
        return added_up(matrix, rows, rank)
    good = finite(rows)
    return poisoned(added_up(matrix, cleaned(rows, good), rank), good, strict, alive)


def poisoned(x: Node, good: Node, strict: bool = False, alive: Node | None = None) -> Node:
    """x [t, ..], NaN at rows after one that is not good (at that row too, unless strict)."""
    good = all_good(good, [d for d in good.dims if d not in (*x.dims, BATCH, ROW)])
    return instead(where(spoilt(good, strict, alive), NAN, x), x)


def all_good(good: Node, over: Sequence[str]) -> Node:
    """Whether all is good along dims."""
    over = tuple(sorted(d for d in over if d in good.dims))
    return node("eq", node("amax", where(good, 0.0, 1.0), over=over), const(0.0)) if over else good


def both(*conditions: Node | None) -> Node | None:
    """Whether all of the conditions hold; None: it always does."""
    given = list(dict.fromkeys(c for c in conditions if c is not None))
    return combined("and", given) if given else None


def sound(factors: Sequence[Node], over: Sequence[str], unless: Node | None = None) -> Node | None:
    """[t, ..]: whether values are numbers all along the dims `over`, wherever a condition holds; None: constants, always."""
    flags = [finite(f) for f in factors if leaves([f])]
    return both(*(all_good(f if unless is None else node("or", node("not", unless), f), over) for f in flags))


def spoilt(good: Node, strict: bool = False, alive: Node | None = None) -> Node:
    """[t, ...]: whether a row before t (t itself, unless strict) is not good."""
    if alive is None:
        most = node("amax", expanded(where(good, 0.0, LEFT), (ROW,)), over=(ROW,))  # rows from the first bad one to the end
        return node("gt" if strict else "ge", most, LEFT)
    order = node("gt" if strict else "ge", index(ROW), index(COL))
    return node("gt", added_up(where(node("and", order, alive), 1.0, 0.0), where(good, 0.0, 1.0)), const(0.0))


def added_up(matrix: Node, rows: Node, rank: Sequence[str] = ()) -> Node:
    """sum_s matrix[t, s] * rows_s, whatever these hold. rank: dims of rows side by side, which the matrix has primed."""
    moved = renamed(renamed_rank(expanded(rows, (ROW, *rank)), rank), ROW, COL)
    return total(matrix * moved, (COL, *rank_columns(rank)))


def rank_columns(rank: Sequence[str]) -> tuple[str, ...]:
    """The dims of columns that go with those of rows side by side."""
    return tuple(d + "'" for d in rank)


def renamed_rank(x: Node, rank: Sequence[str]) -> Node:
    """x with rows side by side as columns."""
    return reduce(lambda n, d: renamed(n, d, d + "'"), rank, x)
