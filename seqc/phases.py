"""block graph -> its three phases, and the same graph over all blocks at once.

Needs: the roots of a block (or of its gradient) and the carried leaves, each with the key of its next value.
`split`: roots -> Phases, when: always. Before: no node is marked. After: every node below the roots, constants and leaves
too, is in exactly one of
- `before`: does not depend on the carried values, so it can be computed for all blocks in parallel;
- `loop`: lies on the way from the carried leaves to their next values: the only sequential part;
- `after`: depends on the carried values, but nothing carried depends on it: parallel again, once the carried values of
  all blocks are known.
A carried leaf whose next value needs no carried value is a `stream`: its values are the next values moved by one block,
so that it counts as known in advance.
`over_blocks`: graph -> the same graph for all blocks: every leaf that differs from block to block gets the dim BLOCK.
`sum_blocks`: x[BLOCK, ...] -> sum of x over BLOCK, pushed down to the sums inside x, so that one contraction serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.graph import Node, depends, leaf, node, rebuild, topological, total

BLOCK = "%n"  # the block index as a named dim; no dim of a spec can be called so
PER_BLOCK = ("input", "state", "cot", "mask")  # kinds of leaves whose value differs from block to block


@dataclass(frozen=True)
class Phases:
    """See the file's docstring. Nodes are in topological order; `looped` and `streams` are the carried leaves."""

    before: tuple[Node, ...]
    loop: tuple[Node, ...]
    after: tuple[Node, ...]
    looped: tuple[Node, ...]
    streams: tuple[Node, ...]


def split(outputs: Mapping[str, Node], carried: Mapping[Node, str]) -> Phases:
    """The phases of `outputs`. carried: leaf -> key in `outputs` of its value for the next block."""
    looped = dict(carried)
    streams: list[Node] = []
    while True:
        hit = depends(outputs.values(), looped)
        free = [n for n, key in looped.items() if outputs[key] not in hit]
        if not free:
            break
        streams += free
        looped = {n: key for n, key in looped.items() if n not in free}
    order = topological(outputs.values())
    on_way = set(topological(outputs[key] for key in looped.values())) & hit
    return Phases(
        before=tuple(n for n in order if n not in hit),
        loop=tuple(n for n in order if n in on_way and n not in looped),
        after=tuple(n for n in order if n in hit and n not in on_way),
        looped=tuple(looped),
        streams=tuple(streams),
    )


def over_blocks(outputs: Mapping[str, Node], known: Mapping[Node, Node]) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(outputs for all blocks at once, node -> its counterpart). known: nodes with a value of their own for all blocks."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        if n in known:
            done[n] = known[n]
        elif n.op == "leaf" and n.text("kind") in PER_BLOCK:
            done[n] = blocked_leaf(n)
        else:
            args = tuple(done[a] for a in n.args)
            if n.op == "affine_scan":
                args = _same_dims(*args, dim=n.text("dim"))
            done[n] = rebuild(n, args)
    return {name: done[n] for name, n in outputs.items()}, done


def blocked_leaf(n: Node) -> Node:
    """The leaf with the dim BLOCK in front."""
    return leaf(n.text("kind"), n.text("name"), (BLOCK, *n.names("shape")), n.number("offset"), n.text("type"))


def _same_dims(a: Node, b: Node, start: Node, dim: str) -> tuple[Node, Node, Node]:
    """The arguments of a scan, each made constant along the dims that only another one has."""
    dims = sorted({*a.dims, *b.dims, *start.dims})
    wide = [_expanded(x, dims) for x in (a, b)]
    return wide[0], wide[1], _expanded(start, [d for d in dims if d != dim])


def _expanded(x: Node, dims: list[str]) -> Node:
    missing = tuple(d for d in dims if d not in x.dims)
    return node("expand", x, over=missing) if missing else x


def sum_blocks(x: Node) -> Node:
    """The sum of x over BLOCK; x may lack the dim (it is then the same for every block)."""
    if BLOCK not in x.dims:
        return total(x, (BLOCK,))
    match x.op:
        case "sum":
            return node("sum", x.args[0], over=tuple(sorted((*x.names("over"), BLOCK))))
        case "neg" | "rename":
            return rebuild(x, (sum_blocks(x.args[0]),))
        case "add" | "sub":
            return rebuild(x, (sum_blocks(x.args[0]), sum_blocks(x.args[1])))
        case "mul" if BLOCK not in x.args[0].dims:
            return x.args[0] * sum_blocks(x.args[1])
        case "mul" if BLOCK not in x.args[1].dims:
            return sum_blocks(x.args[0]) * x.args[1]
        case "div" if BLOCK not in x.args[1].dims:
            return sum_blocks(x.args[0]) / x.args[1]
        case "expand" if BLOCK not in x.names("over"):
            return rebuild(x, (sum_blocks(x.args[0]),))
        case _:
            return node("sum", x, over=(BLOCK,))


__all__ = ["BLOCK", "PER_BLOCK", "Phases", "blocked_leaf", "over_blocks", "split", "sum_blocks"]
