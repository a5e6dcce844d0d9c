"""step graph -> block of C rows, for two states that a rotation turns: a complex state, or a pair that is one.

    (x, y) = m R(a) (x[t-1], y[t-1]) + (b, c),    R(a) the rotation by the angle a
    ->
    p_t = a_1 + .. + a_t over the rows so far;  (x, y)_t = R(p_t) (u, v)_t,  u = m u[t-1] + (R(-p) (b, c))_1, v likewise

In the frame that turns along, the states have the real coefficient m: each is a scan, or a chunk, of its own, started with
the state as the block begins, and |R| = 1: nothing grows. Needs: `seqc.analysis.rotation`. Gives: `Turning`, which answers
readouts of each state like `coupled.System`, and `turned_scan`, the states on all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.analysis.affine import product
from seqc.ir.graph import ROW, Node, const, node
from seqc.ir.ops.structure import affine_scan, cumsum, expanded, take
from seqc.passes.blocks.chunkwise import Chunk
from seqc.passes.blocks.solving import Source


@dataclass(frozen=True)
class Frame:
    """The turning frame of a block: the angle of every row, with rows outside the sequence adding none."""

    angle: Node

    def phase(self, exclusive: bool = False) -> tuple[Node, Node]:
        """[t]: (cos, sin) of the angles up to a row (before it if exclusive)."""
        p = cumsum(self.angle, ROW, exclusive=exclusive)
        return node("cos", p), node("sin", p)

    def turned_back(self, writes: tuple[tuple[Source, ...], tuple[Source, ...]]) -> tuple[tuple[Source, ...], ...]:
        """What is written to the two states, as seen in the frame."""
        cos, sin = self.phase()
        b, c = writes
        first = (*_times(b, cos), *_times(c, sin))
        second = (*_times(c, cos), *_times(b, -sin))
        return first, second


def _times(sources: tuple[Source, ...], factor: Node) -> tuple[Source, ...]:
    return tuple(Source((*s.factors, factor)) for s in sources)


@dataclass
class Turning:
    """Two chunks in the turning frame."""

    frame: Frame
    chunks: tuple[Chunk, Chunk]

    def read(self, i: int, q: Node, over: tuple[str, ...], exclusive: bool) -> Node:
        """[t, ...]: sum[over](q * state i) after the row's own update (before it if exclusive)."""
        cos, sin = self.frame.phase(exclusive)
        u, v = self.chunks
        if i == 0:
            return u.read(q * cos, over, exclusive) - v.read(q * sin, over, exclusive)
        return u.read(q * sin, over, exclusive) + v.read(q * cos, over, exclusive)

    def end(self, i: int) -> Node:
        """State i as the block ends."""
        cos, sin = (take(x, ROW, -1) for x in self.frame.phase())
        u, v = (chunk.end() for chunk in self.chunks)
        return cos * u - sin * v if i == 0 else sin * u + cos * v


def turned_scan(
    frame: Frame, scale: Node, writes: tuple[tuple[Source, ...], tuple[Source, ...]], olds: tuple[Node, Node],
    resets: bool = False,
) -> tuple[Node, Node]:
    """[t, ...]: both states on all rows. scale: m with rows outside the sequence at 1. resets: whether m = 0 is one."""
    dims = (*olds[0].dims, ROW)
    scans = []
    for sources, old in zip(frame.turned_back(writes), olds, strict=True):
        given = _sum(sources)
        scans.append(affine_scan(expanded(scale, dims), expanded(given, dims), old, ROW, resets=resets))
    u, v = scans
    cos, sin = frame.phase()
    return cos * u - sin * v, sin * u + cos * v


def _sum(sources: tuple[Source, ...]) -> Node:
    out = product(sources[0].factors) if sources else const(0.0)
    for s in sources[1:]:
        out = out + product(s.factors)
    return out
