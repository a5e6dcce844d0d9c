"""What is written out position by position: folds, products, and sums of taps.

In: calls of `fold`, `scan`, `prod`, `cumprod` and `sum`, and the elaborator that gives the values of their parts. Out: values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.functions import total
from seqc.frontend.lags import index_dims, mentions
from seqc.frontend.operators import infix
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Expr
from seqc.frontend.trees import Fold, fold_parts, walk
from seqc.frontend.values import Value, apply, at, number, real
from seqc.frontend.windows import window_lags
from seqc.ir.graph import index

if TYPE_CHECKING:
    from seqc.frontend.expressions import Elaborator, Frame

MAX_UNROLLED = 1024  # positions of a dim that a fold, a product or a sum of taps writes out
PRODUCTS = ("prod", "cumprod")


def positions_of(scope: Scope, dim: str, e: Expr) -> range | None:
    """The positions of a dim that is unrolled; reports a dim of open size."""
    fixed = scope.fix_size(dim)
    if fixed is None:
        scope.report(
            "open-size",
            f"the size of `{dim}` must be known here",
            Label(e.span, f"written out once for every position of `{dim}`"),
            help=f"give it where it is declared: `dim {dim} = 4`",
        )
    elif fixed > MAX_UNROLLED:
        cause = f"at most {MAX_UNROLLED} positions are written out"
        scope.refuse("too-large", f"`{dim}` has {fixed} positions", e.span, cause)
    return None if fixed is None or fixed > MAX_UNROLLED else range(fixed)


def tap_dims(work: Elaborator, e: Expr, frame: Frame) -> set[str]:
    """The dims L of every `x[t - index[L]]` in an expression that are not held yet, and that no window has."""
    found: set[str] = set()
    for part in walk(e):
        if not isinstance(part, syntax.Subscript):
            continue
        for item in part.items:
            if mentions(item, work.scope.axis) and not window_lags(work, part, item, frame, MAX_UNROLLED):
                found |= {dim for dim in index_dims(item) if dim not in frame.at}
    return found


def otherwise(work: Elaborator, e: syntax.Call, dims: tuple[str, ...], frame: Frame) -> Callable[[], Value | None] | None:
    """What gives the value of a call whose argument is not read as this frame reads it; None of an ordinary call.

    A sum of taps is written out. A call that ranges over a held dim itself, since its brackets name it anew (as those of a
    sum in a sum do), sees all of it, and what it gives is read at the position; but where a running value has the dim,
    which is whole as it is, what stands beside it is read at the position.
    """
    if e.name.id == "sum" and any(dim in tap_dims(work, e.args[0], frame) for dim in dims):
        return lambda: sum_of_taps(work, e, dims, frame)
    running = [value for name, value in frame.bound.items() if value is not None and mentions(e, name)]
    whole = {dim: frame.at[dim] for dim in dims if dim in frame.at and not any(dim in value.order for value in running)}
    free = replace(frame, at={dim: j for dim, j in frame.at.items() if dim not in whole})
    return (lambda: work.placed(work.expr(e, free), replace(frame, at=whole))) if whole else None


def sum_of_taps(work: Elaborator, e: syntax.Call, dims: tuple[str, ...], frame: Frame) -> Value | None:
    """A sum over taps, written out: no array of all taps is ever made."""
    taps = next(dim for dim in dims if dim in tap_dims(work, e.args[0], frame))
    positions = positions_of(work.scope, taps, e)
    if positions is None:
        return None
    rest = tuple(dim for dim in dims if dim != taps)
    whole: Value | None = None
    for j in positions:
        value = work.expr(e.args[0], replace(frame, at={**frame.at, taps: j}))
        if value is None or not work.has_dims(e, value, rest):
            return None
        term = total(value, rest) if rest else value
        whole = term if whole is None else infix("+", whole, term)
    return whole


def taken(work: Elaborator, e: syntax.Taken, frame: Frame) -> Value | None:
    """One running value of a fold that gives several names a value; the fold is written out once for all of them."""
    if id(e.whole) not in work.folds:
        work.folds[id(e.whole)] = fold(work, e.whole, frame)
    values = work.folds[id(e.whole)]
    return None if values is None else values[e.place]


def fold(work: Elaborator, e: syntax.Call, frame: Frame) -> tuple[Value, ...] | None:
    """J steps inside a step, written out: at step j every value that has the dim J is read at j.

    Every running value: a `fold` gives what it is at the end, a `scan` what it is after each step. None after a report.
    """
    parts, name = fold_parts(e), e.name.id
    if parts is None:
        help = f"write `{name}[J](S[t-1], S -> EXPR)`: a dim, the first value, and the step"
        if len(e.args) > 2:
            help = f"write `{name}[J](a = 0, r = x, a, r -> a + r, r / 2)`: first values, the names, a new value for each"
        work.scope.report("misuse", f"`{name}` needs one dim, a first value and a step", Label(e.span), help=help)
        return None
    dim = parts.dim.id
    if not work.scope.known_dims((parts.dim,)):
        return None
    positions = positions_of(work.scope, dim, e)
    values, steps = [work.expr(start, frame) for start in parts.starts], list[list[Value]]()
    for j in positions or ():
        if any(value is None for value in values):
            break
        inner = _stepped(work, parts, replace(frame, at={**frame.at, dim: j}), values)
        values = [work.expr(body, inner) for body in parts.bodies]
        steps.append([value for value in values if value is not None])
    if positions is None or any(value is None for value in values):
        return None
    return tuple(steps[-1] if name == "fold" else (stacked(dim, [*made]) for made in zip(*steps, strict=True)))


def _stepped(work: Elaborator, parts: Fold, frame: Frame, values: list[Value | None]) -> Frame:
    """The frame of one step of a fold: its running values, and the values that are the step's own."""
    words = (*parts.names, *(part.name.id for part in parts.own))
    own = {word: made for word, made in frame.own.items() if word not in words}
    inner = replace(frame, bound={**frame.bound, **dict(zip(parts.names, values, strict=True))}, own=own)
    for part in parts.own:  # each sees those before it
        bound = {**inner.bound, part.name.id: work.expr(part.start, inner)}
        inner = replace(inner, bound=bound, own={**inner.own, part.name.id: (part.start, frame.at)})
    return inner


def product(work: Elaborator, e: syntax.Call, frame: Frame) -> Value | None:
    """`prod[K](x)`, and `cumprod[K](x)` of the elements up to each one, written out: the derivative is right at a 0 too."""
    if not work.takes(e, 1, 1, "yes"):
        return None
    dims, whole = tuple(dim.id for dim in e.dims or ()), work.expr(e.args[0], frame)
    if whole is None or not work.has_dims(e, whole, dims):
        return None
    for dim in dims:
        positions = positions_of(work.scope, dim, e)
        if positions is None:
            return None
        made = [number(1.0)]
        for j in positions:
            made.append(apply("mul", made[-1], at(real(whole), dim, j)) if j else at(real(whole), dim, j))
        whole = made[-1] if e.name.id == "prod" else stacked(dim, made[1:])
    return whole


def stacked(dim: str, taps: list[Value]) -> Value:
    """One value with the dim, from one value for each of its positions."""
    here = Value(index(dim), (dim,))
    result = number(0.0)
    for j, tap in enumerate(taps):
        result = apply("where", apply("eq", here, number(float(j))), real(tap), result)
    told = {tap.places for tap in taps}
    return replace(result, places=told.pop() if len(told) == 1 else "")
