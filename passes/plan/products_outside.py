"""program -> three programs: before (parallel over time), core (the recurrence), after (parallel over time).

    h = tanh(W @ x + R @ h[t-1])            before    Wx = W @ x
    output y = C @ h                  ->    core      h = tanh(Wx + R @ h[t-1]);  output h
                                            after     y = C @ h

when the matrix products with parameters that see no state, or that only outputs see, are worth the memory traffic.

Needs: the step graph. Gives: `Split`. Products over all steps run at the rate of a matrix product, in the recurrence at that of
a matrix times a vector; but their results are written to memory once and read again. **The rule:** a product
`sum[X](W * v)`, W of parameters alone and v varying in time, leaves the recurrence where it saves at least RATIO operations
per byte of the traffic that this adds: v read once, the result written and read. So a matrix product pays from about 24 columns
on; elementwise gates, readouts of a matrix state and products with a vector stay, for they are free or no larger there.
- What reads rows by an index, or an index as a number, is **before** wherever it needs no state.
- **Before** also takes the states that are nothing but earlier values of what needs no recurrence (`last = x`), where a product
  reads them; sums of products that nothing else reads are taken as one value.
- **Before** reads zeros where a choice in the recurrence drops the product (`masked_operands`).
- **After** takes an output whole, from its products on; the core gives what they read instead of it.
- The core has the states, in the same order, and new inputs and outputs; its claims are checked on the whole program.
Every result is what it was, up to the order of sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from seqc.analysis.cost import volume
from seqc.analysis.matrices import small
from seqc.analysis.ranges import interval_of
from seqc.analysis.workload import FORMS
from seqc.ir.block import Reason
from seqc.ir.graph import BATCH, Node, combined, depends, leaves, node, operands, substitute, topological
from seqc.ir.intervals import Interval
from seqc.ir.once import found_once
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program, TensorDecl, Wishes
from seqc.ir.views import bare
from seqc.passes.plan.cutting import axes_of, down_to, fresh, names_of, part_of, plain, sized, told
from seqc.passes.plan.masked_operands import masked_operands
from seqc.passes.plan.terms_apart import TERMS, terms_apart

RATIO = 4.0  # operations saved for each byte of traffic
WORD = 4.0  # bytes of a number
READ = ("gather", "as_real")  # what is read by an index leaves the recurrence in any case: torch reads it for all steps at once


@dataclass(frozen=True)
class Split:
    """See the file's docstring. A part that has nothing to do is None; the core is then the program itself, or nearly.

    Names: an input of `core` or `after` is one of the program, an output of `before`, or (of `after`) an output of `core`.
    """

    before: Program | None
    core: Program
    after: Program | None
    reasons: tuple[Reason, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing left the recurrence."""
        return self.before is None and self.after is None


@dataclass(frozen=True)
class _Product:
    """A sum over `over` of parameters times what varies in time."""

    fixed: tuple[Node, ...]
    varying: tuple[Node, ...]
    operations: float
    read: float  # elements of what varies
    written: float  # elements of the result

    @property
    def traffic(self) -> float:
        """Bytes that it adds when it leaves."""
        return WORD * (self.read + 2 * self.written)

    @property
    def pays(self) -> bool:
        """Whether it saves enough on its own."""
        return self.operations >= RATIO * self.traffic


def products(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan:
    """The recurrence of a stage between what runs for all steps at once; see the file's docstring."""
    split = split_parallel(stage.program, taken)
    before = () if split.before is None else (Stage(f"before_{stage.name}", "all", split.before),)
    after = () if split.after is None else (Stage(f"after_{stage.name}", "all", split.after),)
    return Plan(stage.program, (*before, replace(stage, program=split.core), *after), split.reasons)


@found_once
def split_parallel(program: Program, taken: frozenset[str] = frozenset()) -> Split:
    """The program in three; see the file's docstring."""
    whole = _Splitter(program, taken)
    program = terms_apart(program, whole.joined)
    whole = _Splitter(program, taken) if whole.joined else whole
    left = {n: (p.fixed, p.varying) for n in whole.hoisted if (p := whole.products.get(n)) is not None}
    masked = masked_operands(program, left, whole.late)
    return (whole if masked is program else _Splitter(masked, taken)).split()


class _Splitter:
    """The graph of one program, and what has been decided about it so far."""

    def __init__(self, program: Program, taken: Iterable[str]) -> None:
        self.program = program
        self.sizes = {d.name: d.default or FORMS.dim for d in program.dims.values()} | {BATCH: 1}
        self.order = topological(program.graph.values())
        self.streams = _streams(program)
        recurrent = [d.leaf() for name, d in program.states.items() if name not in self.streams]
        moving = [*leaves(self.order, "input"), *(d.leaf() for d in program.states.values())]
        self.late = depends(self.order, recurrent)
        self.varying = depends(self.order, moving)
        self.products = {n: p for n in self.order if n.op == "sum" and (p := self._product(n)) is not None}
        self.needed = set(topological(program.updates.values()))
        self.taken = {*names_of(program), *taken}

    @cached_property
    def ranges(self) -> Mapping[Node, Interval]:
        """The interval of every node."""
        return interval_of(self.program)

    def split(self) -> Split:
        """The three programs."""
        program = self.program
        if len(self.streams) == len(program.states):
            return Split(None, program, None)  # no recurrence: every step is by itself
        hoisted = self.hoisted
        after = {}
        for name, y in program.outputs.items():
            chosen = self._after(y) if y in self.late else []
            if chosen or (y not in self.late and not set(hoisted).isdisjoint(topological([y]))):
                after[name] = chosen
        return self._assemble(hoisted, after)

    # ---- what pays ----

    @property
    def joined(self) -> set[Node]:
        """Sums over differences or sums of products that only outputs see, each of which pays."""
        found = set()
        for n in self.order:
            if n.op == "sum" and n.args[0].op in TERMS and n in self.late and n not in self.needed:
                parts = [self._product(n, x) for x in operands(n.args[0], lambda x: x.op in TERMS)]
                found |= {n} if all(p is not None and p.pays for p in parts) else set()
        return found

    def _product(self, n: Node, term: Node | None = None) -> _Product | None:
        """The sum n as a product, or that of one of its terms."""
        found = operands(term or n.args[0], lambda x: x.op == "mul")
        fixed = tuple(f for f in found if f not in self.varying)
        varying = tuple(f for f in found if f in self.varying)
        over = set(n.names("over"))
        if n not in self.varying or not over & {d for f in fixed for d in f.dims} & {d for f in varying for d in f.dims}:
            return None
        read = volume({d for f in varying for d in f.dims}, self.sizes)
        operations = 2 * volume({d for f in found for d in f.dims}, self.sizes)
        return _Product(fixed, varying, operations, read, volume(n.dims, self.sizes))

    @cached_property
    def hoisted(self) -> list[Node]:
        """Values that leave the recurrence for the front; which of them are read is not known yet."""
        chosen = dict.fromkeys(n for n, p in self.products.items() if n not in self.late and p.pays and plain(n))
        chosen |= dict.fromkeys(n for n in self.order if n.op in READ and n not in self.late and plain(n))
        users: Counter[Node] = Counter(self.program.graph.values())
        for n in self.order:
            users.update(n.args)
        chosen |= dict.fromkeys(n for n in self.order if self._dense(n) and n not in self.late)
        for n in self.order:
            own = n.op in ("add", "sub") and all(a in chosen and users[a] == 1 and a.dims == n.dims for a in n.args)
            if own and n.args[0] is not n.args[1]:
                chosen[n] = None
        return list(chosen)

    def _dense(self, n: Node) -> bool:
        """Whether n is a matrix's exponential, or the solution of a large system, that varies in time: no kernel has these."""
        return n in self.varying and not small(n, self.program) and BATCH in n.dims

    def _after(self, y: Node) -> list[Node]:
        """The products from which on an output leaves the recurrence for the back; none if that does not pay."""
        chosen: list[Node] = []
        operations = 0.0
        for n in topological([y]):
            p = self.products.get(n)
            dense = self._dense(n)
            if n not in self.late or n in self.needed or not (dense or (p is not None and p.pays)):
                continue
            operations += inf if dense or p is None else p.operations
            if not any(f in depends([f], chosen) for f in (n.args if dense or p is None else p.varying)):
                chosen.append(n)  # else it is behind one that leaves
        cuts = self._cuts(y, chosen)
        traffic = 2 * sum(volume(n.dims, self.sizes) for n in cuts) + volume(y.dims, self.sizes)
        fit = all(map(plain, cuts)) or (operations == inf and all(n.dtype == "real" and BATCH in n.dims for n in cuts))
        return chosen if fit and operations >= RATIO * WORD * traffic else []

    def _read(self, n: Node) -> tuple[Node, ...]:
        """What a product reads of the recurrence: one value where its factors can be joined, else each that is late."""
        p = self.products.get(n)
        if p is None:
            return tuple(bare(a) for a in n.args if a in self.late)
        if any(f.op in ("rename", "expand") for f in p.varying):
            return tuple(bare(f) for f in p.varying if f in self.late)
        return (combined("mul", p.varying),)

    def _cuts(self, y: Node, chosen: list[Node]) -> list[Node]:
        """What the core must give so that the rest of y can be computed from it."""
        above = depends([y], chosen)
        found = dict.fromkeys(x for n in chosen for x in self._read(n))
        for n in topological([y]):
            if n in above and n not in chosen:
                found |= dict.fromkeys(bare(a) for a in n.args if a in self.late and a not in above)
        return list(found)

    # ---- the programs ----

    def _assemble(self, hoisted: list[Node], after: Mapping[str, list[Node]]) -> Split:
        program = self.program
        chosen = [c for found in after.values() for c in found]
        moved = {c: node("sum", combined("mul", p.fixed) * combined("mul", p.varying), over=c.names("over"))
                 for c in chosen if (p := self.products.get(c))}
        back = substitute({name: program.outputs[name] for name in after}, moved)
        cuts = dict.fromkeys(x for name, found in after.items() if found for x in self._cuts(program.outputs[name], found))
        kept = {name: y for name, y in program.outputs.items() if name not in after}
        front, states = self._front(hoisted, [*kept.values(), *cuts], back.values(), cuts)
        ready = [name for name, y in kept.items() if y not in self.late and down_to([y], set(front)) & set(front)]
        if ready:  # made of what the front computes: the core has nothing to do with it
            return self._assemble(hoisted, {**after, **{name: [] for name in ready}})
        if not front and not back:
            return Split(None, program, None, self._reasons([], []))
        values = {n: self._value(n) for n in front}
        given = {x: self._given(x, kept) for x in cuts}
        inside = {n: d.leaf() for n, d in values.items()}
        read = inside | {x: replace(d, kind="input").leaf() for x, d in given.items()}
        outputs = kept | {d.name: x for x, d in given.items()}
        updates = {name: x for name, x in program.updates.items() if name not in states}
        own = {**program.output_decls, **{d.name: d for d in given.values()}}
        core = part_of(program, outputs, updates, inside, values.values(), own)
        before = self._part("before", {d.name: n for n, d in values.items()}, {name: program.updates[name] for name in states},
                            {}, (), {d.name: replace(d, kind="output") for d in values.values()})
        handed = [*values.values(), *(replace(d, kind="input") for d in given.values())]
        behind = self._part("after", back, {}, read, handed, program.output_decls)
        before, core, behind = (told(part, program) for part in (before, core, behind))
        parts = [part for part, used in ((before, front), (core, True), (behind, back)) if used]
        if not all(map(sized, parts)):
            return Split(None, program, None)
        return Split(before if front else None, core, behind if back else None, self._reasons(front, chosen))

    def _front(
        self, hoisted: list[Node], ends: list[Node], back: Iterable[Node], cuts: Iterable[Node]
    ) -> tuple[list[Node], list[str]]:
        """The values that the front computes for others, and the states that it has: see the file's docstring."""
        program, back, cuts = self.program, list(back), set(cuts)
        states: dict[str, None] = {}
        shared: set[Node] = set()
        while True:
            roots = [*ends, *(x for name, x in program.updates.items() if name not in states)]
            stops = {*hoisted, *shared}
            seen, seen_back = down_to(roots, stops), down_to(back, {*stops, *cuts})
            front = [n for n in self.order if n in stops and n in seen | seen_back]
            behind = [n for n in self.order if n.op == "leaf" and n in seen_back - cuts]
            wanted = [n.text("name") for n in leaves([*front, *behind], "state")]
            more = [name for name in wanted if name not in states]
            moving = {program.states[name].leaf() for name in (*states, *more)}
            again = {n for n in seen | seen_back if n in moving}
            if not more and again <= shared:
                return front, [name for name in program.states if name in states]
            shared |= again
            states |= dict.fromkeys(more)
            for name in more:
                states |= dict.fromkeys(n.text("name") for n in leaves([program.updates[name]], "state"))

    def _part(
        self, name: str, outputs: Mapping[str, Node], updates: Mapping[str, Node], table: Mapping[Node, Node],
        given: Iterable[TensorDecl], output_decls: Mapping[str, TensorDecl],
    ) -> Program:
        """A part for all steps at once."""
        mirrored = self.program.direction == "backward" and not updates
        part = part_of(self.program, outputs, updates, table, given, output_decls, mirrored, masks=False)
        return replace(part, name=f"{self.program.name}_{name}", wishes=Wishes())

    # ---- names and words ----

    def _value(self, n: Node) -> TensorDecl:
        """A value of the front as an input of what reads it."""
        dims = n.names("shape")[1:] if n.op == "leaf" else axes_of(self.program, n)
        return TensorDecl(fresh(self._wish(n), self.taken), "input", dims, self.ranges[n])

    def _given(self, x: Node, kept: Mapping[str, Node]) -> TensorDecl:
        """What the core gives, as an output of it: one that it has already, or a new one."""
        for name, y in kept.items():
            decl = self.program.output_decls[name]
            if y is x and set(decl.axes) == set(x.dims):
                return decl
        name = self._wish(x)
        own = self.program.updates.get(name) is x and name not in self.program.outputs  # as `output h = ..` of a state h
        return TensorDecl(name if own else fresh(name, self.taken), "output", axes_of(self.program, x))

    def _wish(self, n: Node) -> str:
        if n in self.program.definitions:
            return self.program.definitions[n]
        if n.op == "leaf":
            return f"{n.text('name')}_before"
        if n.op in READ:
            return "_".join(f.text("name") for f in map(bare, n.args) if f.op == "leaf") or "rows"
        p = self.products.get(n)
        read = [f.text("name") for f in map(bare, (*p.fixed, *p.varying)) if f.op == "leaf"] if p else []
        if p and len(read) == len(p.fixed) + len(p.varying):
            return "_".join(read)
        return f"{read[0]}_product" if read else "product" if p else self._wish(n.args[0]) if n.op in ("add", "sub") else "read"

    def _reasons(self, front: list[Node], back: list[Node]) -> tuple[Reason, ...]:
        """For every product with parameters that could leave the recurrence, what it would save and whether it does."""
        out = []
        for n in self.order:
            parts = [p for x in operands(n, lambda x: x.op in ("add", "sub")) if (p := self.products.get(x))]
            where = "before" if n in front else "after" if n in back else ""
            could = n in self.products and (n not in self.late or n not in self.needed) and plain(n)
            inside = any(n is not x and n in topological([x]) for x in front)
            span = self.program.spans.get(n)
            subject = " ".join(span.text.split()) if span else self._wish(n)
            if n.op == "gather" and where:
                out.append(Reason("parallel", subject, f"{where} the recurrence, rows read by an index for all steps at once"))
            if not parts or inside or not (where or could):
                continue
            place = f"{where} the recurrence, saves" if where else "inside the recurrence, would save"
            saved, moved = (sum(x) for x in zip(*((p.operations, p.traffic) for p in parts), strict=True))
            text = f"{place} {saved:.0f} operations there for {moved:.0f} bytes moved, a token"
            out.append(Reason("parallel", subject, text))
        return tuple(out)


def _streams(program: Program) -> set[str]:
    """States that are earlier values of what needs no recurrence."""
    found: set[str] = set()
    while True:
        more = {
            name for name, x in program.updates.items()
            if name not in found and {n.text("name") for n in leaves([x], "state")} <= found
        }
        if not more:
            return found
        found |= more
