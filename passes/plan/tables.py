"""program -> the same program without its tables, whose rows come in as inputs and go out as outputs.

    o = M[t-1, src]                        core    output M_rows = tanh(x + R @ M_read)
    M[src] = tanh(x + R @ o)        ->             output o = M_read
                                           table   M: M_read is its row at src, and M_rows becomes that row

for states that are read by an index alone, and only have rows replaced. Needs: the step graph. Gives: `Tables`, or None where
there is no such state, or a step reads inputs of other steps. A loop then runs the core step by step, reads a table's rows in
front of it and writes them behind it, in place: a step costs what its rows cost, however many rows a table has, and the
gradient needs the rows that were read and no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seqc.diagnostics import Span
from seqc.ir.block import Reason
from seqc.ir.graph import BATCH, Node, leaves, topological
from seqc.ir.program import Program, TensorDecl
from seqc.passes.plan.cutting import fresh, names_of, replaced, sized


@dataclass(frozen=True)
class Rows:
    """Rows of a table that are read or written. name: of the core's input or output; place: the index that tells where."""

    name: str
    place: str


@dataclass(frozen=True)
class Table:
    """A state whose rows are told by indices. axis: of its array [B, ..], the one whose positions these are."""

    state: str
    axis: int
    reads: tuple[Rows, ...]
    written: Rows


@dataclass(frozen=True)
class Tables:
    """See the file's docstring. The core has the inputs that it reads, then the rows that are read; the outputs, then the rows
    that are written; the other states."""

    core: Program
    tables: tuple[Table, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What is said of each table."""
        text = "a table: each step reads and writes its own rows in place, and the gradient keeps the rows that were read"
        return tuple(Reason("form", one.state, text) for one in self.tables)


def tables_of(program: Program) -> Tables | None:
    """See the file's docstring."""
    if program.no_step:
        return None
    found = [name for name in program.states if _is_table(program, name)]
    return _cut(program, found) if found else None


def _is_table(program: Program, name: str) -> bool:
    """Whether a state is read by an index alone, and only has rows replaced."""
    decl, update = program.states[name], program.updates[name]
    old = decl.leaf()
    if update.op != "put" or update.args[0] is not old or not _is_place(update.args[2], old):
        return False
    order = topological(program.graph.values())
    users = [n for n in order if old in n.args or update in n.args]
    read = all(n.op == "gather" and n.args[0] is old and _is_place(n.args[1], old) for n in users if n is not update)
    return read and update not in program.outputs.values() and old not in program.graph.values()


def _is_place(n: Node, table: Node) -> bool:
    """Whether an index tells rows of each sequence's own table, one or several."""
    return n.op == "leaf" and BATCH in n.dims and not set(n.dims) & set(table.dims) - {BATCH} and len(n.dims) < 3


def _cut(program: Program, names: list[str]) -> Tables | None:
    taken = names_of(program)
    tables: list[Table] = []
    inputs: dict[str, TensorDecl] = {}
    outputs: dict[str, tuple[TensorDecl, Node]] = {}
    swapped: dict[Node, Node] = {}
    for name in names:
        decl, update = program.states[name], program.updates[name]
        dim, place = update.text("dim"), update.args[2]
        reads = []
        for n in topological(program.graph.values()):
            if n.op == "gather" and n.args[0] is decl.leaf():
                own = TensorDecl(fresh(f"{name}_read", taken), "input", _dims(decl, n.args[1], dim), decl.range)
                inputs[own.name], swapped[n] = own, own.leaf()
                reads.append(Rows(own.name, n.args[1].text("name")))
        given = TensorDecl(fresh(f"{name}_rows", taken), "output", _dims(decl, place, dim))
        outputs[given.name] = given, update.args[1]
        tables.append(Table(name, 1 + decl.dims.index(dim), tuple(reads), Rows(given.name, place.text("name"))))
    core = _core(program, names, inputs, outputs, swapped)
    return Tables(core, tuple(tables)) if core.inputs and sized(core) else None


def _dims(decl: TensorDecl, place: Node, dim: str) -> tuple[str, ...]:
    """The dims of a table's rows: that of several rows first."""
    return (*(d for d in place.names("shape") if d != BATCH), *(d for d in decl.dims if d != dim))


def _core(
    program: Program, tables: list[str], reads: Mapping[str, TensorDecl], rows: Mapping[str, tuple[TensorDecl, Node]],
    swapped: Mapping[Node, Node],
) -> Program:
    """The program without its tables."""
    states = {name: d for name, d in program.states.items() if name not in tables}
    roots = {**program.outputs, **{name: n for name, (_, n) in rows.items()}}
    roots |= {f"{name}.next": program.updates[name] for name in states}
    graph, image = replaced(roots, swapped, False)
    used = leaves([*graph.values(), *(d.init for d in states.values() if d.init is not None)])
    read = {(n.text("kind"), n.text("name")) for n in used}
    order = topological(graph.values())
    dims = {d.rstrip("'") for n in order for d in n.dims} | {n.text("dim") for n in order if n.op == "size"}
    spans: dict[Node, Span] = {image[n]: span for n, span in program.spans.items() if n in image and image[n].op != "leaf"}
    called = {image[n]: name for n, name in program.definitions.items() if n in image and image[n].op != "leaf"}
    return replace(
        program, claims=(), spans=spans, definitions=called, dims={n: d for n, d in program.dims.items() if n in dims},
        inputs={n: d for n, d in {**program.inputs, **reads}.items() if ("input", n) in read},
        params={n: d for n, d in program.params.items() if ("param", n) in read}, states=states,
        updates={name: graph[f"{name}.next"] for name in states}, outputs={n: graph[n] for n in (*program.outputs, *rows)},
        output_decls={**program.output_decls, **{name: d for name, (d, _) in rows.items()}},
    )  # fmt: skip


__all__ = ["Rows", "Table", "Tables", "tables_of"]
