"""Two axes, `axis t, u`: places on both in brackets, and what precedes the first places.

In: the tree, the names of a spec, and the program of one cell whose declarations know nothing of the second axis. Out:
leaves of a cell (`seqc.ir.two_axes` says how they are called), and the program of the caller. Mistakes are noted in the
scope.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.declared import checked, fits
from seqc.frontend.lags import lag_of, mentions
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl
from seqc.frontend.values import Value, part_names, within
from seqc.ir.graph import BATCH, Node, index, leaf, leaves, size, substitute
from seqc.ir.ops.indexing import as_real
from seqc.ir.program import Plane, Program
from seqc.ir.two_axes import beside as beside_name
from seqc.ir.two_axes import plane_program

if TYPE_CHECKING:
    from seqc.frontend.expressions import Elaborator


def on_axes(scope: Scope, items: Iterable[syntax.Expr]) -> bool:
    """Whether every item in brackets tells a place on one of two axes."""
    return all(mentions(item, scope.axis) or mentions(item, scope.second) for item in items)


def places_back(scope: Scope, e: syntax.Subscript, at: Mapping[str, int]) -> tuple[int, int] | None:
    """How many places ago `h[t-1, u-1]` reads on each axis; None after a report."""
    found = {scope.axis: 0, scope.second: 0}
    for item in e.items:
        axis = scope.axis if mentions(item, scope.axis) else scope.second
        sizes = {dim: size for dim in scope.dims if mentions(item, dim) and (size := scope.fix_size(dim)) is not None}
        lag = lag_of(item, axis, sizes, at)
        if lag is None or found[axis]:
            what = "is said twice" if found[axis] else f"not of the form `{axis} - 1`"
            message = "a lag is a whole number of places on one axis that is known when the spec is compiled"
            scope.report("bad-lag", message, Label(item.span, what))
            return None
        found[axis] = lag
    return found[scope.axis], found[scope.second]


def named_leaf(kind: str, decl: Decl, back: int, beside: int, marks: tuple[str, str, str]) -> Value:
    """The leaf of an input or a state at another place. marks: both axes, and the dim of the second."""
    first, second, dim = marks
    dims = tuple(d.id for d in decl.dims)
    names, offset = part_names(decl.name.id, decl.is_complex), 0
    if kind == "input":
        names, offset = tuple(beside_name(name, Plane(first, second, dim), beside) for name in names), back
    elif beside:
        names = tuple(f"{name}.{first}.{second}" if back else f"{name}.{second}" for name in names)
    shape = (BATCH, dim, *dims)
    if kind == "input" and decl.places is not None:
        return Value(as_real(leaf(kind, names[0], shape, offset, "int")), dims, None, within([dims], dims), decl.places.id)
    parts = [leaf(kind, name, shape, offset) for name in names]
    return Value(parts[0], dims, parts[1] if len(parts) > 1 else None, within([dims], dims))


def on_plane(work: Elaborator, spec: syntax.Spec, cell: Program) -> Program:
    """The program of the caller of a spec with two axes; reports what two axes do not have."""
    scope = work.scope
    for statement in spec.statements:
        if isinstance(statement, syntax.Every | syntax.History | syntax.Claim):
            word = {syntax.Every: "every", syntax.History: "history", syntax.Claim: "eigenvalues"}[type(statement)]
            cause = f"with two axes, `{word}` is not lowered"
            scope.refuse("several-axes", f"`{word}` is of one axis", statement.span, cause, "leave it out, or write one axis")
        if isinstance(statement, syntax.Scan) and statement.direction.id == "both":
            help = f"call the function again with `reverse=True`, which turns `{scope.axis}` around, and join the results"
            cause = "two runs over a plane are not lowered"
            scope.refuse("several-axes", "`scan both` is of one axis", statement.span, cause, help)
    plane = Plane(scope.axis, scope.second, scope.across, second_backward(scope, spec))
    given: dict[tuple[str, ...], dict[str, Node]] = {}
    read = {n.text("name") for n in leaves(cell.graph.values(), "state")}
    for statement in spec.statements:
        if isinstance(statement, syntax.Before):
            _start(work, spec, statement, given, read)
    first, second, both = (plane.first,), (plane.second,), (plane.first, plane.second)
    starts: dict[str, Node | None] = {}
    for name, decl in cell.states.items():
        starts[f"{name}.{plane.second}_0"] = given.get(second, {}).get(name, decl.init)
        starts[f"{name}.{plane.first}.{plane.second}"] = given.get(both, {}).get(name, decl.init)
    states = {name: replace(d, init=given.get(first, {}).get(name, d.init)) for name, d in cell.states.items()}
    return plane_program(replace(cell, states=states), plane, starts)


def second_backward(scope: Scope, spec: syntax.Spec) -> bool:
    """Whether `scan u backward` is said of the second axis."""
    scans = [s for s in spec.statements if isinstance(s, syntax.Scan) and s.direction.id == scope.second]
    return bool(scope.second) and any(s.joined and s.joined[0].id == "backward" for s in scans)


def _start(
    work: Elaborator, spec: syntax.Spec, statement: syntax.Before, given: dict[tuple[str, ...], dict[str, Node]],
    read: Container[str],
) -> None:
    """Enter what a `before` says: axes -> state -> value. read: the leaves of states that cells read."""
    scope, name = work.scope, statement.body.name
    words = tuple(axis.id for axis in statement.axes)
    ways = [(scope.axis,), (scope.second,), (scope.axis, scope.second)]
    if words not in ways:
        help = f"write `before {scope.axis}`, `before {scope.second}` or `before {scope.axis}, {scope.second}`"
        scope.report("unknown-word", f"`{', '.join(words)}` is not an axis", Label(statement.axes[0].span), help=help)
        return
    if name.id not in scope.states:
        scope.unknown("state", name, list(scope.states))
        return
    if name.id in given.get(words, {}):
        scope.report("said-twice", f"`{name.id}` before {', '.join(words)} is given twice", Label(statement.span))
        return
    diagonal = ".".join((name.id, *ways[2]))  # reads every edge
    readers = {diagonal, name.id if words == ways[0] else ".".join((name.id, *words))}
    if not any(part in read for at in readers for part in (at, at.replace(name.id, f"{name.id}_re", 1))):
        where = ", ".join(f"{axis}-1" for axis in words)
        label, help = Label(statement.span, "has no effect"), "leave it out, or read it"
        scope.report("unread-edge", f"nothing reads `{name.id}[{where}]`", label, help=help)
        return
    scope.indexed = {} if len(words) == 2 else {scope.second: scope.across} if words == ways[0] else {scope.axis: "T"}
    value, state = work.top(statement.body.expr, "init"), scope.states[name.id]
    scope.indexed = {}
    if value is not None and second_backward(scope, spec):  # places of an edge are counted from where the run begins
        here = index(scope.across)
        turned = substitute({f"{i}": x for i, x in enumerate(value.parts)}, {here: size(scope.across) - 1.0 - here})
        value = value.of(turned.values())
    if value is None or not fits(work.scope, state, value, statement.body.expr):
        return
    placed = checked(work.scope, name.id, tuple(d.id for d in state.dims), value, statement.body.expr, exact=False)
    if placed is not None:
        given.setdefault(words, {}).update(zip(part_names(name.id, state.is_complex), placed.pair, strict=False))
