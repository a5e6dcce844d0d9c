"""What brackets behind a value say other than a time: `K -> K'` calls a dim by another name, `G = 2` takes one position.

In: a value and the items of its brackets. Out: the value read so, or None after a report in the scope. Positions are
taken first, then dims are renamed. Times are not read here: they belong to names alone. Moves along a dim, by numbers that
dims may tell, are read here too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seqc.diagnostics import Label, Span
from seqc.frontend import syntax
from seqc.frontend.choices import CHOICES
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Expr
from seqc.frontend.values import Value, renamed_dims
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, topological
from seqc.ir.ops.structure import at_position, take

MOVES = ("shift", "roll")
LONG = 32  # operators: more are computed at all positions at once where all are read, not written once for each


def placed(scope: Scope, value: Value, items: Iterable[Expr], where: Span) -> Value | None:
    """The value with positions taken and dims renamed; `where`: what the brackets stand behind."""
    given = tuple(items)
    for item in given:
        if isinstance(item, syntax.Position):
            taken = _taken(scope, value, item, where)
            if taken is None:
                return None
            value = taken
    return _renamed(scope, value, [item for item in given if isinstance(item, syntax.Renaming)], where)


def _renamed(scope: Scope, value: Value, pairs: list[syntax.Renaming], where: Span) -> Value | None:
    """The value with some dims under other names of the same size."""
    if not scope.known_dims(tuple(dim for pair in pairs for dim in (pair.old, pair.new))):
        return None
    kept = [dim for dim in value.order if dim not in {pair.old.id for pair in pairs}]
    for pair in pairs:
        old, new = pair.old.id, pair.new.id
        if unprimed(old) != unprimed(new):
            cause = f"`{unprimed(old)}` and `{unprimed(new)}` may be of different sizes"
            help = f"a further dim of the size of `{unprimed(old)}` is called `{unprimed(old)}'`"
            scope.report("bad-renaming", f"`{old}` cannot be called `{new}`", Label(pair.span), cause=cause, help=help)
            return None
        if old not in value.order or new in kept:
            wrong = "repeats a dim" if old in value.order else f"finds no dim `{old}`"
            label = Label(where, f"has the dims {value.shown()}")
            scope.report("bad-renaming", f"`{old} -> {new}` {wrong}", Label(pair.span), label)
            return None
        kept.append(new)
    return renamed_dims(value, {pair.old.id: pair.new.id for pair in pairs})


def _taken(scope: Scope, value: Value, item: syntax.Position, where: Span) -> Value | None:
    """The value at one position of a dim; negative positions count from the end."""
    dim = item.dim.id
    if not scope.known_dims((item.dim,)):
        return None
    if dim not in value.order:
        label = Label(where, f"has the dims {value.shown()}")
        scope.report("missing-dim", f"there is no dim `{dim}` to take a position of", Label(item.dim.span), label)
        return None
    at = whole_number(scope, item.at)
    if at is None:
        cause = "a position is a whole number that is known when the spec is compiled"
        word = item.at.span.text
        told = isinstance(item.at, syntax.Call) and item.at.name.id in CHOICES
        help = f"what a value tells is a position too: `{where.text}[{word if told else f'position[{dim}]({word})'}]`"
        scope.report("bad-position", f"this is no position of `{dim}`", Label(item.at.span), cause=cause, help=help)
        return None
    if at not in (0, -1) and not _inside(scope, dim, at, item):
        return None
    found = value.over((dim,)).of(_at(scope, part, dim, at) if dim in part.dims else part for part in value.pair)
    return replace(found, places=value.places)


def _at(scope: Scope, x: Node, dim: str, at: int) -> Node:
    """One position of a node: of all that are computed at once, or computed for itself."""
    scope.taken.setdefault((x, dim), set()).add(at)
    return take(x, dim, at) if (x, dim) in scope.whole else at_position(x, dim, at)


def read_whole(scope: Scope) -> frozenset[tuple[Node, str]]:
    """The nodes of many operators that are read at every position of a dim, with the dim."""
    found = set()
    for (x, dim), places in scope.taken.items():
        sizes = scope.dims[unprimed(dim)].choices
        every = len(sizes) == 1 and {at % sizes[0] for at in places} == set(range(sizes[0]))
        if every and sum(bool(n.args) and dim in n.dims for n in topological([x])) > LONG:
            found.add((x, dim))
    return frozenset(found)


def _inside(scope: Scope, dim: str, at: int, item: syntax.Position) -> bool:
    """Whether every size that is served has the position; a dim with a default is fixed to it. Reports where it has not."""
    sizes = scope.dims[unprimed(dim)].choices or (scope.fix_size(dim),)
    least = min((size for size in sizes if size is not None), default=None)
    if least is None:
        help = f"give it where it is declared: `dim {unprimed(dim)} = {max(abs(at) + 1, 2)}`"
        scope.report("open-size", f"the size of `{unprimed(dim)}` must be known here", Label(item.span), help=help)
    elif not -least <= at < least:
        help = f"its positions are 0 to {least - 1}"
        scope.report("bad-position", f"`{dim}` of size {least} has no position {at}", Label(item.at.span), help=help)
    return least is not None and -least <= at < least


def whole_number(scope: Scope, e: Expr) -> int | None:
    """A whole number made of numbers and dims of fixed size."""
    match e:
        case syntax.Number(text=text):
            return int(text) if text.isdecimal() and len(text) < 10 else None
        case syntax.Name(id=name) if name in scope.dims:
            return scope.fix_size(name)
        case syntax.Unary(op="-", x=x):
            inside = whole_number(scope, x)
            return None if inside is None else -inside
        case syntax.Binary(op=op, left=left, right=right):
            a, b = whole_number(scope, left), whole_number(scope, right)
            return None if a is None or b is None else {"+": a + b, "-": a - b, "*": a * b}.get(op)
        case _:
            return None


def moved(scope: Scope, e: syntax.Call) -> syntax.Call | None:
    """`shift[N](x, |N| - 1)` with the number in its place; `roll[N](x, 2)` as the shift that what moves out fills at the other
    end. None after a report."""
    by = whole_number(scope, e.args[1])
    said = e.args[1].x if isinstance(e.args[1], syntax.Unary) else e.args[1]
    if by is None or not e.dims or len(e.dims) > 1 or (e.name.id == "shift" and isinstance(said, syntax.Number)):
        return e
    (dim,), (x, _, *fill) = e.dims, e.args

    def shifted(steps: int, *rest: Expr) -> syntax.Call:
        number: Expr = syntax.Number(e.span, str(abs(steps)))
        number = number if steps >= 0 else syntax.Unary(e.span, "-", number)
        return syntax.Call(e.span, replace(e.name, id="shift"), e.dims, (x, number, *rest))

    if e.name.id == "shift":
        return shifted(by, *fill)
    if by in (1, -1):
        last = syntax.Number(e.span, "1")
        end = syntax.Unary(e.span, "-", last) if by == 1 else replace(last, text="0")
        return shifted(by, syntax.Placed(e.span, x, (syntax.Position(e.span, dim, end),)))
    size = scope.fix_size(dim.id)
    if size is None:
        help = f"give it where it is declared: `dim {unprimed(dim.id)} = 4`; by one position, every size is served"
        scope.report("open-size", f"the size of `{unprimed(dim.id)}` must be known here", Label(e.span), help=help)
        return None
    return shifted(by % size, shifted(by % size - size))
