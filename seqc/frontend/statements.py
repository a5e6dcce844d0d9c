"""Claims, ranges and schedule statements: what a spec says about itself, as data.

In: statements and a scope. Out: `Interval`, `Claim` and `Wishes` values; mistakes are noted in the scope. Whether a
claim holds, and whether a schedule can be followed, is for later passes: nothing is proved here.
"""

from __future__ import annotations

import math
from dataclasses import replace

from seqc.diagnostics import Label, Span, near_miss
from seqc.frontend import syntax
from seqc.frontend.operators import ARITHMETIC, arithmetic
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Expr
from seqc.frontend.values import part_names
from seqc.ir.both_ways import twin
from seqc.ir.intervals import Interval
from seqc.ir.program import Claim, Wishes

FORMS = {"sequential": "step", "scan": "scan", "chunkwise": "chunkwise"}
_FORM_WORDS = (*FORMS, "chunk", "convolution", "newton", "parallel")
DIRECTIONS = ("forward", "backward", "both")
JOINED = ("sum", "shared")  # of both runs: outputs are added; params are common


def interval(scope: Scope, written: syntax.Interval) -> Interval | None:
    """The bounds as numbers; None after a report."""
    lo, hi = bound(written.lo), bound(written.hi)
    for value, end in ((lo, written.lo), (hi, written.hi)):
        if value is None:
            label = Label(end.span, "not a number")
            scope.report("bad-range", "the ends of a range are numbers", label, help="such as `in [-inf, 0]`")
    if lo is None or hi is None:
        return None
    if lo > hi:
        scope.report("bad-range", "the range is empty", Label(written.span, f"{lo:g} is above {hi:g}"))
        return None
    return Interval(lo, hi)


def bound(e: Expr) -> float | None:
    """The number that an expression of numbers, `pi` and `inf` means."""
    match e:
        case syntax.Number() if not e.imaginary:
            return e.value
        case syntax.Name(id="inf"):
            return math.inf
        case syntax.Name(id="pi"):
            return math.pi
        case syntax.Unary(x=x):
            inside = bound(x)
            return None if inside is None else -inside
        case syntax.Binary(op=op, left=left, right=right):
            a, b = bound(left), bound(right)
            return None if a is None or b is None else arithmetic(op, a, b) if op in ARITHMETIC else None
        case _:
            return None


def claims(scope: Scope, spec: syntax.Spec) -> tuple[Claim, ...]:
    """Every `eigenvalues` statement."""
    out: list[Claim] = []
    for statement in spec.statements:
        if not isinstance(statement, syntax.Claim):
            continue
        name = statement.name
        bounds = interval(scope, statement.interval)
        wrong = f"`{name.id}` has no transition"
        if not scope.is_declared("state", name, wrong, "not a state", cause="only states have one"):
            continue
        if bounds is not None:  # both parts of a complex state have one transition
            out.append(Claim(part_names(name.id, scope.states[name.id].is_complex)[0], bounds, statement.span))
    return tuple(out)


def direction(scope: Scope, spec: syntax.Spec) -> tuple[str, frozenset[str]]:
    """The `scan` statement, and how its two runs are joined; forward without one."""
    found = [_of_axis(scope, statement) for statement in spec.statements if isinstance(statement, syntax.Scan)]
    found = [statement for statement in found if statement.direction.id != scope.second or not scope.second]
    for statement in found:
        word = statement.direction
        if word.id not in DIRECTIONS:
            help = near_miss(word.id, DIRECTIONS, "write one of")
            scope.report("unknown-word", f"`{word.id}` is no direction", Label(word.span), help=help)
            return "forward", frozenset()
        _joined(scope, statement)
    if len(found) > 1:
        scope.report("said-twice", "the direction is given twice", Label(found[1].span), Label(found[0].span, "here"))
    joined = frozenset(name.id for name in found[0].joined) if found else frozenset[str]()
    if found and found[0].direction.id == "both":
        _names_of_both(scope, found[0], () if "shared" in joined else tuple(scope.params))
    return found[0].direction.id if found else "forward", joined


def _of_axis(scope: Scope, statement: syntax.Scan) -> syntax.Scan:
    """`scan t backward` without the axis, where there are two; reports what is no direction of the second."""
    if not scope.second or statement.direction.id not in (scope.axis, scope.second):
        return statement
    words = [word.id for word in statement.joined]
    if len(words) != 1 or words[0] not in DIRECTIONS[:2]:
        where = Label(statement.span)
        scope.report("unknown-word", "an axis has one direction", where, help=f"write `scan {statement.direction.id} backward`")
    elif statement.direction.id == scope.axis:
        return replace(statement, direction=statement.joined[0], joined=())
    return statement


def _joined(scope: Scope, statement: syntax.Scan) -> None:
    """The words behind the direction: each once, and of two runs alone."""
    for i, word in enumerate(statement.joined):
        if word.id not in JOINED:
            help = near_miss(word.id, JOINED) or "write `sum`, `shared`, or both"
            scope.report("unknown-word", f"`{word.id}` is no way to join two runs", Label(word.span), help=help)
        elif statement.direction.id != "both":
            help = f"write `scan both {word.id}`, or leave `{word.id}` out"
            scope.report("unknown-word", f"`{word.id}` is of two runs, and there is one", Label(word.span), help=help)
        elif word.id in (name.id for name in statement.joined[:i]):
            scope.report("said-twice", f"`{word.id}` is said twice", Label(word.span))


def _names_of_both(scope: Scope, statement: syntax.Scan, params: tuple[str, ...]) -> None:
    """The run from the last step back has params and states of its own: nothing else that is declared is called so."""
    for name in (*params, *scope.states):
        other = twin(name)
        if other in (*scope.inputs, *scope.params, *scope.states, *scope.outputs):
            scope.report(
                "reserved-name",
                f"`{other}` cannot be declared beside `{name}`",
                Label(scope.places[other], "this name is taken"),
                Label(statement.span, f"`{other}` is the `{name}` of the run from the last step back"),
                help="rename one of the two",
            )


def wishes(scope: Scope, spec: syntax.Spec) -> Wishes:
    """The `schedule`, `tile` and `checkpoint` statements together."""
    form: str | None = None
    chunks: tuple[int, ...] = ()
    tiles: dict[str, tuple[int, ...]] = {}
    checkpoint: int | None = None
    convolution = newton = False
    span: Span | None = None
    seen: dict[str, Span] = {}

    def once(what: str, statement: syntax.Statement) -> None:
        if what in seen:
            scope.report("said-twice", f"{what} is given twice", Label(statement.span), Label(seen[what], "first here"))
        seen[what] = statement.span

    for statement in spec.statements:
        match statement:
            case syntax.Schedule(form=word, sizes=sizes):
                span = span or statement.span
                if word.id == "chunk":
                    once("the chunk size", statement)
                    chunks = _sizes(scope, statement, sizes)
                elif word.id == "convolution" and sizes is None:
                    once("the convolution", statement)
                    convolution = True
                elif word.id == "newton" and sizes is None:
                    once("the schedule", statement)
                    newton = True
                else:
                    once("the schedule", statement)
                    form = _form(scope, statement) or form
            case syntax.Tile(dim=dim, sizes=sizes):
                span = span or statement.span
                if scope.known_dims((dim,)):
                    once(f"the tile of `{dim.id}`", statement)
                    tiles[dim.id] = _sizes(scope, statement, sizes)
            case syntax.Checkpoint(steps=steps):
                span = span or statement.span
                once("the checkpoint distance", statement)
                checkpoint = steps
                if steps < 1:
                    scope.report("bad-size", "a checkpoint distance is at least 1", Label(statement.span))
            case _:
                pass
    return Wishes(form, chunks, tiles, checkpoint, span, convolution, newton)


def _sizes(scope: Scope, statement: syntax.Statement, sizes: tuple[int, ...] | None) -> tuple[int, ...]:
    if not sizes or min(sizes) < 1:
        help = "write the sizes that may be chosen, as in `{32, 64}`"
        scope.report("bad-size", "sizes of at least 1 are missing here", Label(statement.span), help=help)
    return sizes or ()


def _form(scope: Scope, statement: syntax.Schedule) -> str | None:
    word, sizes = statement.form, statement.sizes
    if word.id == "parallel":
        cause = "the quadratic form over the whole sequence is not derived yet"
        scope.refuse("not-lowered", "`schedule parallel` is not served yet", word.span, cause, "use `chunkwise`")
        return None
    if word.id not in FORMS:
        help = near_miss(word.id, _FORM_WORDS, "write one of")
        scope.report("unknown-word", f"`{word.id}` is no schedule", Label(word.span), help=help)
        return None
    if sizes is not None:
        help = "write the sizes in a statement of their own: `schedule chunk {..}`"
        scope.report("syntax", f"`schedule {word.id}` takes no sizes", Label(statement.span), help=help)
    return FORMS[word.id]
