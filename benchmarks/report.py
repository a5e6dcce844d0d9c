"""Rows -> a table for the terminal. In: rows. Out: text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from benchmarks.entry import Row

HEAD = ("contender", "time", "quartiles", "time / seqc", "quartiles", "of bound", "error", "others")


def sizes(row: Row) -> str:
    """`B2 T2048 H4`."""
    return " ".join(f"{name}{size}" for name, size in row.sizes.items())


def seconds(x: float) -> str:
    """A time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if x * scale >= 1:
            return f"{x * scale:.3g} {unit}"
    return f"{x * 1e6:.3g} us"


def cells(row: Row) -> list[str]:
    """One row's words."""
    if row.seconds is None or row.bound is None:
        return [row.contender, row.why, *[""] * (len(HEAD) - 2)]
    low, middle, high = row.seconds
    against = ["", ""]
    if row.ratio is not None:
        against = [f"{row.ratio[1]:.3g}", f"{row.ratio[0]:.3g} - {row.ratio[2]:.3g}"]
    error = "" if row.error is None else f"{row.error:.0e}"
    others = "" if row.others is None else f"{100 * row.others:.0f} %"
    spread = f"{seconds(low)} - {seconds(high)}"
    return [row.contender, seconds(middle), spread, *against, f"{100 * row.bound:.2g} %", error, others]


def table(rows: Iterable[Row]) -> str:
    """Plain text, one block for each entry and part."""
    out = []
    for (label, part, shape), group in groupby(rows, lambda r: (r.label, r.part, sizes(r))):
        out.append(f"\n{label}, {part} ({shape})")
        lines = [HEAD, *map(cells, group)]
        timed = [line for line in lines if len(line) > 2 and line[2]]
        widths = [max(len(line[i]) for line in timed) for i in range(len(HEAD))]
        for line in lines:
            if line[2]:
                rest = (word.rjust(width) for word, width in zip(line[1:], widths[1:], strict=True))
                out.append("  " + "  ".join([line[0].ljust(max(widths[0], 24)), *rest]).rstrip())
            else:
                out.append(f"  {line[0].ljust(max(widths[0], 24))}  {line[1]}")
    return "\n".join(out)
