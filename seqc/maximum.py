"""state update -> max(m[t-1] + a, b), where it has that form: a scan over the semiring (max, +).

Needs: the step graph. Gives: (a, b), nodes free of the state (b is the constant -inf where nothing else competes), or None.
Criterion: maxima, and additions of values that are free of the state.
"""

from __future__ import annotations

import math

from seqc.graph import Node, const, depends, node, topological

NOTHING = const(-math.inf)


def running_maximum(update: Node, state: Node) -> tuple[Node, Node] | None:
    """(a, b) of an update in one state leaf, or None."""
    active = depends([update], [state])
    done: dict[Node, tuple[Node, Node]] = {state: (const(0.0), NOTHING)}
    for n in topological([update]):
        if n not in active or n is state:
            continue
        if n.op == "max":
            left, right = (done[x] if x in active else (NOTHING, x) for x in n.args)
            done[n] = (_larger(left[0], right[0]), _larger(left[1], right[1]))
        elif n.op in ("add", "sub") and not (n.args[0] in active and n.args[1] in active):
            a, b = n.args
            if n.op == "sub" and b in active:
                return None
            old, free = (done[a], b) if a in active else (done[b], a)
            done[n] = tuple(x if x is NOTHING else node(n.op, x, free) for x in old)  # type: ignore[assignment]
        else:
            return None
    return done[update]


def _larger(a: Node, b: Node) -> Node:
    return b if a is NOTHING else a if b is NOTHING else node("max", a, b)
