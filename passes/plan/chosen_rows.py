"""program -> the same program, in which rows of what depends on states are sums, for kernels that read no tables.

    gather(E, as_place(p), V)        ->   sum over V of where(index(V) == floor(p), E, 0)
    put(M, rows, as_place(p), V)     ->   where(index(V) == floor(p), rows, M), or the last of several rows

Needs: the step graph. Gives: the same values. A row costs a walk over all of V, as the logits do from which a position is
chosen. It is made in two steps, around the cut that takes what sees no state out of the recurrence (`products_outside`):
`numbered` makes numbers of indices, which are then taken out, and `chosen_rows` writes out what is left inside.
`told_rows` does both for plain torch, where what is read or written does not tell the place: a cache of keys is linear in its
past, and takes blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from seqc.ir.graph import Node, const, depends, index, leaves, node, rebuild, topological, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.indexing import as_place, as_real
from seqc.ir.program import Program
from seqc.passes.plan.cutting import image

ROWS = ("gather", "put")


def numbered(program: Program) -> Program:
    """The program in which indices that tell rows of what depends on a state are whole numbers."""
    order = topological(program.graph.values())
    late = depends(order, [d.leaf() for d in program.states.values()])

    def told(n: Node, new: Node) -> Node:
        if n.op not in ROWS or n.args[-1].op == "as_place" or not any(a in late for a in n.args[:-1]):
            return new
        return node(n.op, *new.args[:-1], as_place(as_real(new.args[-1])), **dict(n.attrs))

    return _rewritten(program, order, told) if any(n.op in ROWS for n in order) else program


def chosen_rows(program: Program) -> Program:
    """The program without rows at positions that are whole numbers."""
    order = topological(program.graph.values())
    return _rewritten(program, order, lambda n, new: _written_out(new)) if any(n.op == "as_place" for n in order) else program


def told_rows(program: Program) -> Program:
    """The program without rows of what depends on states at positions that do not depend on these."""
    order = topological(program.graph.values())

    def told(n: Node, new: Node) -> Node:
        held = leaves(n.args[:1], "state") if n.op in ROWS else ()
        if not held or set(held) & set(leaves(n.args[-1:], "state")):
            return new
        place = new.args[-1]
        place = place if place.op == "as_place" else as_place(as_real(place))
        return _written_out(node(n.op, *new.args[:-1], place, **dict(n.attrs)))

    return _rewritten(program, order, told) if any(n.op in ROWS for n in order) else program


def _rewritten(program: Program, order: list[Node], make: Callable[[Node, Node], Node]) -> Program:
    """make: from a node, and what it has become by what its arguments have."""
    done: dict[Node, Node] = {}
    for n in order:
        done[n] = make(n, rebuild(n, tuple(done[a] for a in n.args)))
    return image(program, done)


def _written_out(n: Node) -> Node:
    if n.op not in ROWS or n.args[-1].op != "as_place":
        return n
    dim, place = n.text("dim"), n.args[-1].args[0]
    here = node("eq", index(dim), place if place.op == "as_real" else node("floor", place))
    if n.op == "gather":
        return total(where(here, n.args[0], 0.0), (dim,))
    x, rows, _ = n.args
    if not n.names("over"):
        return where(here, rows, x)
    (over,) = n.names("over")
    last = node("amax", where(here, index(over), -1.0), over=(over,))
    kept = total(where(node("eq", index(over), last), rows, 0.0), (over,))
    return where(node("ge", last, const(0.0)), kept, x)
