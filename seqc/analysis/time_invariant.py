"""Is a recurrence a linear time-invariant system? Then its outputs are convolutions of its inputs with its impulse
responses.

In: a program over one axis. Out: why it is none, or "". The step must be linear in inputs and states together, with
coefficients of parameters alone: its derivative by them mentions none of them, and it is zero where they are. Both are
decided on the graph, so that a step that is linear only because terms cancel may be told to be none.
"""

from __future__ import annotations

from seqc.analysis.derivative import vjp
from seqc.ir.formula import spell
from seqc.ir.graph import Node, const, leaf, leaves, substitute
from seqc.ir.keys import next_key, result_of
from seqc.ir.ops.structure import expanded
from seqc.ir.program import Program
from seqc.ir.windows import lags


def not_invariant(program: Program) -> str:
    """Why the program is no linear time-invariant system; "" where it is one."""
    if program.direction == "both" or program.plane is not None:
        return "it has two runs, or two axes"
    if not program.states:
        return "it has no state"
    graph = program.graph
    moving = [*leaves(graph.values(), "input"), *leaves(graph.values(), "state")]
    if any(min(lags(n)) < 0 for n in moving if n.text("kind") == "input"):
        return "it reads inputs ahead"
    if any(not program.declared(n).gradient for n in moving):
        return "it reads an index, or draws noise"
    decls = {**program.output_decls, **{next_key(n): d for n, d in program.states.items()}}
    slopes = vjp(graph, {name: leaf("cot", name, decls[name].axes) for name in graph}, moving)
    for n, slope in slopes.items():
        if found := [m for m in leaves([slope], "input") + leaves([slope], "state") if m.op == "leaf"]:
            return f"what `{spell(n)}` is multiplied by depends on `{spell(found[0])}`"
    zero: dict[Node, Node] = {n: expanded(const(0.0), n.dims) for n in moving}  # whoever sums over its dims still can
    still = substitute(graph, zero)
    for name, n in still.items():
        if not _vanishes(n):
            return f"`{result_of(name)}` is not 0 where inputs and states are"
    return ""


def _vanishes(n: Node) -> bool:
    """Whether a value is zero, as the graph shows it."""
    match n.op:
        case "const":
            return float(f"{n.attr('value')}") == 0.0
        case "mul":
            return any(map(_vanishes, n.args))
        case "add" | "sub" | "where":
            return all(map(_vanishes, n.args[-2:]))
        case "neg" | "sum" | "rename" | "expand" | "take" | "shift" | "stopgrad" | "cumsum" | "bool" | "real":
            return _vanishes(n.args[0])
        case "div":
            return _vanishes(n.args[0])
    return False
