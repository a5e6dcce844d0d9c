"""program, components -> the eigenvalue range of every state's transition, with the argument.

Needs: classify. Gives: a `Spectrum` per state. Per component:
- linear, one state: the update is cut where everything passes through one value (micro-steps, a decay before a delta
  rule); each piece is one map (`seqc.passes.claims.bounds`), and the pieces compose. The whole map is tried too;
- linear, several states: a rotation a (c, -s; s, c) has modulus |a|; else the largest row sum of the blocks' norms;
- nonlinear, elementwise: the derivative of the update; anything else nonlinear has no range, and no claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

from seqc.analysis.affine import Affine, Term, affine
from seqc.analysis.component import Component
from seqc.analysis.derivative import vjp
from seqc.analysis.normal_forms import factors
from seqc.analysis.norms import Facts, norm_over, regrouped
from seqc.analysis.ranges import interval_of, survey
from seqc.analysis.rotation import rotation
from seqc.ir.formula import spell
from seqc.ir.graph import Node, const, depends, topological, transform
from seqc.ir.intervals import INF, Interval
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE
from seqc.ir.program import Program
from seqc.passes.claims.bounds import Bound, bound, compose, contracted
from seqc.passes.simplify.simplify import simplify

MOST_TERMS = 8  # of a map that is also a product: the sum of so many norms is no better than the product of those of its parts


@dataclass(frozen=True)
class Spectrum:
    """range: None where nothing is proved; a disc [-x, x] unless `real`. exact: expressions that are eigenvalues."""

    state: str
    range: Interval | None
    why: str
    real: bool = True
    exact: tuple[Node, ...] = ()


class Spectra:
    """The transition of every state of a program."""

    def __init__(self, program: Program, components: Iterable[Component]) -> None:
        self.program = program
        known = interval_of(program)
        self.states = {name: known.get(d.leaf(), d.range) for name, d in program.states.items()}
        self.components = {name: c for c in components for name in c.states}
        self._facts: Facts | None = None

    @property
    def of(self) -> dict[str, Spectrum]:
        """The transition of each state."""
        return {name: self.spectrum(name) for name in self.components}

    def survey(self, nodes: Iterable[Node]) -> Facts:
        """What the ranges prove of any nodes over the program's leaves."""
        self._facts = survey(self.program, nodes, self.states, None, self._facts)
        return self._facts

    @found_once
    def spectrum(self, name: str) -> Spectrum:
        """The transition of a state."""
        c = self.components[name]
        if c.forms and name != c.states[0]:  # all of such a component share one
            return replace(self.spectrum(c.states[0]), state=name)
        if c.kind == "taps":
            return Spectrum(name, Interval(0.0, 0.0), c.why)
        if c.forms and len(c.states) == 1:
            found = self._linear(name, c.forms[name])
            return Spectrum(name, found.eigenvalues, found.why, found.real, self._readable(found.exact))
        if c.forms:
            return self._coupled(name, c)
        if c.kind == "counter":
            return Spectrum(name, Interval(0.0, 0.0), "a count has no derivative")
        if c.kind == "constant":
            return Spectrum(name, Interval(0.0, 0.0), "it has no derivative")
        if c.kind == "nonlinear" and len(c.states) == 1:
            return self._elementwise(name, c)
        return Spectrum(name, None, c.why)

    # ---- linear ----

    def _linear(self, name: str, form: Affine) -> Bound:
        hook = self.components[name].hook
        state, update = self.program.states[name].leaf(), self.program.updates[name] if hook is None else hook.free
        pieces = [p for p in (self._piece(a, b) for a, b in _cuts(state, update)) if p is not None]
        along = contracted([*form.terms, *(t for p in pieces for t in p)])
        parts = reduce(compose, (bound(p, self.survey, along) for p in pieces)) if len(pieces) > 1 else None
        if parts is not None and len(form.terms) > MOST_TERMS:
            return parts
        whole = bound(form.terms, self.survey, along)
        if parts is None:
            return whole
        better, other = (parts, whole) if parts.eigenvalues.magnitude < whole.eigenvalues.magnitude else (whole, parts)
        return Bound(better.eigenvalues.meet(other.eigenvalues), min(better.norm, other.norm), better.why,
                     better.real or other.real, exact=better.exact or other.exact)

    def _piece(self, start: Node, end: Node) -> Sequence[Term] | None:
        """The linear part of one value in an earlier one; None for adding something only."""
        terms = affine(end, [start]).terms
        if len(terms) == 1 and not terms[0].over and not terms[0].outer:
            return None
        return terms

    def _coupled(self, name: str, c: Component) -> Spectrum:
        leaf_of = {self.program.states[s].leaf(): s for s in c.states}
        blocks: dict[tuple[str, str], list[Term]] = {(a, b): [] for a in c.states for b in c.states}
        for a in c.states:
            for t in c.forms[a].terms:
                blocks[a, leaf_of[t.state]].append(t)
        turned = rotation(c.states, list(leaf_of), c.forms)
        if turned is not None:
            modulus = turned.modulus
            size = self.survey([modulus]).of(modulus).magnitude
            why = f"{' and '.join(c.states)} are turned and scaled by `{self.text(modulus)}`"
            return Spectrum(name, Interval(-size, size), why, False)
        along = contracted(t for block in blocks.values() for t in block)
        norms = {key: bound(block, self.survey, along).norm if block else 0.0 for key, block in blocks.items()}
        size = max(sum(norms[a, b] for b in c.states) for a in c.states)
        why = f"the largest sum of the norms with which {', '.join(c.states)} enter one of them"
        return Spectrum(name, Interval(-size, size), why, False)

    # ---- nonlinear ----

    def _elementwise(self, name: str, c: Component) -> Spectrum:
        state, update = self.program.states[name].leaf(), self.program.updates[name]
        active = depends([update], [state]) - {state}
        own = active & set(topological([update]))
        if any(n.dims != state.dims or not (TABLE[n.op].elementwise and TABLE[n.op].linear_backward) for n in own):
            return Spectrum(name, None, c.why)
        slope = vjp({name: update}, {name: const(1.0)}, [state])[state]
        found = self.survey([slope]).of(slope)
        return Spectrum(name, found, "the update is elementwise: its derivative", True, self._readable((slope,)))

    # ---- words ----

    def _readable(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        """The expressions with unit norms put in, simplified."""
        named = simplify({str(i): n for i, n in enumerate(nodes)})
        facts = self.survey(named.values())

        def unit(n: Node) -> Node | None:
            if n.op != "sum":
                return None
            c, parts = factors(n.args[0])
            parts = regrouped(parts)
            exact = len(parts) == 2 and parts[0] is parts[1] and set(n.names("over")) <= set(parts[0].dims)
            if exact and norm_over(parts[0], n.names("over"), facts) == Interval(1.0, 1.0):
                return const(c)
            return None

        put_in = transform(named, unit)
        return tuple(dict.fromkeys((named if put_in == named else simplify(put_in)).values()))

    def text(self, n: Node) -> str:
        """The formula of a node in the spec's own names."""
        return spell(n, self.program.definitions)

    def words(self, name: str) -> str:
        """One line about a state's transition, for `explain`."""
        s = self.spectrum(name)
        if s.range is None:
            return f"not known: {s.why}"
        if not s.exact and s.range.lo == s.range.hi == 0.0:  # nothing of its past is in it
            return "none" if self.components[name].kind == "taps" else f"none: {s.why}"
        if not s.real and s.range.hi == INF:
            return f"not bounded by what the spec declares ({s.why})"
        shape = "eigenvalues in" if s.real else "eigenvalues of modulus at most"
        size = str(s.range) if s.real else f"{s.range.hi:g}"
        listed = " and ".join(f"`{self.text(n)}`" for n in s.exact)
        return f"{shape} {size}" + (f": {listed}" if listed else "") + (f" ({s.why})" if s.why else "")


def _cuts(state: Node, update: Node) -> list[tuple[Node, Node]]:
    """The pieces of the way from the state to its update: pairs of values through which everything passes.

    They are the dominators of the update: a value's dominators are those that all its state-dependent arguments share.
    """
    active = depends([update], [state])
    chain: dict[Node, list[Node]] = {state: [state]}
    for n in topological([update]):
        if n in active and n is not state:
            shared = [chain[a] for a in n.args if a in active]
            common = [x for x in shared[0] if all(x in other for other in shared[1:])]
            chain[n] = [*common, n]
    points = [x for x in chain[update] if set(x.dims) == set(state.dims)]
    if points[-1] is not update:
        points.append(update)
    return list(pairwise(points))
