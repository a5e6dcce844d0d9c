"""One loop nest -> C++ text.

In: a `Nest`, the places of its operands and results, the roles of the dims. Out: lines.
The shape is always the same: blocks of vectors along one dim (outermost, so that accumulators stay in registers), loops over
the other dims (those that a reduction sums over innermost), and inside them the rows of the batch block and the vectors of the
block, unrolled. A value is computed in the outermost loop that determines it. A reduction accumulates in registers where the
loop order allows, else in its buffer; one that runs over the vectors' own dim keeps a vector of partial sums per row, and
all rows are summed across at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations, takewhile

from seqc.backends.native_cpu.places import Place, ident, product
from seqc.backends.native_cpu.schedule import DEAR, Item, Nest
from seqc.backends.native_cpu.values import Operand, Value, Values
from seqc.graph import BATCH, Node


@dataclass(frozen=True)
class Scene:
    """What a nest's printing needs to know: see the file's docstring. rows: reduction -> the buffer of its partial sums."""

    panel: str | None
    grid: tuple[str, ...]
    places: Mapping[Node, Place]
    targets: Mapping[str, Place]
    names: Mapping[Node, str]
    rows: Mapping[Node, str]
    guards: Mapping[str, str]


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


class NestPrinter:
    """Prints one nest; see the file's docstring. `depth` of a loop: 0 is inside the blocks of vectors, outside all others."""

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
        self.values = Values(axis, scene.panel, nest.space, places.get, scene.names, index, scene.grid)
        self.operands = [self.values.operand(i.value.args[0] if i.kind == "reduce" else i.value) for i in nest.items]
        self.sums = [self._sum(i, o) for i, o in zip(nest.items, self.operands, strict=True) if i.kind == "reduce"]
        self.lines: list[str] = []
        self.indent = 0
        self.team = ""
        self.onward = False  # whether vectors follow the direction of steps in memory

    @property
    def divisible(self) -> bool:
        """Whether parts of the vectors may be computed by several threads: none adds to what another one has."""
        scalar = any(p is not None and p.scalar for p in (self.scene.places.get(i.value) for i in self.nest.items))
        return self.axis is not None and not scalar and all(s.how == "register" and not s.across for s in self.sums)

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
        return "c" if d == self.axis else "i_B"

    def width(self, d: str) -> str:
        """The extent of an unrolled dim."""
        return "CB" if d == self.axis else "w_B"

    def expression(self, v: Value) -> str:
        """The right side of an assignment."""
        return v.text.format(*(self.use(a) for a in v.args))

    def unroll(self, group: tuple[str, ...]) -> int:
        """Open the unrolled loops of a group; answers how many blocks to close."""
        for d in group:
            self.open(f"UNROLL for (int {self.slot(d)} = 0; {self.slot(d)} < {self.width(d)}; ++{self.slot(d)})")
            if d == self.axis:
                self.put("const i64 at = (c0 + c) * W;")
        return len(group)

    def print(self) -> list[str]:
        """The lines of the nest."""
        self.open("")
        self.lines[-1] = self.lines[-1].replace(" {", "{")
        for s in self.sums:
            self._clear(s)
        for s in self.sums:
            if s.depth == -1:
                self._declare(s)
        if self.axis:
            # values that do not depend on vectors at all come before the blocks of vectors
            self.put(f"constexpr i64 CB = divisor(z_{ident(self.axis)} / W, {self._block_limit()});")
            self._blocks(f"z_{ident(self.axis)} / W")
        self._depth(0)
        if self.axis:
            self.close()
        for s in self.sums:
            if s.depth == -1:
                self._finish(s)
        for s in self.sums:
            self._across(s)
        self.close()
        return _without_unused(self.lines)

    def _blocks(self, count: str) -> None:
        """Open the loop over blocks of vectors."""
        onward = self.onward and not any(s.across for s in self.sums)
        if not self.team and not onward:
            self.open(f"for (i64 c0 = 0; c0 < {count}; c0 += CB)")
            return
        self.put(f"constexpr i64 blocks = {count} / CB;")
        if onward:
            self.open("for (i64 b = 0; b < blocks; ++b)")
            self.put("const i64 c0 = CB * (onward > 0 ? b : blocks - 1 - b);")
            return
        self.open("for (i64 b = team.from(blocks); b < team.upto(blocks); ++b)")
        turned = self.loops and self.team == "steps"
        self.put(f"const i64 c0 = CB * {'team.there(b, blocks, step)' if turned else 'b'};")

    def _block_limit(self) -> str:
        if not self.loops and all(s.depth == -1 for s in self.sums):
            return "2"
        single = several = 0
        for s in self.sums:
            if s.how == "register" and not s.across:
                several += BATCH in s.kept
                single += BATCH not in s.kept
        for v in self.values.order:
            if self.level(v) < len(self.loops) and self.axis in v.deps:
                several += BATCH in v.deps
                single += BATCH not in v.deps
        taken = f"({several} * w_B + {single})" if several else str(max(1, single))
        heavy = any(v.node is not None and v.args and v.node.op in DEAR for v in self.values.order
                    if self.level(v) == len(self.loops))
        return f"std::max<i64>(1, std::min<i64>(8, {'spare / 2' if heavy else 'spare'} / {taken}))"

    def _depth(self, depth: int) -> None:
        for s in self.sums:
            if s.depth == depth and s.how == "register":
                self._declare(s)
        innermost = depth == len(self.loops)
        here = [v for v in self.values.order if self.level(v) == depth]
        groups = sorted({self.group(v.deps) for v in here}, key=lambda g: (len(g), self.axis in g, g))
        for g in groups:
            if innermost and g == self.unrolled and g:
                continue
            members = [v for v in here if self.group(v.deps) == g]
            for v in members:
                if g:
                    self.put(f"{v.type} {v.name}{''.join(f'[{self.width(d)}]' for d in g)};")
            blocks = self.unroll(g)
            for v in members:
                if g:
                    self.put(f"{v.name}{''.join(f'[{self.slot(d)}]' for d in g)} = {self.expression(v)};")
                else:
                    self.put(f"const {v.type} {v.name} = {self.expression(v)};")
            for _ in range(blocks):
                self.close()
        if innermost:
            self._body([v for v in here if self.unrolled and self.group(v.deps) == self.unrolled])
        else:
            d = ident(self.loops[depth])
            self.open(f"for (i64 i_{d} = 0; i_{d} < m_{d}; ++i_{d})")
            self._depth(depth + 1)
            self.close()
        for s in self.sums:
            if s.depth == depth and s.how == "register":
                self._finish(s)

    def _body(self, values: list[Value]) -> None:
        blocks = self.unroll(self.unrolled)
        for v in values:
            self.put(f"const {v.type} {v.name} = {self.expression(v)};")
        reductions = iter(self.sums)
        for item, o in zip(self.nest.items, self.operands, strict=True):
            if item.kind == "reduce":
                self._accumulate(next(reductions))
            else:
                self._write(item, o)
        for _ in range(blocks):
            self.close()

    def _write(self, item: Item, o: Operand) -> None:
        place = self.scene.places[item.value] if item.kind == "keep" else self.scene.targets[item.target]
        value = self.use(o)
        if item.value.dtype == "bool":
            value = f"as_real({value})"
        if place.scalar:
            self.put(f"{place.base} = {value};")
            return
        index = {d: self.values.index[d] for d in place.strides}
        if item.kind == "grow":
            value = f"{self._read(place, index)} + {value}"
        text = self._assignment(place, index, value)
        guard = self.scene.guards.get(item.target) if item.kind == "out" else None
        self.put(f"if ({guard}) {text}" if guard else text)

    def _read(self, place: Place, index: Mapping[str, str]) -> str:
        if self.axis in place.strides:
            assert self.axis is not None
            return self.values.vector_load(place, index, self.axis)
        return place.element(index)

    def _assignment(self, place: Place, index: Mapping[str, str], value: str) -> str:
        if self.axis in place.strides:
            assert self.axis is not None
            return self.values.vector_store(place, index, self.axis, value)
        return f"{place.element(index)} = {value};"

    # ---- reductions ----

    def _slots(self, s: Sum) -> tuple[str, ...]:
        """The unrolled dims that an accumulator keeps."""
        return tuple(d for d in self.unrolled if d in s.kept)

    def _type(self, s: Sum) -> str:
        return "vec" if self.axis else "real"

    def _zero(self, s: Sum) -> str:
        start = "-infinity" if s.most else "real(0)"
        return f"splat({start})" if self._type(s) == "vec" else start

    def _clear(self, s: Sum) -> None:
        """Zero what accumulates in memory."""
        if s.across and s.how == "memory":
            size = self._rows_size(s)
            self.put(f"std::fill_n({self.scene.rows[s.item.value]}, ({size}) * W, {'-infinity' if s.most else 'real(0)'});")
        elif s.how == "memory":
            place = self.scene.places[s.item.value]
            size = product(self._extents(place))
            self.put(f"std::fill_n({place.base}, {size}, {'-infinity' if s.most else 'real(0)'});")

    def _extents(self, place: Place) -> list[str]:
        axes = list(place.strides)
        return [f"w_{ident(d)}" for d in axes[:-1]] + [f"z_{ident(axes[-1])}"] if axes else ["1"]

    def _rows_size(self, s: Sum) -> str:
        place = self.scene.places[s.item.value]
        return product(self._extents(place))

    def _declare(self, s: Sum) -> None:
        slots = self._slots(s)
        name = f"{self._type(s)} {s.name}{''.join(f'[{self.width(d)}]' for d in slots)}"
        if not s.most:
            self.put(f"{name}{{}};")
            return
        if not slots:
            self.put(f"{name} = {self._zero(s)};")
            return
        self.put(f"{name};")
        blocks = self.unroll(slots)
        self.put(f"{s.name}{''.join(f'[{self.slot(d)}]' for d in slots)} = {self._zero(s)};")
        for _ in range(blocks):
            self.close()

    def _accumulate(self, s: Sum) -> None:
        value = self.use(s.operand)
        if self.axis:
            value = value if s.operand.value and s.operand.value.type == "vec" else f"splat({value})"
        if s.across:
            assert self.axis is not None
            start = "-infinity" if s.most else "real(0)"
            value = f"keep<e_{ident(self.axis)}>({value}, {self.values.left(self.axis)}, {start})"
        if s.how == "register":
            target = s.name + "".join(f"[{self.slot(d)}]" for d in self._slots(s))
            self.put(f"{target} = seqc_max({target}, {value});" if s.most else f"{target} += {value};")
            return
        self._merge(s, value)

    def _merge(self, s: Sum, value: str) -> None:
        """Add a value to what lies in memory."""
        place = self.scene.places[s.item.value]
        if s.across:
            row = self._row(s)
            old = f"load({row})"
            if s.how == "register":  # blocks of vectors after the first one add to what is there
                both = f"seqc_max({old}, {value})" if s.most else f"{old} + {value}"
                self.put(f"store({row}, {value});" if s.depth < 0 else f"store({row}, c0 ? {both} : {value});")
                return
            new = f"seqc_max({old}, {value})" if s.most else f"{old} + {value}"
            self.put(f"store({row}, {new});")
            return
        index = {d: self.values.index[d] for d in place.strides}
        old = self._read(place, index)
        self.put(self._assignment(place, index, f"seqc_max({old}, {value})" if s.most else f"{old} + {value}"))

    def _row(self, s: Sum) -> str:
        place = self.scene.places[s.item.value]
        rows = self.scene.rows[s.item.value]
        if not place.strides:
            return rows
        index = {d: self.values.index[d] for d in place.strides}
        address = place.at(index)
        offset = address[len(place.base) + 3 :]
        return f"{rows} + ({offset}) * W" if offset else rows

    def _finish(self, s: Sum) -> None:
        """Bring a register accumulator to memory."""
        slots = self._slots(s)
        blocks = self.unroll(slots)
        value = s.name + "".join(f"[{self.slot(d)}]" for d in slots)
        place = self.scene.places[s.item.value]
        if s.across:
            self._merge(s, value)
        elif place.scalar:
            self.put(f"{place.base} = {value};")
        else:
            index = {d: self.values.index[d] for d in place.strides}
            self.put(self._assignment(place, index, value))
        for _ in range(blocks):
            self.close()

    def _across(self, s: Sum) -> None:
        """Sum the partial sums of all rows across lanes."""
        if not s.across:
            return
        place, rows = self.scene.places[s.item.value], self.scene.rows[s.item.value]
        most = "true" if s.most else "false"
        if not place.strides:
            self.put(f"{place.element({})} = total<{most}>(load({rows}));")
        else:
            self.put(f"across<{most}>({rows}, {place.base}, {self._rows_size(s)});")


def _without_unused(lines: list[str]) -> list[str]:
    """The lines without positions of vectors that no line of their block reads."""
    out = []
    for i, line in enumerate(lines):
        if line.strip().startswith("const i64 at ="):
            depth = len(line) - len(line.lstrip())
            block = takewhile(lambda x: len(x) - len(x.lstrip()) >= depth, lines[i + 1 :])  # noqa: B023
            if not any(re.search(r"\bat\b", x) for x in block):
                continue
        out.append(line)
    return out
