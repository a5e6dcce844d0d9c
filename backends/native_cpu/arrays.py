"""The arrays that cross the boundary between the caller and a kernel, and how C++ finds a program's part of one.

In: names and axes. Out: `Array`, its C++ offsets, and its Python shape.
Axes, in memory order: dims of the spec; "B"; "T"; SEGMENTS (checkpoints along time); PANELS. Axes before the batch are
programs whose contributions the caller adds up, always in the same order. The batch and the time (or the segments) after it
are one axis in memory, so that a pack of sequences lies as a batch does: a program's part begins at `row` (`segment_0`).
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.backends.native_cpu.places import Place, ident, plus, product
from seqc.backends.native_cpu.roles import Roles
from seqc.ir.graph import BATCH

SEGMENTS = "<segments>"  # no dim of a spec has such a name
PANELS = "<panels>"
SPECIAL = {BATCH: "B", "T": "T", SEGMENTS: "segments", PANELS: "panels"}


@dataclass(frozen=True)
class Array:
    """One array. name: unique in its kernel. lead: how many leading axes are programs to add up."""

    name: str
    axes: tuple[str, ...]
    lead: int = 0
    written: bool = False
    saved: bool = False  # only the saving forward writes it

    def extent(self, i: int) -> str:
        """The C++ extent of an axis."""
        axis = self.axes[i]
        return SPECIAL.get(axis, f"n_{ident(axis)}")

    def rest(self, i: int) -> list[str]:
        """The extents of the axes after one; of the batch and the time as one."""
        later = range(i + 1, len(self.axes))
        rows = {j for j in later if self.axes[j] == BATCH and self.axes[j + 1 : j + 2] == ("T",)}
        return ["rows" if j in rows else self.extent(j) for j in later if j - 1 not in rows]

    def place(self, roles: Roles, base: str) -> Place:
        """The array seen from one program at one step, from the pointer that `offset` leads to."""
        strides: dict[str, tuple[str, ...]] = {}
        for i, axis in enumerate(self.axes):
            if i >= self.lead and axis not in ("T", SEGMENTS, PANELS) and axis not in roles.grid:
                strides[axis] = tuple(self.extent(j) for j in range(i + 1, len(self.axes)))
        return Place(base, strides)

    def offset(self, roles: Roles, time: str) -> str:
        """The C++ offset of a program's part at the step `time`."""
        terms = []
        for i, axis in enumerate(self.axes):
            rest = self.rest(i)
            if axis == "T":
                at = f"(row + {time})"
            elif axis == BATCH and self.axes[i + 1 : i + 2] in (("T",), (SEGMENTS,)):
                continue
            elif axis == BATCH:
                at = "o_B" if roles.blocked else "i_B"
            elif axis == SEGMENTS:
                at = "(segment_0 + segment)"
            elif axis == PANELS:
                at = "panel"
            elif axis in roles.grid:
                at = f"i_{ident(axis)}"
            elif axis == roles.panel:
                at = f"o_{ident(axis)}"
            else:
                continue
            terms.append(product([at, *rest]))
        return plus(terms)
