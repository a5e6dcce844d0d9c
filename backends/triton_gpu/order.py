"""The items of a loop's body -> the same items in an order that keeps few tiles alive at once.

Before: gradients one after the other, each with all that it needs, so that what two of them share stays alive from the
first to the second. After: what is computed is used up before the next is begun: a level of a decayed product gives its
part to every sum that it belongs to before the next level is computed, and a tile is loaded where it is first used.
Sums of three and more terms are added up in the order in which their terms come (values change by reassociation only).

In: items without loops among them, and the bytes of every value's tile. Out: the items, and what became of each node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from seqc.analysis.workload import FORMS
from seqc.backends.triton_gpu.chains import Chains
from seqc.backends.triton_gpu.kernel import Add, Advance, Item, Let, Load, Note, Store
from seqc.backends.triton_gpu.roles import Roles, rank_tile
from seqc.backends.triton_gpu.tuning.quarantine import TURNED_ROWS
from seqc.backends.triton_gpu.tuning.search import Task, Value, sparing
from seqc.backends.triton_gpu.uses import Uses, consumed
from seqc.ir.dims import base, is_rank, is_time
from seqc.ir.graph import Node, node, operands, rebuild
from seqc.ir.ops import holds
from seqc.ir.traverse import postorder

WHOLE, PIECE = FORMS.dim, FORMS.dim // 2  # extents that stand for any: of a whole dim, and of a piece
WARPS = 4  # of a program


def order(
    items: Sequence[Item], size: Callable[[Node], int], fixed: Callable[[Node], bool]
) -> tuple[tuple[Item, ...], dict[Node, Node]]:
    """See the file's docstring. fixed: values that stay as they are, since they have a name."""
    if not all(isinstance(i, Load | Note | Let | Store | Add | Advance) for i in items):
        return tuple(items), {}
    return _Order(items, size, fixed).run()


def tile_bytes(items: Iterable[Item], roles: Roles, rows: int, apart: bool = False) -> Callable[[Node], int]:
    """The bytes of a value's tile, at extents that stand for any; operands of products are kept in their narrow type. Where
    a product has few rows, each warp takes columns of its own and holds the left operand whole; an operand that is taken
    again stays so long. Where it has many, warps take operands from shared memory, and what is loaded holds few registers, but
    where a loop sends for it ahead (not apart)."""
    uses = Uses(items, roles)
    loaded = {i.node for i in uses.items if isinstance(i, Load)} if apart and rows >= TURNED_ROWS else set()

    def size(n: Node) -> int:
        bytes = (1 if n in loaded else 2 if uses.is_operand(n) else 4) * numbers(n, roles, rows)
        held = WARPS if uses.again(n) and uses.in_every_warp(n, rows) else 1
        return bytes * held if n.dims else 0

    return size


def numbers(n: Node, roles: Roles, rows: int) -> int:
    """The elements of a value's tile, at extents that stand for any."""
    out = 1
    for d in roles.axes(n.dims):
        out *= rows if is_time(d) else rank_tile(base(d)) if is_rank(d) else PIECE if d in roles.blocked else WHOLE
    return out


class _Order:
    def __init__(self, items: Sequence[Item], size: Callable[[Node], int], fixed: Callable[[Node], bool]) -> None:
        self.items, self.size = items, size
        self.lets = {i.node: i for i in items if isinstance(i, Let)}
        sums = Chains(items, fixed)
        self.stored, self.users, self.chains = sums.stored, sums.users, sums.of
        self.inside = {n for n in self.lets if self.is_virtual(n)}  # never a tile of its own
        self.links = {n for root in self.chains for n in sums.linked(root)}
        self.values: dict[Node, Value] = {}
        self.work: dict[Task, Item | tuple[Node, Node, int]] = {}  # an item, or (sum, term, its sign)
        self.notes = self.place_notes()

    # ---- the graph ----

    def is_virtual(self, n: Node) -> bool:
        if not n.args or holds(n, "alias"):
            return True
        return n.op == "mul" and n not in self.stored and all(u.op == "sum" for u in self.users.get(n, ()))

    def behind(self, n: Node) -> list[Value]:
        """The values whose tiles are read where n is."""
        found = operands(n, lambda x: x not in self.values and x in self.inside)
        return list(dict.fromkeys(self.values[x] for x in found if x in self.values))

    # ---- tasks ----

    def run(self) -> tuple[tuple[Item, ...], dict[Node, Node]]:
        carried = [pair for i in self.items if isinstance(i, Advance) for pair in i.pairs]
        self.values |= {n: Value(self.size(n)) for n, _ in carried}
        self.following = {after for _, after in carried}
        for item in sorted(self.items, key=lambda i: isinstance(i, Advance)):
            self.enter(item)
        tasks = list(self.work)
        best = sparing(tasks)
        assert not any(isinstance(self.work[t], Advance) for t in best[:-1])  # it overwrites what the others read
        if best == tasks:
            return tuple(self.items), {}
        return self.emit(best)

    def enter(self, item: Item) -> None:
        """The tasks of an item."""
        match item:
            case Load(n):
                self.add(item, (), n)
            case Let(n) if n in self.chains:
                value = Value(self.size(n))
                for term, sign in self.chains[n]:
                    self.work[Task(tuple(self.behind(term)), value, goal=True)] = (n, term, sign)
                self.values[n] = value
            case Let(n) if n not in self.links and n not in self.inside:
                reads = dict.fromkeys(v for a in n.args for v in self.behind(a))
                self.add(item, tuple(reads), n)
            case Store() | Add() | Advance():
                reads = dict.fromkeys(v for n in consumed(item) for v in self.behind(n))
                self.work[Task(tuple(reads), None, goal=not isinstance(item, Advance))] = item

    def add(self, item: Item, reads: tuple[Value, ...], n: Node) -> None:
        value = self.values[n] = Value(self.size(n))
        by = self.users.get(n, ())
        part = n in self.following or any(u.op in ("add", "sub") for u in by)
        self.work[Task(reads, value, goal=part, grows=n.op == "sum")] = item

    # ---- items again ----

    def place_notes(self) -> dict[int, list[Note]]:
        """By the item that they stand above: what a line of the spec defines, where a gradient is stored."""
        out: dict[int, list[Note]] = {}
        for at, item in enumerate(self.items):
            if isinstance(item, Note):
                rest = self.items[at + 1 :]
                stop = next((i for i, x in enumerate(rest) if not isinstance(x, Let)), len(rest) - 1)
                sink = isinstance(rest[stop], Store | Add | Advance) and item.result
                out.setdefault(id(rest[stop if sink or not stop else stop - 1]), []).append(item)
        return out

    def emit(self, tasks: Iterable[Task]) -> tuple[tuple[Item, ...], dict[Node, Node]]:
        """Items in the order of the tasks, on the sums as they are now added up."""
        self.out: list[Item] = []
        self.new: dict[Node, Node] = {}
        left = Counter({n: len(terms) for n, terms in self.chains.items()})
        sums: dict[Node, Node] = {}
        for task in tasks:
            work = self.work[task]
            if isinstance(work, tuple):
                root, term, sign = work
                n = self.ready(term)
                if root in sums:
                    n = node("add" if sign > 0 else "sub", sums[root], n)
                elif sign < 0:
                    n = -n
                left[root] -= 1
                if not left[root]:
                    self.out += self.notes.get(id(self.lets[root]), [])
                    self.new[root] = n
                if root in sums or sign < 0:
                    self.out.append(Let(n))
                sums[root] = n
                continue
            self.out += self.notes.get(id(work), [])
            match work:
                case Load(n):
                    self.new[n] = n
                    self.out.append(work)
                case Let(n):
                    self.ready(n)
                case Store(n):
                    self.out.append(replace(work, node=self.ready(n)))
                case Add(name, n):
                    self.out.append(Add(name, self.ready(n)))
                case Advance(pairs):
                    self.out.append(Advance(tuple((a, self.ready(b)) for a, b in pairs)))
        return tuple(self.out), self.new

    def ready(self, n: Node) -> Node:
        """What n is now, written down if it has not been."""
        for x in postorder([n], lambda x: x.args if x in self.lets else (), self.new):
            if x not in self.lets:
                self.new[x] = x
                continue
            self.new[x] = rebuild(x, tuple(self.new[a] for a in x.args))
            self.out.append(Let(self.new[x]))
        return self.new[n]
