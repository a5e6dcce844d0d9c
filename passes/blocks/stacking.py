"""Values of one kind -> one value with a dim for them: the rows of a step side by side.

    k[.., J = 0], k[.., J = 1]                 ->  k, its dim J called ^2
    -b_1 * sum[K](k_1 * k_0), ..               ->  -b * sum[K](k * k'), one text for all of them
    x, y (nothing in common)                   ->  where(index(^2) = 0, x, y)

Needs: nodes with their places along one dim or two. Gives: one node, the same at these places. What differs only in the
position at which a dim of that size is taken is that dim itself; what differs only further down is looked at there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from seqc.ir.dims import unprimed
from seqc.ir.graph import COL, ROW, Node, along, const, constant, index, node, rebuild, renamed
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where

Place = tuple[int, ...]
POINTWISE = ("sum", "amax", "rename", "expand", "take")  # along dims of their own, whatever others there are


class Stacking:
    """Makes one node of several. dims: of the places; sizes: of the spec's dims that have one size only; moved: whether what
    has a dim of columns stands at their time, for a value that counts only where t = s."""

    def __init__(self, dims: Sequence[str], count: int, sizes: Mapping[str, int], moved: bool = False) -> None:
        self.dims, self.count, self.sizes, self.moved = tuple(dims), count, sizes, moved
        self.done: dict[tuple[tuple[Place, Node], ...], Node] = {}

    def __call__(self, parts: Mapping[Place, Node]) -> Node:
        """The node that is each part at its place; anywhere it is free to be anything where there is no part."""
        key = tuple(parts.items())
        if key not in self.done:
            self.done[key] = self._stacked(parts)
        return self.done[key]

    def _stacked(self, parts: Mapping[Place, Node]) -> Node:
        nodes = list(dict.fromkeys(parts.values()))
        first = nodes[0]
        if len(nodes) == 1 and (len(parts) > 1 or len(self.dims) == 1):
            return first
        if (found := self._position(parts)) is not None:
            return found
        same = all((x.op, x.attrs, len(x.args)) == (first.op, first.attrs, len(first.args)) for x in nodes)
        if same and first.args and (TABLE[first.op].elementwise or (first.op in POINTWISE and ROW not in along(first))):
            args = [self({at: x.args[i] for at, x in parts.items()}) for i in range(len(first.args))]
            return rebuild(first, tuple(args))
        return self._chosen(parts)

    def _position(self, parts: Mapping[Place, Node]) -> Node | None:
        """A dim whose positions the parts are: of a value that has it, or counted."""
        first = next(iter(parts.values()))
        for axis, dim in enumerate(self.dims):
            if len(parts) > 1 and all(x.op == "const" and constant(x) == at[axis] for at, x in parts.items()):
                return index(dim)
            if first.op == "take" and self.sizes.get(unprimed(first.text("dim"))) == self.count and all(
                x.op == "take" and x.args == first.args and x.text("dim") == first.text("dim") and x.number("at") == at[axis]
                for at, x in parts.items()
            ):
                found = renamed(first.args[0], first.text("dim"), dim)
                return renamed(found, ROW, COL) if self.moved and axis else found
        return None

    def _chosen(self, parts: Mapping[Place, Node]) -> Node:
        """By place, one after the other; along one dim where that tells them apart."""
        axes: list[int] = list(range(len(self.dims)))
        for axis in axes if len(axes) > 1 else ():
            alone: dict[int, set[Node]] = {}
            for at, x in parts.items():
                alone.setdefault(at[axis], set()).add(x)
            if all(len(xs) == 1 for xs in alone.values()):
                axes = [axis]
                break
        chosen = {tuple(at[a] for a in axes): x for at, x in parts.items()}
        (_, out), *others = chosen.items()
        for at, x in others:
            here = reduce(
                lambda a, b: node("and", a, b),
                (node("eq", index(self.dims[a]), const(float(i))) for a, i in zip(axes, at, strict=True)),
            )
            out = _either(here, x, out)
        return out


def _either(here: Node, x: Node, other: Node) -> Node:
    if x.dtype != "bool":
        return where(here, x, other)
    return node("or", node("and", here, x), node("and", node("not", here), other))
