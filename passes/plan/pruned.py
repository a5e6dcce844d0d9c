"""program -> the same program without what its ranges and constants make idle.

    where(c, a, b)     ->   a, where the ranges of what c compares leave no other choice
    max(a, b)          ->   a, where a is always larger
    0 * x              ->   0, where x cannot be infinite but by an overflow

and everything that only the dropped part has read is gone with it, forward and backward. Needs: the step graph. Gives: a plan
of one stage, with what was dropped in words, or None where nothing is idle.
What the spec promises of its arguments counts: a value outside of its declared range may be taken for one inside. A NaN that
only the dropped part would have made is gone too. States and outputs stay, for a call gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.analysis.cost import cost
from seqc.analysis.normal_forms import factors, number
from seqc.analysis.ranges import interval_of
from seqc.analysis.workload import FORMS
from seqc.ir.block import Reason
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, const, depends, leaves, rebuild, topological
from seqc.ir.intervals import ANY, Interval
from seqc.ir.ops import holds
from seqc.ir.ops.structure import expanded
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program
from seqc.passes.plan.cutting import image


def idle(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    left, found = stage.program, list[Reason]()
    while (shorter := _shortened(left)) is not None:  # what is left may be narrower, and decide more
        left, said = shorter
        found += said
    if not found:
        return None
    return Plan(stage.program, (replace(stage, program=left),), (*found, *_saved(stage.program, left)))


def _shortened(program: Program) -> tuple[Program, list[Reason]] | None:
    """The program without what is idle at once, and what that is; None where nothing is."""
    order = topological(program.graph.values())
    if all(n.op not in ("where", "max", "min", "mul") for n in order):
        return None
    ranges = interval_of(program)
    wild = _wild(program, order)
    done: dict[Node, Node] = {}
    found: dict[Node, str] = {}
    for n in order:
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        what = _idle(n, ranges) or _nothing(n, done, ranges, wild)
        if what is not None:
            always, found[n] = what
            done[n] = expanded(done.get(always, always), n.dims)  # whoever sums over its dims still can
    if not found:
        return None
    spans = {n: program.spans.get(n) for n in found}
    words = {n: " ".join(span.text.split()) if span else spell(n) for n, span in spans.items()}
    return image(program, done), [Reason("pruned", words[n], why) for n, why in found.items()]


def _idle(n: Node, ranges: Mapping[Node, Interval]) -> tuple[Node, str] | None:
    """What n always is, and why; None of what may differ."""
    if n.op == "where" and (known := decided(n.args[0], ranges)) is not None:
        said = "always holds" if known else "never holds"
        return n.args[1 if known else 2], f"`{spell(n.args[0])}` {said} in the declared ranges"
    if n.op in ("max", "min"):
        a, b = (ranges.get(x, ANY) for x in n.args)
        first = a.lo > b.hi if n.op == "max" else a.hi < b.lo
        second = b.lo > a.hi if n.op == "max" else b.hi < a.lo
        if first or second:
            size = "larger" if n.op == "max" else "smaller"
            x, y = n.args if first else n.args[::-1]
            return x, f"`{spell(x)}` is always {size} than `{spell(y)}`"
    return None


def _nothing(
    n: Node, done: Mapping[Node, Node], ranges: Mapping[Node, Interval], wild: frozenset[Node]
) -> tuple[Node, str] | None:
    """0, and why, of a product with 0, or with numbers that make 0."""
    for zero, other in (n.args, n.args[::-1]) if n.op == "mul" else ():
        nothing = factors(done[zero])[0] == 0.0 or (ranges.get(zero) == Interval(0.0, 0.0) and not leaves([zero]))
        if nothing and other not in wild and leaves([other]):
            return const(0.0), f"`{spell(other)}` counts 0 times"
    return None


def decided(c: Node, ranges: Mapping[Node, Interval]) -> bool | None:
    """The truth value of a condition that the ranges decide."""
    if c.op in ("and", "or"):
        sides = [decided(a, ranges) for a in c.args]
        decisive = c.op == "or"
        return decisive if decisive in sides else None if None in sides else not decisive
    if c.op == "not":
        inner = decided(c.args[0], ranges)
        return None if inner is None else not inner
    if c.op not in ("gt", "ge", "lt", "le") or not leaves([c]):
        return None
    a, b = (ranges.get(x, ANY) for x in (c.args if c.op[0] == "g" else c.args[::-1]))
    strict = c.op in ("gt", "lt")  # a > b, or a >= b
    if a.lo > b.hi or (not strict and a.lo >= b.hi):
        return True
    return False if a.hi < b.lo or (strict and a.hi <= b.lo) else None


def _wild(program: Program, order: list[Node]) -> frozenset[Node]:
    """The nodes that may be infinite, or NaN, without an overflow."""

    def infinite(n: Node) -> bool:
        if n.op == "const":
            return abs(number(n) or 0.0) == float("inf")
        if n.op != "leaf" or n.dtype != "real":
            return holds(n, "steep")
        if n.text("kind") == "state":
            init = program.states[n.text("name")].init
            return init is not None and any(x.op == "const" and infinite(x) for x in topological([init]))
        declared = program.declared(n).range
        return declared != ANY and float("inf") in (abs(declared.lo), abs(declared.hi))

    return frozenset(depends(order, [n for n in order if infinite(n)]))


def _saved(program: Program, left: Program) -> list[Reason]:
    """The arguments that nothing reads any more, and the operations that this saves."""
    out = []
    read = {leaf: {(n.text("kind"), n.text("name")) for n in leaves(p.graph.values())} for leaf, p in
            (("before", program), ("after", left))}
    for kind, name in sorted(read["before"] - read["after"]):
        out.append(Reason("pruned", name, f"nothing that is left reads this {kind}: its gradient is 0"))
    sizes = {d.name: d.default or FORMS.dim for d in program.dims.values()} | {BATCH: 1}
    before, after = (cost(p.graph.values(), sizes).flops for p in (program, left))
    if before > after:
        out.append(Reason("pruned", "together", f"{before - after:.0f} of {before:.0f} operations of a step forward"))
    return out
