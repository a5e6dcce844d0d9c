"""program -> the same program without its tables, whose rows come in as inputs and go out as outputs.

    o = M[t-1, src]                        core    output M_rows = tanh(x + R @ M_read)
    M[src] = tanh(x + R @ o)        ->             output o = M_read
                                           table   M: M_read is its row at src, and M_rows becomes that row

for states that are read by an index alone, and only have rows replaced. Needs: the step graph. Gives: a walk over rows, or
None where there is no such state, or a step reads inputs of other steps. A loop then runs the core step by step, reads a
table's rows in front of it and writes them behind it, in place: a step costs what its rows cost, however many rows a table
has, and the gradient needs the rows that were read and no table.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.ir.block import Reason
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.plan import Plan, Rows, Stage, Table
from seqc.ir.program import Program, TensorDecl
from seqc.passes.plan.cutting import fresh, names_of, part_of, sized


def rows(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring. The core has the inputs that it reads, then the rows that are read; the outputs, then the rows
    that are written; the other states."""
    program = stage.program
    found = [] if program.no_step else tables(program)
    return _cut(stage, found, taken) if found else None


def tables(program: Program) -> list[str]:
    """The states that are tables."""
    return [name for name in program.states if program.plane is None and _is_table(program, name)]


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


def _cut(stage: Stage, names: list[str], others: frozenset[str]) -> Plan | None:
    program = stage.program
    taken = {*names_of(program), *others}
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
    roots = {**program.outputs, **{name: n for name, (_, n) in outputs.items()}}
    updates = {name: n for name, n in program.updates.items() if name not in names}
    decls = {**program.output_decls, **{name: d for name, (d, _) in outputs.items()}}
    core = part_of(program, roots, updates, swapped, inputs.values(), decls)
    if not core.inputs or not sized(core):
        return None
    told = "a table: each step reads and writes its own rows in place, and the gradient keeps the rows that were read"
    inner = Plan(core, (replace(stage, program=core),), tuple(Reason("form", one.state, told) for one in tables))
    return Plan(program, (Stage("events", "rows", program, inner, tuple(tables)),))


def _dims(decl: TensorDecl, place: Node, dim: str) -> tuple[str, ...]:
    """The dims of a table's rows: that of several rows first."""
    return (*(d for d in place.names("shape") if d != BATCH), *(d for d in decl.dims if d != dim))
