"""Operators on square matrices, whose rows and columns are two named dims: systems of equations and exponentials.

solve(M, b)         x with M x = b, sum over the column of M[row, col] x[col] = b[row]; the result has `col` where b has `row`
logdet(M)           the logarithm of the absolute value of the determinant
expm(X)             the exponential of a matrix; phi = 1: 1 + X / 2! + X^2 / 3! + .., the integral of exp(s X) over [0, 1]
expm_slope(X, D)    the cotangent of X, given that of expm(X) (of phi_1(X)), by a Frechet derivative (Al-Mohy and Higham 2009)

Every other dim is lined up by name: one matrix, or one right-hand side, for each position of it. In: nodes. Out: nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.ir.dims import primed
from seqc.ir.graph import Dims, Node, const, index, node
from seqc.ir.ops.row import Op

DENSE = ("solve", "logdet", "expm", "expm_slope")
SYSTEMS = ("solve", "logdet")  # what elimination computes
TERMS, SMALL = 18, 0.5  # of a power series for matrices of at most this norm: the rest is below 1e-22


def solve(m: Node, b: Node, row: str, col: str) -> Node:
    """x with m x = b; see the file's docstring."""
    from seqc.ir.ops.structure import expanded

    return node("solve", m, expanded(b, (row,)), row=row, col=col)


# ---- float64 references ----


def placed(x: Any, have: Dims, want: Dims) -> Any:
    """x with its axes in the order of `want`, 1 long where x lacks a dim."""
    x = np.transpose(x, [have.index(d) for d in want if d in have])
    return x[tuple(slice(None) if d in have else np.newaxis for d in want)]


def _np_solve(n: Node, m: Any, b: Any) -> Any:
    row, col = n.text("row"), n.text("col")
    rest = tuple(d for d in n.dims if d != col)
    m = placed(m, n.args[0].dims, (*rest, row, col))
    b = placed(b, n.args[1].dims, (*rest, row))[..., np.newaxis]
    shape = np.broadcast_shapes(m.shape[:-2], b.shape[:-2])
    m, b = (np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (m, b))
    try:
        x = np.linalg.solve(m, b)[..., 0]
    except np.linalg.LinAlgError:  # one of them is singular
        x = np.full(b.shape[:-1], np.nan)
    return np.moveaxis(x, -1, n.dims.index(col))


def _np_logdet(n: Node, m: Any) -> Any:
    at = [n.args[0].dims.index(n.text(axis)) for axis in ("row", "col")]
    return np.linalg.slogdet(np.moveaxis(m, at, (-2, -1)))[1]


def _series(x: Any) -> Any:
    """exp(x) - 1 of matrices in the last two axes, by scaling, a power series, and (exp(x / 2) - 1) (exp(x / 2) + 1)."""
    size = np.abs(x).sum(-1).max(-1, initial=0.0).max(initial=0.0)
    halvings = max(int(np.ceil(np.log2(size / SMALL))), 0) if size > 0 and np.isfinite(size) else 0
    x = x / 2.0**halvings
    term, out = x, x
    for k in range(2, TERMS + 1):
        term = term @ x / k
        out = out + term
    for _ in range(halvings):
        out = out @ out + 2 * out
    return out


def exponential(x: Any, phi: int) -> Any:
    """exp(x), or phi_1(x), of matrices in the last two axes."""
    eye = np.eye(x.shape[-1])
    if not phi:
        return _series(x) + eye
    return _series(_blocks(x, np.broadcast_to(eye, x.shape), 0 * x))[..., : x.shape[-1], x.shape[-1] :]


def _blocks(a: Any, b: Any, d: Any) -> Any:
    """[[a, b], [0, d]]"""
    return np.concatenate([np.concatenate([a, b], -1), np.concatenate([0 * b, d], -1)], -2)


def _np_expm(n: Node, x: Any) -> Any:
    at = [n.dims.index(n.text(axis)) for axis in ("row", "col")]
    return np.moveaxis(exponential(np.moveaxis(x, at, (-2, -1)), n.number("phi")), (-2, -1), at)


def _np_expm_slope(n: Node, x: Any, d: Any) -> Any:
    row, col = n.text("row"), n.text("col")
    want = (*(k for k in n.dims if k not in (row, col)), row, col)
    x, d = placed(x, n.args[0].dims, want), placed(d, n.args[1].dims, want)
    x, d = np.broadcast_arrays(x, d)
    count = x.shape[-1]
    if n.number("phi"):
        eye = np.broadcast_to(np.eye(count), x.shape)
        x, d = _blocks(x, eye, 0 * x), _blocks(0 * d, d, 0 * d)
    turned = np.swapaxes(x, -2, -1)
    size = x.shape[-1]
    found = _series(_blocks(turned, d, turned))[..., :count, size : size + count]
    return np.moveaxis(found, (-2, -1), [n.dims.index(row), n.dims.index(col)])


# ---- derivatives ----


def _solve_vjp_b(n: Node, d: Node) -> Node:
    """The solution of the transposed system."""
    return solve(n.args[0], d, n.text("col"), n.text("row"))


def _solve_vjp_m(n: Node, d: Node) -> Node:
    return -(_solve_vjp_b(n, d) * n)


def _logdet_vjp(n: Node, d: Node) -> Node:
    """The inverse, transposed."""
    m, row, col = n.args[0], n.text("row"), n.text("col")
    other = primed(row, (*m.dims, *d.dims))
    same = node("where", node("eq", index(row), index(other)), const(1.0), const(0.0))
    return d * node("rename", solve(m, same, row, col), old=other, new=row)


def _expm_vjp(n: Node, d: Node) -> Node:
    from seqc.ir.ops.structure import expanded

    row, col = n.text("row"), n.text("col")
    return node("expm_slope", n.args[0], expanded(d, (row, col)), row=row, col=col, phi=n.number("phi"))


def _solve_dims(n: Node) -> Dims:
    (m, b), row, col = n.args, n.text("row"), n.text("col")
    assert {row, col} <= set(m.dims) and row in b.dims and col not in b.dims, f"solve of {m!r} and {b!r}"
    return tuple(d for d in (*m.dims, *b.dims) if d != row)


def _square_dims(n: Node) -> Dims:
    assert all({n.text("row"), n.text("col")} <= set(a.dims) for a in n.args), f"{n.op} of what is no matrix"
    return tuple(d for a in n.args for d in a.dims)


STEEP = frozenset(("steep",))
ROWS: tuple[Op, ...] = (
    Op("solve", 2, _np_solve, (_solve_vjp_m, _solve_vjp_b), dims=_solve_dims, laws=STEEP),
    Op("logdet", 1, _np_logdet, (_logdet_vjp,), dims=lambda n: tuple(
        d for d in n.args[0].dims if d not in (n.text("row"), n.text("col"))), laws=STEEP),
    Op("expm", 1, _np_expm, (_expm_vjp,), dims=_square_dims, laws=STEEP),
    Op("expm_slope", 2, _np_expm_slope, None, dims=_square_dims),
)
