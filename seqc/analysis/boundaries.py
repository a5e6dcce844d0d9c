"""States that are replaced at fixed boundaries (`every N: S = EXPR`), as they stand in a step graph, and found there again.

    n      = n[t-1] + 1, and 0 at a boundary      (n: steps since the last boundary, a state of its own without a gradient)
    S_next = where(n[t-1] + 1 >= N, EXPR, free)   (free: the value that the spec's own definition gives S in this step)

In: names and nodes. Out: nodes, or a `Hook`. A counter is one of the states, so every form of a recurrence, a run in parts
and a loop of single steps agree on where the boundaries lie without knowing of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.ir.graph import BATCH, Node, const, constant, leaf, node
from seqc.ir.intervals import Interval
from seqc.ir.program import Program, TensorDecl

LONGEST = 1 << 24  # steps that a counter in fp32 tells apart


@dataclass(frozen=True)
class Counter:
    """Steps since the last boundary: the state, its new value, and whether a boundary comes after this step."""

    decl: TensorDecl
    next: Node
    due: Node


@dataclass(frozen=True)
class Hook:
    """What becomes of a state at a boundary. `free`: the state after its own update, which `value` may read."""

    counter: str
    period: int
    due: Node
    value: Node
    free: Node


def counter(period: int, name: str = "") -> Counter:
    """The counter that all hooks of one period share, or one of another name."""
    name = name or f"every.{period}"
    now = leaf("state", name, (BATCH,)) + 1.0
    due = node("ge", now, const(period))
    reached = node("stopgrad", node("where", due, const(0.0), now))
    decl = TensorDecl(name, "state", (), range=Interval(0.0, period - 1.0), init=const(0.0), hidden=True, whole=True)
    return Counter(decl, reached, due)


def counters(program: Program) -> dict[str, int]:
    """The states that count, with their periods."""
    found = {}
    for name, update in program.updates.items():
        x = update.args[0] if update.op == "stopgrad" else update
        if x.op == "where" and x.args[0].op == "ge" and x.args[0].args[1].op == "const":
            period = int(constant(x.args[0].args[1]))
            if program.states[name].whole and update is counter(period, name).next:
                found[name] = period
    return found


def hook_of(program: Program, state: str) -> Hook | None:
    """The hook of a state, or None; a slow state (`down N`), which is held between its steps, has none."""
    update = program.updates[state]
    if update.op != "where" or update.args[2] is program.states[state].leaf():
        return None
    for name, period in counters(program).items():
        due = counter(period, name).due
        if update.args[0] is due:
            return Hook(name, period, due, update.args[1], update.args[2])
    return None
