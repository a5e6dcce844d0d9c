"""program -> the same program, and values of parameters alone that are computed once a call, before the first step.

    x = zoh(A, dt) @ x[t-1] + u        once    Ad = expm(dt * A)
                                 ->    rest    x = Ad @ x[t-1] + u,  Ad a param

for values that are made of square matrices (`solve`, `expm`) and do not vary in time: a library computes these best, and no
kernel has a word for them. Needs: the step graph. Gives: `Outside`, or None where there is nothing of the kind. Plain torch
needs no such cut, for it computes what does not vary before its loop anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.analysis.derivative import vjp
from seqc.analysis.ranges import interval_of
from seqc.ir.graph import BATCH, Node, depends, leaves, topological
from seqc.ir.ops.dense import DENSE
from seqc.ir.outside import Outside, cotangents
from seqc.ir.program import Program, TensorDecl
from seqc.passes.plan.cutting import fresh, names_of, replaced


def outside_of_time(program: Program) -> Outside | None:
    """See the file's docstring."""
    order = topological(program.graph.values())
    varying = depends(order, [n for n in order if n.op == "leaf" and n.text("kind") != "param"])
    dense = depends(order, [n for n in order if n.op in DENSE])
    fixed = {n for n in order if n in dense and n not in varying}
    if not fixed:
        return None
    found = _frontier(program, [n for n in order if n in varying], fixed)
    ranges = interval_of(program)
    taken = names_of(program)
    decls: dict[str, TensorDecl] = {}
    values: dict[str, Node] = {}
    for n in found:
        name = fresh(program.definitions.get(n, "fixed"), taken)
        dims = sorted((d for d in n.dims if d != BATCH), key=lambda d: (list(program.dims).index(d.rstrip("'")), d))
        decls[name] = TensorDecl(name, "param", tuple(dims), ranges[n], per_batch=BATCH in n.dims)
        values[name] = n
    table = {n: decls[name].leaf() for name, n in values.items()}
    read = {x.text("name") for x in leaves(values.values(), "param")}
    params = {x: d for x, d in program.params.items() if x in read}
    moved = {x: d.leaf() for x, d in params.items() if d.gradient}
    slopes = vjp(values, cotangents(decls), moved.values())
    return Outside(values, decls, params, {x: slopes[n] for x, n in moved.items()}, _rest(program, table, decls))


def _frontier(program: Program, varying: list[Node], fixed: set[Node]) -> list[Node]:
    """The values to compute: those that something else reads, as numbers."""
    found: dict[Node, None] = {}
    todo = [a for n in varying for a in n.args if a in fixed] + [n for n in program.graph.values() if n in fixed]
    while todo:
        n = todo.pop(0)
        if n.dtype == "real":
            found[n] = None
        else:  # a truth value: what it is told by
            todo += [a for a in n.args if a in fixed]
    return list(found)


def _rest(program: Program, table: Mapping[Node, Node], decls: Mapping[str, TensorDecl]) -> Program:
    """The program that reads the values as params."""
    _, done = replaced(program.graph, table, mirrored=False)
    outputs = {name: done[n] for name, n in program.outputs.items()}
    updates = {name: done[n] for name, n in program.updates.items()}
    starts = [d.init for d in program.states.values() if d.init is not None]
    read = {n.text("name") for n in leaves([*outputs.values(), *updates.values(), *starts], "param")}
    return replace(
        program, claims=(), outputs=outputs, updates=updates,
        params={name: d for name, d in {**program.params, **decls}.items() if name in read},
        spans={done[n]: span for n, span in program.spans.items() if n in done and done[n].op != "leaf"},
        definitions={done[n]: name for n, name in program.definitions.items() if n in done and done[n].op != "leaf"},
    )  # fmt: skip


__all__ = ["outside_of_time"]
