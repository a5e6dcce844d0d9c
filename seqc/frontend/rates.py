"""`down 4: g = EXPR`: states that have a new value at every 4th step, and reads between the two rates.

    g = where(n[t-1] + 1 >= 4, EXPR, g[t-1])       (n: steps since the last slow one, a state of its own without a gradient)
    down[P](y)      y[t - (|P| - 1) r + r index[P]]                             r: every how many steps y changes
    up[P](u[t-1])   sum[P](where(index[P] == floor(n[t-1] / r), u[t-1], 0))     r: steps of u's group over |P|

In: the statements and names of a spec. Out: values, and the states that count. In between a slow state is held, so lags count
the steps of the sequence everywhere. `seqc.passes.plan.slower` finds these states again, and runs them at their own rate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.analysis.boundaries import LONGEST, Counter, counter
from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.values import Value, apply, number, real, reduced
from seqc.ir.graph import BATCH, Node, const, index, leaf, node
from seqc.ir.program import TensorDecl

if TYPE_CHECKING:
    from seqc.frontend.scope import Scope

BETWEEN = ("down", "up")
"""The functions that lead from one rate to another."""


def declared(scope: Scope, statement: syntax.Down) -> bool:
    """Whether a `down` statement gives a value to a state that it may slow; else what is wrong is reported."""
    name, steps, first = statement.body.name, statement.steps, statement.first
    only = "between its steps a slow value is held, and only states are carried"
    if not scope.is_declared("state", name, f"`{name.id}` is not carried", "not a state", cause=only):
        pass
    elif not 2 <= steps <= LONGEST or not 1 <= (first or steps) <= steps:
        help = f"a group has 2 to {LONGEST} steps, and the first one no more: `down 4: ..`, `down 2 first 1: ..`"
        scope.report("bad-size", "such groups of steps cannot be", Label(statement.span), help=help)
    elif scope.second:
        cause = "which of two axes has the groups is not said"
        scope.refuse("several-axes", "`down` is of one axis", statement.span, cause, "leave it out, or write one axis")
    else:
        scope.rates[name.id] = steps, first or steps
        return True
    scope.lost |= {name.id}
    return False


def count(steps: int, first: int) -> Counter:
    """What counts the steps of groups: all that have as many and begin alike share one."""
    made = counter(steps, f"down.{steps}" if first == steps else f"down.{steps}.{first}")
    return replace(made, decl=replace(made.decl, init=const(steps - first)))


def counting(scope: Scope) -> dict[str, tuple[TensorDecl, Node]]:
    """The states that count, with their new values."""
    found = [count(*rate) for rate in dict.fromkeys(scope.rates.values())]
    return {one.decl.name: (one.decl, one.next) for one in found}


def held(scope: Scope, word: str, value: Value, before: Value) -> Value:
    """The new value of a slow state, and between its steps the old one."""
    due = count(*scope.rates[word]).due
    return value.of(node("where", due, new, old) for new, old in zip(value.pair, before.parts, strict=False))


def named(e: syntax.Expr) -> syntax.Name | None:
    """The name that a read from another rate is of: `y`, or `y[t-1]`."""
    return e if isinstance(e, syntax.Name) else e.name if isinstance(e, syntax.Subscript) else None


def group(scope: Scope, e: syntax.Call, name: syntax.Name, dim: syntax.Name, size: int) -> syntax.Subscript:
    """`down[P](y)` as a read of the last |P| values of y, the oldest first. size: |P|."""
    apart, _ = scope.rates.get(name.id, (1, 1))

    def term(op: str, left: syntax.Expr, right: syntax.Expr) -> syntax.Expr:
        return syntax.Binary(e.span, op, left, right, e.span)

    def whole(value: int) -> syntax.Expr:
        return syntax.Number(e.span, str(value))

    now = syntax.Name(e.span, scope.axis)
    later = term("*", whole(apart), syntax.Subscript(e.span, syntax.Name(e.span, "index"), (dim,)))
    return syntax.Subscript(e.span, name, (term("+", term("-", now, whole(apart * (size - 1))), later),))


def piece(scope: Scope, e: syntax.Call, name: syntax.Name, dim: syntax.Name, size: int, value: Value) -> Value | None:
    """`up[P](u)`: the part of u along P that belongs to this step of its group; None after a report. size: |P|."""
    steps, first = scope.rates.get(name.id, (0, 0))
    if not steps or steps % size:
        told = f"a new one every {steps} steps" if steps else "not a slow state"
        cause = "the steps of a group are shared out among the positions"
        help = f"give the slow state by `down {size}: {name.id} = ..`, and the size of `{dim.id}` where it is declared"
        labels = Label(e.args[0].span, told), Label(dim.span, f"`{dim.id}` has {size} positions")
        scope.report("bad-size", f"`{name.id}` has no part for each step", *labels, cause=cause, help=help)
        return None
    at = Value(leaf("state", count(steps, first).decl.name, (BATCH,)))
    if steps > size:
        at = apply("floor", apply("div", at, number(float(steps // size))))
    here = apply("eq", Value(index(dim.id), (dim.id,)), at)
    return reduced("sum", apply("where", here, real(value), number(0.0)), (dim.id,))
