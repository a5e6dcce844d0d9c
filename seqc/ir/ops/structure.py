"""Operators that are not elementwise: leaves, constants, reductions, renaming, and the time operators of a block.

The time operators act along one dim of a block (usually `t`): `cumsum` (restarted every `block` rows; 0 is never),
`shift`, `take`, `affine_scan` and `tri_inv`. Each is exact on infinities: no implementation may subtract to undo a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seqc.ir.graph import Dims, Node, const, constant, index, node, rebuild, renamed, size, topological, total
from seqc.ir.intervals import POSITIVE, Interval
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.row import Op


def _axis(n: Node, dim: str) -> int:
    return n.dims.index(dim)


def expanded(x: Node, dims: Dims) -> Node:
    """x made constant along the dims that it lacks."""
    missing = tuple(d for d in dims if d not in x.dims)
    return node("expand", x, over=missing) if missing else x


def take(x: Node, dim: str, at: int) -> Node:
    """x at one position of a dim; negative counts from the end."""
    return node("take", x, dim=dim, at=at)


def at_position(x: Node, dim: str, at: int) -> Node:
    """x at one position of a dim, computed from that position of its leaves where that is possible."""
    from seqc.ir.ops import TABLE

    done: dict[Node, Node] = {}
    for n in topological([x]):
        if dim not in n.dims:
            done[n] = n  # what has no such dim, any more or at all, stays
        elif n.op == "index":
            done[n] = const(float(at)) if at >= 0 else size(dim) + float(at)
        elif n.op == "expand":
            left = tuple(d for d in n.names("over") if d != dim)
            done[n] = node("expand", done[n.args[0]], over=left) if left else done[n.args[0]]
        elif (TABLE[n.op].elementwise and TABLE[n.op].linear_backward) or n.op in ("sum", "amax"):
            done[n] = rebuild(n, tuple(done[a] for a in n.args))
        else:
            done[n] = take(n, dim, at)
    return done[x]


def unexpanded(x: Node, dim: str = "") -> Node:
    """x without the dims that it was made constant along, as far as `dim`."""
    while x.op == "expand" and dim not in x.names("over"):
        x = x.args[0]
    return x


def cumsum(x: Node, dim: str, block: int = 0, reverse: bool = False, exclusive: bool = False) -> Node:
    """Running sum along `dim`, restarted every `block` rows (0: never)."""
    return node("cumsum", expanded(x, (dim,)), dim=dim, block=block, reverse=reverse, exclusive=exclusive)


def shift(x: Node, dim: str, by: int) -> Node:
    """y[i] = x[i - by], zero where that is outside."""
    return node("shift", x, dim=dim, by=by)


def affine_scan(a: Node, b: Node, start: Node, dim: str, reverse: bool = False, resets: bool = False) -> Node:
    """h[i] = a[i] h[i-1] + b[i] along `dim`, h[-1] = start (from the other end if reverse).

    resets: where a[i] is 0, h[i] is b[i], whatever h[i-1] is (0 times an infinity is no number).
    """
    more: dict[str, bool] = {"resets": True} if resets else {}
    return node("affine_scan", *_scanned(a, b, start, dim), dim=dim, reverse=reverse, **more)


def resets(n: Node) -> bool:
    """Whether a coefficient of 0 of this scan drops what was before."""
    return ("resets", True) in n.attrs


def max_scan(a: Node, b: Node, start: Node, dim: str) -> Node:
    """m[i] = max(m[i-1] + a[i], b[i]) along `dim`, m[-1] = start."""
    return node("max_scan", *_scanned(a, b, start, dim), dim=dim)


def _scanned(a: Node, b: Node, start: Node, dim: str) -> tuple[Node, Node, Node]:
    """The arguments of a scan: a and b with all dims of both and its own, start with all but this one."""
    dims = tuple(sorted({*a.dims, *b.dims, dim}))
    return expanded(a, dims), expanded(b, dims), expanded(start, tuple(d for d in dims if d != dim))


# ---- float64 references: arrays come with each argument's sorted dims ----


def _leaf_ref(n: Node) -> Any:
    raise LookupError(f"no value given for leaf {n.text('kind')} {n.text('name')}")


def _np_take(n: Node, x: Any) -> Any:
    return np.take(x, n.number("at"), axis=_axis(n.args[0], n.text("dim")))


def _np_shift(n: Node, x: Any) -> Any:
    axis, by = _axis(n.args[0], n.text("dim")), n.number("by")
    out = np.zeros_like(x)
    length = x.shape[axis]
    if abs(by) < length:
        source = [slice(None)] * x.ndim
        target = [slice(None)] * x.ndim
        target[axis] = slice(max(by, 0), length + min(by, 0))
        source[axis] = slice(max(-by, 0), length - max(by, 0))
        out[tuple(target)] = x[tuple(source)]
    return out


def _np_cumsum(n: Node, x: Any) -> Any:
    axis = _axis(n, n.text("dim"))
    x = np.moveaxis(x, axis, 0)
    step = n.number("block") or max(len(x), 1)
    out = np.zeros_like(x)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        if n.number("reverse"):
            part = part[::-1]
        run = np.cumsum(part, axis=0)
        if n.number("exclusive"):
            run = np.concatenate([np.zeros_like(run[:1]), run[:-1]])
        out[start : start + step] = run[::-1] if n.number("reverse") else run
    return np.moveaxis(out, 0, axis)


def _stepped(n: Node, a: Any, b: Any, h: Any, step: Callable[[Any, Any, Any], Any], reverse: bool = False) -> Any:
    """h = step(a[i], h, b[i]) along the scan's dim, for each i."""
    axis = _axis(n, n.text("dim"))
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    out = np.zeros_like(b)
    for i in range(len(b))[:: -1 if reverse else 1]:
        out[i] = h = step(a[i], h, b[i])
    return np.moveaxis(out, 0, axis)


def _np_scan(n: Node, a: Any, b: Any, start: Any) -> Any:
    if resets(n):
        return _stepped(n, a, b, start, lambda a, h, b: np.where(a == 0, 0.0, a * h) + b, bool(n.number("reverse")))
    return _stepped(n, a, b, start, lambda a, h, b: a * h + b, bool(n.number("reverse")))


def _np_max_scan(n: Node, a: Any, b: Any, start: Any) -> Any:
    return _stepped(n, a, b, start, lambda a, m, b: np.maximum(m + a, b))


def triangle(n: Node) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(arrays with a `tri_inv`'s dims -> matrices in their last two axes, and back): the rows' dims are one axis, the first of
    them running slowest, and so are the columns'."""
    axes = [_axis(n, d) for d in (*n.names("row"), *n.names("col"))]
    half, last = len(axes) // 2, range(-len(axes), 0)
    shapes = []

    def joined(x: Any) -> Any:
        x = np.moveaxis(x, axes, last)
        shapes.append(x.shape)
        side = int(np.prod(x.shape[-half:]))
        return x.reshape(*x.shape[: -2 * half], side, side)

    return joined, lambda x: np.moveaxis(x.reshape(shapes[-1]), last, axes)


def _np_tri_inv(n: Node, m: Any) -> Any:
    joined, apart = triangle(n)
    m = joined(m)
    return apart(np.tril(np.linalg.inv(np.eye(m.shape[-1]) + np.tril(m, -1))))


def _np_rename(n: Node, x: Any) -> Any:
    now = [n.text("new") if d == n.text("old") else d for d in n.args[0].dims]
    return np.transpose(x, [now.index(d) for d in n.dims])


def _np_reduce(how: Any) -> Any:
    return lambda n, x: how(x, axis=tuple(_axis(n.args[0], d) for d in n.names("over")))


# ---- derivatives ----


def _cumsum_vjp(n: Node, d: Node) -> Node:
    return cumsum(d, n.text("dim"), n.number("block"), not n.number("reverse"), bool(n.number("exclusive")))


def _take_vjp(n: Node, d: Node) -> Node:
    dim, at = n.text("dim"), n.number("at")
    place = const(float(at)) if at >= 0 else size(dim) + float(at)
    return where(node("eq", index(dim), place), d, 0.0)


def _scan_cotangent(n: Node, d: Node) -> Node:
    """g[i] = d[i] + a[i+1] g[i+1]: the cotangent of b."""
    dim, reverse = n.text("dim"), bool(n.number("reverse"))
    later = shift(n.args[0], dim, 1 if reverse else -1)
    return affine_scan(later, expanded(d, n.dims), const(0.0), dim, not reverse, resets(n))


def _scan_vjp_a(n: Node, d: Node) -> Node:
    dim, reverse = n.text("dim"), bool(n.number("reverse"))
    first = size(dim) - 1.0 if reverse else const(0.0)
    before = where(node("eq", index(dim), first), n.args[2], shift(n, dim, -1 if reverse else 1))
    return _scan_cotangent(n, d) * before


def _scan_vjp_start(n: Node, d: Node) -> Node:
    at = -1 if n.number("reverse") else 0
    return take(n.args[0] * _scan_cotangent(n, d), n.text("dim"), at)


def _max_scan_kept(n: Node) -> Node:
    """1 where m[i] came from m[i-1], 0 where from b[i], a half at a tie."""
    before = where(node("eq", index(n.text("dim")), const(0.0)), n.args[2], shift(n, n.text("dim"), 1))
    old = before + n.args[0]
    return where(node("gt", old, n.args[1]), 1.0, where(node("eq", old, n.args[1]), 0.5, 0.0))


def _max_scan_cotangent(n: Node, d: Node) -> Node:
    """g[i] = d[i] + kept[i+1] g[i+1]: the cotangent of m[i] as a whole."""
    later = shift(_max_scan_kept(n), n.text("dim"), -1)
    return affine_scan(later, expanded(d, n.dims), const(0.0), n.text("dim"), reverse=True)


def _max_scan_vjp_a(n: Node, d: Node) -> Node:
    kept = _max_scan_kept(n)
    return where(node("gt", kept, const(0.0)), _max_scan_cotangent(n, d) * kept, 0.0)


def _max_scan_vjp_b(n: Node, d: Node) -> Node:
    kept = _max_scan_kept(n)
    return where(node("lt", kept, const(1.0)), _max_scan_cotangent(n, d) * (1.0 - kept), 0.0)


def _max_scan_vjp_start(n: Node, d: Node) -> Node:
    return take(_max_scan_vjp_a(n, d), n.text("dim"), 0)


def _tri_vjp(n: Node, d: Node) -> Node:
    """dM = -strictly_lower(T^T dT T^T), and where dT sums a b^T, as it does behind T b: that of (T^T a) (T b)^T."""
    rows, columns = n.names("row"), n.names("col")
    apart = _apart(d, rows, columns)
    if apart is not None:
        over, (a, b) = d.names("over"), apart
        left, right = total(a * n, rows), total(n * b, columns)
        for row, col in zip(rows, columns, strict=True):
            left, right = renamed(left, col, row), renamed(right, row, col)
        return where(later(rows, columns), -total(left * right, over), 0.0)
    left, right, primed = n, n, expanded(d, n.dims)
    far = [d + "'" * (1 + max(x.count("'") for x in (*rows, *columns))) for d in (*rows, *columns)]
    rows2, columns2 = far[: len(rows)], far[len(rows) :]
    for row, col, row2, col2 in zip(rows, columns, rows2, columns2, strict=True):
        left = renamed(renamed(left, row, row2), col, row)  # T[row', row]
        right = renamed(renamed(right, col, col2), row, col)  # T[col, col']
        primed = renamed(renamed(primed, row, row2), col, col2)
    inner = total(left * primed, rows2)
    return where(later(rows, columns), -total(inner * right, columns2), 0.0)


def _apart(d: Node, rows: Sequence[str], columns: Sequence[str]) -> tuple[Node, Node] | None:
    """(a, b) where d sums a b^T over dims that are neither rows nor columns."""
    if d.op != "sum" or d.args[0].op != "mul" or set(d.names("over")) & {*rows, *columns}:
        return None
    both = {*rows, *columns}
    for a, b in (d.args[0].args, d.args[0].args[::-1]):
        if both & set(a.dims) == set(rows) and both & set(b.dims) == set(columns):
            return a, b
    return None


def later(rows: Sequence[str], columns: Sequence[str]) -> Node:
    """Whether a row stands behind a column, both told by several dims, the first of which runs slowest."""
    (row, col), left = (rows[0], columns[0]), (rows[1:], columns[1:])
    behind = node("gt", index(row), index(col))
    return node("or", behind, node("and", node("eq", index(row), index(col)), later(*left))) if left[0] else behind


def tri_inv(m: Node, rows: tuple[str, ...], columns: tuple[str, ...]) -> Node:
    """The inverse of I and the strictly lower part of m, whose rows are told by several dims, the first running slowest."""
    return node("tri_inv", expanded(m, (*rows, *columns)), row=rows, col=columns)


def _amax_vjp(n: Node, d: Node) -> Node:
    hit = node("eq", n.args[0], n)
    return where(hit, d / total(where(hit, 1.0, 0.0), n.names("over")), 0.0)


def _without(n: Node, dims: tuple[str, ...]) -> Dims:
    missing = [d for d in dims if d not in n.args[0].dims]
    assert not missing, f"{n.op} over {missing}, which {n.args[0]!r} lacks"
    return tuple(d for d in n.args[0].dims if d not in dims)


def _leaf_dtype(n: Node) -> str:
    return n.text("type")


def _own_dtype(n: Node) -> str:
    return n.args[0].dtype


def _rename_dims(n: Node) -> Dims:
    assert n.text("new") not in n.args[0].dims, (n.text("new"), n.args[0])
    return tuple(n.text("new") if d == n.text("old") else d for d in n.args[0].dims)


def _same(n: Node, a: tuple[Interval, ...]) -> Interval:
    return a[0]


def _sum_interval(n: Node, a: tuple[Interval, ...]) -> Interval:
    low = 0.0 if a[0].lo >= 0 else -np.inf  # extents are symbolic: only signs survive
    high = 0.0 if a[0].hi <= 0 else np.inf
    return Interval(low, high)


def _cumsum_interval(n: Node, a: tuple[Interval, ...]) -> Interval:
    rows = n.number("block")
    if not rows:
        return _sum_interval(n, a)
    return a[0] * Interval(0.0 if n.number("exclusive") else 1.0, float(rows))


MOVES = frozenset(("linear", "additive", "zero", "finite"))  # of what adds up, moves and names the numbers of its argument
ROWS: tuple[Op, ...] = (
    Op("leaf", 0, _leaf_ref, (), dims=lambda n: n.names("shape"), dtype=_leaf_dtype, cost="none"),
    Op("const", 0, lambda n: np.float64(n.attr("value")), (), dims=lambda n: (),
       interval=lambda n, a: Interval(constant(n), constant(n)), cost="none"),
    Op("size", 0, lambda n: None, (), dims=lambda n: (), interval=lambda n, a: Interval(1.0, np.inf), cost="none"),
    Op("index", 0, lambda n: None, (), dims=lambda n: (n.text("dim"),), interval=lambda n, a: POSITIVE, cost="none"),
    # block_index(dim, block): index(dim) // block, the number of the segment that a row lies in
    Op("block_index", 0, lambda n: None, (), dims=lambda n: (n.text("dim"),), interval=lambda n, a: POSITIVE, cost="none"),
    Op("sum", 1, _np_reduce(np.sum), (lambda n, d: d,), _sum_interval, lambda n: _without(n, n.names("over")),
       laws=MOVES),
    Op("amax", 1, _np_reduce(np.max), (_amax_vjp,), _same, lambda n: _without(n, n.names("over")),
       laws=frozenset(("zero", "finite")), word="max"),
    Op("expand", 1, lambda n, x: None, (lambda n, d: total(d, n.names("over")),), _same,
       lambda n: n.args[0].dims + n.names("over"), laws=MOVES | {"alias"}, cost="view", takes=("any",)),
    Op("rename", 1, _np_rename, (lambda n, d: renamed(d, n.text("new"), n.text("old")),), _same, _rename_dims,
       _own_dtype, laws=MOVES | {"alias"}, cost="view", takes=("any",)),
    Op("take", 1, _np_take, (_take_vjp,), _same, lambda n: _without(n, (n.text("dim"),)), _own_dtype, laws=MOVES, cost="view",
       takes=("any",)),
    Op("cumsum", 1, _np_cumsum, (_cumsum_vjp,), _cumsum_interval, lambda n: n.args[0].dims, laws=MOVES),
    Op("shift", 1, _np_shift, (lambda n, d: shift(expanded(d, n.dims), n.text("dim"), -n.number("by")),),
       lambda n, a: a[0].union(Interval(0.0, 0.0)), lambda n: n.args[0].dims, laws=MOVES, cost="view"),
    Op("affine_scan", 3, _np_scan, (_scan_vjp_a, _scan_cotangent, _scan_vjp_start), dims=lambda n: n.args[1].dims,
       laws=frozenset(("linear", "finite"))),
    # max_scan(a, b, start): m[i] = max(m[i-1] + a[i], b[i]): the same scan over the semiring (max, +)
    Op("max_scan", 3, _np_max_scan, (_max_scan_vjp_a, _max_scan_vjp_b, _max_scan_vjp_start),
       dims=lambda n: n.args[1].dims),
    Op("tri_inv", 1, _np_tri_inv, (_tri_vjp,), dims=lambda n: n.args[0].dims, laws=frozenset(("steep",))),
)
