"""Several steps of a recurrence in one turn of the loop: names and lines of the spec follow their values.

In: a `Plan`. Out: the outputs of each of `count` steps, and S.next after the last (`seqc.passes.lower.unroll_steps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.backends.native_cpu.plan import Plan
from seqc.ir.graph import Node, leaves, topological
from seqc.ir.keys import next_key
from seqc.passes.lower.unroll_steps import later, unroll_steps


@dataclass(frozen=True)
class Together:
    """results: of each step, by the name of the output or kept value; updates: S.next after the last, by state."""

    results: tuple[Mapping[str, Node], ...]
    updates: Mapping[str, Node]
    names: Mapping[Node, str]
    lines: Mapping[Node, str]


def together(plan: Plan, count: int) -> Together:
    """`count` steps of the plan's forward graph; its inputs must be read at their own step only."""
    program = plan.program
    graph = {**plan.forward, **{f"kept {name}": n for name, n in plan.kept.items()}}
    inside = set(topological(graph.values()))
    named = [n for n in {**plan.names, **plan.lines} if n.op != "leaf" and n in inside]
    graph |= {f"{i}": n for i, n in enumerate(named)}
    names, lines = dict(plan.names), dict(plan.lines)
    results = []
    for j, here in enumerate(unroll_steps(graph, program.carried, count)):
        for n in leaves(graph.values(), "input"):
            names.setdefault(later(n, j), f"{plan.names[n]}_{j}")
        for i, n in enumerate(named):
            if n in plan.names:
                names.setdefault(here[f"{i}"], f"{plan.names[n]}_{j}")
            if n in plan.lines:
                lines.setdefault(here[f"{i}"], plan.lines[n])
        results.append({**{o: here[o] for o in program.output_decls}, **{k: here[f"kept {k}"] for k in plan.kept}})
    return Together(tuple(results), {s: here[next_key(s)] for s in program.states}, names, lines)


def may_be_together(plan: Plan, count: int) -> bool:
    """Whether a state is larger than a token, and every input is read at its own step."""
    offsets = [n for n in leaves(plan.forward.values(), "input") if n.number("offset")]
    return plan.every > 1 and plan.every % count == 0 and not plan.roles.blocked and not offsets
