"""Who takes the values of a kernel: what decides which of them become tiles, and in which type they are kept.

In: a kernel's loop tree, and its roles. Out: `Uses`, and counts of uses scope by scope. It never looks at text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from seqc.backends.triton_gpu.kernel import Add, Advance, Item, Kernel, Let, Load, Loop, Store
from seqc.backends.triton_gpu.pairing import is_product
from seqc.backends.triton_gpu.roles import Roles
from seqc.graph import Node


class Uses:
    """Questions about a whole kernel."""

    def __init__(self, kernel: Kernel, roles: Roles) -> None:
        self.roles = roles
        self.items = walk(kernel.body)
        self.by_items: set[Node] = {n for item in self.items for n in consumed(item)}
        self.by_nodes: dict[Node, list[Node]] = {}
        for item in self.items:
            if isinstance(item, Let):
                for a in dict.fromkeys(item.node.args):
                    self.by_nodes.setdefault(a, []).append(item.node)

    def is_dot(self, n: Node) -> bool:
        """Whether n is a matrix product."""
        if n.op != "sum" or n.args[0].op != "mul":
            return False
        a, b, r = (frozenset(self.roles.axes(x.dims)) for x in (*n.args[0].args, n))
        return is_product(a, b, r)

    @cached_property
    def only_summed(self) -> set[Node]:
        """Products that only sums take, and so are never tiles of their own."""
        taken = self.by_nodes.items()
        return {n for n, by in taken if n.op == "mul" and n not in self.by_items and all(u.op == "sum" for u in by)}

    @cached_property
    def operands_only(self) -> set[Node]:
        """Parameters that only matrix products take: they are kept in the type of the operands."""
        params = {i.node for i in self.items if isinstance(i, Load) and i.array.role == "param"}
        other = set(self.by_items)
        for item in self.items:
            if isinstance(item, Let):
                n = item.node
                if not (n in self.only_summed and all(map(self.is_dot, self.by_nodes.get(n, ())))):
                    other.update(n.args)
        return params - other


def walk(items: Iterable[Item]) -> list[Item]:
    """All items, those of loops after the loop."""
    out: list[Item] = []
    for item in items:
        out.append(item)
        if isinstance(item, Loop):
            out += walk(item.body)
    return out


def consumed(item: Item) -> list[Node]:
    """What an item stores, adds up or carries on."""
    match item:
        case Store(node, _, _) | Add(_, node):
            return [node]
        case Advance(pairs):
            return [b for _, b in pairs]
    return []


def uses_here(items: Iterable[Item]) -> Counter[Node]:
    """How often each node is used by the items of this very scope; a product's factors count as used by its sums."""
    count: Counter[Node] = Counter()
    for item in items:
        count.update(consumed(item))
        if isinstance(item, Let):
            count.update(item.node.args)
    return count


def used_inside(items: Iterable[Item]) -> set[Node]:
    """Nodes used in loops inside these items."""
    inside = [i for item in items if isinstance(item, Loop) for i in walk(item.body)]
    return {n for item in inside for n in (*consumed(item), *(item.node.args if isinstance(item, Let) else ()))}
