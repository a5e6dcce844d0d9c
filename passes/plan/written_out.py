"""program -> the same program without reads at many lags along a dim (`seqc.passes.plan.lag_reads`).

    sum[L](a * x[t - index[L]])   ->   a[L = 0] * x + a[L = 1] * x[t-1] + ..      term by term: no array of all lags is made
    softmax[L](x[t - index[L]])   ->   of a choice among x, x[t-1], ..

Needs: the step graph. Gives: the same values. The text is as long as there are lags.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.ir.graph import Node, const, node, rebuild, topological, total
from seqc.ir.graph import index as index_of
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import take
from seqc.ir.program import Program
from seqc.passes.plan.cutting import image
from seqc.passes.plan.lag_reads import lag_reads, lines_of, over_lags, single


def written_out(program: Program) -> Program:
    """The program without such reads: sums over their lags term by term, other values as a choice among the lags."""
    return _Written(program).program() if lag_reads(program) else program


class _Written:
    """done: node -> what it has become."""

    def __init__(self, program: Program) -> None:
        self.old, self.reads, self.lines = program, lag_reads(program), lines_of(program)
        self.done: dict[Node, Node] = {}

    def program(self) -> Program:
        """The new program."""
        for n in topological(self.old.graph.values()):
            summed = over_lags(self.reads, n.args) & set(n.names("over")) if n.op == "sum" else ()
            if summed:
                self.done[n] = self._one_by_one(n, min(summed))
            elif n in self.reads:
                self.done[n] = self._chosen(n)
            else:
                self.done[n] = rebuild(n, tuple(self.done[a] for a in n.args))
        return image(self.old, self.done)

    def _single(self, n: Node, j: int) -> Node:
        made = single(n, self.reads[n], self.lines, j)
        return self.done.get(made, made)

    def _chosen(self, n: Node) -> Node:
        """A read as a choice among its lags."""
        read, made = self.reads[n], const(0.0)
        for j in range(len(read.lags)):
            made = where(node("eq", index_of(read.dim), const(float(j))), self._single(n, j), made)
        return made

    def _one_by_one(self, n: Node, dim: str) -> Node:
        """A sum over lags, as the sum of its terms."""
        below, rest = topological(n.args), tuple(d for d in n.names("over") if d != dim)
        count = next(len(self.reads[x].lags) for x in below if x in self.reads and self.reads[x].dim == dim)
        terms = [total(self._at(below, dim, j)[n.args[0]], rest) for j in range(count)]
        made = terms[0]
        for term in terms[1:]:
            made = made + term
        return made

    def _at(self, below: Iterable[Node], dim: str, j: int) -> dict[Node, Node]:
        """Nodes at one position of a dim: computed from what they read there, where that is possible."""
        found: dict[Node, Node] = {}
        for n in below:
            if dim not in n.dims:
                found[n] = self.done[n]
            elif n in self.reads and self.reads[n].dim == dim:
                found[n] = self._single(n, j)
            elif n.op == "index":
                found[n] = const(float(j))
            elif n.op == "expand":
                left, inner = tuple(d for d in n.names("over") if d != dim), found[n.args[0]]
                found[n] = node("expand", inner, over=left) if left else inner
            elif TABLE[n.op].elementwise or n.op in ("sum", "amax") or (n.op == "rename" and dim != n.text("new")):
                found[n] = rebuild(n, tuple(found[a] for a in n.args))
            else:
                found[n] = take(self.done[n], dim, j)
        return found
