"""`every N: S = EXPR`: the new value of a state at fixed boundaries, put into the step graph.

In: the statements of a tree, and the names of its spec. Out: new values of states, and the states that count steps. A bare
S in EXPR is the state after its own update in that step, as everywhere else in the step; the replaced value is read from
the next step on. Mistakes are noted in the scope.
"""

from __future__ import annotations

from seqc.analysis.boundaries import LONGEST, counter
from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.expressions import Elaborator
from seqc.frontend.values import part_names
from seqc.ir.graph import Node, node
from seqc.ir.program import TensorDecl


def hooks(work: Elaborator, spec: syntax.Spec) -> dict[str, tuple[TensorDecl, Node]]:
    """Elaborate every hook into `work.replaced`; the counters that they need, with their new values."""
    scope = work.scope
    first: dict[str, syntax.Every] = {}
    found: dict[str, tuple[TensorDecl, Node]] = {}
    for statement in spec.statements:
        if not isinstance(statement, syntax.Every):
            continue
        name, steps = statement.body.name, statement.steps
        only = "a boundary replaces what is carried, and only states are"
        if not scope.is_declared("state", name, f"`{name.id}` is not carried", "not a state", cause=only):
            continue
        if name.id in first:
            there = Label(first[name.id].span, "first here")
            cause = "two boundaries may fall on one step, and it is not said which value counts"
            scope.report("said-twice", f"`{name.id}` is replaced twice", Label(statement.span), there, cause=cause)
            continue
        first[name.id] = statement
        if not 1 <= steps <= LONGEST:
            help = "to replace it at every step, put the expression into its definition"
            wrong = f"a boundary every {steps} steps"
            label = Label(statement.span, f"the distance is from 1 to {LONGEST}")
            scope.report("bad-size", wrong, label, help=help)
            continue
        value = work.replacement(statement.body)
        now = work.current(name.id, name.span)
        if value is None or now is None:
            continue
        count = counter(steps)
        found[count.decl.name] = count.decl, count.next
        names = part_names(name.id, scope.states[name.id].is_complex)
        for part, reset, free in zip(names, value.pair, now.pair, strict=False):
            work.replaced[part] = node("where", count.due, reset, free)
            work.spans.setdefault(work.replaced[part], statement.span)
    return found
