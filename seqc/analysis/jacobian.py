"""program -> how each state after a step comes from each state before it: the Jacobian of the step, link by link.

In: a step graph. Out: `Slope`s, graphs of the step's own leaves, by forward differentiation: a tangent of a state goes
through the operators, by the derivatives that their rows hold. A tangent is a coefficient and unit matrices, `coef * [d =
column]` for each unit: what never mixes a dim keeps its unit, so that an elementwise step has a diagonal, and a product
with a matrix is that matrix. Nothing is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.ir.dims import primed
from seqc.ir.graph import Node, const, index, node, rebuild, renamed, topological, total
from seqc.ir.ops import TABLE, holds
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded
from seqc.ir.program import Program

OWN = ("gradclip", "surrogate")  # the spec says another derivative than the value has; that of `stopgrad` is none


class NoSlope(Exception):
    """An operator that a tangent cannot go through. at: its node."""

    def __init__(self, at: Node) -> None:
        super().__init__(at.op)
        self.at = at


@dataclass(frozen=True)
class Slope:
    """d(state i after a step) / d(state j before it). kept: dims along which it is diagonal; rows: the other dims of i,
    columns: those of j, by fresh names. value: its graph, over `dims`."""

    kept: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    value: Node

    @property
    def dims(self) -> tuple[str, ...]:
        """Its axes behind the batch."""
        return (*self.kept, *self.rows, *(fresh for _, fresh in self.columns))


@dataclass(frozen=True)
class _Tangent:
    """coef * [d = c] for each (d, c) of units."""

    coef: Node
    units: frozenset[tuple[str, str]]

    def written(self, units: frozenset[tuple[str, str]]) -> Node:
        """The coefficient with these units written out."""
        coef = self.coef
        for d, column in sorted(units):
            coef = where(node("eq", index(d), index(column)), coef, 0.0)
        return coef


def jacobian(program: Program) -> dict[tuple[str, str], Slope]:
    """(state, state before) -> slope, of those that are not 0. Raises NoSlope."""
    order = topological(program.updates.values())
    taken = {d for n in order for d in n.dims} | {d for s in program.states.values() for d in s.dims}
    columns: dict[str, str] = {}
    for d in sorted({d for s in program.states.values() for d in s.dims}):
        columns[d] = primed(d, taken)
        taken.add(columns[d])
    found: dict[tuple[str, str], Slope] = {}
    for j, before in program.states.items():
        seed = _Tangent(const(1.0), frozenset((d, columns[d]) for d in before.dims))
        tangents = _forward(order, before.leaf(), seed)
        for i, after in program.states.items():
            if (one := tangents.get(program.updates[i])) is not None:
                found[i, j] = _slope(one, after.dims, before.dims, columns)
    return found


def _slope(one: _Tangent, after: tuple[str, ...], before: tuple[str, ...], columns: dict[str, str]) -> Slope:
    units = frozenset((d, c) for d, c in one.units if columns[d] == c and d in after)
    kept = tuple(d for d in after if (d, columns[d]) in units)
    rows = tuple(d for d in after if d not in kept)
    mixed = tuple((d, columns[d]) for d in before if d not in kept)
    value = one.written(one.units - units)
    return Slope(kept, rows, mixed, value)


def _forward(order: list[Node], seed: Node, tangent: _Tangent) -> dict[Node, _Tangent]:
    """The tangents of all nodes that depend on the seed."""
    done = {seed: tangent}
    for n in order:
        if n in done or not any(a in done for a in n.args):
            continue
        if n.op in OWN or TABLE[n.op].vjp is None:
            raise NoSlope(n)
        if (found := _through(n, done)) is not None:
            done[n] = found
    return done


def _through(n: Node, done: dict[Node, _Tangent]) -> _Tangent | None:
    row = TABLE[n.op]
    if row.elementwise:
        found: _Tangent | None = None
        for arg, rule in zip(n.args, row.vjp or (), strict=True):
            if rule is not None and arg in done:
                part = _Tangent(rule(n, done[arg].coef), done[arg].units)
                found = part if found is None else _sum(found, part)
        return found
    one = done.get(n.args[0])
    if one is None or any(a in done for a in n.args[1:]):
        raise NoSlope(n)
    match n.op:
        case "sum":
            return _summed(one, n.names("over"))
        case "amax":
            (rule,) = row.vjp or ()
            share = rule(n, const(1.0))  # type: ignore[misc]
            return _summed(_Tangent(one.coef * share, one.units), n.names("over"))
        case "expand":
            return one
        case "rename":
            old, new = n.text("old"), n.text("new")
            return _Tangent(renamed(one.coef, old, new), frozenset((new if d == old else d, c) for d, c in one.units))
    if not holds(n, "additive"):
        raise NoSlope(n)
    dim = n.text("dim")
    lost = frozenset((d, c) for d, c in one.units if d == dim)
    coef = expanded(one.written(lost), (dim,))
    return _Tangent(rebuild(n, (coef, *n.args[1:])), one.units - lost)


def _sum(a: _Tangent, b: _Tangent) -> _Tangent:
    both = a.units & b.units
    return _Tangent(a.written(a.units - both) + b.written(b.units - both), both)


def _summed(one: _Tangent, over: tuple[str, ...]) -> _Tangent:
    coef, units = one.coef, dict(one.units)
    for d in over:
        if d in units:
            coef = renamed(expanded(coef, (d,)), d, units.pop(d))
    left = [d for d in over if d not in dict(one.units)]
    return _Tangent(total(coef, left), frozenset(units.items()))


__all__ = ["NoSlope", "Slope", "jacobian"]
