"""Reductions of a loop nest: accumulators in registers or in memory, and sums across the lanes of a vector.

In: a nest's `Sum`s. Out: the lines that begin, feed and finish each, where `nest` asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from seqc.backends.native_cpu.nest_body import NestBody, Sum
from seqc.backends.native_cpu.places import Place, ident, product
from seqc.ir.graph import BATCH

START = ("real(0)", "-infinity")  # of a sum, of a maximum


class SumPrinter(NestBody):
    """Prints the reductions of one nest."""

    def _slots(self, s: Sum) -> tuple[str, ...]:
        """The unrolled dims that an accumulator keeps."""
        return tuple(d for d in self.unrolled if d in s.kept)

    def _type(self, s: Sum) -> str:
        return "vec" if self.axis else "real"

    def _zero(self, s: Sum) -> str:
        return f"splat({START[s.most]})" if self._type(s) == "vec" else START[s.most]

    def clear(self, s: Sum) -> None:
        """Zero what accumulates in memory."""
        if s.how == "memory":
            self.mentions.add("fill")
        if s.across and s.how == "memory":
            size = self._rows_size(s)
            self.put(f"fill({self._rows(s)}, ({size}) * W, {START[s.most]});")
        elif s.how == "memory":
            self.put(f"fill({self._kept(s).base}, {self._rows_size(s)}, {START[s.most]});")

    def _kept(self, s: Sum) -> Place:
        """Where a reduction ends."""
        place = self.scene.places[s.item.value]
        self.mentions |= place.names
        return place

    def _rows(self, s: Sum) -> str:
        """The buffer of its partial sums."""
        rows = self.scene.rows[s.item.value]
        self.mentions.add(rows.partition(".")[0])
        return rows

    def _rows_size(self, s: Sum) -> str:
        axes = list(self._kept(s).strides)
        self.mentions |= {"m_B"} & {f"m_{d}" for d in axes[:-1]}
        return product([*("m_B" if d == BATCH else f"w_{ident(d)}" for d in axes[:-1]), *(f"z_{ident(d)}" for d in axes[-1:])])

    def declare(self, s: Sum) -> None:
        """An accumulator in registers."""
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

    def accumulate(self, s: Sum) -> None:
        """Add the value at the present position."""
        value = self.use(s.operand)
        if s.operand.value and s.operand.value.type in ("mask", "bool"):
            self.mentions.add("as_real")
            value = f"as_real({value})"
        if self.axis:
            value = value if s.operand.value and s.operand.value.type == "vec" else f"splat({value})"
        if s.most:
            self.mentions.add("seqc_max")
        if s.across:
            assert self.axis is not None
            self.mentions.add("keep")
            value = f"keep<e_{ident(self.axis)}>({value}, {self.values.left(self.axis)}, {START[s.most]})"
        if s.how == "register":
            target = s.name + "".join(f"[{self.slot(d)}]" for d in self._slots(s))
            self.put(f"{target} = {self._both(s, target, value)};" if s.most else f"{target} += {value};")
            return
        self._merge(s, value)

    def _both(self, s: Sum, old: str, new: str) -> str:
        """A value added to what is there, or the larger one."""
        return f"seqc_max({old}, {new})" if s.most else f"{old} + {new}"

    def _merge(self, s: Sum, value: str) -> None:
        """Add a value to what lies in memory."""
        place = self._kept(s)
        if s.across:
            row = self._row(s)
            new = self._both(s, f"load({row})", value)
            if s.how == "register":  # blocks of vectors after the first one add to what is there
                new = value if s.depth < 0 else f"c0 ? {new} : {value}"
            self.put(f"store({row}, {new});")
            return
        self.put(self.write(place, self._both(s, self.read(place), value)))

    def _row(self, s: Sum) -> str:
        place, rows = self._kept(s), self._rows(s)
        if not place.strides:
            return rows
        index = {d: self.values.index[d] for d in place.strides}
        offset = place.offset(index)
        return rows if offset == "0" else f"{rows} + ({offset}) * W"

    def finish(self, sums: Iterable[Sum]) -> None:
        """Bring register accumulators to memory, those in one loop that follow each other and keep the same unrolled dims."""
        for slots, own in groupby(sums, self._slots):
            blocks = self.unroll(slots)
            for s in own:
                value = s.name + "".join(f"[{self.slot(d)}]" for d in slots)
                place = self._kept(s)
                if s.across:
                    self._merge(s, value)
                else:
                    self.put(self.write(place, value))
            for _ in range(blocks):
                self.close()

    def finish_across(self, s: Sum) -> None:
        """Sum the partial sums of all rows across lanes."""
        if not s.across:
            return
        place, rows = self._kept(s), self._rows(s)
        self.mentions.add("total" if not place.strides else "across")
        most = "true" if s.most else "false"
        if not place.strides:
            self.put(f"{place.element({})} = total<{most}>(load({rows}));")
        else:
            self.put(f"across<{most}>({rows}, {place.base}, {self._rows_size(s)});")
