"""Reads what stands in the brackets of `x[...]`: how many steps back, as a whole number.

In: an expression in the time axis, whole numbers, dims of known size and `index[L]` at a known position. Out: the lag
(positive is the past, negative the future), or None where it is no such thing; the caller says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.frontend import syntax
from seqc.frontend.syntax import Expr
from seqc.frontend.trees import walk


def mentions(expr: Expr, name: str) -> bool:
    """Whether a bare name occurs in an expression."""
    return any(isinstance(part, syntax.Name) and part.id == name for part in walk(expr))


def index_dims(expr: Expr) -> tuple[str, ...]:
    """The dims whose `index[...]` an expression reads, in order of appearance."""
    found: dict[str, None] = {}
    for part in walk(expr):
        if isinstance(part, syntax.Subscript) and part.name.id == "index":
            found.update(dict.fromkeys(item.id for item in part.items if isinstance(item, syntax.Name)))
    return tuple(found)


def lag_of(expr: Expr, axis: str, sizes: Mapping[str, int], at: Mapping[str, int]) -> int | None:
    """The lag that a time index means: 1 for `t - 1`, -3 for `t + 3`, 4 for `t - 2*index[L]` at position 2 of L."""
    here, next_one = (_whole(expr, {**sizes, axis: now}, at) for now in (0, 1))
    if here is None or next_one is None or next_one - here != 1:
        return None
    return -here


def _whole(expr: Expr, names: Mapping[str, int], at: Mapping[str, int]) -> int | None:
    match expr:
        case syntax.Number(text=text):
            return int(text) if text.isdigit() else None
        case syntax.Name(id=name):
            return names.get(name)
        case syntax.Unary(x=x):
            inside = _whole(x, names, at)
            return None if inside is None else -inside
        case syntax.Subscript(name=name, items=(syntax.Name(id=dim),)) if name.id == "index":
            return at.get(dim)
        case syntax.Binary(op=op, left=left, right=right):
            a, b = _whole(left, names, at), _whole(right, names, at)
            if a is None or b is None:
                return None
            if op == "^":
                return a**b if 0 <= b <= 64 else None
            return {"+": a + b, "-": a - b, "*": a * b}.get(op)
        case _:
            return None
