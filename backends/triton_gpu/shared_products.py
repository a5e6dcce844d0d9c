"""graph in pairs -> the same graph in which one product does the work of two.

Before: `sum[s](T * r)` beside `sum[s](T * where(|r| < inf, r, 0))`: the rows of a triangular system for the state, where what
is no number spoils all of a channel, and for outputs, which are spoilt later. After: `where(|r| < inf, sum[s](T * ..), NaN)`
for the first, if nothing but a sum over the rows takes it, which is then NaN too. Finite channels are the same to the bit.

Before: `sum[V](a * sum[K](b * S))` beside `sum[V](a * S)`, the second of a cotangent, the first's inner sum of none. After:
`sum[K](b * sum[V](a * S))`: the gradient of a decay from those of keys and queries.

Two of these that are added up are one sum.

Before: `(a * b + c * d) * e` beside `a * e` and `c * e`. After: `(a * e) * b + (c * e) * d`. Both reassociate alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from seqc.ir.block import COL, ROW
from seqc.ir.dims import is_rank, is_time
from seqc.ir.graph import Node, const, depends, leaves, node, rebuild, topological, total
from seqc.ir.ops.elementwise import finite, where

Names = tuple[tuple[str, str], ...]
Done = dict[Node, Node]


def shared(outputs: Mapping[str, Node]) -> tuple[dict[str, Node], Done]:
    """(the outputs, what became of each node)."""
    became: Done = {n: n for n in topological(outputs.values())}
    now = dict(outputs)
    for way in (joined, reordered, distributed):
        now, then = way(now)
        became = {n: then[x] for n, x in became.items() if x in then}
    return now, became


def joined(outputs: Mapping[str, Node]) -> tuple[dict[str, Node], Done]:
    """One product for a value and for what is finite of it."""
    order = topological(outputs.values())
    users: dict[Node, list[Node]] = {}
    for n in order:
        for a in dict.fromkeys(n.args):
            users.setdefault(a, []).append(n)
    clean: dict[tuple[Node, Node, Names, tuple[str, ...]], Node] = {}
    for n in order:
        for a, x, names in _renamed_factors(n):
            if x.op == "where" and x.args[0] is finite(x.args[1]) and x.args[2] is const(0.0):
                clean[a, x.args[1], names, n.names("over")] = n
    done: Done = {}
    for n in topological([*clean.values(), *outputs.values()]):
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        for a, x, names in _renamed_factors(n):
            product = clean.get((a, x, names, n.names("over")))
            if product is not None and n not in outputs.values() and _is_added_up(n, users):
                done[n] = where(finite(done[x]), done[product], const(math.nan))
    return {key: done[n] for key, n in outputs.items()}, done


def reordered(outputs: Mapping[str, Node], alone: bool = False) -> tuple[dict[str, Node], Done]:
    """Sums of sums over no steps the other way round, where the inner one is there as a gradient. alone: the outputs are all
    that a kernel computes; an inner sum of a cotangent then goes too where nothing else takes it."""
    order = topological(outputs.values())
    late = depends(order, leaves(order, "cot"))
    users = Counter(a for n in order for a in n.args) + Counter(outputs.values())
    sums = [n for n in order if n in late and _is_product(n) and not any(map(is_time, n.names("over")))]
    there = {(frozenset(n.args[0].args), n.names("over")): n for n in sums}
    found: dict[Node, tuple[Node, Node, tuple[str, ...]]] = {}
    for n in sums:
        for old, a in _factors(n):
            free = old not in late or (alone and users[old] == users[n.args[0]] == 1)
            if _is_product(old) and free and not set(old.names("over")) & set(a.dims):
                for b, c in _factors(old):
                    inner = there.get((frozenset((a, c)), n.names("over")))
                    if inner is not None and not set(n.names("over")) & set(b.dims):
                        found.setdefault(n, (b, inner, old.names("over")))
    done: Done = {}
    new: dict[Node, Node] = {}
    for n in topological([*(inner for _, inner, _ in found.values()), *outputs.values()]):
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        if n in found and found[n][1] in done:
            b, inner, over = found[n]
            done[n] = new[n] = total(done[b] * done[inner], over)
        elif n.op in ("add", "sub") and all(a in new and users[a] == 1 for a in n.args):
            one, other = (new[a] for a in n.args)
            if one.names("over") == other.names("over"):
                done[n] = total(node(n.op, one.args[0], other.args[0]), one.names("over"))
    return {key: done[n] for key, n in outputs.items()}, done


def distributed(outputs: Mapping[str, Node]) -> tuple[dict[str, Node], Done]:
    """A factor of pairs of steps taken into a sum of products, where it multiplies a factor of each anyhow."""
    order = topological(outputs.values())
    there = {frozenset(n.args): n for n in order if n.op == "mul"}
    done: Done = {}

    def taken_in(x: Node, e: Node) -> Node | None:
        """x * e, of products that are there."""
        if x.op in ("add", "sub"):
            parts = [taken_in(a, e) for a in x.args]
            return None if None in parts else node(x.op, *(p for p in parts if p is not None))
        for a, b in (x.args, x.args[::-1]) if x.op == "mul" else ():
            product = there.get(frozenset((a, e)))
            if product is not None and product in done:
                return done[product] * done[b]
        return None

    for n in topological([*(m for m in there.values() if not _holds_sum(m)), *outputs.values()]):
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        for x, e in (n.args, n.args[::-1]) if n.op == "mul" else ():
            found = taken_in(x, e) if x.op in ("add", "sub") and {ROW, COL} <= set(e.dims) else None
            done[n] = done[n] if found is None else found
    return {key: done[n] for key, n in outputs.items()}, done


def _holds_sum(n: Node) -> bool:
    return any(a.op in ("add", "sub") for a in n.args)


def _is_product(n: Node) -> bool:
    return n.op == "sum" and n.args[0].op == "mul"


def _factors(n: Node) -> tuple[tuple[Node, ...], ...]:
    """The two factors of a sum of products, either way round."""
    return (n.args[0].args, n.args[0].args[::-1]) if _is_product(n) else ()


def _renamed_factors(n: Node) -> Iterator[tuple[Node, Node, Names]]:
    """(one factor, the other before it was renamed, its new names), either way round."""
    for a, x in _factors(n):
        names: list[tuple[str, str]] = []
        while x.op == "rename":
            names.append((x.text("old"), x.text("new")))
            x = x.args[0]
        yield a, x, tuple(names)


def _is_added_up(n: Node, users: Mapping[Node, list[Node]]) -> bool:
    """Whether nothing but sums over all rows takes the value."""
    rows = {d for d in n.dims if d == ROW or is_rank(d)}
    return all(u.op == "mul" and all(s.op == "sum" and rows <= {*s.names("over")} for s in users[u]) for u in users[n])
