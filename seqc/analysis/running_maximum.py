"""Maxima: state updates that are running ones, what a maximum exceeds, and differences from one that may be -inf.

    m = max(m[t-1] + a, b)     a scan over the semiring (max, +): `running_maximum` gives (a, b)
    exp(x - m), m >= x         is exp(x - where(m == -inf, 0, m)): 0 where x and m are -inf, and not exp(-inf - -inf)

Needs: the step graph. Criteria: of a running maximum, maxima, and additions of values that are free of the state; of a
difference, that m is spelled as a maximum (or logaddexp, logsumexp) with x among what it is taken of.
"""

from __future__ import annotations

import math

from seqc.analysis.normal_forms import Linear, bare, linear
from seqc.ir.graph import Node, const, depends, node, rebuild, topological
from seqc.ir.ops.elementwise import where

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


def below(n: Node) -> list[Linear]:
    """Values that are never larger than n."""
    match n.op:
        case "max" | "logaddexp":
            return [x for a in n.args for x in (linear(a), *below(bare(a)))][:8]
        case "amax" | "softplus":
            return [linear(n.args[0])]
        case "abs":
            x = linear(n.args[0])
            return [x, Linear(0.0, {}).plus(x, -1.0)]
        case "where" if (summed := logsumexp_of(n)) is not None:
            return [linear(summed)]
        case "where" if n is _finite(n.args[2]):
            return [linear(n.args[2]), *below(bare(n.args[2]))]
        case _:
            return []


def logsumexp_of(n: Node) -> Node | None:
    """x, where n is logsumexp[K](x) as `seqc.frontend.functions` spells it; or None."""
    nothing, value = n.args[1:]
    if nothing is not NOTHING or value.op != "add" or value.args[1].op != "log" or value.args[1].args[0].op != "sum":
        return None
    e = value.args[1].args[0].args[0]
    if e.op != "exp" or e.args[0].op != "sub" or e.args[0].args[1] is not value.args[0]:
        return None
    return e.args[0].args[0]


def _finite(m: Node) -> Node:
    """0 in place of -inf."""
    return where(node("eq", m, NOTHING), 0.0, m)


def from_maximum(gap: Node) -> Node:
    """The exponent `gap`, so that it is -inf, and not NaN, where it is x - m, both -inf, for an m that exceeds x."""
    form = linear(gap)
    for m, weight in form.weights.items():
        rest = form.plus(Linear(0.0, {m: weight}), -1.0)
        if weight == -1.0 and any(x.weights == rest.weights for x in below(m)):
            return _with(gap, m, _finite(m))
    return gap


def _with(n: Node, old: Node, new: Node) -> Node:
    """A sum with one of its terms replaced."""
    if n is old:
        return new
    if n.op in ("add", "sub", "neg", "expand", "stopgrad"):
        return rebuild(n, tuple(_with(a, old, new) for a in n.args))
    return n
