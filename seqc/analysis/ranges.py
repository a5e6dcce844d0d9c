"""A program's (or a graph's) nodes -> the interval that each value lies in, from what the spec promises.

In: declared ranges and unit norms of inputs and parameters, the sizes of dims where they are known. Out: an interval
per node, never too narrow in exact arithmetic (a NaN is no value). It uses each operator's own interval rule and, on
top of it, facts about several nodes at once (`seqc.analysis.range_facts`): convex combinations, differences from a running
maximum, Cauchy-Schwarz for unit vectors. What an input reads outside the sequence is zero, and part of its range.
A state is what a caller passes at first and what the update makes of it: its range is an invariant, found by iteration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from seqc.analysis.normal_forms import bare, number
from seqc.analysis.norms import Facts
from seqc.analysis.range_facts import sharpen
from seqc.ir.graph import ROW, Node, leaves, node, topological
from seqc.ir.intervals import ANY, INF, Interval
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import positive
from seqc.ir.program import Program
from seqc.ir.windows import window_of

ZERO = Interval(0.0, 0.0)
STEPS = (1.0, 10.0, 1e3, 1e6)  # bounds tried, in this order, for a state whose range keeps growing
TIGHTEN = 12  # rounds in which a found invariant is made smaller


@found_once
def interval_of(
    program: Program, sizes: Mapping[str, int] | None = None, own_start: bool = False
) -> Mapping[Node, Interval]:
    """The interval of every node of the step graph.

    own_start: the states begin with the spec's own initial values. Otherwise a caller may pass any state that lies in
    the state's declared range, and a state without one is unbounded unless the update bounds it anyhow.
    """
    states = {name: _start(program, name, sizes, own_start) for name in program.states}
    beginning = dict(states)
    found = infer(program, program.graph.values(), states, sizes)
    for attempt in range(2 + 2 * len(STEPS) * max(len(states), 1)):
        grown = {name: states[name].union(found[program.updates[name]]) for name in states}
        if grown == states:
            break
        states = {name: _widen(states[name], grown[name], attempt) for name in states}
        found = infer(program, program.graph.values(), states, sizes)
    else:
        states = dict.fromkeys(states, ANY)
        found = infer(program, program.graph.values(), states, sizes)
    for _ in range(TIGHTEN):  # what is reachable from an invariant is an invariant
        smaller = {name: beginning[name].union(found[program.updates[name]]).meet(states[name]) for name in states}
        if smaller == states:
            break
        states = smaller
        found = infer(program, program.graph.values(), states, sizes)
    return found


def infer(
    program: Program, outputs: Iterable[Node], states: Mapping[str, Interval], sizes: Mapping[str, int] | None = None
) -> dict[Node, Interval]:
    """One forward sweep with given ranges of the states."""
    return survey(program, outputs, states, sizes).ranges


def survey(
    program: Program, outputs: Iterable[Node], states: Mapping[str, Interval], sizes: Mapping[str, int] | None = None,
    known_already: Facts | None = None,
) -> Facts:
    """What one forward sweep knows: intervals, and the norms behind `norms.norm_over`.

    known_already: of an earlier sweep with the same program, states and sizes; what this one finds is added to it.
    """
    facts = known_already or Facts(extents(program, sizes), {})
    known = facts.ranges
    for n in topological(outputs, known):
        if n.op == "leaf":
            known[n] = _leaf(program, n, states, facts)
        elif n.op == "size":
            known[n] = facts.count((n.text("dim"),))
        elif n.op == "index":
            known[n] = Interval(0.0, facts.count((n.text("dim"),)).hi - 1.0)
        elif n.dtype == "bool":
            known[n] = Interval(0.0, 1.0)
        else:
            row = TABLE[n.op].interval(n, tuple(known[a] for a in n.args))
            known[n] = sharpen(n, row, facts)
    return facts


def extents(program: Program, sizes: Mapping[str, int] | None = None) -> dict[str, Interval]:
    """What each dim's extent can be: as given, else one of the declared choices; a default alone binds nobody."""
    found = {}
    for name, decl in program.dims.items():
        if decl.choices:
            found[name] = Interval(float(min(decl.choices)), float(max(decl.choices)))
    found.update({name: Interval(float(n), float(n)) for name, n in (sizes or {}).items()})
    return found


def steep_roots(program: Program, ranges: Mapping[Node, Interval]) -> list[Node]:
    """The square roots, and powers below one, of values that may reach 0, where their derivatives are unbounded."""
    found = []
    for n in topological(program.graph.values()):
        low = n.op == "pow" and (c := number(n.args[1])) is not None and 0.0 < c < 1.0
        if (n.op == "sqrt" or low) and not positive(n.args[0]) and leaves([n]) and ranges.get(n.args[0], ANY).lo <= 0.0:
            found.append(n)
    return found


def _leaf(program: Program, n: Node, states: Mapping[str, Interval], facts: Facts) -> Interval:
    kind = n.text("kind")
    if kind == "state":
        return states[n.text("name")]
    if kind not in ("input", "param"):
        return Interval(0.0, 1.0) if n.dtype == "bool" else ANY
    decl = program.declared(n)
    found = decl.range
    if decl.unit:
        facts.units[n] = (tuple(sorted(decl.unit)), Interval(1.0, 1.0))
        found = found.meet(Interval(-1.0, 1.0))
    if n.number("offset") or window_of(n) or (kind == "input" and ROW in n.dims):
        found = found.union(ZERO)  # outside the sequence
        if decl.unit:
            facts.units[n] = (tuple(sorted(decl.unit)), Interval(0.0, 1.0))
    return found


def _start(program: Program, name: str, sizes: Mapping[str, int] | None, own_start: bool) -> Interval:
    decl = program.states[name]
    if not own_start:
        return decl.range
    assert decl.init is not None
    return infer(program, [decl.init], {}, sizes)[decl.init]


def _widen(old: Interval, new: Interval, attempt: int) -> Interval:
    """new, with a bound that still moves after two rounds pushed to the next of STEPS."""
    if attempt < 2:
        return new
    lo = new.lo if new.lo == old.lo else 0.0 - _next(-new.lo)
    hi = new.hi if new.hi == old.hi else _next(new.hi)
    return Interval(lo, hi)


def _next(bound: float) -> float:
    if bound <= 0.0:
        return 0.0
    return next((step for step in STEPS if bound <= step), INF)


@dataclass(frozen=True)
class LogRange:
    """log|d| of a decay d: its interval, and whether d can be zero or negative."""

    log: Interval
    nonnegative: bool  # d >= 0 is proved

    @property
    def bounded(self) -> bool:
        """|d| is proved to stay away from zero: cumulative logs of n steps span at most n * -log.lo."""
        return self.log.lo > -INF


def log_range(d: Node, ranges: Mapping[Node, Interval]) -> LogRange:
    """The range of log|d|, found from how d is built (exp(g) with g >= -2000 is bounded, though exp underflows).

    ranges: what `interval_of` gave for the graph that d belongs to; values below d may be missing from it only if d
    itself is there.
    """
    d = bare(d)
    whole = ranges.get(d, ANY)
    found = _log_of(whole)
    match d.op:
        case "exp":
            found = LogRange(_of(d.args[0], ranges), True)
        case "sigmoid":
            below = TABLE["logsigmoid"].interval(node("logsigmoid", d.args[0]), (_of(d.args[0], ranges),))
            found = LogRange(below, True)
        case "mul":
            a, b = (log_range(x, ranges) for x in d.args)
            found = LogRange(a.log + b.log, a.nonnegative and b.nonnegative)
        case "div":
            a, b = (log_range(x, ranges) for x in d.args)
            found = LogRange(a.log - b.log, a.nonnegative and b.nonnegative)
        case "neg" | "abs":
            a = log_range(d.args[0], ranges)
            found = LogRange(a.log, d.op == "abs" or whole.lo >= 0)
        case "sqrt":
            a = log_range(d.args[0], ranges)
            found = LogRange(Interval(a.log.lo / 2, a.log.hi / 2), True)
        case "expand" | "rename":
            found = log_range(d.args[0], ranges)
        case "pow" if (c := number(d.args[1])) is not None:
            a = log_range(d.args[0], ranges)
            if a.nonnegative:
                found = LogRange(a.log * Interval(c, c), True)
        case "pow" if (c := number(d.args[0])) is not None and c > 0:
            found = LogRange(_of(d.args[1], ranges) * Interval(_log(c), _log(c)), True)
        case "where":
            a, b = (log_range(x, ranges) for x in d.args[1:])
            found = LogRange(a.log.union(b.log), a.nonnegative and b.nonnegative)
        case _:
            pass
    direct = _log_of(whole)
    return replace(found, log=found.log.meet(direct.log), nonnegative=found.nonnegative or direct.nonnegative)


def _of(n: Node, ranges: Mapping[Node, Interval]) -> Interval:
    return ranges.get(n, ranges.get(bare(n), ANY))


def _log_of(i: Interval) -> LogRange:
    small = min(abs(i.lo), abs(i.hi)) if i.lo > 0 or i.hi < 0 else 0.0
    return LogRange(Interval(_log(small), _log(i.magnitude)), i.lo >= 0)


def _log(x: float) -> float:
    return -INF if x <= 0 else math.log(x)
