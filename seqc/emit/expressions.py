"""Python expressions with named axes: what printers of array code share.

In: pieces of text that know their precedence and the order of their axes. Out: bigger pieces. A `Text` is an array
expression whose axis order is `axes`, or a number of Python (`scalar`). The functions put parentheses where Python needs
them, line axes up by explicit views, and choose names; they know no operator, no graph and no array library beyond the
indexing, `.mT`, `.transpose` and `.permute` that its arrays have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqc.emit.names import safe_name

LOW, SUM, PRODUCT, SIGN, ATOM = range(5)  # precedence, loosest first; LOW: comparisons and `a if c else b`


@dataclass(frozen=True)
class Text:
    """One expression; see the file's docstring."""

    code: str
    axes: tuple[str, ...] = ()
    level: int = ATOM
    scalar: bool = False

    def at(self, level: int) -> str:
        """The code, in parentheses if it binds looser than `level`."""
        return self.code if self.level >= level else f"({self.code})"


def number(value: float) -> Text:
    """A constant as Python writes it."""
    if math.isnan(value) or math.isinf(value):
        code = "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"
    else:
        code = repr(value)
    return Text(code, level=SIGN if code.startswith("-") else ATOM, scalar=True)


def reordered(x: Text, order: Sequence[str]) -> Text:
    """x with its axes in the order that `order` gives them."""
    want = tuple(d for d in order if d in x.axes)
    if want == x.axes:
        return x
    here = x.axes
    moved = [i for i, (a, b) in enumerate(zip(here, want, strict=True)) if a != b]
    if len(moved) == 2:  # two axes change places
        i, j = (m - len(here) for m in moved)
        view = ".mT" if (i, j) == (-2, -1) else f".transpose({moved[0]}, {moved[1]})"
    else:
        view = f".permute({', '.join(str(here.index(d)) for d in want)})"
    return Text(x.at(ATOM) + view, want)


def aligned(x: Text, axes: Sequence[str]) -> Text:
    """x as it must be to broadcast against an array with `axes`: reordered, with None where it lacks an axis."""
    if x.scalar:
        return x
    x = reordered(x, axes)
    inner = [d for d in axes if d in x.axes or (x.axes and axes.index(d) > axes.index(x.axes[0]))]
    if tuple(inner) == x.axes or not x.axes:
        return x
    return Text(f"{x.at(ATOM)}[{subscript([':' if d in x.axes else 'None' for d in inner])}]", tuple(inner))


def subscript(parts: list[str]) -> str:
    """What stands between the brackets of an index: the shortest way to write `parts`."""
    lead = next((i for i, p in enumerate(parts) if p != ":"), 0)
    tail = len(parts) - next((i for i, p in enumerate(reversed(parts)) if p != ":"), 0)
    return min((", ".join(x) for x in (parts[:tail], ["...", *parts[lead:]])), key=len)


def filled(spelling: str, args: Sequence[Text]) -> Text:
    """A spelling of an operator table (`{0} * {1}`, `torch.exp({0})`) with its arguments, which are already aligned."""
    level, right = _shape_of(spelling)
    codes = []
    for i, x in enumerate(args):
        inside = f"({{{i}}}" in spelling or f"{{{i}}})" in spelling or f"{{{i}}}, " in spelling
        if level in (SUM, PRODUCT):
            need = level + (i > 0 and right)
        elif level == SIGN or re.search(rf"\{{{i}\}}\.", spelling) or f"~{{{i}}}" in spelling:
            need = ATOM
        else:  # inside brackets: a call takes anything, an operator in brackets anything that binds tighter than it
            need = SUM if re.match(r"^\(\{0\} \S+ \{1\}\)$", spelling) else LOW if inside else ATOM
        codes.append(x.at(need))
    if spelling in ("{0} + {1}", "{0} - {1}") and re.match(r"-[\d.e]+$", codes[1]):  # a negative number
        spelling, codes[1] = "{0} - {1}" if "+" in spelling else "{0} + {1}", codes[1][1:]
    return Text(spelling.format(*codes), level=level, scalar=all(x.scalar for x in args))


def _shape_of(spelling: str) -> tuple[int, bool]:
    """(precedence of the whole, whether the right operand needs to bind tighter)."""
    match spelling:
        case "{0} + {1}" | "{0} - {1}":
            return SUM, True
        case "{0} * {1}" | "{0} / {1}":
            return PRODUCT, True
        case "-{0}" | "~{0}":
            return SIGN, False
    return (LOW if " if " in spelling and not spelling.startswith("(") else ATOM), False


class Names:
    """Names of one function: no two alike, none that Python, the file or the caller has taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, wish: str) -> str:
        """`wish` made safe, with a number behind it if it is taken."""
        base = safe_name(re.sub(r"\W+", "_", wish.replace("'", "_")).strip("_") or "x")
        name, i = base, 1
        while name in self._taken:
            i += 1
            name = f"{base}{i}" if not base[-1].isdigit() else f"{base}_{i}"
        self._taken.add(name)
        return name

    def take(self, name: str) -> str:
        """Marks `name` as taken."""
        self._taken.add(name)
        return name


__all__ = ["ATOM", "LOW", "Names", "PRODUCT", "SIGN", "SUM", "Text", "aligned", "filled", "number", "reordered", "subscript"]
