"""program -> the same program, in which a product that is read under a choice alone reads zeros where it is not chosen.

    where(m > 0, f(W @ x), h[t-1])   ->   where(m > 0, f(W @ where(m > 0, x, 0)), h[t-1])

Needs: products that leave the recurrence, and which nodes see a state. A choice is no part of a stage of its own: there a
zero cotangent would meet whatever x holds at a masked step, and 0 * NaN is NaN. Conditions that see a state stay: they are
not known before the recurrence.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.analysis.choices import any_of
from seqc.ir.graph import Node, combined, node, rebuild, topological
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.ir.program import Program
from seqc.passes.plan.cutting import image

Products = Mapping[Node, tuple[tuple[Node, ...], tuple[Node, ...]]]  # sum -> (factors made of params, factors that vary)


def masked_operands(program: Program, products: Products, late: set[Node]) -> Program:
    """See the file's docstring. late: what sees a state."""
    order = topological(program.graph.values())
    counts = _counts(program, order)
    known = {n: tuple(c for c in counts[n] if late.isdisjoint((c, *c.args))) for n in products}
    if not any(known.values()):
        return program
    done: dict[Node, Node] = {}
    for n in order:
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        if known.get(n):
            every = combined("and", (rebuild(c, tuple(done[a] for a in c.args)) for c in known[n]))
            every = _at_any(every, n)  # a dim that the product sums is another one than that of a choice around it
            fixed, varying = ([done[f] for f in part] for part in products[n])
            read = [where(_at_any(every, v), v, 0.0) for v in varying]
            done[n] = node("sum", combined("mul", fixed) * combined("mul", read), over=n.names("over"))
    return image(program, done)


def _at_any(condition: Node, n: Node) -> Node:
    """Whether the condition holds at any place of the dims that a node has not."""
    return any_of(condition, tuple(d for d in condition.dims if d not in n.dims))


def _counts(program: Program, order: list[Node]) -> dict[Node, tuple[Node, ...]]:
    """The conditions without which no use of a node counts."""
    counts: dict[Node, tuple[Node, ...]] = dict.fromkeys(program.graph.values(), ())
    for n in reversed(order):
        for i, arg in enumerate(n.args):
            own = _below(n, i, counts[n])
            counts[arg] = tuple(c for c in counts.get(arg, own) if c in own)
    return counts


def _below(n: Node, i: int, chosen: tuple[Node, ...]) -> tuple[Node, ...]:
    """The conditions under which one argument of a node counts."""
    if n.op == "where" and i:
        return (*chosen, n.args[0] if i == 1 else node("not", n.args[0]))
    if TABLE[n.op].elementwise:
        return chosen
    over = n.names("over") if n.op in ("sum", "amax") else ()
    return tuple(c for c in chosen if over and not set(over) & set(c.dims))
