"""Derivatives of a graph along a direction, in exact arithmetic: dual numbers, with a rule for each operator.

In: outputs, exact values and directions of the leaves, extents. Out: the derivative of each output along the direction, in the
field of P. The rules are written here once more, forwards, and share nothing with the operator table, whose rules go backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seqc.ir.graph import Node, topological
from seqc.ir.ops import TABLE
from seqc.ir.ops.structure import triangle
from seqc.semantics import exact
from seqc.semantics.exact import Number, around, constant
from seqc.semantics.exact_graph import (
    NotExact,
    applied,
    axes_of,
    largest,
    rows_of,
    shaped,
    solved,
    stacked,
    values_below,
    whole,
)

ROOT_OF_PI = 2 / math.sqrt(math.pi)  # the derivative of erf at 0, in the digits of the operator table

LINEAR = ("sum", "rename", "take", "shift", "cumsum")  # of a direction, the operator itself
FLAT = ("const", "index", "block_index", "size", "sign", "floor", "round", "stopgrad", "leaf", "draw", "as_real")  # without

def x_squared(x: Number) -> Number:
    """x x"""
    return exact.multiply(x, x)


# (argument, value, direction of the argument) -> direction of the value
_UNARY: dict[str, Callable[[Number, Number, Number], Number]] = {
    "neg": lambda x, y, d: exact.negative(d),
    "exp": lambda x, y, d: exact.multiply(d, y),
    "expm1": lambda x, y, d: exact.multiply(d, exact.exp(x)),
    "log": lambda x, y, d: exact.divide(d, x),
    "log1p": lambda x, y, d: exact.divide(d, exact.add(constant(1.0), x)),
    "sqrt": lambda x, y, d: exact.divide(d, exact.add(y, y)),
    "sigmoid": lambda x, y, d: exact.multiply(d, exact.multiply(y, exact.sigmoid(exact.negative(x)))),
    "logsigmoid": lambda x, y, d: exact.multiply(d, exact.sigmoid(exact.negative(x))),
    "softplus": lambda x, y, d: exact.multiply(d, exact.sigmoid(x)),
    "tanh": lambda x, y, d: exact.multiply(d, exact.subtract(constant(1.0), exact.multiply(y, y))),
    "cos": lambda x, y, d: exact.negative(exact.multiply(d, exact.cos_sin(x)[1])),
    "sin": lambda x, y, d: exact.multiply(d, exact.cos_sin(x)[0]),
    "erf": lambda x, y, d: exact.multiply(d, exact.multiply(constant(ROOT_OF_PI), exact.exp(exact.negative(x_squared(x))))),
    "log2": lambda x, y, d: exact.divide(d, exact.multiply(x, constant(math.log(2.0)))),
    "atan": lambda x, y, d: exact.divide(d, exact.add(constant(1.0), x_squared(x))),
    "abs": lambda x, y, d: exact.multiply(d, whole(np.sign(around(x)))),
}


def slopes_of(
    outputs: Mapping[str, Node], given: Mapping[Node, Any], along: Mapping[Node, Number], sizes: Mapping[str, int]
) -> dict[str, Number]:
    """The derivatives of the outputs. along: directions of leaves; others do not move."""
    values = values_below(outputs.values(), given, sizes)
    done: dict[Node, Number | None] = {}  # None: it does not move
    for n in topological(outputs.values()):
        if n in along:
            declared = n.names("shape")
            done[n] = along[n].each(lambda a, n=n, declared=declared: np.transpose(a, [declared.index(d) for d in n.dims]))
        else:
            done[n] = _slope(n, values, [done[a] for a in n.args], sizes)
    zero = constant(0.0)
    return {name: done[n] if done[n] is not None else shaped(zero, (), n.dims, sizes) for name, n in outputs.items()}  # type: ignore[misc]


def _slope(n: Node, values: Mapping[Node, Any], moves: list[Number | None], sizes: Mapping[str, int]) -> Number | None:
    if n.dtype == "bool" or n.op in FLAT or all(d is None for d in moves):
        return None
    zero = constant(0.0)
    args = [values[a] for a in n.args]
    ds = [d if d is not None else shaped(zero, (), a.dims, sizes) for d, a in zip(moves, n.args, strict=True)]
    if TABLE[n.op].elementwise:
        args = [shaped(x, a.dims, n.dims, sizes) for x, a in zip(args, n.args, strict=True)]
        ds = [shaped(d, a.dims, n.dims, sizes) for d, a in zip(ds, n.args, strict=True)]
    if n.op == "log" and n.args[0].op == "exp":
        return exact.divide(ds[0], args[0])
    if n.op in _UNARY:
        return _UNARY[n.op](args[0], values[n], ds[0])
    if n.op in LINEAR:
        return applied(n, ds)  # type: ignore[no-any-return]
    if n.op == "gather":
        return applied(n, [ds[0], args[1]])  # type: ignore[no-any-return]
    if n.op == "solve":
        return _solve(n, args, values[n], ds)
    if n.op == "expand":
        return shaped(ds[0], n.args[0].dims, n.dims, sizes)  # type: ignore[no-any-return]
    if TABLE[n.op].elementwise:
        return _of_several(n, args, values[n], ds)
    return _along_time(n, args, values[n], ds)


def _of_several(n: Node, args: list[Any], y: Any, ds: list[Number]) -> Number:
    match n.op:
        case "add":
            return exact.add(ds[0], ds[1])
        case "sub":
            return exact.subtract(ds[0], ds[1])
        case "mul":
            return exact.add(exact.multiply(ds[0], args[1]), exact.multiply(args[0], ds[1]))
        case "div":
            return exact.divide(exact.subtract(ds[0], exact.multiply(y, ds[1])), args[1])
        case "max":
            return exact.choose(around(args[0]) >= around(args[1]), ds[0], ds[1])
        case "min":
            return exact.choose(around(args[0]) <= around(args[1]), ds[0], ds[1])
        case "where":
            return exact.choose(args[0], ds[1], ds[2])
        case "surrogate":
            return exact.multiply(args[2], ds[1])
        case "pow":
            lower = exact.power(args[0], exact.subtract(args[1], constant(1.0)))
            return exact.multiply(exact.multiply(args[1], lower), ds[0])
        case "logaddexp":
            shares = (exact.exp(exact.subtract(x, y)) for x in args)
            return exact.add(*(exact.multiply(share, d) for share, d in zip(shares, ds, strict=True)))
    raise NotExact(f"the derivative of `{n.op}` is not known here")


def _along_time(n: Node, args: list[Any], y: Any, ds: list[Number]) -> Number:
    if n.op == "amax":
        return largest(args[0], ds[0], axes_of(n))
    if n.op == "tri_inv":
        return _tri_inv(n, y, ds[0])
    axis = n.dims.index(n.text("dim"))
    (a, b, da, db), start = [rows_of(x, axis) for x in (args[0], args[1], ds[0], ds[1])], args[2]
    values, made, d = rows_of(y, axis), [ds[2]] * len(a), ds[2]
    back = n.op == "affine_scan" and bool(n.number("reverse"))
    h = start
    for i in reversed(range(len(a))) if back else range(len(a)):
        if n.op == "affine_scan":
            d = exact.add(exact.add(exact.multiply(da[i], h), exact.multiply(a[i], d)), db[i])
        else:
            d = exact.choose(around(exact.add(h, a[i])) >= around(b[i]), exact.add(d, da[i]), db[i])
        made[i], h = d, values[i]
    return stacked(made, axis)


def _solve(n: Node, args: list[Any], x: Number, ds: list[Number]) -> Number:
    """Of M x = b: M dx = db - dM x"""
    (of_m, of_b), row, col = (a.dims for a in n.args), n.text("row"), n.text("col")
    sizes = {**dict(zip(of_m, args[0].shape, strict=True)), **dict(zip(n.dims, x.shape, strict=True))}
    rows = tuple(d for d in n.dims if d != col) + (row,)
    moved = exact.multiply(shaped(ds[0], of_m, (*rows, col), sizes), shaped(x, n.dims, (*rows, col), sizes))
    right = exact.subtract(shaped(ds[1], of_b, rows, sizes), exact.total(moved, (len(rows),)))
    return solved(args[0], of_m, right, rows, row, col, n.dims)


def _tri_inv(n: Node, inverse: Number, d: Number) -> Number:
    """-T dM T, of the strictly lower part of dM"""
    joined, apart = triangle(n)
    t, dm = (x.each(joined) for x in (inverse, d))
    count = t.shape[-1]
    lower = np.tril(np.ones((count, count), bool), -1)
    dm = exact.choose(lower, dm, constant(0.0))

    def product(a: Number, b: Number) -> Number:
        return exact.total(exact.multiply(a.each(lambda x: x[..., :, :, None]), b.each(lambda x: x[..., None, :, :])), (-2,))

    made = exact.negative(product(product(t, dm), t))
    return made.each(apart)


__all__ = ["slopes_of"]
