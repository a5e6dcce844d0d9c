"""Params that training does not move, found on the step graph.

In: a program. Out: names of params. A param has no gradient where every way from it to a result passes an argument whose
derivative is exactly 0. Params that start at 0 are stuck where the derived gradients are 0 for as long as all of them are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.analysis.derivative import vjp
from seqc.ir.graph import Node, const, constant, leaf, leaves, topological
from seqc.ir.ops import TABLE, holds
from seqc.ir.program import Program
from seqc.ir.traverse import reached


def idle_params(program: Program) -> tuple[list[str], list[str]]:
    """(params without a gradient, params that start at 0 and stay there), of those that the graph reads."""
    roots = {**program.graph, **{f"{name}.init": d.init for name, d in program.states.items() if d.init is not None}}
    read = set(leaves(roots.values(), "param"))
    moved = _differentiable(roots.values())
    without = [name for name, d in program.params.items() if d.gradient and (n := d.leaf()) in read and n not in moved]
    starts = {d.leaf(): _zero_start(program, name) for name, d in program.params.items() if d.gradient}
    zeros = {n for n, zero in starts.items() if zero and n in read and n in moved}
    stuck = _stuck(roots, zeros) if zeros else set()
    return without, [name for name, d in program.params.items() if d.leaf() in stuck]


def _differentiable(roots: Iterable[Node]) -> set[Node]:
    """The nodes that a gradient reaches from some root."""

    def moved(n: Node) -> list[Node]:
        return [a for a, rule in zip(n.args, TABLE[n.op].vjp or (), strict=False) if rule is not None]

    return set(reached(roots, moved))


def _zero_start(program: Program, name: str) -> bool:
    init = program.params[name].init
    return init is not None and init in _zeros([init], set())


def _stuck(roots: Mapping[str, Node], zeros: set[Node]) -> set[Node]:
    """The largest set of zeros whose gradients are all 0 while it is 0."""
    cotangents = {name: leaf("cot", name, n.dims) for name, n in roots.items() if n.dtype == "real"}
    slopes = vjp(roots, cotangents, zeros)
    while zeros:
        nothing = _zeros(slopes.values(), zeros)
        moved = {n for n in zeros if slopes[n] not in nothing}
        if not moved:
            break
        zeros = zeros - moved
    return zeros


def _zeros(roots: Iterable[Node], given: set[Node]) -> set[Node]:
    """The nodes that are 0 whatever the data, where the given leaves are."""
    found = set(given)
    for n in topological(roots):
        if n.op == "const":
            zero = constant(n) == 0.0
        elif n.op == "mul":
            zero = any(a in found for a in n.args)
        elif holds(n, "zeros"):
            zero = all(a in found for a in n.args) or (n.op == "sub" and n.args[0] is n.args[1])
        elif n.op == "where":
            zero = all(a in found for a in n.args[1:])
        else:
            zero = holds(n, "zero") and n.args[0] in found
        if zero:
            found.add(n)
    return found | ({const(0.0)} if given else set())
