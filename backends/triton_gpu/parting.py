"""What a program holds of each value where programs take pieces of a dim, and what another kernel must keep for it.

In: gradients in pairs, and a dim. Each program has a value either whole (or its own piece of it, where the value has the
dim), or a part that adds up to it over programs: what sums over the dim, and what is linear in such sums. What else comes
of such a sum, no program can know, unless it is loaded. The dim that the forward leaves free is another matter: there all is
linear in cotangents. It makes no kernel; which gradients go where is `sharing`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from seqc.ir.dims import base
from seqc.ir.graph import Node, along, const, depends, index, node, topological, total
from seqc.ir.ops import TABLE, holds

KNOWN, PART, UNKNOWN = "whole", "part", "unknown"
ADDED = {"add": (0, 1), "sub": (0, 1), "where": (1, 2), "affine_scan": (1, 2)}  # arguments whose sum, or choice, it is


def held(roots: Iterable[Node], dim: str, kept: Iterable[Node] = ()) -> dict[Node, str]:
    """What a program that has a piece of the dim holds of each value: it whole, a part, or neither. kept: what is loaded."""
    found = dict.fromkeys(kept, KNOWN)
    for n in topological(roots, found):
        found[n] = _held(n, [found[a] for a in n.args], dim)
    return found


def _held(n: Node, args: list[str], dim: str) -> str:
    if UNKNOWN in args or any(d != dim and base(d) == dim for d in n.dims) or _moves(n, dim):
        return UNKNOWN
    if n.op == "sum" and dim in n.names("over"):
        return PART
    if n.op == "amax" and dim in n.names("over"):
        return UNKNOWN
    if PART not in args:
        return KNOWN
    factor = {"mul": KNOWN not in args, "div": args[-1] == PART, "where": args[0] == PART, "affine_scan": args[0] == PART}
    return UNKNOWN if not holds(n, "linear") or factor.get(n.op, False) or any(dim in x.dims for x in (n, *n.args)) else PART


def passes(roots: Iterable[Node], dim: str, kept: Iterable[Node] = ()) -> bool:
    """Whether programs may go through a dim piece by piece: what they compute of it is added up, and nothing of it needs these
    sums. kept: what is loaded."""
    late: set[Node] = set()
    for n in topological(roots, kept):
        summed = n.op == "sum" and dim in n.names("over")
        taken = any(dim in a.dims for a in n.args)
        if _moves(n, dim) or any(d != dim and base(d) == dim for d in n.dims) or (taken and not summed and dim not in n.dims):
            return False
        if summed or any(a in late for a in n.args):
            late.add(n)
    return not any(dim in n.dims for n in (*late, *roots))


def added_up(roots: Iterable[Node], dim: str, kept: Iterable[Node] = ()) -> list[Node]:
    """The sums over a dim that a program holds, all of them at once, as it goes through the dim piece by piece."""
    return [n for n in topological(roots, kept) if n.op == "sum" and dim in n.names("over")]


def _moves(n: Node, dim: str) -> bool:
    """Whether an operator works along the dim in a way that pieces cannot."""
    return n.op not in ("index", "block_index", "size") and any(base(d) == dim for d in along(n))


def counted_once(roots: Mapping[str, Node], dim: str, kept: Iterable[Node] = ()) -> dict[str, Node]:
    """The same gradients, whole values that are added to parts being zero in all programs but the first."""
    kinds = held(roots.values(), dim, kept)
    first = total(node("where", node("eq", index(dim), const(0.0)), const(1.0), const(0.0)), (dim,))
    done = {n: n for n in kept}
    for n in topological(roots.values(), kept):
        args = [done[a] for a in n.args]
        if kinds[n] == PART and n.op in ADDED:
            for i in ADDED[n.op]:
                if kinds[n.args[i]] == KNOWN and n.args[i] is not const(0.0):
                    args[i] = args[i] * first
        done[n] = node(n.op, *args, **dict(n.attrs)) if tuple(args) != n.args else n
    return {key: done[n] for key, n in roots.items()}


def is_at_hand(root: Node, there: Collection[Node]) -> bool:
    """Whether elementwise operators alone make a value of those that are there."""
    return all(TABLE[n.op].elementwise and n.op != "leaf" for n in topological([root], there) if n.args or n.op == "leaf")


def can_cut(root: Node, dim: str, given: Iterable[Node], prices: Mapping[Node, int]) -> bool:
    """Whether values that can be kept stand between a root and all that sums over the dim, or works along it."""
    mixed: set[Node] = set()  # whatever is kept
    for n in topological([root], given):
        if (n is root or n not in prices) and (_mixes(n, dim) or any(a in mixed for a in n.args)):
            mixed.add(n)
    return root not in mixed


def cheapest_cut(
    roots: Sequence[Node], dim: str, given: Iterable[Node], prices: Mapping[Node, int]
) -> tuple[Node, ...]:
    """The values of least total price that programs with a piece of the dim must load to have the roots: a minimum cut
    between what sums over the dim (or works along it) and the roots, each of which can be cut. given: values that are loaded
    anyhow; prices: of what can be kept."""
    import networkx

    nodes = topological(roots, given)
    mixing = [n for n in nodes if _mixes(n, dim)]
    mixed = depends(roots, mixing)
    number = {n: i for i, n in enumerate(nodes) if n in mixed}
    graph = networkx.DiGraph()
    graph.add_nodes_from(("from", "to"))
    for n, i in number.items():
        graph.add_edge((i, 0), (i, 1), **({"capacity": prices[n]} if n in prices and n not in roots else {}))
        graph.add_edges_from(((number[a], 1), (i, 0)) for a in dict.fromkeys(n.args) if a in number)
    graph.add_edges_from(("from", (number[n], 0)) for n in mixing)
    graph.add_edges_from(((number[n], 1), "to") for n in dict.fromkeys(roots) if n in number)
    _, (before, _) = networkx.minimum_cut(graph, "from", "to")
    return tuple(n for n, i in number.items() if (i, 0) in before and (i, 1) not in before)


def _mixes(n: Node, dim: str) -> bool:
    """Whether programs that have all arguments do not have the value."""
    return _held(n, [KNOWN for _ in n.args], dim) != KNOWN
