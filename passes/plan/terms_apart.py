"""program -> the same program, in which sums of several products with params are sums of each.

    sum[N](C_re * x_re - C_im * x_im)   ->   sum[N](C_re * x_re) - sum[N](C_im * x_im)

Needs: the sums of which every term is a product that pays for itself where it leaves the recurrence. A complex matrix times a
complex state is one sum of two products, and each of them is a matrix product on its own.
"""

from __future__ import annotations

from collections.abc import Collection

from seqc.ir.graph import Node, node, rebuild, topological
from seqc.ir.program import Program
from seqc.passes.plan.cutting import image

TERMS = ("add", "sub")


def terms_apart(program: Program, sums: Collection[Node]) -> Program:
    """See the file's docstring."""
    if not sums:
        return program
    done: dict[Node, Node] = {}
    for n in topological(program.graph.values()):
        done[n] = _apart(done[n.args[0]], n) if n in sums else rebuild(n, tuple(done[a] for a in n.args))
    return image(program, done)


def _apart(x: Node, n: Node) -> Node:
    """The sum n of what x has become."""
    if x.op in TERMS:
        left, right = (_apart(a, n) for a in x.args)
        return node(x.op, left, right)
    return node("sum", x, over=n.names("over"))
