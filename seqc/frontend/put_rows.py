"""A state whose rows are written where indices tell: `Q[s, a] = EXPR`.

In: the state, its old value, the indices and the value that is written. Out: the whole state, or None after a report.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqc.diagnostics import Label
from seqc.frontend.choices import rows_at, written_rows
from seqc.frontend.declared import axes, checked
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr, Name
from seqc.frontend.values import Value, apply, real, shown
from seqc.ir.graph import index


def put_rows(
    scope: Scope, state: Decl, indices: Sequence[tuple[Name, Value]], value: Value, e: Expr, old: Value
) -> Value | None:
    """The state, `old` until now, with a value in the rows that an index tells; of several indices the others tell places in
    these rows. None after a report."""
    (first, place), *others = indices
    word, own, inside = state.name.id, axes(state), list[Value]()
    for other, told in others:
        if told.places not in own or told.places == place.places or told.order or told.places in [x.places for x in inside]:
            label, there = Label(other.span), Label(state.span, f"has the dims {shown(own)}")
            cause = "a second index tells a place of another dim of the state, and has no dim of its own"
            scope.report("bad-index", f"`{other.id}` tells no place in the rows of `{word}`", label, there, cause=cause)
            return None
        inside.append(told)
    dim = place.places
    several = [d for d in place.order if d == dim or d not in own]
    if dim not in own or len(several) > 1:
        label = Label(first.span, f"tells positions of `{dim}`" if dim else "a number")
        there = Label(state.span, f"has the dims {shown(own)}")
        cause = "an index that writes has at most one dim of its own: several rows in a step, the last of which stays"
        message = f"`{first.id}` tells no rows of `{word}`"
        scope.report("bad-index", message, label, there, cause=cause if dim in own else "")
        return None
    several = [d for d in several if d in value.order]  # one value for several rows stands in each of them
    rows = tuple(x for d in own if d not in [x.places for x in inside] for x in (several if d == dim else [d]))
    made = checked(scope, word, rows, value, e)
    if made is None:
        return None
    for told in inside:
        here = apply("eq", Value(index(told.places), (told.places,)), real(told))
        made = apply("where", here, made, old.of(rows_at(x, place) if dim in x.dims else x for x in old.pair))
    return old.of(written_rows(x, y, place) for x, y in zip(old.pair, made.pair, strict=True) if x.op == "leaf")
