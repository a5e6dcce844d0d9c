"""Ways through the tree of an expression: its parts, all that is below it, how deep it is, and the parts of a `fold`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seqc.frontend.syntax import Binary, Bound, Call, Expr, Name, Placed, Position, Started, Subscript, Taken, Unary


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
        case Taken(whole=whole):
            return (whole,)
        case _:
            return ()


FOLDS = ("fold", "scan")
"""The functions that take steps within a step."""


@dataclass(frozen=True)
class Fold:
    """The parts of a `fold` or `scan`: its dim; first value, name and new value of each running value; a step's own values."""

    dim: Name
    starts: tuple[Expr, ...]
    names: tuple[str, ...]
    own: tuple[Started, ...]
    bodies: tuple[Expr, ...]


def fold_parts(e: Call) -> Fold | None:
    """The parts of `fold[J](a0, r0, a, r -> e = E, A, R)`, or with `a = a0, r = r0`; None where it is no such thing."""
    places = [i for i, arg in enumerate(e.args) if isinstance(arg, Bound)]
    if len(places) != 1 or e.dims is None or len(e.dims) != 1:
        return None
    arrow, before = e.args[places[0]], e.args[: places[0]]
    assert isinstance(arrow, Bound)
    behind = (arrow.body, *e.args[places[0] + 1 :])
    own = tuple(x for x in behind if isinstance(x, Started))
    bodies, count = behind[len(own) :], len(behind) - len(own)
    names = (*(arg.id for arg in before[count:] if isinstance(arg, Name)), arrow.name.id)
    starts = before[:count]
    said = tuple(arg.name.id for arg in starts if isinstance(arg, Started))
    known = (*names, *(x.name.id for x in own))
    if len(before) != 2 * count - 1 or len(names) != count or len(set(known)) < len(known) or (said and said != names):
        return None
    if any(isinstance(body, Started) for body in bodies):
        return None
    return Fold(e.dims[0], tuple(arg.start if isinstance(arg, Started) else arg for arg in starts), names, own, bodies)


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


def names_in(expr: Expr) -> set[str]:
    """The names that an expression reads, whatever stands in brackets behind them."""
    found = {part.name.id for part in walk(expr) if isinstance(part, Subscript)}
    return found | {part.id for part in walk(expr) if isinstance(part, Name)}
