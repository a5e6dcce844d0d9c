"""The meaning of a graph in exact arithmetic: every operator on the numbers of `seqc.semantics.exact`.

In: outputs, a value per leaf (axes in the leaf's declared order), extents of the dims. Out: values with axes in the node's
sorted dims. An operator that has no exact meaning is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from seqc.ir.dims import extent
from seqc.ir.graph import Dims, Node, topological
from seqc.ir.ops.dense import placed
from seqc.ir.ops.indexing import positions
from seqc.ir.ops.structure import triangle
from seqc.semantics import exact
from seqc.semantics.exact import FIELDS, Number, around, constant, number


class NotExact(Exception):
    """An operator without an exact meaning."""


def values_of(outputs: Mapping[str, Node], given: Mapping[Node, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Exact values of the outputs; truth values are arrays of bools."""
    done = values_below(outputs.values(), given, sizes)
    return {name: done[n] for name, n in outputs.items()}


def values_below(roots: Iterable[Node], given: Mapping[Node, Any], sizes: Mapping[str, int]) -> dict[Node, Any]:
    """Exact values of every node below some roots."""
    done: dict[Node, Any] = {}
    for n in topological(roots):
        if n.op == "log" and n.args[0].op == "exp":  # one undoes the other, in every field
            done[n] = done[n.args[0].args[0]]
        else:
            done[n] = _value(n, [done[a] for a in n.args], given, sizes)
    return done


def shaped(x: Any, have: tuple[str, ...], want: tuple[str, ...], sizes: Mapping[str, int]) -> Any:
    """A value with axes `have`, transposed and spread to exactly the axes `want`."""
    shape = tuple(extent(d, sizes) for d in want)
    return _each(x, lambda a: np.broadcast_to(placed(a, have, want), shape))


def _each(x: Any, change: Callable[[Any], Any]) -> Any:
    return x.each(change) if isinstance(x, Number) else change(x)


def whole(x: Any) -> Number:
    """Small whole numbers."""
    return number(tuple(np.asarray(x, np.int64) % m for m in FIELDS))


_UNARY: dict[str, Callable[[Number], Number]] = {
    "neg": exact.negative, "exp": exact.exp, "log": exact.log, "sqrt": exact.sqrt, "sigmoid": exact.sigmoid,
    "tanh": exact.tanh, "stopgrad": lambda a: a, "as_real": lambda a: a,
    "expm1": lambda a: exact.subtract(exact.exp(a), constant(1.0)),
    "log1p": lambda a: exact.log(exact.add(a, constant(1.0))),
    "logsigmoid": lambda a: exact.log(exact.sigmoid(a)),
    "softplus": lambda a: exact.negative(exact.log(exact.sigmoid(exact.negative(a)))),
    "cos": lambda a: exact.cos_sin(a)[0], "sin": lambda a: exact.cos_sin(a)[1],
    "erf": lambda a: exact.symbol("erf", a), "atan": lambda a: exact.symbol("atan", a),
    "log2": lambda a: exact.symbol("log2", a),
    "floor": lambda a: whole(np.floor(around(a))), "round": lambda a: whole(np.round(around(a))),
    "sign": lambda a: whole(np.sign(around(a))),
    "abs": lambda a: exact.choose(around(a) < 0, exact.negative(a), a),
}
_BINARY: dict[str, Callable[[Number, Number], Any]] = {
    "add": exact.add, "sub": exact.subtract, "mul": exact.multiply, "div": exact.divide, "pow": exact.power,
    "max": lambda a, b: exact.choose(around(a) >= around(b), a, b),
    "min": lambda a, b: exact.choose(around(a) <= around(b), a, b),
    "logaddexp": lambda a, b: exact.log(exact.add(exact.exp(a), exact.exp(b))),
    "lt": lambda a, b: around(a) < around(b), "le": lambda a, b: around(a) <= around(b),
    "gt": lambda a, b: around(a) > around(b), "ge": lambda a, b: around(a) >= around(b),
    "gradclip": lambda a, c: a,
    "eq": exact.same, "ne": lambda a, b: ~exact.same(a, b),
}


def _value(n: Node, args: list[Any], given: Mapping[Node, Any], sizes: Mapping[str, int]) -> Any:
    if n in given:
        declared = n.names("shape")
        return _each(given[n], lambda a: np.transpose(a, [declared.index(d) for d in n.dims]))
    match n.op:
        case "const":
            value = n.attr("value")
            assert isinstance(value, float)
            return constant(value)
        case "index":
            return whole(np.arange(extent(n.text("dim"), sizes)))
        case "block_index":
            return whole(np.arange(extent(n.text("dim"), sizes)) // n.number("block"))
        case "size":
            return whole(extent(n.text("dim"), sizes))
        case "expand":
            return shaped(args[0], n.args[0].dims, n.dims, sizes)
        case "scatter":
            return _scattered(n, args[0], args[1], sizes)
    spread = [shaped(x, a.dims, n.dims, sizes) for x, a in zip(args, n.args, strict=True)] if _elementwise(n) else args
    return applied(n, spread)


def _elementwise(n: Node) -> bool:
    from seqc.ir.ops import TABLE

    return TABLE[n.op].elementwise


def applied(n: Node, args: list[Any]) -> Any:
    """The operator on values: spread over the node's dims where it works element by element."""
    if n.op in _UNARY:
        return _UNARY[n.op](*args)
    if n.op in _BINARY:
        return _BINARY[n.op](*args)
    match n.op:
        case "and" | "or":
            return args[0] & args[1] if n.op == "and" else args[0] | args[1]
        case "not":
            return ~args[0]
        case "where":
            c, a, b = args
            return np.where(c, a, b) if n.dtype == "bool" else exact.choose(c, a, b)
        case "draw":
            return exact.mixed("draw", args)
        case "surrogate":
            return args[0] if isinstance(args[0], Number) else whole(args[0])
        case "sum":
            return exact.total(args[0], axes_of(n))
        case "amax":
            return _amax(args[0], axes_of(n))
        case "rename":
            now = [n.text("new") if d == n.text("old") else d for d in n.args[0].dims]
            return _each(args[0], lambda a: np.transpose(a, [now.index(d) for d in n.dims]))
        case "take":
            return _each(args[0], lambda a: np.take(a, n.number("at"), axis=n.args[0].dims.index(n.text("dim"))))
        case "shift" | "cumsum" | "affine_scan" | "max_scan" | "tri_inv":
            return _along_time(n, args)
        case "solve":
            return solved(args[0], n.args[0].dims, args[1], n.args[1].dims, n.text("row"), n.text("col"), n.dims)
        case "gather":
            return _gathered(n, *args)
    raise NotExact(f"`{n.op}` has no exact meaning")


def axes_of(n: Node) -> tuple[int, ...]:
    return tuple(n.args[0].dims.index(d) for d in n.names("over"))


def _amax(x: Number, axes: tuple[int, ...]) -> Number:
    return largest(x, x, axes)


def largest(x: Number, y: Number, axes: tuple[int, ...]) -> Number:
    """y where x is largest over axes."""

    def flat(a: Any) -> Any:
        moved = np.moveaxis(a, axes, range(-len(axes), 0))
        return moved.reshape(*moved.shape[: -len(axes)], -1)

    at = around(x.each(flat)).argmax(-1)[..., None]
    return y.each(lambda a: np.take_along_axis(flat(a), at, -1)[..., 0])


def _along_time(n: Node, args: list[Any]) -> Any:
    if n.op == "tri_inv":
        return _tri_inv(n, args[0])
    axis = n.dims.index(n.text("dim"))
    rows = [rows_of(x, axis) for x in args[:2]]
    zero = rows[0][0].each(np.zeros_like)
    if n.op == "shift":
        by, count = n.number("by"), len(rows[0])
        made = [rows[0][i - by] if 0 <= i - by < count else zero for i in range(count)]
    elif n.op == "cumsum":
        made = _cumsum(n, rows[0], zero)
    else:
        made, h = [zero] * len(rows[0]), args[2]
        backwards = n.op == "affine_scan" and bool(n.number("reverse"))
        for i in reversed(range(len(made))) if backwards else range(len(made)):
            a, b = rows[0][i], rows[1][i]
            h = exact.add(exact.multiply(a, h), b) if n.op == "affine_scan" else _BINARY["max"](exact.add(h, a), b)
            made[i] = h
    return stacked(made, axis)


def _cumsum(n: Node, rows: list[Number], zero: Number) -> list[Number]:
    count, step = len(rows), n.number("block") or len(rows)
    made = [zero] * count
    for start in range(0, count, step):
        places = list(range(start, min(start + step, count)))
        h = zero
        for i in reversed(places) if n.number("reverse") else places:
            made[i] = h if n.number("exclusive") else exact.add(h, rows[i])
            h = exact.add(h, rows[i])
    return made


def rows_of(x: Number, axis: int) -> list[Number]:
    return [x.each(lambda a, i=i: np.take(a, i, axis)) for i in range(x.shape[axis])]


def stacked(rows: list[Number], axis: int) -> Number:
    shape = np.broadcast_shapes(*(r.shape for r in rows))
    rows = [r.each(lambda a: np.broadcast_to(a, shape)) for r in rows]
    residues = tuple(np.stack([r.residues[i] for r in rows], axis) for i in range(len(FIELDS)))
    return Number(residues, np.stack([r.odd for r in rows], axis), np.stack([r.far for r in rows], axis))


def _tri_inv(n: Node, m: Number) -> Number:
    """The inverse of the identity and the strictly lower part of m, by substitution."""
    joined, apart = triangle(n)
    x = m.each(joined)
    count = x.shape[-1]
    out = [[whole(np.full(x.shape[:-2], int(i == j))) for j in range(count)] for i in range(count)]
    for i in range(count):
        for j in range(i):
            total = x.each(lambda a, i=i, j=j: a[..., i, j])
            for k in range(j + 1, i):
                entry = x.each(lambda a, i=i, k=k: a[..., i, k])
                total = exact.add(total, exact.multiply(entry, out[k][j]))
            out[i][j] = exact.negative(total)
    whole_matrix = stacked([stacked(line, len(x.shape) - 2) for line in out], len(x.shape) - 2)
    return whole_matrix.each(apart)


def solved(m: Number, of_m: Dims, b: Number, of_b: Dims, row: str, col: str, want: Dims) -> Number:
    """x with axes `want` and M x = b, by elimination; a random pivot is 0 with a chance of one over the field's size.

    of_m, of_b: the axes of M, with `row` and `col`, and of b, with `row`.
    """
    others = tuple(d for d in want if d != col)
    sizes = dict(zip(of_m, m.shape, strict=True)) | dict(zip(of_b, b.shape, strict=True))
    lines = rows_of(shaped(m, of_m, (*others, row, col), sizes), len(others))
    values = rows_of(shaped(b, of_b, (*others, row), sizes), len(others))
    for k in range(len(lines)):
        pivot = exact.inverse(lines[k].each(lambda a, k=k: a[..., k]))
        lines[k] = exact.multiply(lines[k], pivot.each(lambda a: a[..., None]))
        values[k] = exact.multiply(values[k], pivot)
        for i in range(len(lines)):
            if i != k:
                factor = lines[i].each(lambda a, k=k: a[..., k])
                lines[i] = exact.subtract(lines[i], exact.multiply(factor.each(lambda a: a[..., None]), lines[k]))
                values[i] = exact.subtract(values[i], exact.multiply(factor, values[k]))
    return stacked(values, want.index(col))


def _places(place: Number, count: int) -> Any:
    """Where an index leads: every number stands for one of the places."""
    return place.residues[0] % count


def _gathered(n: Node, x: Number, place: Number) -> Number:
    (table, of_place), dim = (a.dims for a in n.args), n.text("dim")
    sizes = dict(zip(table, x.shape, strict=True)) | dict(zip(of_place, place.shape, strict=True))
    shape = tuple(sizes[d] for d in n.dims)
    at = positions(table, n.dims, _places(place, sizes[dim]), of_place, dim, shape)
    return x.each(lambda a: np.broadcast_to(a[at], shape))


def _scattered(n: Node, d: Number, place: Number, sizes: Mapping[str, int]) -> Number:
    have, of_place, dim = n.args[0].dims, n.args[1].dims, n.text("dim")
    shape = tuple(extent(x, sizes) for x in n.dims)
    at = positions(n.dims, have, _places(place, extent(dim, sizes)), of_place, dim, d.shape)

    def added(a: Any, modulus: int) -> Any:
        out = np.zeros(shape, np.int64)
        np.add.at(out, at, a)
        return out % modulus

    return number(tuple(added(a, m) for a, m in zip(d.residues, FIELDS, strict=True)))


__all__ = [
    "NotExact", "applied", "axes_of", "largest", "rows_of", "shaped", "solved", "stacked", "values_below", "values_of", "whole",
]
