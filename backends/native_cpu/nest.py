"""One loop nest -> C++ text.

In: a `Nest`, the places of its operands and results, the roles of the dims. Out: lines.
The shape is always the same: blocks of vectors along one dim (outermost, so that accumulators stay in registers), loops over
the other dims (those that a reduction sums over innermost), and inside them the rows of the batch block and the vectors of the
block, unrolled. A value is computed in the outermost loop that determines it. A reduction accumulates in registers where the
loop order allows, else in its buffer; one that runs over the vectors' own dim keeps a vector of partial sums per row, and
all rows are summed across at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.backends.native_cpu.code import Nested
from seqc.backends.native_cpu.nest_sums import SumPrinter
from seqc.backends.native_cpu.places import condition, ident
from seqc.backends.native_cpu.schedule import Item, dear
from seqc.backends.native_cpu.values import Operand, Value
from seqc.ir.graph import BATCH

# (values of an element, vectors at a time): many values keep the units busy by themselves, and would be long text with eight
BLOCKS = ((24, 8), (48, 4))
DEAR = 24  # values that an exponential or the like is made of, and a vector whose lanes lie apart in memory


class NestPrinter(SumPrinter):
    """Prints one nest; see the file's docstring. listed: the loop that runs over a list of columns, if one does."""

    listed = ""

    @property
    def divisible(self) -> bool:
        """Whether parts of the vectors may be computed by several threads: none adds to what another one has."""
        scalar = any(p is not None and p.scalar for p in (self.scene.places.get(i.value) for i in self.nest.items))
        return self.axis is not None and not scalar and all(s.how == "register" and not s.across for s in self.sums)

    def print(self) -> Nested:
        """The nest."""
        kind = self._lines()
        written = [self.scene.places[i.value] for i in self.nest.items if i.kind in ("keep", "reduce")]
        names = frozenset(place.base for place in written if place.scalar)
        return Nested(tuple(self.lines), frozenset(self.mentions), names, kind)

    def _lines(self) -> str:
        """Print the lines; how they open."""
        apart = [v for v in self.values.order if self.group(v.deps) != self.unrolled]
        if self.axis and self.unrolled == (self.axis,) and not (apart or self.loops or self.sums or self.team or self.onward):
            self.open(f"EACH_VECTOR(z_{ident(self.axis)}, {self._block_limit()})")
            self.mentions.add("EACH_VECTOR")
            self._statements(self.values.order)
            self.close()
            return "loop"
        inner = self.axis is not None and all(s.depth >= 0 for s in self.sums)  # what it declares is in its loop
        if not inner:
            self.put("{")
            self.indent += 1
        for s in self.sums:
            self.clear(s)
        early = [s for s in self.sums if s.depth == -1]
        blocks = "for (i64 o_rows = 0; o_rows < m_B; o_rows += r_B)" if self.by_blocks else ""
        self.mentions |= {"m_B", "r_B"} if blocks else set()
        if blocks and early:
            self.open(blocks)
        for s in early:
            self.declare(s)
        if self.axis:
            self.open(self._blocks(f"z_{ident(self.axis)}, {self._block_limit()}"))
        if blocks and not early:
            self.open(blocks)
        self._depth(0)
        if blocks and not early:
            self.close()
        if self.axis:
            self.close()
        self.finish(early)
        if blocks and early:
            self.close()
        for s in self.sums:
            self.finish_across(s)
        if not inner:
            self.close()
        return "loop" if inner else "block"

    def _blocks(self, size: str) -> str:
        """The loop over blocks of vectors. size: the values, and how many vectors a block has at most."""
        if self.onward and not self.team and not any(s.across for s in self.sums):
            self.mentions |= {"BLOCKS_OF", "onward"}
            return f"BLOCKS_OF({size}, 0, blocks, onward > 0 ? b : blocks - 1 - b)"
        if not self.team:
            return f"BLOCKS({size})"
        turned = self.loops and self.team == "steps"
        self.mentions |= {"BLOCKS_OF", "team", *(["step"] if turned else [])}
        return f"BLOCKS_OF({size}, team.from(blocks), team.upto(blocks), {'team.there(b, blocks, step)' if turned else 'b'})"

    def _block_limit(self) -> str:
        if not self.loops and all(s.depth == -1 for s in self.sums):
            return "2" if len(self.values.order) <= BLOCKS[-1][0] else "1"
        single = several = 0
        for s in self.sums:
            if s.how == "register" and not s.across:
                several += BATCH in s.kept
                single += BATCH not in s.kept
        for v in self.values.order:
            if self.level(v) < len(self.loops) and self.axis in v.deps:
                several += BATCH in v.deps
                single += BATCH not in v.deps
        rows = f"{several} * {self.width(BATCH)}" if several > 1 else self.width(BATCH)
        taken = " + ".join([*([rows] if several else []), *([f"{single}"] if single else [])]) or "1"
        taken = f" / ({taken})" if " " in taken else f" / {taken}" * (taken != "1")
        inside = [v for v in self.values.order if self.level(v) == len(self.loops)]
        heavy = sum(v.node is not None and bool(v.args) and dear(v.node) for v in inside)
        apart = sum(v.apart for v in inside) + sum(map(self._apart, self.nest.items))
        most = next((blocks for values, blocks in BLOCKS if len(inside) + DEAR * (heavy + apart) <= values), 2)
        return f"fitting({most}, {'spare / 2' if heavy else 'spare'}{taken})"

    def _apart(self, item: Item) -> bool:
        """Whether lanes of what is written lie apart."""
        inside = item.kind in ("keep", "reduce")
        place = self.scene.places[item.value] if inside else self.scene.targets[item.target]
        return self.axis is not None and self.axis in place.strides and not place.whole(self.axis)

    def _depth(self, depth: int) -> None:
        for s in self.sums:
            if s.depth == depth and s.how == "register":
                self.declare(s)
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
            self.mentions.add(f"m_{d}")
            if self.loops[depth] == self.listed:
                self.open("for (i64 n = 0; n < active; ++n)")
                self.put(f"const i64 i_{d} = columns[n];")
            else:
                self.open(f"for (i64 i_{d} = 0; i_{d} < m_{d}; ++i_{d})")
            self._depth(depth + 1)
            self.close()
        self.finish(s for s in self.sums if s.depth == depth and s.how == "register")

    def _body(self, values: list[Value]) -> None:
        blocks = self.unroll(self.unrolled)
        self._statements(values)
        for _ in range(blocks):
            self.close()

    def _statements(self, values: Iterable[Value]) -> None:
        """What is done at one place of the nest."""
        for v in values:
            self.put(f"const {v.type} {v.name} = {self.expression(v)};")
        reductions = iter(self.sums)
        for item, o in zip(self.nest.items, self.operands, strict=True):
            if item.kind == "reduce":
                self.accumulate(next(reductions))
            else:
                self._write(item, o)

    def _write(self, item: Item, o: Operand) -> None:
        place = self.scene.places[item.value] if item.kind == "keep" else self.scene.targets[item.target]
        value = self.use(o)
        if item.value.dtype == "bool" or (o.value and o.value.type in ("mask", "bool")):  # a renamed truth value is real
            self.mentions.add("as_real")
            value = f"as_real({value})"
        if item.kind == "grow":
            value = f"{self.read(place)} + {value}"
        text = self.write(place, value)
        guard = self.scene.guards.get(item.target, ()) if item.kind in ("out", "state") else ()
        self.mentions.update(guard)
        self.put(f"if ({condition(guard)}) {text}" if guard else text)
