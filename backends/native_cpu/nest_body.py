"""What every part of a loop nest is written with: its values and where each is computed, names, indices, lines.

In: a `Nest`, the places of its operands and results. Out: nothing of its own: `sums` and `nest` write the lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from seqc.backends.native_cpu.places import Place, ident
from seqc.backends.native_cpu.schedule import Item, Nest
from seqc.backends.native_cpu.values import Operand, Value, Values
from seqc.ir.graph import BATCH, Node

ALONE = 48  # values of an element of a row, beside which it does not count that sums of rows lie in memory


@dataclass(frozen=True)
class Scene:
    """What a nest's printing needs to know: see the file's docstring. rows: reduction -> the buffer of its partial sums."""

    panel: str | None
    grid: tuple[str, ...]
    places: Mapping[Node, Place]
    targets: Mapping[str, Place]
    names: Mapping[Node, str]
    rows: Mapping[Node, str]
    guards: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Sum:
    """A reduction of a nest. kept: its loop dims; depth: the loop depth at which it begins; how: "register" | "memory"."""

    item: Item
    operand: Operand
    name: str
    over: frozenset[str]
    kept: frozenset[str]
    depth: int
    how: str
    across: bool

    @property
    def most(self) -> bool:
        """A maximum, not a sum."""
        return self.item.value.op == "amax"


class NestBody:
    """The lines of a nest as they grow. `depth` of a loop: 0 is inside the blocks of vectors, outside all others."""

    def __init__(self, nest: Nest, axis: str | None, scene: Scene, visible: frozenset[Node]) -> None:
        """visible: the values that are in memory before the nest begins."""
        self.nest, self.axis, self.scene = nest, axis, scene
        self.unrolled = tuple(d for d in (BATCH,) if d in nest.space) + ((axis,) if axis else ())
        loops = [d for d in nest.space if d != axis and d != BATCH]
        self.loops = self._loop_order(loops)
        index = {d: f"i_{ident(d)}" for d in nest.space}
        if axis:
            index[axis] = "at"
        places = {n: p for n, p in scene.places.items() if n in visible}
        self.mentions: set[str] = {"BLOCKS", "VECTORS"} if axis else set()  # of what stands outside of the nest
        self.values = Values(axis, scene.panel, nest.space, places.get, scene.names, index, scene.grid, self.mentions)
        self.operands = [self.values.operand(i.value.args[0] if i.kind == "reduce" else i.value) for i in nest.items]
        self.sums = [self._sum(i, o) for i, o in zip(nest.items, self.operands, strict=True) if i.kind == "reduce"]
        self.lines: list[str] = []
        self.indent = 0
        self.team = ""
        self.joins = False  # whether a program takes several blocks of rows, one after the other in a nest
        self.onward = False  # whether vectors follow the direction of steps in memory

    # ---- choices ----

    def _over(self, item: Item) -> frozenset[str]:
        return frozenset(d for d in item.value.names("over") if d in self.nest.space)

    def _loop_order(self, loops: list[str]) -> tuple[str, ...]:
        reductions = [self._over(i) & set(loops) for i in self.nest.items if i.kind == "reduce"]

        def registers(order: tuple[str, ...]) -> int:
            return sum(set(order[len(order) - len(r) :]) == r for r in reductions)

        return max(permutations(loops), key=registers)  # the first of the best: deterministic

    def _sum(self, item: Item, operand: Operand) -> Sum:
        over = self._over(item)
        kept = frozenset(self.nest.space) - over
        looped = [d for d in self.loops if d in over]
        depth = len(self.loops) - len(looped)
        how = "register" if set(self.loops[depth:]) == set(looped) else "memory"
        across = self.axis is not None and self.axis in over
        if across and not self.loops and how == "register":
            depth = -1  # the sum runs over the blocks of vectors too
        name = f"r{len([s for s in self.nest.items[: self.nest.items.index(item)] if s.kind == 'reduce'])}"
        return Sum(item, operand, name, over, kept, depth, how, across)

    def level(self, v: Value) -> int:
        """The depth at which a value is computed."""
        return max((i + 1 for i, d in enumerate(self.loops) if d in v.deps), default=0)

    def group(self, deps: Iterable[str]) -> tuple[str, ...]:
        """The unrolled dims among `deps`."""
        return tuple(d for d in self.unrolled if d in deps)

    def stored(self, v: Value) -> bool:
        """Whether a value is an array over its unrolled dims, not a variable of the innermost body."""
        inner = self.level(v) == len(self.loops) and self.group(v.deps) == self.unrolled
        return bool(self.group(v.deps)) and not inner

    @cached_property
    def rows_apart(self) -> bool:
        """Whether rows of the batch follow each other, and are written once: where they have nothing in registers together, or
        where there is so much to compute for each that it does not matter."""
        kept = any(s.how == "register" and BATCH in s.kept for s in self.sums)
        kept = kept or (bool(self.loops) and any(self.stored(v) and BATCH in v.deps for v in self.values.order))
        return not kept or sum(self.level(v) == len(self.loops) for v in self.values.order) > ALONE

    @property
    def by_blocks(self) -> bool:
        """Whether the nest runs once for each block of rows of a program."""
        return self.joins and BATCH in self.unrolled and not self.rows_apart

    # ---- text ----

    def put(self, line: str) -> None:
        """One line at the current indentation."""
        self.lines.append("  " * self.indent + line if line else "")

    def open(self, line: str) -> None:
        """A line that begins a block."""
        self.put(line + " {")
        self.indent += 1

    def close(self) -> None:
        """The end of a block."""
        self.indent -= 1
        self.put("}")

    def use(self, o: Operand) -> str:
        """The expression of an operand."""
        v = o.value
        if v is None or not self.stored(v):
            return o.text
        return o.text + "".join(f"[{self.slot(d)}]" for d in self.group(v.deps))

    def slot(self, d: str) -> str:
        """The index of an unrolled dim."""
        return "c" if d == self.axis else "j_B" if self.by_blocks else "i_B"

    def width(self, d: str) -> str:
        """The extent of an unrolled dim: of rows that are unrolled their number, of others the most that there may be."""
        if d != self.axis and not self.rows_apart:
            self.mentions.add("r_B")
        return "CB" if d == self.axis else "w_B" if self.rows_apart else "r_B"

    def expression(self, v: Value) -> str:
        """The right side of an assignment."""
        return v.text.format(*(self.use(a) for a in v.args))

    def unroll(self, group: tuple[str, ...]) -> int:
        """Open the unrolled loops of a group; answers how many blocks to close."""
        for d in group:
            how, width = ("", "m_B") if d == BATCH and self.rows_apart else ("UNROLL ", self.width(d))
            self.mentions.add(width)
            loop = f"{how}for (int {self.slot(d)} = 0; {self.slot(d)} < {width}; ++{self.slot(d)})"
            self.open(f"VECTORS({width})" if d == self.axis else loop)
            if d == BATCH and self.by_blocks:
                self.put("const i64 i_B = o_rows + j_B;")
        return len(group)

    def read(self, place: Place) -> str:
        """The element or vector of a place."""
        return self.values.read(place, *self._here(place))

    def write(self, place: Place, value: str) -> str:
        """The statement that writes one."""
        return self.values.write(place, *self._here(place), value)

    def _here(self, place: Place) -> tuple[dict[str, str], str | None]:
        return {d: self.values.index[d] for d in place.strides}, self.axis if self.axis in place.strides else None
