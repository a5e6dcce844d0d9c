"""`feedback x = EXPR`: the closed loop of a spec, written as a spec of its own.

    input x[D]                     ->   input given, x_given[D]
    feedback x = W @ y[t-1]             x = where(given > 0, x_given, W @ y[t-1])        and a state x, where its past is read
    y = ...   (a definition)            state y[..] = 0, y = ...                         where EXPR reads its past

In: the tree of a spec and what its ordinary program was built with. Out: another tree, without `feedback`; mistakes are
noted in the scope. What is elaborated from it is a program like any other: no later stage knows of closed loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.expressions import Elaborator
from seqc.frontend.lags import index_dims, lag_of, mentions
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Binary, Call, Decl, Declare, Define, Expr, Feedback, Name, Number, Spec, Statement
from seqc.frontend.trees import walk

GIVEN = "given"


@dataclass(frozen=True)
class Closed:
    """The tree of a closed loop; its input that tells which steps are given; what each fed input is called in it.

    positions: of the fed indices, the dims."""

    spec: Spec
    given: str
    fed: dict[str, str]
    positions: dict[str, str]


def closed(work: Elaborator, spec: Spec) -> Closed | None:
    """The closed loop of a spec; None where it says no `feedback`, or where what it says is wrong."""
    said = [statement for statement in spec.statements if isinstance(statement, Feedback)]
    if not said or not _right(work.scope, said):
        return None
    scope = work.scope
    given = _free(scope, GIVEN)
    fed = {s.name.id: _free(scope, f"{s.name.id}_{GIVEN}") for s in said}
    past = set(_read_back(scope, _expressions(spec), not_ahead=True))
    states = [_state(fb.name, scope.inputs[fb.name.id]) for fb in said if fb.name.id in past]
    looked = set(_read_back(scope, (fb.expr for fb in said)))
    for name in sorted(looked & scope.defines.keys() - scope.states.keys()):
        value = work.current(name, scope.defines[name].span)
        if value is not None:
            span = scope.defines[name].name.span
            dims = tuple(Name(span, dim) for dim in value.order)
            zero, is_complex = Number(span, "0"), value.imag is not None
            told = Name(span, value.places) if value.places else None
            states.append(Decl(span, Name(span, name), dims, zero, is_complex=is_complex, role="state", places=told))
    out: list[Statement] = []
    for statement in spec.statements:
        match statement:
            case Feedback(name=x):
                out.append(_used(statement, scope.inputs[x.id], fed[x.id], given))
            case Declare(kind="input", items=items):
                out.append(replace(statement, items=tuple(_renamed(item, fed) for item in items)))
            case syntax.History(name=x) if x.id in fed:
                pass  # the past of what is used is a state, whose first values are arguments
            case _:
                out.append(statement)
    span = said[0].span
    out.append(Declare(span, "input", (Decl(span, Name(span, given), role="input"),)))
    out += [Declare(decl.span, "state", (decl,)) for decl in states]
    positions = {name: decl.places.id for name, decl in scope.inputs.items() if name in fed and decl.places is not None}
    return Closed(replace(spec, statements=tuple(out)), given, fed, positions)


def _right(scope: Scope, said: list[Feedback]) -> bool:
    """Whether each statement names an input of its own that can be fed; the mistakes are reported."""
    right, first = True, dict[str, Feedback]()
    for fb in said:
        name, cause = fb.name.id, "a feedback says what an input is where a caller gives none"
        help = f"a value that is always made in the step is defined: `{name} = ...`"
        if not scope.is_declared("input", fb.name, f"`{name}` is no input", cause=cause, help=help):
            pass
        elif name in first:
            scope.report("said-twice", f"`{name}` is fed back twice", Label(fb.span), Label(first[name].span, "first here"))
        else:
            first[name] = fb
            continue
        right = False
    return right


def _expressions(spec: Spec) -> Iterator[Expr]:
    for statement in spec.statements:
        match statement:
            case Define(expr=expr) | Feedback(expr=expr):
                yield expr
            case syntax.Every(body=body) | syntax.Down(body=body):
                yield body.expr
            case syntax.Output(expr=e) if e is not None:
                yield e
            case _:
                pass


def _read_back(scope: Scope, expressions: Iterable[Expr], not_ahead: bool = False) -> Iterator[str]:
    """The names that are read with a place on an axis in brackets. not_ahead: but for reads ahead alone."""
    for e in expressions:
        for part in walk(e):
            axes = (scope.axis, scope.second)
            if not isinstance(part, syntax.Subscript) or not any(mentions(x, axis) for x in part.items for axis in axes):
                continue
            if not (not_ahead and not scope.second and all(_ahead(scope, item) for item in part.items)):
                yield part.name.id


def _ahead(scope: Scope, item: Expr) -> bool:
    """Whether what stands in brackets is no place in the past, wherever an index in it is."""
    sizes = {name: dim.default for name, dim in scope.dims.items() if dim.default is not None}
    ends = [{dim: (sizes.get(dim, 1) - 1) * last for dim in index_dims(item)} for last in (0, 1)]
    lags = [lag_of(item, scope.axis, sizes, at) for at in ends]
    return not mentions(item, scope.axis) or all(lag is not None and lag <= 0 for lag in lags)


def _free(scope: Scope, wish: str) -> str:
    """A name that the spec has not."""
    taken = {*scope.places, *scope.dims}
    while wish in taken:
        wish += "_"
    return wish


def _state(name: Name, decl: Decl) -> Decl:
    zero = Number(name.span, "0")
    return Decl(name.span, name, decl.dims, zero, is_complex=decl.is_complex, role="state", places=decl.places)


def _renamed(item: Decl, fed: dict[str, str]) -> Decl:
    return replace(item, name=replace(item.name, id=fed[item.name.id])) if item.name.id in fed else item


def _used(said: Feedback, decl: Decl, given_value: str, given: str) -> Define:
    """`x[D] = where(given > 0, x_given, EXPR)`"""
    span, name = said.span, said.name
    chosen = Binary(span, ">", Name(span, given), Number(span, "0"), span)
    value = Call(said.expr.span, Name(span, "where"), None, (chosen, Name(name.span, given_value), said.expr))
    return Define(span, name, decl.dims, value)
