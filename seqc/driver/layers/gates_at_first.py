"""Program -> what the biases of its gates begin with, so that a new layer remembers.

In: a program. Out: input -> (bias for a memory of 4 steps, bias for one of 256). It follows from the step graph alone. With all
else at its start (inputs as a projection of 0 leaves them, params at their initial values, states 0) the share of a state that
a step keeps is measured, in float64, as a function of one input. An input that can move this share over all memories wanted is
a gate of the state: one that opens it as it grows, if there is one, else one that closes it. What jumps instead of moving it (a
`max`, a `relu`) is none, and states that depend on each other have one gate. The bias is where the share is exp(-1 / steps), as
Tallec and Ollivier 2018 (arXiv:1804.11188) begin an LSTM's forget gates, and Gu and Dao 2023 (arXiv:2312.00752) mamba's steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from seqc.ir.both_ways import one_run
from seqc.ir.dims import extent
from seqc.ir.graph import Node, leaves
from seqc.ir.intervals import Interval
from seqc.ir.program import Program, TensorDecl
from seqc.passes.classify import classify
from seqc.semantics.evaluate import evaluate, to_order

MEMORIES = (4.0, 256.0)  # steps, of the first and the last element of a gate
FAR = 30.0  # a projection at which every gate is open or closed
GRADUAL = 0.5  # how far apart the two biases of a gate are at least
SMALL = 1e-4  # a state whose share is measured


def gates_at_first(program: Program) -> dict[str, tuple[float, float]]:
    """The biases; inputs that are no gate of a state are not there."""
    if program.plane is not None:
        return {}
    one = one_run(program)
    measure = _Measure(one)
    found: dict[str, tuple[float, float]] = {}
    inputs = [d for d in one.inputs.values() if d.plays == "input" and not d.default and not d.unit]
    done: set[str] = set()
    groups = {name: component.states for component in classify(one) for name in component.states}
    for state in one.states.values():
        if state.hidden or state.whole or state.name in done:
            continue
        gates = {d.name: ends for d in inputs if (ends := measure.ends(state, d)) is not None}
        opening = [name for name, (shut, wide) in gates.items() if shut < wide]
        chosen = next(iter(opening or gates), None)
        if chosen is None:
            continue
        done.update(groups[state.name])
        ends = measure.biases(state, one.inputs[chosen], opening=chosen in opening)
        if chosen not in found and abs(ends[1] - ends[0]) > GRADUAL:
            found[chosen] = ends
    return found


class _Measure:
    """The share of a state that a step keeps, as a function of one input's projection."""

    def __init__(self, one: Program) -> None:
        self.one = one
        self.sizes = {d.name: d.default or (d.choices[0] if d.choices else 2) for d in one.dims.values()} | {"B": 1}
        self.leaves = leaves(one.graph.values())
        self.start = {n: self.first(n) for n in self.leaves}

    def first(self, n: Node) -> Any:
        """What a leaf is at the start."""
        shape = [extent(d, self.sizes) for d in n.names("shape")]
        decl = self.one.declared(n)
        if n.text("kind") == "input":
            return np.full(shape, 0.0 if decl.unit or n.dtype == "int" else into_range(decl.range, 0.0))
        if n.text("kind") == "state" or decl.init is None:
            return np.zeros(shape)
        known = {x: self.first(x) for x in leaves([decl.init])}
        value = evaluate({"v": decl.init}, known, self.sizes)["v"]
        return to_order(value, decl.init.dims, n.names("shape"), self.sizes)

    def share(self, state: TensorDecl, gate: TensorDecl, projection: float) -> float:
        """How much of a small state is left after a step, on average over its elements."""
        changed = {n: np.full_like(self.start[n], into_range(gate.range, projection)) for n in self.leaves
                   if n.text("kind") == "input" and n.text("name") == gate.name}
        rows = []
        for size in (0.0, SMALL):
            moved = {n: x + size for n, x in self.start.items() if n.text("kind") == "state" and n.text("name") == state.name}
            rows.append(evaluate({"next": self.one.updates[state.name]}, self.start | changed | moved, self.sizes)["next"])
        return float(np.mean(rows[1] - rows[0]) / SMALL)

    def ends(self, state: TensorDecl, gate: TensorDecl) -> tuple[float, float] | None:
        """The shares at both ends of the gate, where it moves the share over all memories; else None."""
        shares = self.share(state, gate, -FAR), self.share(state, gate, FAR)
        low, high = (math.exp(-1 / steps) for steps in MEMORIES)
        return shares if min(shares) < low and high < max(shares) < 1 + 1e-6 else None

    def biases(self, state: TensorDecl, gate: TensorDecl, opening: bool) -> tuple[float, float]:
        """The projections at which the share is that of the shortest and the longest memory."""
        sign = 1.0 if opening else -1.0
        first, last = (_solve(lambda x: self.share(state, gate, sign * x), math.exp(-1 / steps)) for steps in MEMORIES)
        return sign * first, sign * last


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    """Where a function that rises from -FAR to FAR takes a value, by halving."""
    low, high = -FAR, FAR
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def into_range(found: Interval, x: float) -> float:
    """A number brought into a declared range, as a layer does it."""
    low, high = found.lo, found.hi
    if math.isinf(low) and math.isinf(high):
        return x
    if math.isinf(low):
        return high - math.log1p(math.exp(-x))
    if math.isinf(high):
        return low + math.log1p(math.exp(x))
    if low == -high:
        return high * math.tanh(x)
    return low + (high - low) / (1 + math.exp(-x))
