"""The update of a linear state -> its rows: what it reads of the old state, without the contracted dims, and writes back.

    S = S[t-1] + k * (v - sum[K](k * S[t-1]))   ->   w = v - sum[K](k * S[t-1]),   S = S[t-1] + k * w

Needs: the step graph. Gives: each row as an affine form in the old state and in the rows before it, and the update as one in
the old state and the rows. Several micro-steps stay several rows, each a contraction of what the step before has left: put
into each other, they would be as many as there are subsets of micro-steps, and each alone could grow without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from seqc.affine import Affine, Product, affine
from seqc.graph import Node, constant, depends, topological


@dataclass(frozen=True)
class Row:
    """node: the row in the step graph; form: its affine form in the old state and the rows before."""

    node: Node
    form: Affine
    over: tuple[str, ...]
    old: Node

    @property
    def of_one_read(self) -> bool:
        """Whether it contracts the old state once, and takes the rows before as they are."""
        return all(t.over == (self.over if t.state is self.old else ()) for t in self.form.terms)

    @property
    def read(self) -> tuple[float, tuple[Product, ...]]:
        """(scale, products b): its contractions of the old state are scale * sum[over](b * S), added up."""
        products = tuple((*t.outer, *t.inner) for t in self.form.terms if t.state is self.old)
        if len(products) != 1:
            return 1.0, products
        scale = prod(constant(f) for f in products[0] if f.op == "const")
        return scale, (tuple(f for f in products[0] if f.op != "const"),)


def rows_of(update: Node, old: Node, over: tuple[str, ...]) -> tuple[tuple[Row, ...], Affine]:
    """(the rows, the update's affine form in `old` and the rows). over: the dims that are contracted. Raises NotAffine."""
    gone = set(over)
    order = topological([update])
    hit = depends([update], [old])
    read = {
        a for n in order if n in hit and gone & set(n.dims)
        for a in n.args if a in hit and a is not old and not gone & set(a.dims)
    }
    found: list[Node] = [n for n in order if n in read]
    rows = tuple(Row(n, affine(n, [old, *found[:i]]), over, old) for i, n in enumerate(found))
    return rows, affine(update, [old, *found])
