"""graph -> the same graph in which every sum is over one value or over a product of exactly two.

Before: `sum[K,s](q[t,K] * k[s,K] * m[t,s] * v[s,V])`, one product of many factors. After: a tree of sums of two factors
each, ordered so that no intermediate tile has more axes than it must: `sum[s]((m * sum[K](q * k)) * v)`. Sums over dims
that have one index per program vanish here: programs store partial results and the launcher adds them up.
Values do not change except by reassociation. The result is interned, so equal pieces are computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from seqc.backends.triton_gpu.roles import Roles, lines
from seqc.ir.graph import Node, const, node, rebuild, topological, total

SIDE = 64  # the extent that stands for any dim when pairings are compared
GREEDY_ABOVE = 7  # factors; fewer are searched exhaustively


@dataclass(frozen=True)
class Factors:
    """A product: `over` is what it is divided by, `sign` +1 or -1."""

    sign: int
    inside: tuple[Node, ...]
    over: tuple[Node, ...]


def pair(outputs: Mapping[str, Node], roles: Roles) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(the outputs in pairs, what became of each node)."""
    order = topological(outputs.values())
    users = Counter(a for n in order for a in set(n.args))
    users.update(outputs.values())
    rank = {n: i for i, n in enumerate(order)}
    done: dict[Node, Node] = {}
    for n in order:
        if n.op == "sum":
            done[n] = _sum(n, done, users, rank, roles)
        else:
            done[n] = rebuild(n, tuple(done[a] for a in n.args))
    return {name: done[n] for name, n in outputs.items()}, done


def _sum(n: Node, done: Mapping[Node, Node], users: Mapping[Node, int], rank: Mapping[Node, int], roles: Roles) -> Node:
    wanted = tuple(d for d in n.names("over") if d not in roles.grid)
    if not wanted:
        return done[n.args[0]]
    parts = _flatten(n.args[0], wanted, users, roles, first=True)
    inside = [done[f] for f in sorted(parts.inside, key=lambda f: rank[f])]
    outer = [f for f in inside if not set(f.dims) & set(wanted)]
    inner = [f for f in inside if set(f.dims) & set(wanted)]
    result = _contract(inner, wanted, roles) if inner else total(const(1.0), wanted)
    for f in sorted(outer, key=lambda f: len(roles.axes(f.dims))):
        result = result * f
    for f in parts.over:
        result = result / done[f]
    return -result if parts.sign < 0 else result


def _flatten(n: Node, wanted: tuple[str, ...], users: Mapping[Node, int], roles: Roles, first: bool = False) -> Factors:
    """The factors of a product, as far as taking it apart saves a tile or loses nothing."""
    free = first or users[n] == 1
    match n.op:
        case "mul":
            grows = all(len(roles.axes(a.dims)) < len(roles.axes(n.dims)) for a in n.args)
            leaves = any(not set(a.dims) & set(wanted) for a in n.args)  # a factor of the sum as a whole
            if free or grows or leaves:
                a, b = (_flatten(x, wanted, users, roles) for x in n.args)
                return Factors(a.sign * b.sign, a.inside + b.inside, a.over + b.over)
        case "neg" if free:
            a = _flatten(n.args[0], wanted, users, roles)
            return Factors(-a.sign, a.inside, a.over)
        case "div" if free and not set(n.args[1].dims) & set(wanted):
            a = _flatten(n.args[0], wanted, users, roles)
            return Factors(a.sign, a.inside, (*a.over, n.args[1]))
    return Factors(1, (n,), ())


def _contract(factors: Sequence[Node], wanted: tuple[str, ...], roles: Roles) -> Node:
    """The sum over `wanted` of the product of `factors`, in pairs."""
    dims = tuple(frozenset(roles.axes(f.dims)) for f in factors)
    pool = list(factors)
    for i, j in plan(dims, frozenset(wanted)):
        a, b = pool[i], pool[j]
        rest = [f for x, f in enumerate(pool) if x not in (i, j)]
        now = [d for d in wanted if (d in a.dims or d in b.dims) and not any(d in f.dims for f in rest)]
        made = node("mul", a, b)
        pool = [*rest, total(made, now) if now else made]
    (left,) = pool
    remaining = [d for d in wanted if d in left.dims]
    return total(left, remaining) if remaining else left


@cache
def plan(dims: tuple[frozenset[str], ...], wanted: frozenset[str]) -> tuple[tuple[int, int], ...]:
    """Which two factors to join, again and again: positions in the list of what is left, the join going to its end."""
    if len(dims) > GREEDY_ABOVE:
        best = min(combinations(range(len(dims)), 2), key=lambda ij: _join_cost(dims, wanted, *ij))
        return (best, *plan(_joined(dims, wanted, *best), wanted))
    return _search(dims, wanted)[1]


@cache
def _search(
    dims: tuple[frozenset[str], ...], wanted: frozenset[str]
) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
    if len(dims) < 2:
        return (0, 0), ()
    found = []
    for i, j in combinations(range(len(dims)), 2):
        here = _join_cost(dims, wanted, i, j)
        after, steps = _search(_joined(dims, wanted, i, j), wanted)
        found.append(((max(here[0], after[0]), here[1] + after[1]), ((i, j), *steps)))
    return min(found, key=lambda option: option[0])


def _joined(dims: tuple[frozenset[str], ...], wanted: frozenset[str], i: int, j: int) -> tuple[frozenset[str], ...]:
    rest = tuple(d for x, d in enumerate(dims) if x not in (i, j))
    kept = frozenset().union(*rest)
    return (*rest, frozenset(d for d in dims[i] | dims[j] if d not in wanted or d in kept))


def _join_cost(dims: tuple[frozenset[str], ...], wanted: frozenset[str], i: int, j: int) -> tuple[int, int]:
    """(axes of the largest tile in registers, work) of joining factors i and j."""
    union, after = dims[i] | dims[j], _joined(dims, wanted, i, j)[-1]
    if is_product(dims[i], dims[j], after):
        return 2, SIDE**3 // 16
    count = len(lines(union))
    return count, SIDE**count


def is_dot(n: Node, roles: Roles) -> bool:
    """Whether a value is one matrix product."""
    if n.op != "sum" or n.args[0].op != "mul":
        return False
    return is_product(*(frozenset(roles.axes(x.dims)) for x in (*n.args[0].args, n)))


def is_product(a: frozenset[str], b: frozenset[str], result: frozenset[str]) -> bool:
    """Whether the sum of a * b to `result` is one matrix product: one row, one column and one contracted axis, each a dim, or
    steps with the rows of each."""
    left, right, kept = (set(lines(sorted(x))) for x in (a, b, result))
    summed = (left | right) - kept
    if not kept <= left | right:
        return False
    return len(left) == len(right) == len(kept) == 2 and len(summed) == 1 and summed <= left & right
