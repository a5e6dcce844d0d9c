"""A block graph in phases: what runs for all blocks at once, and what must go from block to block.

In: the roots of a block (or of its gradient) and the carried leaves, each with the key of its next value. Out:

- `split`: every node below the roots, constants and leaves too, in exactly one of `before` (does not depend on carried
  values: parallel over blocks), `loop` (on the way from carried values to their next values: sequential) and `after`
  (depends on carried values, but nothing carried depends on it: parallel again, once the carried values are known).
- `stages`: the carried leaves in groups. Once the loop of a group has run, its values are known for all blocks, so what
  depends on them alone is parallel for the next group. A group without a loop (`stream`) holds one value whose next value
  needs nothing carried of its own group: it is that value moved by one block.
- `over_blocks`: the same graph for all blocks: every leaf that differs from block to block gets the dim BLOCK.
- `sum_blocks`: the sum of a value over BLOCK, pushed down to the sums inside it, so that one contraction serves both.

Nothing here prints, and no value changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.ir.graph import Node, depends, leaf, node, rebuild, topological, total
from seqc.ir.ops.structure import expanded
from seqc.ir.traverse import postorder, reached

BLOCK = "%n"  # the block index as a named dim; no dim of a spec can be called so
PER_BLOCK = ("input", "state", "cot", "mask")  # kinds of leaves whose value differs from block to block


@dataclass(frozen=True)
class Phases:
    """See the file's docstring. Nodes are in topological order."""

    before: tuple[Node, ...]
    loop: tuple[Node, ...]
    after: tuple[Node, ...]


@dataclass(frozen=True)
class Stage:
    """Carried leaves that depend on no later stage. `stream`: one leaf that needs no loop."""

    carried: tuple[Node, ...]
    stream: bool


def split(outputs: Mapping[str, Node], carried: Mapping[Node, str]) -> Phases:
    """The phases of `outputs`. carried: leaf -> key in `outputs` of its value for the next block."""
    order = topological(outputs.values())
    hit = depends(outputs.values(), carried)
    on_way = set(topological(outputs[key] for key in carried.values())) & hit
    return Phases(
        before=tuple(n for n in order if n not in hit),
        loop=tuple(n for n in order if n in on_way and n not in carried),
        after=tuple(n for n in order if n in hit and n not in on_way),
    )


def stages(outputs: Mapping[str, Node], carried: Mapping[Node, str]) -> tuple[Stage, ...]:
    """The carried leaves, grouped: first those that depend on no other group, in the order of `carried`."""
    below = {n: {x for x in topological([outputs[key]]) if x in carried} for n, key in carried.items()}
    reach = {n: reached(below[n], below.__getitem__) for n in carried}
    left = dict.fromkeys(carried)
    out = []
    while left:
        # a leaf is ready when all that it reaches is done, or reaches it too
        ready = [n for n in left if all(m not in left or n in reach[m] for m in reach[n])]
        streams = [n for n in ready if n not in reach[n]]
        if streams:
            out += [Stage((n,), True) for n in streams]
            ready = streams
        else:
            out.append(Stage(tuple(ready), False))
        for n in ready:
            del left[n]
    return tuple(out)


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
            if n.op.endswith("_scan"):
                args = _same_dims(args, n.text("dim"))
            done[n] = rebuild(n, args)
    return {name: done[n] for name, n in outputs.items()}, done


def blocked_leaf(n: Node) -> Node:
    """The leaf with the dim BLOCK in front."""
    return leaf(n.text("kind"), n.text("name"), (BLOCK, *n.names("shape")), n.number("offset"), n.text("type"))


def _same_dims(args: tuple[Node, ...], dim: str) -> tuple[Node, ...]:
    """The arguments of a scan, each made constant along the dims that only another one has."""
    a, b, start = args
    dims = tuple(sorted({*a.dims, *b.dims, *start.dims}))
    return expanded(a, dims), expanded(b, dims), expanded(start, tuple(d for d in dims if d != dim))


def sum_blocks(x: Node) -> Node:
    """The sum of x over BLOCK; x may lack the dim (it is then the same for every block)."""
    done: dict[Node, Node] = {}
    for n in postorder([x], _summed_inside):
        done[n] = _summed(n, _summed_inside(n), done)
    return done[x]


def _summed_inside(x: Node) -> tuple[Node, ...]:
    """The arguments whose sums over BLOCK make that of x."""
    if BLOCK not in x.dims:
        return ()
    match x.op:
        case "neg" | "rename" | "add" | "sub":
            return x.args
        case "mul" if BLOCK not in x.args[0].dims:
            return x.args[1:]
        case "mul" | "div" if BLOCK not in x.args[1].dims:
            return x.args[:1]
        case "expand" if BLOCK not in x.names("over"):
            return x.args
        case "where" if BLOCK not in x.args[0].dims:
            return x.args[1:]
        case "sum" if _scaled_sum(x.args[0]):
            return x.args
    return ()


def _scaled_sum(x: Node) -> bool:
    """Whether x is a sum times factors without BLOCK: sum[D](w[D] * sum[B](a * b)) needs a * b summed over all blocks alone."""
    while x.op in ("mul", "div") and (inside := _summed_inside(x)):
        (x,) = inside
        if x.op == "sum":
            return True
    return False


def _summed(x: Node, inside: tuple[Node, ...], done: Mapping[Node, Node]) -> Node:
    if BLOCK not in x.dims:
        return total(x, (BLOCK,))
    if x.op == "scatter" and BLOCK in x.args[1].dims:
        return node("scatter", *x.args, dim=x.text("dim"), over=tuple(sorted((*x.names("over"), BLOCK))))
    if inside:
        return rebuild(x, tuple(done[a] if a in inside else a for a in x.args))
    return total(x.args[0], (*x.names("over"), BLOCK)) if x.op == "sum" else total(x, (BLOCK,))
