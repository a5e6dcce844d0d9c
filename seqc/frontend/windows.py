"""Reads of an input at many lags as one value with a dim for them: `x[t - index[L]]` (`seqc.ir.windows`).

In: brackets behind a name, and the elaborator. Out: the lags, where they are read as a window, and its value. Few lags are read
one by one, as are states, definitions, indices, inputs whose earlier values are states, and what stands on two axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seqc.frontend import syntax
from seqc.frontend.declared import axes
from seqc.frontend.lags import index_dims, lag_of, mentions
from seqc.frontend.names import MAX_LAG
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr
from seqc.frontend.values import Value, part_names, within
from seqc.ir.graph import BATCH
from seqc.ir.windows import LONG, window

if TYPE_CHECKING:
    from seqc.frontend.expressions import Elaborator, Frame


def window_lags(work: Elaborator, e: syntax.Subscript, item: Expr, frame: Frame, most: int) -> range | None:
    """The lags of a read that is a window; None where it is none. most: how many a window has at most."""
    scope, word = work.scope, e.name.id
    decl = scope.inputs.get(word)
    free = [dim for dim in index_dims(item) if dim not in frame.at and dim in scope.dims]
    if decl is None or decl.places is not None or word in frame.bound or word in scope.refused or len(free) != 1:
        return None
    if frame.place != "step" or scope.second or work.holds or free[0] in axes(decl):
        return None
    size = scope.fix_size(free[0])
    if size is None or not LONG < size <= most:
        return None
    sizes = sizes_in(scope, item)
    found = [lag_of(item, scope.axis, sizes, {**frame.at, free[0]: j}) for j in (0, 1, size - 1)]
    first, second, last = (0 if lag is None else lag for lag in found)
    step = second - first
    if None in found or step == 0 or last != first + step * (size - 1) or max(abs(first), abs(last)) > MAX_LAG:
        return None
    if any(lag_of(item, scope.axis, sizes, {**frame.at, free[0]: j}) != first + step * j for j in range(size)):
        return None  # `2^index[L]`
    return None if word in scope.history and max(first, last) > 0 else range(first, first + step * size, step)


def windowed(decl: Decl, dim: str, lags: range) -> Value:
    """An input at many lags."""
    own = axes(decl)
    nodes = [window(name, (BATCH, *own), dim, lags) for name in part_names(decl.name.id, decl.is_complex)]
    return Value(nodes[0], (dim, *own), nodes[1] if len(nodes) > 1 else None, within([own], own))


def sizes_in(scope: Scope, item: Expr) -> Mapping[str, int]:
    """The dims of known size that a time index mentions; they are fixed from now on."""
    found = {dim: scope.fix_size(dim) for dim in scope.dims if mentions(item, dim)}
    return {dim: size for dim, size in found.items() if size is not None}
