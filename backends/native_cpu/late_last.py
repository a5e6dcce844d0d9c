"""Sums whose terms are added in the order in which they come, so that only the last one waits for the step before.

    b * x - (a0 * y[t-1] + a1 * y[t-2])    ->    b * x - a1 * y[t-2] - a0 * y[t-1]

In: values of a step, by name, and the states' updates. Out: the same sums in another order, hence with other rounding. A sum
that others read too is left whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from seqc.ir.graph import Node, node, rebuild, topological

EARLY = -1000  # of what needs no state


def late_last(roots: Mapping[str, Node], updates: Mapping[str, Node]) -> dict[str, Node]:
    """See the file's docstring."""
    order = topological(roots.values())
    uses = Counter(a for n in order for a in n.args) + Counter(roots.values())
    since: dict[Node, int] = {}
    done: dict[Node, Node] = {}
    for n in order:
        if n.op == "leaf":
            since[n] = -_age(n.text("name"), updates) if n.text("kind") == "state" else EARLY
        else:
            since[n] = max([EARLY, *(since[a] + 1 for a in n.args if since[a] > EARLY)])
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        if n.op in ("add", "sub") and since[n] > EARLY:
            found = sorted(_terms(n, uses), key=lambda term: since[term[1]])
            done[n] = _sum([(sign, done[x]) for sign, x in found])
    return {name: done[n] for name, n in roots.items()}


def _age(state: str, updates: Mapping[str, Node]) -> int:
    """How many steps ago the value of a state was computed: more than 0 where its update is another state's old value."""
    age, n = 0, updates[state]
    while n.op == "leaf" and n.text("kind") == "state" and age <= len(updates):
        age, n = age + 1, updates[n.text("name")]
    return age


def _terms(n: Node, uses: Mapping[Node, int]) -> list[tuple[int, Node]]:
    """The terms of a sum, through sums that nothing else reads."""
    found = list[tuple[int, Node]]()
    for sign, x in ((1, n.args[0]), (1 if n.op == "add" else -1, n.args[1])):
        inner = _terms(x, uses) if x.op in ("add", "sub") and uses[x] == 1 else [(1, x)]
        found += [(sign * s, y) for s, y in inner]
    return found


def _sum(found: list[tuple[int, Node]]) -> Node:
    (sign, out), *rest = found
    out = out if sign > 0 else node("neg", out)
    for sign, x in rest:
        out = node("add" if sign > 0 else "sub", out, x)
    return out
