"""The one intermediate representation: an immutable, interned graph of named-dim operators.

In: calls of `node(op, *args, **attrs)` and the operators of `Node`. Out: `Node`s; two structurally equal nodes are the
same object, so equality is `is`. A node carries the *set* of its named dims (as a sorted tuple, so that nothing depends
on hash order), never an axis order: layout is decided where arrays are loaded, stored or printed.
The table of operators is `seqc.ir.ops.TABLE`; this file knows no operator by name except the leaves and constants that its
sugar builds. It never evaluates, rewrites or prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial, reduce
from typing import TypeAlias
from weakref import WeakValueDictionary

from seqc.ir.traverse import postorder

Attr: TypeAlias = "str | int | float | bool | tuple[str, ...]"
Dims: TypeAlias = "tuple[str, ...]"

BATCH = "B"  # the batch dim of every input and state
ROW = "t"  # time inside a block
COL = "s"  # a second time index inside a block: the source of a contribution
RESERVED = (BATCH, "T", ROW, COL)  # names that a spec may not give to a dim

# The hash-consing table is the only module state: it is what makes equality identity.
_INTERNED: WeakValueDictionary[tuple[object, ...], Node] = WeakValueDictionary()


class Node:
    """One operator application. `dims` is sorted; `dtype` is "real", "bool" or "int"; `attrs` is sorted by name."""

    __slots__ = ("op", "args", "attrs", "dims", "dtype", "__weakref__")
    op: str
    args: tuple[Node, ...]
    attrs: tuple[tuple[str, Attr], ...]
    dims: Dims
    dtype: str

    def attr(self, name: str) -> Attr:
        """The attribute `name`; KeyError if the operator has none."""
        return dict(self.attrs)[name]

    def text(self, name: str) -> str:
        """The string attribute `name`."""
        value = self.attr(name)
        assert isinstance(value, str), (self.op, name, value)
        return value

    def number(self, name: str) -> int:
        """The integer (or boolean) attribute `name`."""
        value = self.attr(name)
        assert isinstance(value, int), (self.op, name, value)
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """The attribute `name`, a tuple of dim names."""
        value = self.attr(name)
        assert isinstance(value, tuple), (self.op, name, value)
        return value

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v}" for k, v in self.attrs)
        return f"<{self.op}{attrs} ({len(self.args)} args) [{','.join(self.dims)}]>"

    def __add__(self, other: Node | float) -> Node:
        return node("add", self, lift(other))

    def __radd__(self, other: float) -> Node:
        return node("add", lift(other), self)

    def __sub__(self, other: Node | float) -> Node:
        return node("sub", self, lift(other))

    def __rsub__(self, other: float) -> Node:
        return node("sub", lift(other), self)

    def __mul__(self, other: Node | float) -> Node:
        return node("mul", self, lift(other))

    def __rmul__(self, other: float) -> Node:
        return node("mul", lift(other), self)

    def __truediv__(self, other: Node | float) -> Node:
        return node("div", self, lift(other))

    def __rtruediv__(self, other: float) -> Node:
        return node("div", lift(other), self)

    def __neg__(self) -> Node:
        return node("neg", self)


def node(op: str, *args: Node, **attrs: Attr) -> Node:
    """The interned node of operator `op`. Raises SeqcBug when arity, dims or dtypes do not fit the operator's row."""
    from seqc.ir.ops import TABLE

    row = TABLE[op]
    ordered = tuple(sorted(attrs.items()))
    key = (op, tuple(map(id, args)), tuple((k, type(v).__name__, repr(v)) for k, v in ordered))
    found = _INTERNED.get(key)
    if found is not None:
        return found
    made = Node()
    made.op, made.args, made.attrs = op, args, ordered
    made.dims = tuple(sorted(set(row.dims(made))))
    made.dtype = row.dtype(made)
    _INTERNED[key] = made
    return made


def const(value: float) -> Node:
    """A scalar constant."""
    return node("const", value=float(value))


def constant(n: Node) -> float:
    """The value of a `const` node."""
    value = n.attr("value")
    assert isinstance(value, float), n
    return value


def lift(value: Node | float) -> Node:
    """A node as it is, a number as a constant."""
    return value if isinstance(value, Node) else const(value)


def leaf(kind: str, name: str, dims: Iterable[str], offset: int = 0, dtype: str = "real") -> Node:
    """A value from outside the graph.

    kind: "input" (at time t - offset), "param", "state" (at t-1; in a block: as the block begins), "cot" (a cotangent),
    "mask" (which rows of a block lie inside the sequence), "value" (a result of an earlier stage).
    """
    return node("leaf", kind=kind, name=name, shape=tuple(dims), offset=offset, type=dtype)


def size(dim: str) -> Node:
    """The extent of a dim, as a scalar."""
    return node("size", dim=dim)


def index(dim: str) -> Node:
    """0, 1, 2, ... along a dim."""
    return node("index", dim=dim)


def combined(op: str, values: Iterable[Node], none: Node | float | None = None) -> Node:
    """`a op b op c`, from left to right. none: what it is of no value; where it is not given, there is at least one."""
    listed = list(values) or [lift(x) for x in [none] if x is not None]
    return reduce(partial(node, op), listed)


def total(x: Node, dims: Iterable[str]) -> Node:
    """Sum over those of `dims` that x has; a dim that x lacks multiplies by its extent (x is constant along it)."""
    wanted = tuple(sorted(set(dims)))
    for d in wanted:
        if d not in x.dims:
            x = x * size(d)
    inside = tuple(d for d in wanted if d in x.dims)
    return node("sum", x, over=inside) if inside else x


def renamed(x: Node, old: str, new: str) -> Node:
    """x with its dim `old` called `new` (no effect when x has no such dim, or it is called so)."""
    return node("rename", x, old=old, new=new) if old in x.dims and old != new else x


def along(n: Node) -> tuple[str, ...]:
    """The dims that an operator names as those along which it moves, mixes or counts positions."""
    found: list[str] = []
    for key, value in n.attrs:
        if key in ("dim", "row", "col", "old", "new"):
            found += value if isinstance(value, tuple) else (str(value),)
    return tuple(found)


def topological(outputs: Iterable[Node], known: Iterable[Node] = ()) -> list[Node]:
    """Every node reachable from `outputs`, arguments before users, in an order that depends on structure alone.

    known: nodes that are left out, and with them whatever is reached through them alone.
    """
    return postorder(outputs, lambda n: n.args, known if isinstance(known, (Set, Mapping)) else set(known))


def operands(n: Node, inside: Callable[[Node], bool]) -> list[Node]:
    """The nearest values at or below n that do not lie `inside`, from left to right: terms of a sum, factors of a product."""
    found, stack = [], [n]
    while stack:
        x = stack.pop()
        if inside(x):
            stack += x.args[::-1]
        else:
            found.append(x)
    return found


def leaves(outputs: Iterable[Node], kind: str | None = None, known: Iterable[Node] = ()) -> list[Node]:
    """The leaves below `outputs`, of one kind or of all; not those that are reached through known nodes alone."""
    return [n for n in topological(outputs, known) if n.op == "leaf" and (kind is None or n.text("kind") == kind)]


def rebuild(n: Node, args: tuple[Node, ...]) -> Node:
    """The same operator on other arguments."""
    if args == n.args:
        return n
    return node(n.op, *args, **dict(n.attrs))


def transform(outputs: Mapping[str, Node], change: Callable[[Node], Node | None]) -> dict[str, Node]:
    """Rebuild the graph bottom-up: `change` sees each node with new arguments and may answer a replacement."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        fresh = rebuild(n, tuple(done[a] for a in n.args))
        done[n] = change(fresh) or fresh
    return {name: done[n] for name, n in outputs.items()}


def substitute(outputs: Mapping[str, Node], table: Mapping[Node, Node]) -> dict[str, Node]:
    """Replace the nodes that are keys of `table` (as found in the old graph), and rebuild what uses them."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        done[n] = table[n] if n in table else rebuild(n, tuple(done[a] for a in n.args))
    return {name: done[n] for name, n in outputs.items()}


def depends(outputs: Iterable[Node], on: Iterable[Node]) -> set[Node]:
    """The nodes below `outputs` that depend on (or are) one of the nodes `on`."""
    hit = set(on)
    for n in topological(outputs):
        if n not in hit and any(a in hit for a in n.args):
            hit.add(n)
    return hit
