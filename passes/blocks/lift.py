"""A step's values on all rows of a block: inputs gain the dim t, contractions of chunkwise states become readouts.

In: a step graph, and what its components have become (`seqc.passes.blocks.form`). Out: the value of any step node on the rows.
Refuses with `NotBlock` what no block gives: a chunkwise state that is used whole.
"""

from __future__ import annotations

from collections.abc import Callable

from seqc.analysis.affine import Affine, NotAffine, affine, product
from seqc.analysis.boundaries import hook_of
from seqc.ir.graph import ROW, Node, const, leaf, node
from seqc.ir.program import Program
from seqc.ir.traverse import postorder
from seqc.passes.blocks.boundary import Parts
from seqc.passes.blocks.chunkwise import Chunk
from seqc.passes.blocks.coupled import System
from seqc.passes.blocks.feedback import is_zero
from seqc.passes.blocks.solving import NotChunkwise
from seqc.passes.blocks.turning import Turning


class NotBlock(Exception):
    """Why a component has no block form; `state` is the one that stands in the way."""

    def __init__(self, state: str, why: str) -> None:
        super().__init__(f"{state}: {why}")
        self.state = state
        self.why = why


def nothing(n: Node) -> str:
    """No node is given."""
    return ""


class Lifted:
    """What is known of a program's values on the rows of a block. known: a name for the rows of a node that are given."""

    def __init__(self, program: Program, known: Callable[[Node], str] = nothing) -> None:
        self.program = program
        self.known = known
        self.memo: dict[Node, Node] = {}
        self.atoms = {n: frozenset(((n, ""),)) for n in _values(program)}  # see `_below`
        self.chunks: dict[Node, tuple[Chunk, bool]] = {}  # step node (old or new value) -> its chunk, read before?
        # the same for coupled states, with the state's number
        self.systems: dict[Node, tuple[System | Turning | Parts, int, bool]] = {}

    def lift(self, n: Node) -> Node:
        """The value of a step node on all rows of the block. Raises NotBlock."""
        stack = [n]
        while stack:
            x = stack[-1]
            if x in self.memo:
                stack.pop()
                continue
            if name := self.known(x):
                self.memo[x] = leaf("value", name, (*x.dims, ROW), dtype=x.dtype)
                stack.pop()
                continue
            read = self._readout(x)
            if read is not None:
                self.memo[x] = read
                stack.pop()
                continue
            pending = [a for a in x.args if a not in self.memo]
            if pending:
                stack += pending
                continue
            self.memo[x] = self._rows_of(x)
            stack.pop()
        return self.memo[n]

    def _rows_of(self, x: Node) -> Node:
        if x.op != "leaf":
            return node(x.op, *(self.memo[a] for a in x.args), **dict(x.attrs))
        if x.text("kind") == "state":
            raise NotBlock(x.text("name"), "it is read before its own component could be lowered")
        if x.text("kind") != "input":
            return x
        shape = x.names("shape")
        return leaf("input", x.text("name"), (shape[0], ROW, *shape[1:]), x.number("offset"), x.dtype)

    def _readout(self, x: Node) -> Node | None:
        """x, an innermost sum over chunkwise states, as readouts; None for anything else."""
        every = (*self.chunks, *self.systems)
        below = self._below(x) if every else frozenset()
        atoms = [a for a in every if (a, "") in below] if below else []
        if not atoms:
            return None
        if x in atoms and self._narrow(x):
            return self._read(x, const(1.0), ())
        if x in atoms:
            name = self._owner(x)
            raise NotBlock(name, f"{name} is used whole, not through a contraction")
        form = self._contraction(x, atoms) if x.op == "sum" else None
        if form is None:
            return None  # its arguments are looked at one by one
        parts = []
        for t in form.terms:
            q = product(self.lift(f) for f in t.inner)
            try:
                read = self._read(t.state, q, t.over)
            except NotChunkwise as stop:
                raise NotBlock(self._owner(t.state), str(stop)) from None
            parts.append(product((*(self.lift(f) for f in t.outer), read)))
        parts += [product(self.lift(f) for f in p) for p in form.rest if not is_zero(p)]
        out = parts[0]
        for p in parts[1:]:
            out = out + p
        return out

    def _below(self, x: Node) -> frozenset[tuple[Node, str]]:
        """The nearest values of states at or below a node, with "", and with each of its dims that is summed on the way."""
        for n in postorder([x], lambda n: () if self.known(n) else n.args, self.atoms):
            below = [] if self.known(n) else [self.atoms[a] for a in dict.fromkeys(n.args) if self.atoms[a]]
            found = below[0] if len(below) == 1 else frozenset().union(*below)
            over = n.names("over") if found and n.op == "sum" else ()
            summed = {(a, d) for a, _ in found for d in over if d in a.dims}
            self.atoms[n] = found if summed <= found else found | summed
        return self.atoms[x]

    def _narrow(self, atom: Node) -> bool:
        """Whether a state has none of the dims that its component contracts: then its rows are read as they are."""
        found = self.systems.get(atom)
        return found is not None and isinstance(found[0], System) and not found[0].contracted & set(atom.dims)

    def _owner(self, atom: Node) -> str:
        for d in self.program.states.values():
            hook = hook_of(self.program, d.name)
            if atom in (d.leaf(), self.program.updates[d.name]) or (hook is not None and atom is hook.free):
                return d.name
        raise AssertionError(atom)

    def _read(self, atom: Node, q: Node, over: tuple[str, ...]) -> Node:
        if atom in self.chunks:
            chunk, before = self.chunks[atom]
            return chunk.read(q, over, exclusive=before)
        system, i, before = self.systems[atom]
        return system.read(i, q, over, exclusive=before)

    def _contraction(self, x: Node, atoms: list[Node]) -> Affine | None:
        """The affine form of a sum that contracts states directly: in all of them, or in one (the others are factors)."""
        owners = {a: id(self.chunks[a][0] if a in self.chunks else self.systems[a][0]) for a in atoms}
        single = [[a for a in atoms if owners[a] == o] for o in dict.fromkeys(owners.values())]
        summed = x.names("over")
        mixed = {a for a, d in self._below(x) if d and d not in summed}  # sums below have contracted them already
        for group in (atoms, *single):
            if not mixed.isdisjoint(group):
                continue
            try:
                form = affine(x, group)
            except NotAffine:
                continue
            if all(t.over and not t.across and set(t.over) == {d for d in summed if d in (*t.state.dims, *t.over)}
                   for t in form.terms):
                return form
        return None


def _values(program: Program) -> list[Node]:
    """What is read of the states: old values, and new ones (before a boundary replaces them)."""
    out = []
    for name, d in program.states.items():
        hook = hook_of(program, name)
        out += [d.leaf(), program.updates[name] if hook is None else hook.free]
    return out
