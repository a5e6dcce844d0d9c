"""Reads of an input at many lags as one value with a dim for them: `x[t - index[L]]` (`seqc.ir.windows`).

In: brackets behind a name, and the elaborator. Out: the lags, where they are read as a window, and its value. Few lags are read
one by one, as are states, indices, and what stands on two axes. Earlier values of definitions, and of inputs with a history,
are in a delay line (`seqc.frontend.delay_lines`), which is read at the positions of the lags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.declared import axes
from seqc.frontend.delay_lines import FED
from seqc.frontend.lags import index_dims, lag_of, mentions
from seqc.frontend.names import MAX_LAG
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Expr
from seqc.frontend.values import Value, part_names, real, within
from seqc.ir.graph import BATCH
from seqc.ir.ops.structure import expanded
from seqc.ir.windows import LONG, window

if TYPE_CHECKING:
    from seqc.frontend.expressions import Elaborator, Frame


def window_lags(work: Elaborator, e: syntax.Subscript, item: Expr, frame: Frame, most: int) -> range | None:
    """The lags of a read that is a window; None where it is none. most: how many a window has at most."""
    scope, word = work.scope, e.name.id
    free = [dim for dim in index_dims(item) if dim not in frame.at and dim in scope.dims]
    if word in frame.bound or word in scope.refused or len(free) != 1 or not _readable(scope, word, free[0]):
        return None
    if frame.place != "step" or scope.second or work.holds:
        return None
    size = scope.fix_size(free[0])
    if size is None or not LONG < size <= most:
        return None
    sizes = sizes_in(scope, item)
    found = [lag_of(item, scope.axis, sizes, {**frame.at, free[0]: j}) for j in range(size)]
    first, second = (0 if lag is None else lag for lag in found[:2])
    lags = range(first, first + (second - first) * size, second - first or 1)
    if found != list(lags) or max(map(abs, lags)) > MAX_LAG:
        return None  # as with `2^index[L]`
    kept = word not in scope.inputs or (word in scope.history and max(lags) > 0)  # earlier values are states
    return None if kept and not min(lags) >= 0 < FED < max(lags) else lags


def _readable(scope: Scope, word: str, dim: str) -> bool:
    """Whether a name may be read at many lags along a dim."""
    if word in scope.defines:
        return word not in scope.states
    decl = scope.inputs.get(word)
    return decl is not None and decl.places is None and dim not in axes(decl)


def windowed(work: Elaborator, e: syntax.Subscript, dim: str, lags: range) -> Value | None:
    """A name at many lags; None after a report."""
    word, decl = e.name.id, work.scope.inputs.get(e.name.id)
    if decl is None or (word in work.scope.history and max(lags) > 0):
        return _kept(work, e, dim, lags)
    own = axes(decl)
    nodes = [window(name, (BATCH, *own), dim, lags) for name in part_names(word, decl.is_complex)]
    return Value(nodes[0], (dim, *own), nodes[1] if len(nodes) > 1 else None, within([own], own))


def _kept(work: Elaborator, e: syntax.Subscript, dim: str, lags: range) -> Value | None:
    """Values that a delay line keeps."""
    last = work.read(e.name, max(lags), "step", e)
    now = work.read(e.name, 0, "step", e) if 0 in lags else None
    line = work.lines.get(e.name.id)
    if last is None or (0 in lags and now is None):
        return None
    if dim in last.order or last.places:
        message = f"`{e.name.id}` is read at many lags along `{dim}`, which it has"
        work.scope.report("dim-mismatch", message, Label(e.span), help=f"call the dim of the lags by another name than `{dim}`")
        return None
    nodes = [expanded(x, (*x.dims, dim)) for x in last.parts]  # until the line is known, which the deepest lag tells
    if line is not None:
        names = part_names(e.name.id, last.imag is not None)
        newest = [None] * len(names) if now is None else real(now).parts
        nodes = [line.window(x, last.order, dim, lags, y) for x, y in zip(names, newest, strict=True)]
    return Value(nodes[0], (dim, *last.order), nodes[1] if len(nodes) > 1 else None, last.written)


def sizes_in(scope: Scope, item: Expr) -> Mapping[str, int]:
    """The dims of known size that a time index mentions; they are fixed from now on."""
    found = {dim: scope.fix_size(dim) for dim in scope.dims if mentions(item, dim)}
    return {dim: size for dim, size in found.items() if size is not None}
