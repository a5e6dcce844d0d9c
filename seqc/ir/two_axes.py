"""Recurrences over two axes, `axis t, u`: the program that a caller sees, and the program of one axis that is lowered.

    h = a * h[t-1] + b * h[u-1] + x        arrays [B, T, U, dims]

In: the step graph of one *cell*, a place on both axes. Out: the program of the caller (`plane_program`), and the program
over *diagonals* (`diagonals`). Cells with the same t + u need nothing of each other. So a step of the second program is a
diagonal, and the second axis is a dim: of a state there, h[t-1] is the value one diagonal back, h[u-1] that one moved by
one place along the dim, and h[t-1, u-1] that of two diagonals back, moved. Where a diagonal leaves the plane its states
are held, so that before the first cell of a column they are what the caller gave, and in the end those of the last row.
`seqc.driver.compose.diagonals` brings arrays onto diagonals and back; `seqc.semantics.two_axes` says in a double loop what it
all means.

Leaves of a cell: a state's value one step ago on the first axis has the state's name, on the second `NAME.u`, on both
`NAME.t.u`. An input at another place of the second axis is `NAME.u.1` (one step ago) or `NAME.u._1`; its offset is that
of the first. Values before the first place of the second axis are an input of the caller, `NAME.u_0` [B, T, dims], those
before both a state, `NAME.t.u` [B, dims]: a run goes on along the first axis from what it gave. Those after the last
place are an output, `NAME.u_T`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seqc.ir.both_ways import one_run
from seqc.ir.graph import BATCH, Node, const, index, leaf, leaves, node, substitute
from seqc.ir.keys import next_key
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import shift, take
from seqc.ir.program import DimDecl, Plane, Program, TensorDecl


@dataclass(frozen=True)
class Edges:
    """The arguments and results of a state beside those that every state has. Names with a dot are the compiler's own.

    start: what precedes the first place of the second axis, or None where nothing reads it; corner: what precedes both.
    """

    state: str
    plane: Plane
    reads: bool
    crosses: bool

    @property
    def beside(self) -> str:
        """The leaf of the value one step ago on the second axis."""
        return f"{self.state}.{self.plane.second}"

    @property
    def corner(self) -> str:
        """The leaf of the value one step ago on both axes; and the state before both."""
        return f"{self.state}.{self.plane.first}.{self.plane.second}"

    @property
    def start(self) -> str:
        """The input before the first place of the second axis."""
        return f"{self.beside}_0"

    @property
    def end(self) -> str:
        """The output after its last place."""
        return f"{self.beside}_T"

    @property
    def crossed(self) -> str:
        """The input of the program over diagonals: the start one step ago on the first axis."""
        return f"{self.corner}.start"

    @property
    def held(self) -> str:
        """The state of the program over diagonals that is one diagonal older."""
        return f"{self.state}.before"


def edges(program: Program) -> tuple[Edges, ...]:
    """The states whose past on the second axis a cell reads."""
    plane = program.plane
    assert plane is not None
    read = {n.text("name") for n in leaves(program.graph.values(), "state")}
    found = []
    for name in (n for n in program.states if "." not in n):  # corners have no edges, and noise none either
        one = Edges(name, plane, f"{name}.{plane.second}" in read, f"{name}.{plane.first}.{plane.second}" in read)
        if one.reads or one.crosses:
            found.append(one)
    return tuple(found)


def plane_program(cell: Program, plane: Plane, starts: Mapping[str, Node | None]) -> Program:
    """The program of the caller, of that of a cell whose declarations know nothing of the second axis.

    starts: of inputs and states that this adds, the values where a caller gives none.
    """

    def along(decls: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
        return {name: replace(d, dims=(plane.dim, *d.dims)) for name, d in decls.items()}

    inputs, states, outputs = along(cell.inputs), along(cell.states), along(cell.output_decls)
    updates, values = dict(cell.updates), dict(cell.outputs)
    program = replace(cell, plane=plane, inputs=inputs, states=states)
    for edge in edges(program):
        decl = cell.states[edge.state]
        init = starts.get(edge.start) or decl.init
        inputs[edge.start] = TensorDecl(edge.start, "input", decl.dims, init=init, hidden=True, role="edge")
        outputs[edge.end] = TensorDecl(edge.end, "output", decl.dims, hidden=True)
        values[edge.end] = cell.updates[edge.state]
        if edge.crosses:
            corner = starts.get(edge.corner) or init
            states[edge.corner] = TensorDecl(edge.corner, "state", decl.dims, init=corner, hidden=True)
            updates[edge.corner] = inputs[edge.start].leaf()
    dims = {**cell.dims, plane.dim: DimDecl(plane.dim)}
    return replace(
        program, dims=dims, inputs=inputs, states=states, output_decls=outputs, updates=updates, outputs=values,
    )  # fmt: skip


@dataclass(frozen=True)
class Read:
    """An input as cells read it: `back` steps ago on the first axis, `beside` on the second. leaf: in the cell's graph."""

    source: str
    back: int
    beside: int
    leaf: Node

    @property
    def name(self) -> str:
        """The input of the program over diagonals."""
        if not self.back and not self.beside:
            return self.source
        return f"{self.source}.{_signed(self.back)}.{_signed(self.beside)}"


def reads(program: Program) -> tuple[Read, ...]:
    """The inputs as cells read them, in the order of the declarations."""
    found = []
    starts = {edge.start for edge in edges(program)}
    for n in leaves(program.graph.values(), "input"):
        source, _, beside = n.text("name").partition(".")
        if n.text("name") in starts:
            continue
        found.append(Read(source, n.number("offset"), int(beside.rpartition(".")[2].replace("_", "-") or 0), n))
    order = list(program.inputs)
    return tuple(sorted(found, key=lambda one: (order.index(one.source), one.back, one.beside)))


def beside(name: str, plane: Plane, lag: int) -> str:
    """The leaf of an input `lag` steps ago on the second axis."""
    return f"{name}.{plane.second}.{_signed(lag)}" if lag else name


def _signed(lag: int) -> str:
    return str(lag) if lag >= 0 else f"_{-lag}"


def inside(program: Program) -> str:
    """The input of the program over diagonals that is 1 in the plane and 0 outside."""
    assert program.plane is not None
    return f"{program.plane.first}.{program.plane.second}.inside"


def diagonals(program: Program) -> Program:
    """The program over diagonals; its params are the caller's, and its outputs have their names."""
    plane = program.plane
    assert plane is not None
    dim, found = plane.dim, edges(program)
    mask = TensorDecl(inside(program), "input", (dim,), role="place")
    first, within = node("eq", index(dim), const(0.0)), node("gt", mask.leaf(), const(0.0))
    table, inputs, states = dict[Node, Node](), dict[str, TensorDecl](), dict[str, TensorDecl]()
    for read in reads(program):
        inputs[read.name] = replace(program.inputs[read.source], name=read.name)
        table[read.leaf] = inputs[read.name].leaf()
    corners = {edge.corner for edge in found}
    states |= {name: d for name, d in program.states.items() if name not in corners}
    for edge in found:
        decl = states[edge.state]
        start = replace(program.inputs[edge.start], role="", init=None)
        pairs = [(edge.reads, edge.beside, start, decl.leaf())]
        if edge.crosses:
            older = states[edge.held] = replace(decl, name=edge.held, hidden=True)
            pairs.append((True, edge.corner, replace(start, name=edge.crossed), older.leaf()))
        for used, name, given, past in pairs:
            if used:
                inputs[given.name] = given
                table[leaf("state", name, (BATCH, *decl.dims))] = where(first, given.leaf(), shift(past, dim, 1))
    inputs[mask.name] = mask
    own = {name: program.updates[name] for name in states if name in program.updates}
    values = {name: y for name, y in program.outputs.items() if name not in {edge.end for edge in found}}
    made = substitute({**{next_key(name): n for name, n in own.items()}, **values}, table)
    updates = {name: where(within, made[next_key(name)], states[name].leaf()) for name in own}
    updates |= {edge.held: states[edge.state].leaf() for edge in found if edge.crosses}
    outputs = {name: where(within, made[name], const(0.0)) for name in values}
    outputs |= {edge.end: take(updates[edge.state], dim, -1) for edge in found}
    return replace(
        program, plane=None, inputs=inputs, states=states, updates=updates, outputs=outputs, direction="forward",
        warnings=(), claims=(),
    )  # fmt: skip


def lowered(program: Program) -> Program:
    """The program that is lowered: of one run, over one axis. Any program of one run over one axis as it is."""
    one = one_run(program)
    return one if one.plane is None else diagonals(one)
