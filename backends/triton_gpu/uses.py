"""Who takes the values of a kernel: what decides which of them become tiles, and in which type they are kept.

In: a kernel's loop tree, and its roles. Out: `Uses`, and counts of uses scope by scope. It never looks at text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

from seqc.backends.triton_gpu.kernel import Add, Advance, Item, Let, Levels, Load, Loop, Note, Outputs, Plus, Store, walk
from seqc.backends.triton_gpu.pairing import is_dot
from seqc.backends.triton_gpu.roles import Roles
from seqc.backends.triton_gpu.tuning.quarantine import TURNED_ROWS
from seqc.ir.dims import is_rank, is_time
from seqc.ir.graph import Node
from seqc.ir.ops import TABLE, holds

SHORT = ("cumsum", "sum", "amax")  # of one value, in few words


class Uses:
    """Questions about the items of a kernel, or of a part."""

    def __init__(self, body: Iterable[Item], roles: Roles) -> None:
        self.roles = roles
        self.items = walk(body)
        self.by_items: set[Node] = {n for item in self.items for n in consumed(item)}
        self.by_nodes: dict[Node, list[Node]] = {}
        for item in self.items:
            if isinstance(item, Let):
                for a in dict.fromkeys(item.node.args):
                    self.by_nodes.setdefault(a, []).append(item.node)

    def is_dot(self, n: Node) -> bool:
        """Whether n is a matrix product."""
        return is_dot(n, self.roles)

    @cached_property
    def only_summed(self) -> set[Node]:
        """Products that only sums take, and so are never tiles of their own."""
        taken = self.by_nodes.items()
        return {n for n, by in taken if n.op == "mul" and n not in self.by_items and all(u.op == "sum" for u in by)}

    @cached_property
    def only_renamed(self) -> set[Node]:
        """Values with rows of a step that are renamed on the way to another name: their axes would have to change places."""
        taken = ((n, by) for n, by in self.by_nodes.items() if n.op == "rename" and any(map(is_rank, n.dims)))
        return {n for n, by in taken if n not in self.by_items and all(u.op == "rename" for u in by)}

    def is_operand(self, n: Node) -> bool:
        """Whether only matrix products take n, so that it may be kept in the type of their operands."""
        return n not in self.by_items and all(map(self.in_products, self.by_nodes.get(n, ())))

    def is_operand_under_any_name(self, n: Node) -> bool:
        """Whether only matrix products take n, transposed or as it is."""
        by = self.by_nodes.get(n, ())
        return n not in self.by_items and all(
            self.is_operand_under_any_name(u) if u.op == "rename" else self.in_products(u) for u in by
        )

    def in_products(self, n: Node) -> bool:
        """Whether n is what matrix products alone sum."""
        return n in self.only_summed and all(map(self.is_dot, self.by_nodes[n]))

    def again(self, n: Node) -> bool:
        """Whether more than one value is made of n."""
        return len(self.by_nodes.get(n, ())) > 1

    def in_every_warp(self, n: Node, rows: int) -> bool:
        """Whether each warp holds n whole: of so few rows, products share out their columns, not those of the left operand."""
        return rows < TURNED_ROWS and self.is_operand(n) and self.is_left(n)

    def is_left(self, n: Node) -> bool:
        """Whether some matrix product takes n as its left operand, the one that has the rows, and the rows are steps."""
        products = (s for u in self.by_nodes.get(n, ()) if u in self.only_summed for s in self.by_nodes[u] if self.is_dot(s))
        rows = {self.roles.axes(s.dims)[0] for s in products}
        return any(is_time(row) and row in n.dims for row in rows)


def multiplied(body: Iterable[Item], roles: Roles, role: str) -> frozenset[str]:
    """Names of the arrays of a role of which a kernel loads nothing but what matrix products alone take."""
    uses = Uses(body, roles)
    loads = [item for item in uses.items if isinstance(item, Load) and item.array.role == role]
    other = {item.array.name for item in loads if not uses.is_operand_under_any_name(item.node)}
    return frozenset(item.array.name for item in loads) - other


def consumed(item: Item) -> list[Node]:
    """What an item stores, adds up, carries on or hands to a function."""
    match item:
        case Store(node) | Add(_, node) | Plus(_, node):
            return [node]
        case Advance(pairs):
            return [b for _, b in pairs]
        case Levels(function):
            return list(function.given)
    return []


def taken(item: Item) -> list[Node]:
    """What an item is made of, or takes."""
    return list(item.node.args) if isinstance(item, Let) else consumed(item)


def uses_here(items: Iterable[Item]) -> Counter[Node]:
    """How often each node is used by the items of this very scope; a product's factors count as used by its sums."""
    count: Counter[Node] = Counter()
    for item in items:
        count.update(taken(item))
    return count


def used_at_once(items: Iterable[Item], products: set[Node]) -> set[Node]:
    """Values that one item takes, with nothing but elementwise operators between: they need no line of their own.

    products: those that are no tiles of their own; what goes into one that several sums take is computed once.
    """
    found: set[Node] = set()
    near: set[Node] = set()
    items = list(items)
    count = uses_here(items)
    for item in items:
        if isinstance(item, Note):
            continue
        n = item.node if isinstance(item, Let) else None
        if n is None or n not in products or count[n] == 1:
            found.update(x for x in (consumed(item) if n is None else n.args) if x in near and count[x] == 1)
        if n is None or not (TABLE[n.op].elementwise or (not n.args and n.op != "leaf") or holds(n, "alias")):
            near.clear()
        if n is not None:
            near.add(n)
    return found


def used_next(items: Iterable[Item], products: set[Node]) -> set[Node]:
    """Values that nothing takes but the item that follows: whatever computes them, they may be written there.

    products: those that are no tiles of their own.
    """
    items = [item for item in items if not isinstance(item, Note)]
    count = uses_here(items)
    found: set[Node] = set()
    for item, after in pairwise(items):
        if not isinstance(item, Let) or count[item.node] != 1:
            continue
        let = after.node if isinstance(after, Let) else None
        short = let is None or ((TABLE[let.op].elementwise or let.op in SHORT) and let not in products)
        if short and item.node in (consumed(after) if let is None else let.args):
            found.add(item.node)
    return found


def used_inside(items: Iterable[Item]) -> set[Node]:
    """Nodes used in scopes inside these items."""
    inside = [i for item in items if isinstance(item, Loop | Outputs) for i in walk(item.body)]
    return {n for item in inside for n in taken(item)}
