"""step graph -> block graph of C rows: every component becomes a scan, a chunkwise state or taps; the rest gains the dim t.

    input x[B, H]            ->  x[B, t, H]
    S (diagonal)             ->  affine_scan(d, b, S_in) over t;  S[t-1] -> the row before (S_in before the first)
    m (running maximum)      ->  max_scan(a, b, m_in) over t
    S (chunkwise)            ->  never materialised: each contraction sum[X](q * S) becomes a readout (passes.blocks.chunkwise)
    everything else          ->  the same operator on values with t

Needs: classify, ranges. Refuses with `NotBlock` and the reason: then the recurrence runs step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqc.analysis.affine import Affine, Product, common_factors, parted, product
from seqc.analysis.boundaries import Hook, counters
from seqc.analysis.component import Component
from seqc.analysis.rotation import Rotation, rotation
from seqc.analysis.running_maximum import running_maximum
from seqc.ir.block import VALID, Reason
from seqc.ir.formula import spell
from seqc.ir.graph import ROW, Node, const, index, node
from seqc.ir.intervals import Interval
from seqc.ir.keys import next_key
from seqc.ir.ops.elementwise import finite, where
from seqc.ir.ops.structure import affine_scan, expanded, max_scan, shift, take
from seqc.ir.program import Program
from seqc.passes.blocks.boundary import Boundary, Parts, boundary, replaced
from seqc.passes.blocks.chunkwise import Chunk, masked
from seqc.passes.blocks.coupled import System
from seqc.passes.blocks.decay import first
from seqc.passes.blocks.feedback import Feedback, Lifting, feedback, is_zero
from seqc.passes.blocks.lift import Lifted, NotBlock, nothing
from seqc.passes.blocks.selecting import NAN, both, selected
from seqc.passes.blocks.solving import NotChunkwise, Source
from seqc.passes.blocks.transition import transition
from seqc.passes.blocks.turning import Frame, Turning, turned_scan


@dataclass(frozen=True)
class Alone:
    """One component that is lowered alone, with the roots that read it. given: a name for the rows of a node that are a known
    value, "" where they are not."""

    component: Component
    roots: Mapping[str, Node]
    given: Callable[[Node], str]


class BlockForm(Lifted):
    """Lowers one program to a block of `rows` rows; `forms` says "chunkwise" or "scan" per component.

    alone: the component that is lowered, where the others are left out.
    """

    def __init__(
        self, program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int,
        forms: Mapping[str, str], alone: Alone | None = None,
    ) -> None:
        super().__init__(program, alone.given if alone is not None else nothing)
        self.ranges = ranges
        self.rows = rows
        self.forms = forms
        self.reasons: list[Reason] = []
        self.ends: dict[str, Node] = {}
        self.open: list[Chunk] = []
        self.boundaries: dict[str, Boundary] = {}  # by the state that counts
        self.part: tuple[Node, bool] | None = None  # (rows after a boundary, whether these are lowered now)
        if alone is None:
            for c in components:
                self._component(c)
            self.forward = {name: self.lift(n) for name, n in program.outputs.items()}
        else:
            self.forward = self._alone(components, alone)
        self.forward.update({next_key(name): self.ends[name] for name in program.states if alone is None or name in self.ends})
        self.names = {self.memo[n]: name for n, name in program.definitions.items() if n in self.memo}
        for k in self.open:
            self.names |= {n: name for n, name in k.names.items() if n not in self.names}
            self.names |= {d.log: "log_decay" for d in k.decays if d.log is not None}
        self.reasons += dict.fromkeys(
            Reason("numerics", k.name, f"read over {', '.join(over)}: {plan}")
            for k in self.open for over, plan in k.plans.items()
        )

    # ---- components ----

    def _alone(self, components: tuple[Component, ...], alone: Alone) -> dict[str, Node]:
        """What reads the one component, on all rows."""
        for c in components:
            if c.kind == "counter":  # where a block's boundaries are
                self._counter(c.states[0], self.program.states[c.states[0]].leaf())
        self._component(alone.component)
        out = {}
        for name, n in alone.roots.items():
            if alone.given(n):  # the new value of another state: what it is made of reads the component
                out[name] = node(n.op, *(self.lift(a) for a in n.args), **dict(n.attrs))
            else:
                out[name] = self.lift(n)
        return out

    def _component(self, c: Component) -> None:
        name = c.states[0]
        update, old = self.program.updates[name], self.program.states[name].leaf()
        if c.kind == "taps":
            now = expanded(self.lift(update), (*old.dims, ROW))
            self.memo[old] = where(first(), old, shift(now, ROW, 1))
            # the last row *inside* the sequence: rows outside repeat it
            self.ends[name] = take(self._held(now, old), ROW, -1)
            return
        if c.kind == "counter":
            self._counter(name, old)
            return
        if c.kind == "constant":
            self.memo[old], self.ends[name] = old, node("stopgrad", old)
            return
        if c.kind == "maximum" and c.hook is None:
            self._maximum(name, old, update)
            return
        if c.kind == "coupled":
            olds = [self.program.states[s].leaf() for s in c.states]
            turned = rotation(c.states, olds, c.forms)
            if turned is not None:
                self._turning(c, turned)
                return
        if c.kind == "coupled" and self.forms[name] == "chunkwise":
            self._coupled(c)
            return
        if c.kind not in ("diagonal", "low rank"):
            raise NotBlock(name, c.why)
        form = c.forms[name]
        if c.hook is not None:
            self._hooked(name, form, old, c.hook)
        elif self.forms[name] == "chunkwise":
            chunk = self._chunk(name, form, old, update, old)
            self.chunks[update] = (chunk, False)
            self.chunks[old] = (chunk, True)
            self.ends[name] = chunk.end()
        else:
            now = self._scan(name, form, old, old)
            self.memo[update] = now
            self.memo[old] = where(first(), old, shift(now, ROW, 1))
            self.ends[name] = take(now, ROW, -1)

    def _counter(self, name: str, old: Node) -> None:
        period = counters(self.program)[name]
        if self.rows > period:
            raise NotBlock(name, f"a block of {self.rows} steps may hold several boundaries, one every {period}")
        self.boundaries[name] = boundary(old, period)
        self.memo[old] = where(self.boundaries[name].after, old - float(period) + index(ROW), old + index(ROW))
        self.ends[name] = self.boundaries[name].count

    def _hooked(self, name: str, form: Affine, old: Node, hook: Hook) -> None:
        """A state that a boundary may replace inside the block: once up to it, and once after it."""
        here = self.boundaries[hook.counter]
        scan = self.forms[name] != "chunkwise"
        reasons = list(self.reasons)
        self.part = (here.after, False)
        before = self._scan(name, form, old, old) if scan else self._chunk(name, form, old, hook.free, old)
        end = expanded(take(before, ROW, -1) if isinstance(before, Node) else before.end(), old.dims)
        value = replaced(hook, end)
        if value is None:
            raise NotBlock(name, "what a boundary makes of it reads more of that step than the state and parameters")
        start = where(here.reached, value, end)
        self.reasons = reasons  # told once
        self.part = (here.after, True)
        behind = self._scan(name, form, old, start) if scan else self._chunk(name, form, old, hook.free, start)
        self.part = None
        told = f"a boundary in a block, one every {hook.period} steps, divides it in two"
        self.reasons.append(Reason("numerics", name, told))
        if isinstance(before, Node) and isinstance(behind, Node):
            self.memo[hook.free] = where(here.after, behind, before)
            olds = (where(first(), x, shift(now, ROW, 1)) for x, now in ((start, behind), (old, before)))
            self.memo[old] = where(here.after, *olds)
            self.ends[name] = take(behind, ROW, -1)
        elif isinstance(before, Chunk) and isinstance(behind, Chunk):
            parts = Parts(here.after, (before, behind))
            self.systems[hook.free] = (parts, 0, False)
            self.systems[old] = (parts, 0, True)
            self.ends[name] = behind.end()

    def _held(self, now: Node, old: Node) -> Node:
        keep = where(VALID, 0.0, 1.0)
        return affine_scan(keep, where(VALID, now, 0.0), old, ROW, resets=True)

    def _scan(self, name: str, form: Affine, old: Node, start: Node) -> Node:
        """[t, ...]: a state on all rows; `start`: what it begins with."""
        if any(t.over for t in form.terms):
            raise NotBlock(name, "its feedback contracts the state, which an elementwise scan cannot do")
        coefficient = self._sum(t.outer for t in form.terms)
        given = self._sum(form.rest)
        dims = (*old.dims, ROW)
        now = affine_scan(
            expanded(self._masked(coefficient, 1.0), dims), expanded(self._masked(given, 0.0), dims), start, ROW,
            resets=bool(form.terms) and all(parted(t.outer)[0] is not None for t in form.terms),
        )
        self.reasons.append(Reason(
            "numerics", name, "products of coefficients are formed by the scan itself: any sign, and zero, are exact"
        ))
        return now

    def _maximum(self, name: str, old: Node, update: Node) -> None:
        form = running_maximum(update, old)
        assert form is not None
        dims = (*old.dims, ROW)
        added, given = (self.lift(x) for x in form)
        now = max_scan(expanded(self._masked(added, 0.0), dims), expanded(self._masked(given, -math.inf), dims), old, ROW)
        self.memo[update] = now
        self.memo[old] = where(first(), old, shift(now, ROW, 1))
        self.ends[name] = take(now, ROW, -1)

    def _masked(self, x: Node, neutral: float) -> Node:
        """x on rows that count: inside the sequence, and in the part of the block that is being lowered."""
        if self.part is None:
            return masked(x, neutral)
        after, second = self.part
        return masked(where(after, x, neutral) if second else where(after, neutral, x), neutral)

    def _sum(self, products: object) -> Node:
        parts = [product(self.lift(f) for f in p) for p in products]  # type: ignore[attr-defined]
        out = parts[0] if parts else const(0.0)
        for p in parts[1:]:
            out = out + p
        return out

    def _chunk(self, name: str, form: Affine, old: Node, update: Node, start: Node) -> Chunk:
        """A state that is read through contractions only; `start`: what it begins with."""
        diagonal = [t.outer for t in form.terms if not t.over]
        overs = dict.fromkeys(tuple(d for d in t.over if d in old.dims) for t in form.terms if t.over)
        given = transition(diagonal, self.lift, self._masked, self.ranges)
        self.reasons += [Reason("numerics", name, note) for note in given.notes]
        if len(overs) > 1:
            raise NotBlock(name, f"its feedback contracts {' and also '.join(', '.join(over) for over in overs)}")
        decay = diagonal[0] if len(diagonal) == 1 and parted(diagonal[0])[0] is None else ()
        found = self._feedback(name, [update], [old], next(iter(overs)), decay) if overs else Feedback((form,), None)
        if given.kept is not None and (mixed := set(given.kept.dims) & {d for over in overs for d in over}):
            raise NotBlock(name, f"it is reset differently along {', '.join(sorted(mixed))}, which its feedback contracts")
        writes = self._writes(found.forms[0])
        chunk = Chunk(name, start, self.rows, given.decays, writes, resets=self._resets(given.kept))
        if found.unknown is not None:
            try:
                chunk.solve(found.unknown)
            except NotChunkwise as stop:
                raise NotBlock(name, str(stop)) from None
        self.open.append(chunk)
        return chunk

    def _resets(self, kept: Node | None) -> Node | None:
        """[t]: 1 at rows that drop what a state was."""
        return None if kept is None else expanded(self._masked(where(kept, 0.0, 1.0), 0.0), (ROW,))

    def _turning(self, c: Component, turned: Rotation) -> None:
        """A complex state: two real ones in a frame that turns with it."""
        name, (first_old, second_old) = c.states[0], (self.program.states[s].leaf() for s in c.states)
        olds = (first_old, second_old)
        angle, reset = self.lift(turned.angle), parted(turned.scale)[0]
        frame = Frame(self._masked(angle if reset is None else where(finite(angle), angle, 0.0), 0.0))
        first_writes, second_writes = (self._writes(c.forms[s]) for s in c.states)
        writes, scale = (first_writes, second_writes), (const(turned.sign), *turned.scale)
        pair = ", ".join(c.states)
        plan = f"in a frame that turns with them, real coefficients; angles `{spell(turned.angle)}` add up in a block"
        self.reasons.append(Reason("numerics", pair, plan))
        if self.forms[name] != "chunkwise":
            size = self.lift(product(scale))
            if reset is not None:  # an angle that is no number counts up to the next reset
                size = where(self.lift(reset), where(finite(angle), size, NAN), 0.0)
            nows = turned_scan(frame, self._masked(size, 1.0), writes, olds, reset is not None)
            for state, old, now in zip(c.states, olds, nows, strict=True):
                self.memo[self.program.updates[state]] = now
                self.memo[old] = where(first(), old, shift(now, ROW, 1))
                self.ends[state] = take(now, ROW, -1)
            return
        given = transition([scale], self.lift, self._masked, self.ranges)
        if given.kept is not None:
            raise NotBlock(name, "a reset of states that turn runs step by step, or as a scan")
        self.reasons += [Reason("numerics", pair, note) for note in given.notes]
        u, v = (Chunk(s, old, self.rows, given.decays, back)
                for s, old, back in zip(c.states, olds, frame.turned_back(writes), strict=True))
        system = Turning(frame, (u, v))
        for i, (state, old) in enumerate(zip(c.states, olds, strict=True)):
            self.systems[self.program.updates[state]] = (system, i, False)
            self.systems[old] = (system, i, True)
            self.ends[state] = system.end(i)
        self.open += [u, v]

    def _feedback(
        self, name: str, updates: list[Node], olds: list[Node], over: tuple[str, ...], decay: Product = ()
    ) -> Feedback:
        """The updates in the old states and the rows that each step reads of them and writes back."""
        sizes = {d.name: d.choices[0] for d in self.program.dims.values() if len(d.choices) == 1}
        try:
            return feedback(updates, olds, over, Lifting(self._sum, self._source, sizes, self.lift, self._here()), decay)
        except NotChunkwise as stop:
            raise NotBlock(name, str(stop)) from None

    def _coupled(self, c: Component) -> None:
        number = {name: i for i, name in enumerate(c.states)}
        olds = [self.program.states[name].leaf() for name in c.states]
        updates = [self.program.updates[name] for name in c.states]
        over = tuple(sorted({d for form in c.forms.values() for t in form.terms for d in t.over if d in t.state.dims}))
        found = self._feedback(c.states[0], updates, olds, over)
        coefficients: dict[tuple[int, int], Node] = {}
        writes: list[tuple[int, Source]] = []
        for i, form in enumerate(found.forms):
            for j, old in enumerate(olds):
                whole = [t.outer for t in form.terms if t.state is old]
                factors = common_factors(whole) if whole else (const(0.0),)
                if i == j and parted(factors)[0] is not None:
                    raise NotBlock(c.states[i], "it is reset, beside states that it is coupled to: that runs step by step")
                if not is_zero(factors):
                    coefficients[(i, j)] = self._masked(self._sum([factors]), 1.0 if i == j else 0.0)
            if (i, i) not in coefficients:  # its own past counts for nothing, but must pass through rows outside
                coefficients[(i, i)] = self._masked(const(0.0), 1.0)
            writes += [(i, source) for source in self._writes(form)]
        try:
            system = System(c.states, tuple(olds), self.rows, coefficients, tuple(writes), frozenset(over))
            if found.unknown is not None:
                system.solve(found.unknown)
            self.ends |= {name: system.end(i) for name, i in number.items()}
        except NotChunkwise as stop:
            raise NotBlock(c.states[0], str(stop)) from None
        for name, i in number.items():
            self.systems[self.program.updates[name]] = (system, i, False)
            self.systems[olds[i]] = (system, i, True)
        self.reasons.append(Reason(
            "numerics", ", ".join(c.states), "products of the coupling coefficients by scans: any sign, and zero, are exact"
        ))

    def _writes(self, form: Affine) -> tuple[Source, ...]:
        return tuple(self._source(p) for p in form.rest if not is_zero(p))

    def _source(self, factors: Product) -> Source:
        """The factors on rows; rows outside the sequence, or not in this part of the block, write nothing."""
        reset, others = parted(factors)
        kept = None if reset is None else self.lift(reset)
        lifted = [self.lift(f) for f in others] or [const(1.0)]
        if kept is not None:
            lifted = selected(kept, lifted)
        at = min(range(len(lifted)), key=lambda i: (len(lifted[i].dims) == 0, len(lifted[i].dims), i))
        every = range(len(lifted)) if self.part is not None else ()
        for i in {at, *(i for i in every if ROW in lifted[i].dims)}:
            lifted[i] = self._masked(lifted[i], 0.0)
        return Source(tuple(lifted), both(kept, self._here()))

    def _here(self) -> Node | None:
        """[t]: whether a row is in the part of the block that is being lowered; None: all are."""
        if self.part is None:
            return None
        after, second = self.part
        return after if second else node("not", after)
