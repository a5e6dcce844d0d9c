"""Square matrices, by the judge: a value with the dims X and X' has rows and columns. In: values. Out: values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.fuzz.values import Value, each, lined_up


def _pair(x: Value) -> tuple[str, str] | None:
    """The last row and column of a value; None of what has none."""
    rows = [d for d in x.dims if d + "'" in x.dims]
    return (rows[-1], rows[-1] + "'") if rows else None


def _last(x: Value, dims: Sequence[str]) -> Value:
    """The value with these axes last."""
    order = [d for d in x.dims if d not in dims] + list(dims)
    return Value(x.x.permute([x.dims.index(d) for d in order]), tuple(order))


def _of(f: Callable[[Tensor], Tensor], x: Value, left: int = 2) -> Value:
    pair = _pair(x)
    assert pair is not None
    moved = _last(x, pair)
    return Value(f(moved.x), moved.dims[: len(moved.dims) - 2 + left])


def solved(m: Value, b: Value) -> Value:
    """x with M @ x = b: b has the row of M, and so has x; every other dim is lined up."""
    pair = _pair(m)
    assert pair is not None
    row, col = pair
    free = "column of the matrix"
    left = Value(m.x, tuple(free if d == col else d for d in m.dims))
    (x, y), dims = lined_up([_last(left, (row, free)), b])
    sizes = torch.broadcast_shapes(x.shape, y.shape)
    at_row, at_free = dims.index(row), dims.index(free)
    rest = [i for i in range(len(dims)) if i not in (at_row, at_free)]
    matrix = x.expand(sizes).permute([*rest, at_row, at_free])
    side = y.select(at_free, 0)
    order = [i - (i > at_free) for i in (*rest, at_row)]
    right = side.permute(order).expand(matrix.shape[:-1])
    return Value(torch.linalg.solve(matrix, right.unsqueeze(-1)).squeeze(-1), tuple(dims[i] for i in (*rest, at_row)))


def times(m: Value, b: Value) -> Value:
    """M @ b, where b has the row of M."""
    pair = _pair(m)
    assert pair is not None
    left = Value(m.x, tuple("column" if d == pair[1] else d for d in m.dims))
    right = Value(b.x, tuple("column" if d == pair[0] else d for d in b.dims))
    product = each(torch.mul, left, right)
    at = product.dims.index("column")
    return Value(product.x.sum(at), product.dims[:at] + product.dims[at + 1 :])


def _identity(x: Value) -> Value:
    pair = _pair(x)
    assert pair is not None
    return Value(torch.eye(x.x.shape[x.dims.index(pair[0])], dtype=torch.float64), pair)


def _held(args: Sequence[Value]) -> Value | None:
    """`zoh` of a matrix: exp(dt A), and the integral of exp(s A) over s from 0 to dt, times B."""
    a, dt = args[0], args[-1]
    if _pair(a) is None:
        return None
    whole = each(torch.mul, a, dt)
    if len(args) == 2:
        return _of(torch.linalg.matrix_exp, whole)
    return each(torch.mul, times(_of(_integral, whole), args[1]), dt)


def _integral(x: Tensor) -> Tensor:
    """The integral of exp(s X) over s from 0 to 1: a corner of the exponential of a matrix twice as large."""
    n = x.shape[-1]
    one = torch.eye(n, dtype=x.dtype).expand_as(x)
    top, bottom = torch.cat([x, one], -1), torch.zeros(*x.shape[:-1], 2 * n, dtype=x.dtype)
    return torch.linalg.matrix_exp(torch.cat([top, bottom], -2))[..., :n, n:]


def _trapezoid(args: Sequence[Value]) -> Value | None:
    """`bilinear` of a matrix: (1 - dt A / 2)^-1 (1 + dt A / 2), and (1 - dt A / 2)^-1 dt B."""
    a, dt = args[0], args[-1]
    pair = _pair(a)
    if pair is None:
        return None
    half = each(lambda x, y: x * y / 2, a, dt)
    left = each(torch.sub, _identity(a), half)
    if len(args) == 3:
        return solved(left, each(torch.mul, args[1], dt))
    inverse = _of(torch.linalg.inv, left)
    spread = each(torch.add, _identity(a), half)
    # rows of the product are the inverse's, columns the other factor's
    first = Value(inverse.x, tuple("column" if d == pair[1] else d for d in inverse.dims))
    second = Value(spread.x, tuple("column" if d == pair[0] else d for d in spread.dims))
    product = each(torch.mul, first, second)
    at = product.dims.index("column")
    return Value(product.x.sum(at), product.dims[:at] + product.dims[at + 1 :])


OF_MATRICES: dict[str, Callable[[Sequence[Value]], Value | None]] = {
    "solve": lambda args: solved(args[0], args[1]),
    "inv": lambda args: _of(torch.linalg.inv, args[0]),
    "logdet": lambda args: _of(lambda x: torch.linalg.slogdet(x)[1], args[0], 0),
    "expm": lambda args: _of(torch.linalg.matrix_exp, args[0]),
    "zoh": _held,
    "bilinear": _trapezoid,
}

__all__ = ["OF_MATRICES", "solved", "times"]
