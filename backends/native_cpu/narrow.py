"""A plan of channels, where there is one channel -> the plan of that channel, whose values have no dims.

    x[D], y[D], a[L, D]  with  dim D {1}    ->    x, y, a[L]

In: a `Plan`. Out: a plan whose arrays lie in memory as before; the plan itself where a call may bring other sizes, or where an
operator moves along such a dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.backends.native_cpu.plan import Plan
from seqc.ir.graph import Node, along, const, leaf, node, rebuild, topological
from seqc.ir.once import found_once
from seqc.ir.program import TensorDecl


@found_once
def narrowed(plan: Plan) -> Plan:
    """See the file's docstring."""
    program = plan.program
    decls = [*program.inputs.values(), *program.states.values(), *program.output_decls.values()]
    dims = {d for decl in decls for d in decl.dims}
    if not dims or plan.roles.blocked or plan.kept or any(program.dims[d].choices != (1,) for d in dims if d in program.dims):
        return plan
    done: dict[Node, Node] = {}
    graphs = (plan.forward, plan.updates, plan.backward, program.updates, program.outputs)
    inits = [d.init for d in program.states.values() if d.init is not None]
    for n in topological([*(x for graph in graphs for x in graph.values()), *inits]):
        new = _without(n, dims, done)
        if new is None:
            return plan
        done[n] = new

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


def _without(n: Node, dims: set[str], done: Mapping[Node, Node]) -> Node | None:
    """n without dims of one place; None where an operator moves along one."""
    args = tuple(done[a] for a in n.args)
    if n.op == "leaf":
        shape = [d for d in n.names("shape") if d not in dims]
        return leaf(n.text("kind"), n.text("name"), shape, n.number("offset"), n.text("type"))
    if n.op in ("index", "block_index", "size") and n.text("dim") in dims:
        return const(float(n.op == "size"))
    if n.op in ("expand", "sum", "amax"):
        over = tuple(d for d in n.names("over") if d not in dims)
        return node(n.op, *args, over=over) if over else args[0]
    return None if dims & set(along(n)) else rebuild(n, args)
