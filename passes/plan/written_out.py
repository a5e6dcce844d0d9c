"""program -> the same program without windows (`seqc.ir.windows`).

    sum[L](a * x[t - index[L]])   ->   a[L = 0] * x + a[L = 1] * x[t-1] + ..      term by term: no array of all lags is made
    softmax[L](x[t - index[L]])   ->   of a choice among x, x[t-1], ..

Needs: the step graph. Gives: the same values. The text is as long as there are lags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.ir.graph import BATCH, Node, const, leaf, node, rebuild, topological, total
from seqc.ir.graph import index as index_of
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import take
from seqc.ir.program import Program
from seqc.ir.windows import lags, window_of, windows
from seqc.passes.plan.cutting import image


def written_out(program: Program) -> Program:
    """The program without windows: sums over their lags term by term, other values as a choice among the lags."""
    if not windows(program.graph.values()):
        return program
    done: dict[Node, Node] = {}
    for n in topological(program.graph.values()):
        summed = [window_of(w) for w in windows(n.args) if window_of(w) in n.names("over")] if n.op == "sum" else []
        if summed:
            done[n] = _one_by_one(n, summed[0], done)
        else:
            done[n] = _chosen(n) if window_of(n) else rebuild(n, tuple(done[a] for a in n.args))
    return image(program, done)


def _single(n: Node, j: int) -> Node:
    """A window at one of its lags."""
    lag = lags(n)[j]
    return leaf("input", n.text("name"), (BATCH, *n.names("shape")[2:]), lag)


def _chosen(n: Node) -> Node:
    """A window as a choice among the reads of its lags."""
    made, here = const(0.0), index_of(window_of(n))
    for j in range(len(lags(n))):
        made = where(node("eq", here, const(float(j))), _single(n, j), made)
    return made


def _one_by_one(n: Node, dim: str, done: Mapping[Node, Node]) -> Node:
    """A sum over a window's lags, as the sum of its terms."""
    size = next(len(lags(w)) for w in windows(n.args) if window_of(w) == dim)
    rest = tuple(d for d in n.names("over") if d != dim)
    below = topological(n.args)
    made: Node | None = None
    for j in range(size):
        term = total(_at(below, dim, j, done)[n.args[0]], rest)
        made = term if made is None else made + term
    assert made is not None
    return made


def _at(below: Iterable[Node], dim: str, j: int, done: Mapping[Node, Node]) -> dict[Node, Node]:
    """Nodes at one position of a dim: computed from what they read there, where that is possible."""
    found: dict[Node, Node] = {}
    for n in below:
        if dim not in n.dims:
            found[n] = done[n]
        elif window_of(n) == dim:
            found[n] = _single(n, j)
        elif n.op == "index":
            found[n] = const(float(j))
        elif n.op == "expand":
            left = tuple(d for d in n.names("over") if d != dim)
            inner = found[n.args[0]]
            found[n] = node("expand", inner, over=left) if left else inner
        elif TABLE[n.op].elementwise or n.op in ("sum", "amax") or (n.op == "rename" and dim != n.text("new")):
            found[n] = rebuild(n, tuple(found[a] for a in n.args))
        else:
            found[n] = take(done[n], dim, j)
    return found
