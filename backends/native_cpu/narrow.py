"""A plan of few channels -> the plan of one of them, whose values have no dims of channels.

    x[D], y[D], a[L, D]  with  dim D {2}    ->    x, y, a[L], and D: 2

In: a `Plan`. Out: a plan whose arrays lie in memory as before, and its channels; the plan itself where a call may bring other
sizes, where an operator moves along such a dim, or where channels are mixed. A gradient of what all channels share is that of
one channel; whoever runs the plan adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from seqc.backends.native_cpu.plan import Plan
from seqc.ir.graph import Node, along, const, leaf, node, rebuild, topological
from seqc.ir.once import found_once
from seqc.ir.program import TensorDecl

MOST = 5  # channels: more fill a vector well enough as they lie


@found_once
def channels(plan: Plan) -> dict[str, int]:
    """The dims of channels and their sizes; none where they may have several, or are too many."""
    program = plan.program
    decls = [*program.inputs.values(), *program.states.values(), *program.output_decls.values()]
    dims = {d for decl in decls for d in decl.dims}
    if plan.roles.blocked or plan.kept or any(len(program.dims[d].choices) != 1 for d in dims if d in program.dims):
        return {}
    sizes = {d: program.dims[d].choices[0] if d in program.dims else 1 for d in sorted(dims)}
    several = [d for d in dims if sizes[d] > 1]
    alike = several == [plan.roles.panel] and all(set(several) <= set(decl.dims) and not decl.whole for decl in decls)
    return sizes if not several or (alike and prod(sizes.values()) <= MOST) else {}


@found_once
def narrowed(plan: Plan) -> Plan:
    """See the file's docstring."""
    program, dims = plan.program, channels(plan)
    if not dims:
        return plan
    done: dict[Node, Node] = {}
    graphs = (plan.forward, plan.updates, plan.backward, program.updates, program.outputs)
    inits = [d.init for d in program.states.values() if d.init is not None]
    totals = set[Node]()  # sums over channels, of which one channel's part is left
    for n in topological([*(x for graph in graphs for x in graph.values()), *inits]):
        new = _without(n, dims, done, totals)
        if new is None:
            return plan
        done[n] = new
    if totals & {*plan.forward.values(), *plan.updates.values(), *inits}:
        return plan

    def told(graph: Mapping[str, Node]) -> dict[str, Node]:
        return {key: done[n] for key, n in graph.items()}

    def bare(table: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
        return {
            x: replace(d, dims=tuple(i for i in d.dims if i not in dims), init=done.get(d.init) if d.init else None)
            for x, d in table.items()
        }

    own = replace(
        program, inputs=bare(program.inputs), params=bare(program.params), states=bare(program.states),
        output_decls=bare(program.output_decls), updates=told(program.updates), outputs=told(program.outputs),
        definitions={}, spans={},
    )  # fmt: skip
    return replace(
        plan, program=own, forward=told(plan.forward), updates=told(plan.updates), backward=told(plan.backward),
        names={}, lines={},
    )  # fmt: skip


def _without(n: Node, dims: Mapping[str, int], done: Mapping[Node, Node], totals: set[Node]) -> Node | None:
    """n without dims of channels; None where an operator moves along one, or where channels are mixed."""
    args = tuple(done[a] for a in n.args)
    many = {d for d, size in dims.items() if size > 1}
    if any(a in totals for a in n.args):
        linear = n.op in ("neg", "expand", "add", "sub") and all(a in totals for a in n.args)
        linear |= n.op == "mul" and sum(a in totals for a in n.args) == 1
        linear |= n.op == "div" and n.args[1] not in totals
        if not linear or many & {d for a in (n, *n.args) for d in a.dims}:
            return None
        totals.add(n)
    if n.op == "leaf":
        shape = [d for d in n.names("shape") if d not in dims]
        return leaf(n.text("kind"), n.text("name"), shape, n.number("offset"), n.text("type"))
    if n.op in ("index", "block_index", "size") and n.text("dim") in dims:
        if n.op == "size":
            return const(float(dims[n.text("dim")]))
        return const(0.0) if n.text("dim") not in many else None
    if n.op in ("expand", "sum", "amax"):
        over = tuple(d for d in n.names("over") if d not in dims)
        if n.op != "expand" and many & set(n.names("over")):
            if n.op == "amax" or any(a in totals for a in n.args):
                return None
            totals.add(n)
        return node(n.op, *args, over=over) if over else args[0]
    return None if dims.keys() & set(along(n)) else rebuild(n, args)
