"""What brackets behind a value say where a position stands in them: `E[w]` is E at the position of a dim that w tells.

In: a value, and one that tells positions. Out: the value without their dim, with the dims of the positions in its place; or
None after a report in the scope.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.diagnostics import Label, Span
from seqc.frontend import syntax
from seqc.frontend.choices import CHOICES, rows_at
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr
from seqc.frontend.values import Value, real, within
from seqc.ir.intervals import ANY, Interval


def index_read(scope: Scope, item: Expr) -> bool:
    """Whether an item of brackets tells positions, if it is right: a name of a value, now or earlier, or a choice."""
    match item:
        case syntax.Call(name=name):
            return name.id in CHOICES
        case syntax.Name(id=word) | syntax.Subscript(name=syntax.Name(id=word)):
            told = word in scope.inputs and scope.inputs[word].places is not None
            return told or word in scope.states or (word in scope.defines and word not in scope.dims)
        case _:
            return False


def index_range(scope: Scope, decl: Decl) -> Interval:
    """0 to the size of the dim less one, as far as that is known."""
    if decl.places is None or decl.places.id not in scope.dims:
        return ANY
    sizes = scope.dims[decl.places.id].choices
    return Interval(0.0, float(max(sizes) - 1) if sizes else float("inf"))


def indexed(scope: Scope, value: Value, place: Value, where_: Span, at: Span) -> Value | None:
    """The value at the positions of another. where_: what the brackets stand behind; at: where the positions stand."""
    dim = place.places
    if not dim:
        cause = "positions are told by an input `index V`, by `argmax[V](x)` and `sample[V](x)`, and by `where` of two of them"
        message = f"`{where_.text}` is read at `{at.text}`, which is no index"
        dim = value.order[0] if len(value.order) == 1 else "V"
        help = f"a number is made a position by `{where_.text}[position[{dim}]({at.text})]`, rounded down"
        name = at.text.partition("[")[0]
        help += f"; a state that keeps one is declared so: `state {name} index {dim}`" if name in scope.states else ""
        scope.report("bad-index", message, Label(at, "a number"), cause=cause, help=help)
        return None
    if dim not in value.order:
        label = Label(where_, f"has the dims {value.shown()}")
        message = f"there is no dim `{dim}`, whose positions `{at.text}` tells"
        scope.report("missing-dim", message, Label(at, f"a position of `{dim}`"), label)
        return None
    order: list[str] = []
    for d in value.order:
        order += [x for x in place.order if x == dim or x not in value.order] if d == dim else [d]
    found = value.of(rows_at(part, place) if dim in part.dims else part for part in real(value).pair)
    return Value(found.node, tuple(order), found.imag, within(value.written, order))


def told_positions(scope: Scope, word: str, value: Value, e: Expr) -> Value | None:
    """The value of a name, which tells positions where it is a state declared so; None after a report: what is fed must."""
    dim, state = scope.positions.get(word, ""), scope.states.get(word)
    if not dim or value.places == dim:
        return value if state is None or state.places is None else replace(value, places=state.places.id)
    cause = f"`{word}` is declared `index {dim}`, and what it is without a caller is a position of {dim} too"
    help = f"write `feedback {word} = argmax[{dim}](x[{scope.axis}-1])`, or `sample[{dim}](..)` for a random choice"
    scope.report("bad-index", f"what `{word}` is fed is no position of `{dim}`", Label(e.span), cause=cause, help=help)
    return None


def declared_index(scope: Scope, decl: Decl) -> None:
    """Report what an index cannot be."""
    if decl.places is None or not scope.known_dims((decl.places,)):
        return
    name = decl.name.id
    marks = {"a range": decl.interval, "a unit norm": decl.unit, "`complex`": decl.is_complex or None}
    for what, mark in marks.items():
        if mark is not None:
            cause = f"its values are the whole numbers from 0 up to the size of {decl.places.id} less one"
            scope.report("bad-index", f"the index `{name}` has {what}", Label(decl.span), cause=cause, help="leave it out")
