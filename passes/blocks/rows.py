"""The updates of linear states -> their rows: what they read of the old states, without the contracted dims, and write back.

    S = S[t-1] + k * (v - sum[K](k * S[t-1]))   ->   w = v - sum[K](k * S[t-1]),   S = S[t-1] + k * w

Needs: the step graph. Gives: each row as an affine form in the old states and in the rows before it, and the updates as forms
in the old states and the rows. Several micro-steps stay several rows, each a contraction of what the step before has left: put
into each other, they would be as many as there are subsets of micro-steps, and each alone could grow without bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from seqc.analysis.affine import Affine, Product, affine
from seqc.ir.graph import BATCH, Node, constant, depends, topological


@dataclass(frozen=True)
class Read:
    """scale * sum[over](sum of products * state), of one old state."""

    state: Node
    over: tuple[str, ...]
    scale: float
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Row:
    """node: the row in the step graph; form: its affine form in the old states and the rows before.

    rank: dims of the row that no state has: a step has a row for each of their indices.
    """

    node: Node
    form: Affine
    rank: tuple[str, ...]
    olds: tuple[Node, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        """Its contractions of the old states, those of the same state over the same dims as one."""
        found: dict[tuple[Node, tuple[str, ...]], list[Product]] = {}
        for t in self.form.terms:
            if t.state in self.olds:
                found.setdefault((t.state, t.over), []).append((*t.outer, *t.inner))
        return tuple(Read(state, over, *_scaled(products)) for (state, over), products in found.items())


def _scaled(products: list[Product]) -> tuple[float, tuple[Product, ...]]:
    if len(products) != 1:
        return 1.0, tuple(products)
    scale = prod(constant(f) for f in products[0] if f.op == "const")
    return scale, (tuple(f for f in products[0] if f.op != "const"),)


def rows_of(
    updates: Sequence[Node], olds: Sequence[Node], over: tuple[str, ...]
) -> tuple[tuple[Row, ...], tuple[Affine, ...]]:
    """(the rows, the updates' affine forms in `olds` and the rows). over: the dims that are contracted. Raises NotAffine."""
    gone, own = set(over), {d for old in olds for d in old.dims} | {BATCH}
    order = topological(updates)
    hit = depends(updates, olds)
    read = {
        a for n in order if n in hit and gone & set(n.dims)
        for a in n.args if a in hit and a not in olds and not gone & set(a.dims)
    }
    rows: list[Row] = []
    for n in order:
        if n not in read:
            continue
        form = affine(n, [*olds, *(row.node for row in rows)])
        if any(t.over for t in form.terms) or any(t.state not in olds for t in form.terms):
            rows.append(Row(n, form, tuple(d for d in n.dims if d not in own), tuple(olds)))
    nodes = [row.node for row in rows]
    return tuple(rows), tuple(affine(update, [*olds, *nodes]) for update in updates)
