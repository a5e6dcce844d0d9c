"""The kernel of one step: decoding. In: a `Plan`. Out: its arrays, and its C++ text.

One step reads every state and parameter once, so nothing is copied to lie better: old states are read and new ones
written where the caller keeps them, and parameters are read in the order in which they lie. A new state may be written over the
old one: an element is read for the last time as it is overwritten, or before; where several programs read a state whole,
the caller gives the new one memory of its own (`shared_states`).
"""

from __future__ import annotations

from seqc.backends.native_cpu.arrays import PANELS
from seqc.backends.native_cpu.assemble import entry, first_only, opened, pointer, struct
from seqc.backends.native_cpu.code import Text, indented
from seqc.backends.native_cpu.forward import call_arrays, open_program, param_pointers, settle
from seqc.backends.native_cpu.kernel import KernelWriter
from seqc.backends.native_cpu.outlined import outlined
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import Item
from seqc.ir.graph import BATCH
from seqc.ir.keys import next_key


def shared_states(plan: Plan) -> dict[str, list[str]]:
    """State -> the dims of programs that it lacks, PANELS for the pieces of one: where there are several, all read what one
    writes."""
    roles = plan.roles
    found = {s.name: [d for d in roles.grid if d != BATCH and d not in s.dims] for s in plan.program.states.values()}
    return {name: dims + ([PANELS] if roles.panel and roles.panel not in plan.program.states[name].dims else [])
            for name, dims in found.items()}


def step_text(plan: Plan) -> Text | None:
    """The step kernel in C++; None where one step reads inputs of other steps."""
    program, roles = plan.program, plan.roles
    if program.no_step:
        return None
    arrays = {a.name: a for a in call_arrays(plan, step=True)}
    writer = KernelWriter(plan, "step", packs=False)
    lines = param_pointers(writer, arrays, [*plan.forward.values()])
    reads = [(x.leaf(), x.name) for x in program.inputs.values()]
    carried = {x.leaf(): f"{x.name}_T" for x in program.states.values()}
    for n, name in [*reads, *((x.leaf(), f"{x.name}_0") for x in program.states.values())]:
        more, writer.given[n] = pointer(writer, arrays[name], alone=n not in carried)
        lines += indented(more, 1)
    items, guards = [], {}
    writes = [("out", x, x.name, x.name) for x in program.output_decls.values()]
    writes += [("state", x, next_key(x.name), f"{x.name}_T") for x in program.states.values()]
    for kind, decl, value, name in writes:
        more, writer.targets[name] = pointer(writer, arrays[name], alone=kind == "out")
        lines += indented(more, 1)
        items.append(Item(kind, plan.forward[value], roles.local(decl.axes), name))
        if guard := first_only(roles, decl.dims):
            guards[name] = guard
    writer.add("token", items, carried).guards = guards
    settle(writer, {}, ("token",))
    text = [
        *struct("Step", tuple(arrays.values())), "", *writer.scratch("StepScratch"), "",
        *outlined([
            opened(roles, "step"),
            *open_program(plan, "step", sequence=False), *lines, *writer.region("token", 1), "  return 0;", "}", "",
        ]),
    ]
    text += entry(writer, "step", tuple(arrays.values()))
    return Text("\n".join(text), frozenset(writer.mentions))
