"""Square matrices in expressions: systems of equations, inverses and exponentials of values with the dims X and X'.

In: values. Out: values. A matrix has rows X and columns X', as a param `A[X, X]` has; of several such pairs it is the last that
counts. What has no such pair, or is complex, raises `Misuse`.
"""

from __future__ import annotations

from seqc.frontend.values import Misuse, Value, apply, number, renamed_dims, within
from seqc.ir.dims import primed
from seqc.ir.graph import Node, index, node
from seqc.ir.ops.dense import solve
from seqc.ir.ops.elementwise import where

_HELP = "a matrix has rows and columns of one size: declare it as `A[N, N]`, or write `(k * k[N -> N'])`"


def square(x: Value) -> tuple[str, str] | None:
    """The row and the column of a matrix; None of what is none."""
    rows = [dim for dim in x.order if f"{dim}'" in x.order]
    return (rows[-1], f"{rows[-1]}'") if rows else None


def _matrix(x: Value) -> tuple[str, str]:
    pair = square(x)
    if pair is None:
        raise Misuse(f"this value, with the dims {x.shown()}, is no square matrix", help=_HELP)
    if x.imag is not None:
        raise Misuse("a matrix of complex values is not solved, inverted or exponentiated", help="write its two parts apart")
    return pair


def identity(x: Value) -> Value:
    """The identity with the row and the column of x."""
    row, col = _matrix(x)
    same = node("eq", index(row), index(col))
    return apply("where", Value(same, (row, col)), number(1.0), number(0.0))


def identity_of(dims: tuple[str, ...]) -> Node:
    """The identity along the last of the dims X that have their X'."""
    row = [dim for dim in dims if f"{dim}'" in dims][-1]
    return where(node("eq", index(row), index(f"{row}'")), 1.0, 0.0)


def exponential(x: Value, phi: int = 0) -> Value:
    """The exponential of a matrix; phi = 1: the integral of exp(s x) over s from 0 to 1."""
    row, col = _matrix(x)
    return x.of([node("expm", x.node, row=row, col=col, phi=phi)])


def logdet(m: Value) -> Value:
    """The logarithm of the absolute value of the determinant."""
    row, col = _matrix(m)
    return m.over((row, col)).of([node("logdet", m.node, row=row, col=col)])


def solved(m: Value, b: Value) -> Value:
    """x with m @ x = b. b has the row of m; x has it too."""
    row, col = _matrix(m)
    if row not in b.order:
        help = f"the right-hand side of a system has the dim `{row}` of the matrix's rows"
        raise Misuse(f"`solve` finds no dim `{row}` on its right side, which has {b.shown()}", help=help)
    if b.imag is not None:
        raise Misuse("a system of complex values is not solved", help="solve for the two parts of the right side apart")
    if col in b.order:
        free = primed(col, (*m.order, *b.order))
        m, col = renamed_dims(m, {col: free}), free
    found = node("rename", solve(m.node, b.node, row, col), old=col, new=row)
    order = (*b.order, *(d for d in m.order if d not in (*b.order, col)))
    return Value(found, order, None, within(b.written | m.written, order))


def times(m: Value, b: Value) -> Value:
    """The matrix m times b, which has the row of m."""
    row, col = _matrix(m)
    if row not in b.order:
        raise Misuse(f"the weight of an input has the dim `{row}` of the matrix, and this one has {b.shown()}", help=_HELP)
    free = primed(col, (*m.order, *b.order)) if col in b.order else col
    left, right = renamed_dims(m, {col: free}), renamed_dims(b, {row: free})
    product = apply("mul", left, right)
    return product.over((free,)).of([node("sum", product.node, over=(free,))])
