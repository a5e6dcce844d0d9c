"""What brackets behind a value say where an index stands in them: `E[w]` is E at the position of a dim that w tells.

In: a value, and the value of an input that is declared `index V`. Out: the value without V, with the dims of the index in its
place; or None after a report in the scope.
"""

from __future__ import annotations

from seqc.diagnostics import Label, Span
from seqc.frontend import syntax
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr
from seqc.frontend.values import Value, within
from seqc.ir.graph import Node
from seqc.ir.intervals import ANY, Interval
from seqc.ir.ops.indexing import gather


def index_read(scope: Scope, item: Expr) -> Decl | None:
    """The declaration of the index that an item of brackets reads: `w`, or `w[t-1]`; None for anything else."""
    name = item.id if isinstance(item, syntax.Name) else item.name.id if isinstance(item, syntax.Subscript) else ""
    decl = scope.inputs.get(name)
    return decl if decl is not None and decl.places is not None else None


def index_range(scope: Scope, decl: Decl) -> Interval:
    """0 to the size of the dim less one, as far as that is known."""
    if decl.places is None or decl.places.id not in scope.dims:
        return ANY
    sizes = scope.dims[decl.places.id].choices
    return Interval(0.0, float(max(sizes) - 1) if sizes else float("inf"))


def indexed(scope: Scope, value: Value, decl: Decl, place: Value, where: Span, at: Span) -> Value | None:
    """The value at the positions of an index. where: what the brackets stand behind; at: where the index stands."""
    assert decl.places is not None
    dim = decl.places.id
    if dim not in value.order:
        label = Label(where, f"has the dims {value.shown()}")
        message = f"there is no dim `{dim}`, whose positions `{decl.name.id}` tells"
        scope.report("missing-dim", message, Label(at, f"declared `index {dim}`"), label)
        return None
    if place.node.op != "as_real":
        cause = "positions are read as a caller gives them, now or at a step that is a fixed number of steps away"
        scope.report("bad-index", f"`{at.text}` is no index as it was given", Label(at), cause=cause)
        return None
    leaf: Node = place.node.args[0]
    order: list[str] = []
    for d in value.order:
        order += [x for x in place.order if x not in value.order] if d == dim else [d]
    found = value.of(gather(part, leaf, dim) if dim in part.dims else part for part in value.pair)
    return Value(found.node, tuple(order), found.imag, within(value.written, order))


def declared_index(scope: Scope, decl: Decl) -> None:
    """Report what an index cannot be."""
    if decl.places is None or not scope.known_dims((decl.places,)):
        return
    name = decl.name.id
    if decl.places.id in (dim.id for dim in decl.dims):
        help = "an index with one entry for each of several reads has a dim of their number, as `input w[K] index V`"
        label = Label(decl.places.span, "its own dim")
        scope.report("bad-index", f"`{name}` cannot tell positions of a dim that it has", label, help=help)
    marks = {"a range": decl.interval, "a unit norm": decl.unit, "`complex`": decl.is_complex or None}
    for what, mark in marks.items():
        if mark is not None:
            cause = f"its values are the whole numbers from 0 up to the size of {decl.places.id} less one"
            scope.report("bad-index", f"the index `{name}` has {what}", Label(decl.span), cause=cause, help="leave it out")


__all__ = ["declared_index", "index_range", "index_read", "indexed"]
