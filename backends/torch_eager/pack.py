"""Several small products as one: contractions of one value with several parameters, and sums of contractions.

    R_i @ h, R_f @ h, ...            ->  one product with the parameters side by side, then cut in pieces
    R_i.T @ a + R_f.T @ b + ...      ->  one product of a, b, ... side by side with the parameters side by side

In: nodes, the factors of every sum, and which nodes are the same for every batch element and block. Out: `Fan`s and
`Join`s. A loop's time is the number of its calls, so this is worth two copies. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.contract import Product
from seqc.ir.graph import BATCH, Dims, Node, operands


@dataclass(frozen=True)
class Fan:
    """Sums over the same dims of `shared` times one parameter each; `along` is the dim that the pieces are cut along."""

    members: tuple[Node, ...]
    shared: Node
    params: tuple[Node, ...]
    over: tuple[str, ...]
    along: str


@dataclass(frozen=True)
class Join:
    """The sum of `rest` and of sums over `along` of values (each a product of factors) times parameters."""

    values: tuple[tuple[Node, ...], ...]
    params: tuple[Node, ...]
    along: str
    rest: tuple[Node, ...]


def same_for_all(n: Node) -> bool:
    """Whether n depends on parameters only."""
    return BATCH not in n.dims and BLOCK not in n.dims


def _pair(p: Product | None) -> tuple[tuple[Node, ...], Node] | None:
    """(factors of a value, parameter) of a contraction of both over one dim; the first factor has all dims of the value."""
    if p is None or p.negative or p.divisors or len(p.over) != 1:
        return None
    params = [f for f in p.factors if same_for_all(f)]
    rest = sorted((f for f in p.factors if not same_for_all(f)), key=lambda f: -len(f.dims))
    if len(params) != 1 or not rest or any(set(f.dims) - set(rest[0].dims) for f in rest):
        return None
    if BATCH not in rest[0].dims or p.over[0] not in rest[0].dims or p.over[0] not in params[0].dims:
        return None
    return tuple(rest), params[0]


def fans(order: Sequence[Node], products: Mapping[Node, Product]) -> dict[Node, Fan]:
    """Member -> its fan, for every value that is contracted with at least two parameters alike."""
    groups: dict[tuple[Node, Dims, Dims, str], list[tuple[Node, Node]]] = {}
    for n in order:
        pair = _pair(products.get(n))
        if pair is None or len(pair[0]) > 1:
            continue
        (value,), param = pair
        new = [d for d in param.dims if d not in value.dims]
        if len(new) == 1:
            groups.setdefault((value, param.dims, products[n].over, new[0]), []).append((n, param))
    out: dict[Node, Fan] = {}
    for (value, _, over, along), found in groups.items():
        if len(found) > 1:
            fan = Fan(tuple(n for n, _ in found), value, tuple(w for _, w in found), over, along)
            out |= dict.fromkeys(fan.members, fan)
    return out


def joins(order: Iterable[Node], products: Mapping[Node, Product], once: Callable[[Node], bool]) -> dict[Node, Join]:
    """Node -> how to compute it as one product, for sums that add at least two contractions alike."""
    out: dict[Node, Join] = {}
    taken: set[Node] = set()
    for n in reversed(list(order)):  # the widest sum first
        if n.op != "add" or n in taken:
            continue
        terms, inner = _terms(n, once)
        groups: dict[tuple[Dims, Dims, str], list[tuple[Node, tuple[Node, ...], Node]]] = {}
        for x in terms:
            pair = _pair(products.get(x)) if once(x) else None
            if pair is not None:
                value, param = pair
                groups.setdefault((value[0].dims, param.dims, products[x].over[0]), []).append((x, value, param))
        best = max(groups.items(), key=lambda g: len(g[1]), default=None)
        if best is None or len(best[1]) < 2:
            continue
        taken |= inner
        chosen = {x for x, _, _ in best[1]}
        out[n] = Join(
            tuple(v for _, v, _ in best[1]), tuple(w for _, _, w in best[1]), best[0][2],
            tuple(x for x in terms if x not in chosen),
        )
    return out


def _terms(n: Node, once: Callable[[Node], bool]) -> tuple[list[Node], set[Node]]:
    """The terms of a chain of sums, and the sums inside it."""
    inner = {n}

    def is_inner(x: Node) -> bool:
        if x.op == "add" and once(x) and x.dims == n.dims:
            inner.add(x)
        return x in inner

    return operands(n, is_inner), inner
