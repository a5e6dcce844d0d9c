"""What a region of a kernel computes -> an ordered list of loop nests.

In: stores (values that must reach memory), the values that are already in memory, and the roles of the dims. Out: `Nest`s.
A value is computed at every point of its *space* (its local dims). Elementwise values are computed inside the nest of
whoever needs them, at the same point, and again in another nest rather than kept. Kept in a buffer are only
- the results of reductions (a later nest reads them),
- a value of a smaller space than that of its user (computed once, not once per point),
- a value that is read under another index (`rename`, `shift`),
- a dear value (exp and the like) that several nests need.
A nest gathers everything that is ready and has the same space, smallest spaces first, so that a matrix state is read and
written once per token whenever the recurrence allows it. A carried state is overwritten in the last nest that reads its
old value, or later; where no order allows that (a state that is transposed), its new value is kept in a buffer first. The
schedule never decides loop orders or vectors: that is `seqc.backends.native_cpu.nest`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from seqc.backends.native_cpu.refusal import refused
from seqc.backends.native_cpu.roles import Roles
from seqc.diagnostics import SeqcBug
from seqc.ir.graph import Node, const, node
from seqc.ir.ops import TABLE
from seqc.ir.views import View, view

REDUCTIONS = frozenset(("sum", "amax"))


def dear(n: Node) -> bool:
    """Whether a value costs several operations an element."""
    return TABLE[n.op].elementwise and TABLE[n.op].cost == "dear"


@dataclass(frozen=True)
class Item:
    """One thing that a nest does at every point of its space.

    kind: "out" (store `value` to the array `target`), "state" (overwrite the carried buffer `target`), "grow" (add to the
    buffer `target`), "keep" (store to the buffer of `value`), "reduce" (`value` is the reduction).
    """

    kind: str
    value: Node
    space: tuple[str, ...]
    target: str = ""


@dataclass(frozen=True)
class Nest:
    """Items of one space, in an order in which each may follow the one before at the same point."""

    space: tuple[str, ...]
    items: tuple[Item, ...]




def maker(roles: Roles, n: Node) -> Item:
    """The item that brings a value to its buffer."""
    if n.op in REDUCTIONS:
        return Item("reduce", n, roles.local(n.args[0].dims))
    return Item("keep", n, roles.local(n.dims))


def immediate(n: Node) -> bool:
    """Values that cost nothing anywhere."""
    return n.op in ("const", "size", "index")


@dataclass
class Region:
    """Schedules the items of one region. given: values (leaves and others) that are in memory as the region begins.

    carried: state leaf -> the name of the buffer that holds it, where this region overwrites it.
    """

    roles: Roles
    given: frozenset[Node]
    carried: Mapping[Node, str] = field(default_factory=dict)
    name: str = ""
    cones: dict[Item, tuple[list[Node], list[View]]] = field(default_factory=dict)

    def nests(self, stores: Iterable[Item], keep: Iterable[Node] = ()) -> list[Nest]:
        """The nests that perform `stores`, in order. keep: values to bring to buffers besides."""
        stores = list(stores)
        dear = dict.fromkeys(keep)
        while True:
            items = self._items(stores, dear)
            found, pending = self._order(items)
            if pending:
                stores, dear = self._ahead(stores, dear, pending)
                continue
            again = [n for n in self._repeated(found) if n not in dear]
            if not again:
                return found
            dear |= dict.fromkeys(again)

    def _ahead(
        self, stores: list[Item], dear: dict[Node, None], pending: list[Item]
    ) -> tuple[list[Item], dict[Node, None]]:
        """The stores, and what is kept in buffers, when the new values of the pending states are kept besides."""
        copies = {i: replace(i, value=node("mul", i.value, const(1.0)))  # a leaf is in memory already, where it is overwritten
                  for i in pending if i.kind == "state" and view(i.value).base.op == "leaf"}
        stores = [copies.get(i, i) for i in stores]
        new = [view(copies.get(i, i).value).base for i in pending if i.kind == "state"]
        if set(new) <= set(dear):
            raise SeqcBug("native_cpu.schedule", f"{self.name}: no order for {[i.value for i in pending]}")
        return stores, {**dear, **dict.fromkeys(new)}

    def cone(self, item: Item, kept: Container[Node] = ()) -> tuple[list[Node], list[View]]:
        """(values computed at each point of the item, in order; values read from memory)."""
        if kept:
            return self._cone(item, kept)
        if item not in self.cones:
            self.cones[item] = self._cone(item, kept)
        return self.cones[item]

    def _cone(self, item: Item, kept: Container[Node]) -> tuple[list[Node], list[View]]:
        root = item.value.args[0] if item.kind == "reduce" else item.value
        inner: list[Node] = []
        reads: dict[View, None] = {}
        seen: set[Node] = set()
        stack = [(root, True, False)]  # a value, whether it is the item's, whether its arguments are done
        while stack:
            n, top, finished = stack.pop()
            if finished:
                inner.append(n)
                continue
            v = view(n)
            if immediate(v.base):
                continue
            stop = v.base in self.given or v.base.op in REDUCTIONS or not v.plain
            stop = stop or self.roles.local(v.base.dims) != item.space
            stop = stop or (v.base in kept and not (top and item.kind == "keep" and v.base is item.value))
            if stop:
                reads[v] = None
            elif v.base not in seen:
                seen.add(v.base)
                self._check(v.base)
                stack.append((v.base, top, True))
                stack += ((a, False, False) for a in reversed(v.base.args))
        return inner, list(reads)

    def _check(self, n: Node) -> None:
        if not TABLE[n.op].elementwise:
            what = f"leaf {n.text('kind')} {n.text('name')}" if n.op == "leaf" else f"operator '{n.op}'"
            raise refused("native-operator", f"the native CPU backend has no loop for {what}")

    def _items(self, stores: list[Item], dear: Mapping[Node, None]) -> dict[Item, tuple[list[Node], list[View]]]:
        """All items with their cones: the stores, and whatever must be kept for them."""
        items: dict[Item, tuple[list[Node], list[View]]] = {}
        work = list(stores) + [maker(self.roles, n) for n in sorted(dear, key=self._key)]
        while work:
            item = work.pop(0)
            if item in items:
                continue
            items[item] = self.cone(item, dear)
            work += [maker(self.roles, read.base) for read in items[item][1] if read.base not in self.given]
        return items

    def _key(self, n: Node) -> str:
        return repr((n.op, n.dims, n.attrs))

    def _order(self, items: dict[Item, tuple[list[Node], list[View]]]) -> tuple[list[Nest], list[Item]]:
        """(the nests, the items that have no place in them: states that cannot be overwritten, and what follows them)."""
        makers = {i.value: i for i in items if i.kind in ("reduce", "keep")}
        needs = {i: {makers[r.base] for r in reads if r.base in makers} for i, (_, reads) in items.items()}
        whole = {i: {makers[r.base] for r in reads if r.base in makers and not r.plain} for i, (_, reads) in items.items()}
        readers: dict[str, set[Item]] = {name: set() for name in self.carried.values()}
        for i, (_, reads) in items.items():
            for r in reads:
                if r.base in self.carried:
                    readers[self.carried[r.base]].add(i)
        pending = list(items)
        done: set[Item] = set()
        nests: list[Nest] = []
        while pending:
            spaces = sorted({i.space for i in pending}, key=lambda s: (len(s), s))
            for space in spaces:
                ready = [i for i in pending if whole[i] <= done]  # what reads a value elsewhere needs all of it before
                group = self._group(space, ready, done, needs, readers, items)
                if group:
                    break
            else:
                return nests, pending
            nests.append(Nest(space, tuple(group)))
            done |= set(group)
            pending = [i for i in pending if i not in done]
        return nests, []

    def _group(
        self, space: tuple[str, ...], pending: list[Item], done: set[Item], needs: dict[Item, set[Item]],
        readers: dict[str, set[Item]], items: Mapping[Item, tuple[list[Node], list[View]]],
    ) -> list[Item]:
        group: dict[Item, None] = {}
        ready = set(done)
        grown = True
        while grown:
            grown = False
            for i in pending:
                if i.space != space or i in group or not needs[i] <= ready:
                    continue
                if i.kind == "state":
                    others = {r for r in readers.get(i.target, set()) if r is not i and r not in done}
                    if not others <= group.keys():
                        continue
                group[i] = None
                grown = True
                if i.kind == "keep":
                    ready.add(i)
        # states that read each other's old values are overwritten together
        group |= {i: None for i in pending if i.kind == "state" and i.space == space and needs[i] <= ready}
        # the old value must be read at the very point at which it is overwritten
        while True:
            for i in group:
                left = readers.get(i.target, set()) - done if i.kind == "state" else set()
                if not left - {i} <= group.keys() or any(not self._pointwise(r, i, items[r][1]) for r in left):
                    del group[i]
                    break
            else:
                return list(group)

    def _pointwise(self, reader: Item, writer: Item, reads: Iterable[View]) -> bool:
        """Whether the reader wants of the writer's old state the very element that is overwritten at each point."""
        plain = all(r.plain for r in reads if self.carried.get(r.base) == writer.target)
        return plain and (reader is writer or reader.space == writer.space)

    def dear(self, nests: Iterable[Nest]) -> list[Node]:
        """Values that the nests keep in buffers, and dear ones that they compute in passing, arguments first."""
        found: dict[Node, None] = {}
        for nest in nests:
            for i in nest.items:
                for n in self.cone(i)[0]:
                    if dear(n):
                        found[n] = None
                if i.kind in ("keep", "reduce"):
                    found[i.value] = None
        return list(found)

    def _repeated(self, nests: list[Nest]) -> list[Node]:
        """Dear values that more than one nest computes, in the order in which they are found: no text depends on a set's."""
        seen: set[Node] = set()
        again: dict[Node, None] = {}
        for nest in nests:
            here = dict.fromkeys(n for i in nest.items for n in self.cone(i)[0] if dear(n))
            again |= {n: None for n in here if n in seen}
            seen |= here.keys()
        return list(again)
