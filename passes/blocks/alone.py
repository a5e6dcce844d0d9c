"""program -> for each linear component the block forms it can take, and what each costs, found by lowering it alone.

    S1, .., Sn, each chunkwise or scan   ->   2 n lowerings of one component, instead of 2^n of them all

Needs: classify, ranges. A component is lowered with what reads it; the rows of every other state are given, and so is whatever
does not depend on the component and stands outside of its update. The cost of a block is a sum over its nodes, so the cheaper
form of a component is the same whatever the others take. Two components that one contraction reads at once (a product of two
states) may each be chunkwise where both together cannot: whoever takes these forms together is told so by `NotBlock`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from seqc.analysis.boundaries import hook_of
from seqc.analysis.component import Component
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.intervals import Interval
from seqc.ir.program import Program
from seqc.ir.traverse import reached
from seqc.passes.blocks.form import Alone, BlockForm
from seqc.passes.blocks.lift import NotBlock
from seqc.passes.simplify.simplify import simplify

FORMS = ("chunkwise", "scan")
LINEAR = ("diagonal", "low rank", "coupled")


@dataclass(frozen=True)
class Reads:
    """Which components each node of the step graph reads, as a set of bits: not through the new value of another state."""

    bits: Mapping[Node, int]
    stops: Mapping[Node, int]  # old and new values of states -> the component

    def reader(self, n: Node) -> int:
        """What a root reads: one that is itself the new value of a state is looked into."""
        out = 0
        for a in n.args:
            out |= self.bits[a]
        return out if n in self.stops else self.bits[n]


def reads(program: Program, components: Iterable[Component]) -> Reads:
    """What every node of the step graph reads."""
    stops: dict[Node, int] = {}
    for i, c in enumerate(components):
        for name in c.states:
            hook = hook_of(program, name)
            own = (program.states[name].leaf(), program.updates[name], *(() if hook is None else (hook.free,)))
            stops |= {n: i for n in own if n.op != "leaf" or n is own[0]}
    bits: dict[Node, int] = {}
    for n in topological(program.graph.values()):
        below = 0
        for a in n.args:
            below |= bits[a]
        bits[n] = 1 << stops[n] if n in stops else below
    return Reads(bits, stops)


def prices(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int,
    price: Callable[[Mapping[str, Node]], float], refused: list[NotBlock],
) -> dict[str, dict[str, float]]:
    """First state of each linear component -> form -> modelled time of the component alone; forms it cannot take are left out.

    price: of a block's graph. refused: gets why not, and first of all why a component takes no form.
    """
    known = reads(program, components)
    names = {n: f"given.{k}" for k, n in enumerate(known.bits)}
    out: dict[str, dict[str, float]] = {}
    for i, c in enumerate(components):
        if c.kind not in LINEAR:
            continue
        name, own = c.states[0], [program.updates[s] for s in c.states]
        inside = _inside(own, known, i)

        def given(n: Node, i: int = i, inside: Set[Node] = inside) -> str:
            if known.stops.get(n, i) != i:
                return names[n]
            apart = n in names and n.args and BATCH in n.dims and not known.bits[n] >> i & 1 and n not in inside
            return names[n] if apart else ""

        roots = {key: n for key, n in program.graph.items() if known.reader(n) >> i & 1 and n not in own}
        out[name], stops = {}, []
        for form in FORMS:
            try:
                lowered = BlockForm(program, components, ranges, rows, {name: form}, Alone(c, roots, given))
            except NotBlock as stop:
                stops.append(stop)
            else:
                out[name][form] = price(simplify(lowered.forward))
        refused[:] = [*refused, *stops] if out[name] else [*stops, *refused]
    return out


def _inside(updates: Iterable[Node], known: Reads, i: int) -> set[Node]:
    """What the new values of component i are made of, as far as the states of the others."""

    def own(values: Iterable[Node]) -> list[Node]:
        return [n for n in values if known.stops.get(n, i) == i]

    return set(reached(own(updates), lambda n: own(n.args)))
