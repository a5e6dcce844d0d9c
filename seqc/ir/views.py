"""A value read under other indices: what renames, drops and moves axes, but computes nothing, is taken off it.

In: a node. Out: its `View`: a base, and what indexes each of the base's axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from seqc.ir.graph import Node


@dataclass(frozen=True)
class Moved:
    """The index `i - by` of an axis of extent n, where `low <= i < n - high`; elsewhere 0 is read. i: a loop dim, or a fixed
    position (a negative one counts from the end)."""

    i: str | int
    by: int
    low: int
    high: int


Index: TypeAlias = "str | int | Moved"  # a loop dim, a fixed position, or one of these moved


@dataclass(frozen=True)
class View:
    """A value read under other indices: axis of `base` -> what indexes it."""

    base: Node
    index: tuple[tuple[str, Index], ...]

    @property
    def plain(self) -> bool:
        """Whether every axis keeps its own index."""
        return all(d == i for d, i in self.index)


def bare(n: Node) -> Node:
    """n under the names and the repetition of its dims."""
    while n.op in ("rename", "expand"):
        n = n.args[0]
    return n


def view(n: Node) -> View:
    """n without the operators that only rename, drop or move axes."""
    index: dict[str, Index] = {d: d for d in n.dims}
    while n.op in ("expand", "stopgrad", "rename", "take", "shift"):
        if n.op == "rename":
            index[n.text("old")] = index.pop(n.text("new"))
        elif n.op == "take":
            index[n.text("dim")] = n.number("at")
        elif n.op == "shift":
            index[n.text("dim")] = _moved(index[n.text("dim")], n.number("by"))
        n = n.args[0]
        index = {d: i for d, i in index.items() if d in n.dims}
    return View(n, tuple(sorted(index.items(), key=lambda x: x[0])))


def _moved(i: Index, by: int) -> Moved:
    """The index of x where `shift(x, by)` is read at i."""
    before = i if isinstance(i, Moved) else Moved(i, 0, 0, 0)
    by += before.by
    return Moved(before.i, by, max(before.low, by), max(before.high, -by))
