"""program -> what cuts time in pieces: each piece as an affine map of the states before it.

    states after a piece  =  spans(piece) applied to the states before it  +  ends(piece)

`ends` is the recurrence itself without outputs, run from zero. `spans` is its linear part, run from the unit states: one
copy of the states for every state that they may come from, so that no formula of a family is needed. Both are programs
like any other. The pieces' maps are products of the step's own transitions, in order: nothing is inverted, and a stable
recurrence stays stable. When: every update is linear in the states, with coefficients that no state enters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from seqc.analysis.affine import nonlinear
from seqc.analysis.semirings import linear_part, semiring_of
from seqc.ir.block import free_dims
from seqc.ir.dims import primed, unprimed
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, const, depends, leaves, rebuild, renamed, substitute, topological, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded, shift, take
from seqc.ir.program import Program, TensorDecl, Wishes
from seqc.ir.traverse import reached
from seqc.ir.windows import lags, window_of

LETTERS = "acdefghijklmnopqrstuvwxyz"  # all but that of the batch
MOST = 64  # links: states of a companion matrix of order 8
Read: TypeAlias = "tuple[str, int | range]"  # an input, and how many steps back it is read: one number, or those of a window
CLOCK = TensorDecl("piece.steps", "input", ())  # of a span that reads no input: it tells the number of steps


@dataclass(frozen=True)
class Link:
    """How one state comes from another over a piece. name: of the state of `spans` that holds it; free: its dims that nothing
    mixes; rows: mixed dims of the state that is reached, columns: those of the other, by fresh names."""

    name: str
    free: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Its axes behind the batch."""
        return (*self.free, *self.rows, *(fresh for _, fresh in self.columns))

    def letters(self, one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str, str]:
        """The axes of the link, of the state that is reached and of the other, [B, dims], as `einsum` spells them. one, other:
        dims of the states."""
        columns = dict(self.columns)
        letter = dict(zip(dict.fromkeys((*one, *columns.values(), *other)), LETTERS, strict=False))
        own = (self.dims, one, tuple(columns.get(d, d) for d in other))
        matrix, left, right = ("".join(["b", *(letter[d] for d in dims)]) for dims in own)
        return matrix, left, right


@dataclass(frozen=True)
class Load:
    """What a step costs: operators that depend on a state, and how many of them have which dims but the batch."""

    calls: int
    elements: Mapping[tuple[str, ...], int]

    def size(self, sizes: Mapping[str, int]) -> int:
        """The elements that they handle."""
        return sum(n * prod(sizes[unprimed(d)] for d in dims) for dims, n in self.elements.items())


@dataclass(frozen=True)
class Pieces:
    """whole: the program, with inputs of other steps as inputs of their own; shifts: name of such an input -> (input, steps
    back); links: (state, state that it comes from) -> link. fixed: whether the spans are made of parameters alone.
    selects: whether what is made of states is chosen, so that what is dropped must leave no trace. algebra: "sum", or the
    semiring over which the recurrence is linear: "log" (log-sum-exp and +) or "max" (max and +), whose zero is -inf."""

    whole: Program
    ends: Program
    spans: Program
    links: Mapping[tuple[str, str], Link]
    shifts: Mapping[str, Read]
    fixed: bool
    selects: bool
    algebra: str

    @property
    def loads(self) -> dict[str, Load]:
        """What a step costs of the whole, of the ends, and of the spans."""
        spans = load(self.spans)
        spans = replace(spans, elements={}) if self.fixed else spans
        return {"whole": load(self.whole), "ends": load(self.ends), "spans": spans}


def pieces_of(program: Program) -> Pieces | str:
    """What cuts the program in pieces, or the reason why nothing does."""
    if not program.states:
        return "it has no state"
    if program.direction == "backward" or program.plane is not None:
        return "it runs from the last step on, or over two axes"
    if any(p.per_batch for p in program.params.values()):
        return "a parameter differs from sequence to sequence"
    if why := why_uncut(program):
        return why
    starts = [d.leaf() for d in program.states.values()]
    found = ((name, nonlinear(update, starts)) for name, update in program.updates.items())
    stop = next(((name, stop) for name, stop in found if stop is not None), None)
    algebra = "sum" if stop is None else semiring_of(program.updates.values(), starts)
    if stop is not None and algebra is None:
        return f"`{stop[0]}` is not linear in the states: {stop[1].why}: `{spell(stop[1].at)}`"
    whole, shifts = without_lags(program)
    return _Spans(whole, shifts, algebra or "sum").pieces()


def why_uncut(program: Program) -> str:
    """Why every step has to follow the one before it, whatever its update: a state that is no number with a gradient; "" if
    none is."""
    held = next((name for name, d in program.states.items() if d.whole or not d.gradient), None)
    return "" if held is None else f"`{held}` counts steps, or holds what noise is drawn from"


def without_lags(program: Program) -> tuple[Program, dict[str, Read]]:
    """The program with every input that is read at another step as an input of its own, which a window has with its dim."""
    read = [n for n in leaves(program.graph.values(), "input") if any(lags(n))]
    inputs, table, shifts = dict(program.inputs), dict[Node, Node](), dict[str, Read]()
    decls = (program.inputs, program.params, program.states, program.output_decls)
    taken = {name.replace(".", "_") for each in decls for name in each}  # in emitted text
    for n in read:
        source, back = n.text("name"), n.number("offset")
        mark = f"{'before' if back > 0 else 'after'}{abs(back)}"
        if window_of(n):
            mark = f"{mark}.{window_of(n)}{lags(n).step}".replace("-", "_")
        while f"{source}.{mark}".replace(".", "_") in taken:
            mark = f"own_{mark}"
        name = f"{source}.{mark}"
        inputs[name] = replace(program.inputs[source], name=name, dims=n.names("shape")[1:])
        shifts[name] = (source, lags(n) if window_of(n) else back)
        table[n] = inputs[name].leaf()
    updates = substitute(program.updates, table)
    outputs = substitute(program.outputs, table)
    spans = {table.get(n, n): s for n, s in program.spans.items()}
    names = {substitute({"": n}, table)[""]: name for n, name in program.definitions.items()}
    return replace(program, inputs=inputs, updates=updates, outputs=outputs, spans=spans, definitions=names), shifts


def lags_of(back: int | range) -> Sequence[int]:
    """The lags of a read."""
    return [back] if isinstance(back, int) else back


class _Spans:
    """Makes the spans of a program without lags."""

    def __init__(self, program: Program, shifts: Mapping[str, Read], algebra: str) -> None:
        self.program, self.shifts, self.algebra = program, shifts, algebra
        self.zero = const(0.0 if algebra == "sum" else -math.inf)
        self.starts = {name: d.leaf() for name, d in program.states.items()}
        self.active = depends(program.updates.values(), self.starts.values())
        self.order = topological(program.updates.values())
        own = {name: self._linear({n: n for n in self.starts.values()}, name) for name in program.states}
        self.reads = {i: [j for j, n in self.starts.items() if x is not None and n in leaves([x])] for i, x in own.items()}
        parts = {name: x for name, x in own.items() if x is not None}
        free = set(free_dims(parts)) if parts else set()
        inner = topological(parts.values())
        told = {d for n in inner if n.op in ("leaf", "index", "block_index") and n not in self.starts.values() for d in n.dims}
        told |= {n.text("dim") for n in inner if n.op == "size"}
        held = set.intersection(*(set(d.dims) for d in program.states.values()))
        told |= {d for n in inner if n.op == "expand" for d in n.names("over")}
        self.left = free & held - told
        self.mixed = {name: tuple(d for d in decl.dims if d not in free) for name, decl in program.states.items()}
        self.free = {name: tuple(d for d in decl.dims if d in free - self.left) for name, decl in program.states.items()}

    def _linear(self, table: Mapping[Node, Node], name: str) -> Node | None:
        """The part of an update that is linear in the states of the table; other states, and all else, are zero."""
        if self.algebra != "sum":
            return linear_part(self.program.updates[name], table, self.active, self.algebra)
        done: dict[Node, Node | None] = {}
        for n in self.order:
            if n in self.active:
                done[n] = table.get(n) if n.op == "leaf" else self._part(n, done)
        return done.get(self.program.updates[name])

    def _part(self, n: Node, done: Mapping[Node, Node | None]) -> Node | None:
        parts = [done.get(a) for a in n.args]
        match n.op:
            case "add" | "sub":
                left, right = parts
                if left is None or right is None:
                    return left if right is None else right if n.op == "add" else -right
                return rebuild(n, (left, right))
            case "mul" | "div":
                if all(p is None for p in parts):
                    return None
                return rebuild(n, tuple(a if p is None else p for a, p in zip(n.args, parts, strict=True)))
            case "where":
                if parts[1] is None and parts[2] is None:
                    return None
                return where(n.args[0], *(const(0.0) if p is None else p for p in parts[1:]))
        (x,) = parts
        if x is None:
            return None
        match n.op:
            case "sum":
                return total(x, n.names("over"))
            case "expand":
                return expanded(x, tuple(d for d in n.names("over") if d not in self.left_now))
            case "rename":
                return renamed(x, n.text("old"), n.text("new"))
            case "take":
                return take(x, n.text("dim"), n.number("at")) if n.text("dim") in x.dims else x
            case "shift":
                return shift(expanded(x, (n.text("dim"),)), n.text("dim"), n.number("by"))
        return rebuild(n, (x,))

    left_now: frozenset[str] = frozenset()

    def pieces(self) -> Pieces | str:
        """The programs, or the reason why they are none."""
        links = {(i, j): self._link(i, j) for j in self.starts for i in self.starts if self._reaches(j, i) or i == j}
        links = {(i, j): link for (i, j), link in links.items() if any(j in reads for reads in self.reads.values())}
        if len(links) > MOST:
            return f"{len(links)} pairs of states, of which one comes from the other: more than {MOST}"
        self.left_now = frozenset(self.left)
        decls = {x.name: TensorDecl(x.name, "state", x.dims, init=self.zero, hidden=True) for x in links.values()}
        updates = {}
        for (i, j), link in links.items():
            table = {self.starts[k]: decls[links[(k, j)].name].leaf() for k in self.starts if (k, j) in links}
            updates[link.name] = expanded(self._linear(table, i) or self.zero, decls[link.name].axes)
        selects = self.algebra == "sum" and any(n.op == "where" and n in self.active for n in self.order)
        shapes = {d.dims for d in self.program.states.values()}
        if selects and (len(shapes) > 1 or any(link.columns for link in links.values())):
            return "a state that is mixed along a dim is masked or reset, and what is dropped must leave no trace"
        zeros = {n: replace(d, init=self.zero) for n, d in self.program.states.items()}  # a piece starts from nothing
        ends, spans = self._alone(zeros, self.program.updates), replace(self._alone(decls, updates), definitions={})
        return Pieces(self.program, ends, spans, links, self.shifts, CLOCK.name in spans.inputs, selects, self.algebra)

    def _alone(self, states: Mapping[str, TensorDecl], updates: Mapping[str, Node]) -> Program:
        """The program of these states, without outputs, with the inputs and params that it reads."""
        read = leaves(updates.values())
        inputs = {n: d for n, d in self.program.inputs.items() if d.leaf() in read} or {CLOCK.name: CLOCK}
        params = {n: d for n, d in self.program.params.items() if d.leaf() in read}
        return replace(self.program, inputs=inputs, params=params, states=states, updates=updates, outputs={}, output_decls={},
                       claims=(), wishes=Wishes(), loop=None, doc="")

    def _reaches(self, j: str, i: str) -> bool:
        """Whether state i comes from state j, some steps later."""
        return j in reached(self.reads[i], self.reads.__getitem__)

    def _link(self, i: str, j: str) -> Link:
        taken = {d for n in self.order for d in n.dims} | {d for s in self.program.states.values() for d in s.dims}
        columns = []
        for d in self.mixed[j]:
            fresh = primed(d, taken)
            taken.add(fresh)
            columns.append((d, fresh))
        return Link(f"{i}.of.{j}", self.free[i], self.mixed[i], tuple(columns))


def load(program: Program) -> Load:
    """What a step of a program costs."""
    roots, states = list(program.updates.values()), [d.leaf() for d in program.states.values()]
    active = depends(roots, states)
    found: dict[tuple[str, ...], int] = {}
    calls = 0
    for n in topological(roots):
        if n in active and n.op not in ("leaf", "expand", "rename", "neg"):
            widest = max([n, *n.args], key=lambda x: len(x.dims))
            dims = tuple(d for d in widest.dims if d != BATCH)
            found[dims] = found.get(dims, 0) + 1
            calls += 1
    return Load(calls, found)
