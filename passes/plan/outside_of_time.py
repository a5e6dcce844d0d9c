"""program -> the same program, and values of parameters alone that are computed once a call, before the first step.

    x = zoh(A, dt) @ x[t-1] + u        once    Ad = expm(dt * A)
                                 ->    rest    x = Ad @ x[t-1] + u,  Ad a param

for values that are made of square matrices (`solve`, `expm`) and do not vary in time: a library computes these best, and no
kernel has a word for them. Needs: the step graph. Gives: two stages, or None where there is nothing of the kind. Plain torch
needs no such cut, for it computes what does not vary before its loop anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seqc.analysis.ranges import interval_of
from seqc.ir.graph import BATCH, Node, depends, topological
from seqc.ir.ops.dense import DENSE
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program, TensorDecl
from seqc.ir.traverse import reached
from seqc.passes.plan.cutting import axes_of, fresh, names_of, part_of, told


def once(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    found = dense(stage.program)
    return made_once(stage, taken, found) if found else None


def dense(program: Program) -> list[Node]:
    """The values of parameters alone that are made of square matrices, as far as something else reads them."""
    order = topological(program.graph.values())
    varying = depends(order, [n for n in order if n.op == "leaf" and n.text("kind") != "param"])
    above = depends(order, [n for n in order if n.op in DENSE])
    fixed = {n for n in order if n in above and n not in varying}
    return _frontier(program, [n for n in order if n in varying], fixed) if fixed else []


def made_once(stage: Stage, taken: frozenset[str], found: Iterable[Node]) -> Plan:
    """Some values of parameters alone as params of the recurrence, which a stage before it makes."""
    program = stage.program
    ranges = interval_of(program)
    own = {*names_of(program), *taken}
    decls: dict[str, TensorDecl] = {}
    values: dict[str, Node] = {}
    for n in found:
        name = fresh(program.definitions.get(n, "fixed"), own)
        decls[name] = TensorDecl(name, "param", axes_of(program, n), ranges[n], per_batch=BATCH in n.dims)
        values[name] = n
    table = {n: decls[name].leaf() for name, n in values.items()}
    front = part_of(program, values, {}, {}, (), decls, masks=False)
    rest = part_of(program, program.outputs, program.updates, table, decls.values(), program.output_decls)
    return Plan(program, (Stage("once", "once", front), replace(stage, program=told(rest, program))))


def _frontier(program: Program, varying: list[Node], fixed: set[Node]) -> list[Node]:
    """The values to compute: those that something else reads, as numbers."""
    read = [a for n in varying for a in n.args if a in fixed] + [n for n in program.graph.values() if n in fixed]
    # of a truth value: what it is told by
    found = reached(read, lambda n: () if n.dtype == "real" else [a for a in n.args if a in fixed])
    return [n for n in found if n.dtype == "real"]
