"""Sums of products: which factors a sum has, and in which order to multiply them pairwise.

In: a `sum` node, or factors with named axes. Out: `Product` (factors, summed dims, sign, divisors), and a plan: a list of
pairs, each with the dims that can be summed once it is multiplied. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from seqc.ir.graph import Node


@dataclass(frozen=True)
class Product:
    """sign * sum[over](product of factors) / product of divisors. A divisor has none of the summed dims."""

    factors: tuple[Node, ...]
    over: tuple[str, ...]
    negative: bool = False
    divisors: tuple[Node, ...] = ()


def product_of(n: Node, once: Callable[[Node], bool], known: Container[Node] = ()) -> Product:
    """The factors of a `sum` node. once: whether a node has one user only, and may so be taken apart.

    A product is also taken apart when it is bigger than both its arguments (an outer product), for computing it again
    costs less than keeping it; but not one that is `known`: its arguments need not be at hand.
    """
    over = list(n.names("over"))
    factors: list[Node] = []
    divisors: list[Node] = []
    negative = False
    todo = [n.args[0]]
    while todo:
        x = todo.pop(0)
        inside = set(over)
        grows = x.op == "mul" and x not in known and all(set(a.dims) < set(x.dims) for a in x.args)
        if x.op == "mul" and (once(x) or grows or x is n.args[0]):
            todo[:0] = x.args
        elif x.op == "neg" and once(x):
            negative = not negative
            todo.insert(0, x.args[0])
        elif x.op == "div" and once(x) and not inside & set(x.args[1].dims):
            divisors.append(x.args[1])
            todo.insert(0, x.args[0])
        elif x.op == "sum" and once(x) and not _meet(x.names("over"), [*factors, *todo, *divisors], inside):
            over += x.names("over")
            todo.insert(0, x.args[0])
        elif x.op == "expand" and once(x) and not inside & set(x.names("over")):
            todo.insert(0, x.args[0])
        else:
            factors.append(x)
    return Product(tuple(factors), tuple(over), negative, tuple(divisors))


def _meet(dims: Sequence[str], others: list[Node], over: set[str]) -> bool:
    taken = over | {d for x in others for d in x.dims}
    return bool(taken & set(dims))


Axes = frozenset[str]
Pair = tuple[int, int, Axes]  # positions in the list of what is left, and the dims to sum; the result goes to the end


def plan(factors: Sequence[Axes], over: Axes, extent: Mapping[str, int]) -> list[Pair]:
    """The cheapest order of pairwise products: operations plus four times the size of every result.

    extent: a typical size per dim; only the comparison counts. Exact for up to seven factors; more are first joined
    greedily, smallest result first.
    """
    left = list(range(len(factors)))
    axes = dict(enumerate(factors))
    steps: list[tuple[int, int, Axes]] = []

    def join(i: int, j: int) -> int:
        both = axes[i] | axes[j]
        rest = frozenset(d for k in left if k not in (i, j) for d in axes[k])
        gone = (both & over) - rest
        new = len(axes)
        axes[new] = both - gone
        steps.append((i, j, gone))
        left.remove(i)
        left.remove(j)
        left.append(new)
        return new

    while len(left) > 7:
        join(*min(combinations(left, 2), key=lambda p: _size(axes[p[0]] | axes[p[1]], extent)))
    tree = _best(tuple(left), axes, over, extent)
    _follow(tree, join)
    return _positions(len(factors), steps)


def _size(axes: Axes, extent: Mapping[str, int]) -> float:
    out = 1.0
    for d in axes:
        out *= extent.get(d, 64)
    return out


def _best(left: tuple[int, ...], axes: Mapping[int, Axes], over: Axes, extent: Mapping[str, int]) -> object:
    best: dict[tuple[int, ...], tuple[float, Axes, object]] = {}
    for i in left:
        best[(i,)] = (0.0, axes[i], i)
    for count in range(2, len(left) + 1):
        for group in combinations(left, count):
            rest = frozenset(d for k in left if k not in group for d in axes[k])
            found: tuple[float, Axes, object] | None = None
            for size in reversed(range(1, count)):  # at a tie, from left to right
                for some in combinations(group, size):
                    others = tuple(k for k in group if k not in some)
                    if some[0] != group[0]:
                        continue  # each split once
                    a, b = best[some], best[others]
                    both = a[1] | b[1]
                    result = both - (over - rest)
                    cost = a[0] + b[0] + _size(both, extent) + 4 * _size(result, extent)
                    if found is None or cost < found[0] * (1 - 1e-9):
                        found = (cost, result, (a[2], b[2]))
            assert found is not None
            best[group] = found
    return best[left][2]


def _follow(tree: object, join: Callable[[int, int], int]) -> int:
    if isinstance(tree, int):
        return tree
    assert isinstance(tree, tuple)
    return join(_follow(tree[0], join), _follow(tree[1], join))


def _positions(count: int, steps: list[tuple[int, int, Axes]]) -> list[Pair]:
    alive = list(range(count))
    out = []
    for made, (i, j, gone) in enumerate(steps, start=count):
        a, b = alive.index(i), alive.index(j)
        out.append((a, b, gone))
        alive = [k for k in alive if k not in (i, j)] + [made]
    return out
