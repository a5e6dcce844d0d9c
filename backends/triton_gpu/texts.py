"""Texts of values: code with its tile axes, numbers as a kernel has them, arguments over several lines.

In: code, axes, constants of a graph. Out: `Text`s, and what is made of it without a kernel at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from seqc.emit.expressions import ATOM, SIGN, Text
from seqc.emit.numbers import number_spelling
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node

BINDS = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3}
TAB = "    "


def in_front(x: Text, dim: str) -> Text:
    """x with the axis `dim` first."""
    return ordered(x, (dim, *(d for d in x.axes if d != dim)))


def ordered(x: Text, axes: tuple[str, ...]) -> Text:
    """x with its axes in this order."""
    if x.axes == axes:
        return x
    if len(axes) == 2:
        return Text(f"tl.trans({x.code})", axes)
    return Text(f"tl.permute({x.code}, ({', '.join(str(x.axes.index(d)) for d in axes)}))", axes)


def literal(value: float) -> Text:
    """A number as it is written in a kernel."""
    if math.isinf(value) or math.isnan(value):
        return Text(f'float("{value}")')
    return Text(repr(value), (), ATOM if value >= 0 else SIGN)


def host_code(n: Node, dims: Mapping[str, str]) -> str:
    """A scalar of constants and extents as Python."""
    if n.op == "const":
        return literal(float(n.attr("value"))).at(ATOM)  # type: ignore[arg-type]
    if n.op == "size":
        return dims.get(unprimed(n.text("dim")), n.text("dim"))
    code = number_spelling(n).format(*(host_code(a, dims) for a in n.args))
    return f"({code})" if n.op in BINDS else code


def is_number(code: str) -> bool:
    return code.lstrip("-").replace(".", "", 1).replace("e-", "", 1).isdigit() or code.startswith('float("')


def each(texts: str) -> Mapping[str, str]:
    """Texts of functions by their names, of one text of them all."""
    return {text.partition("def ")[2].partition("(")[0]: text.strip() for text in texts.split("\n\n\n")}
