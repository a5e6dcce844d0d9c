"""Ways through the tree of an expression: its parts, all that is below it, how deep it is, and the parts of a `fold`."""

from __future__ import annotations

from collections.abc import Iterator

from seqc.frontend.syntax import Binary, Bound, Call, Expr, Name, Placed, Position, Started, Subscript, Unary


def children(expr: Expr) -> tuple[Expr, ...]:
    """The parts of an expression that are values themselves."""
    match expr:
        case Unary(x=x):
            return (x,)
        case Placed(x=x, items=items):
            return (x, *items)
        case Position(at=at):
            return (at,)
        case Binary(left=left, right=right):
            return (left, right)
        case Subscript(items=items):
            return items
        case Call(args=args):
            return args
        case Bound(body=body):
            return (body,)
        case Started(start=start):
            return (start,)
        case _:
            return ()


FOLDS = ("fold", "scan")
"""The functions that take steps within a step."""


def fold_parts(e: Call) -> tuple[Name, list[Expr], list[str], list[Expr]] | None:
    """The dim, first values, names and new values of a `fold` or `scan`; None where it is no such thing.

    `fold[J](a0, r0, a, r -> a + r, r / 2)`, or with `a = a0, r = r0` for the first values.
    """
    count, over = divmod(len(e.args) + 1, 3)
    if over or e.dims is None or len(e.dims) != 1:
        return None
    names = []
    for arg in e.args[count : 2 * count - 1]:
        if not isinstance(arg, Name):
            return None
        names.append(arg.id)
    arrow, starts = e.args[2 * count - 1], e.args[:count]
    if not isinstance(arrow, Bound):
        return None
    names.append(arrow.name.id)
    bodies = [arrow.body, *e.args[2 * count :]]
    said = [arg.name.id for arg in starts if isinstance(arg, Started)]
    if (said and said != names) or any(isinstance(body, Bound | Started) for body in bodies) or len(set(names)) < count:
        return None
    return e.dims[0], [arg.start if isinstance(arg, Started) else arg for arg in starts], names, bodies


def levels(expr: Expr) -> int:
    """How deep an expression is nested."""
    deepest, stack = 0, [(expr, 1)]
    while stack:
        here, level = stack.pop()
        deepest = max(deepest, level)
        stack.extend((part, level + 1) for part in children(here))
    return deepest


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything below it, parents first, left to right."""
    stack = [expr]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(reversed(children(here)))
