"""The numerical plan of a decay: how products of transition coefficients over a span of steps are formed.

Needs: the coefficient d of a component, as factors, and the interval of each. Gives: for each factor its logarithm where
that is provably safe, and `Decay`, which builds the products over spans inside a block:

    log form      exp of sums of log d. Sums run over disjoint spans, never a difference of two running sums, so -inf is
                  legal (a reset) and gradients do not cancel.
    exact form    products of d by a scan: any sign, and zero, with exact gradients. For coefficients that do not vary
                  along a contracted dim (a [t, s] matrix per head).

Pairs (t, s) of rows inside a block, for a log decay that varies along contracted dims, are split by *levels*: at level b
the rows t of an upper half-block of b rows meet the rows s of the lower half beside it; the anchor is the boundary between
the two, so both exponents (from the boundary to t, from s to the boundary) are sums of log d <= 0 over disjoint spans, and
the level is a plain matrix product. Every pair t > s belongs to exactly one level. See docs/decisions/levels.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from seqc.ir.graph import COL, ROW, Node, const, constant, index, node, renamed, total
from seqc.ir.intervals import ANY, Interval
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import affine_scan, cumsum, expanded, shift, take

FACTORED_SPAN = 2.0  # largest |log d| * rows for which one anchor serves a whole sub-block: costs e^2 in rounding


def log_of(d: Node, ranges: Mapping[Node, Interval]) -> Node | None:
    """log d in a form that neither overflows nor loses digits, or None where d > 0 is not proven."""
    if d.op == "exp":
        return d.args[0]
    if d.op == "sigmoid":
        return node("logsigmoid", d.args[0])
    if d.op == "const":
        value = constant(d)
        return const(math.log(value)) if value > 0 else None
    if d.op == "sub" and d.args[0].op == "const" and d.args[0].attr("value") == 1.0 and d.args[1].op == "sigmoid":
        return node("logsigmoid", -d.args[1].args[0])
    if d.op in ("mul", "div"):
        a, b = (log_of(x, ranges) for x in d.args)
        if a is None or b is None:
            return None
        return a + b if d.op == "mul" else a - b
    if d.op == "sqrt":
        inner = log_of(d.args[0], ranges)
        return None if inner is None else inner * 0.5
    if d.op == "pow" and "const" in (d.args[0].op, d.args[1].op):
        inner = log_of(d.args[0], ranges)
        return None if inner is None else inner * d.args[1]
    if d.op == "where":
        a, b = (log_of(x, ranges) for x in d.args[1:])
        if a is not None and b is not None:
            return where(d.args[0], a, b)
    if d.op == "expand":
        inner = log_of(d.args[0], ranges)
        return None if inner is None else expanded(inner, d.dims)
    return node("log", d) if ranges.get(d, ANY).lo > 0 else None


@dataclass(frozen=True)
class Decay:
    """One factor group of a transition coefficient on the rows of a block (dims include t or are constant).

    log: its logarithm with invalid rows set to 0, or None; linear: the coefficient itself with invalid rows set to 1.
    range: of one step's log.
    """

    log: Node | None
    linear: Node | None
    range: Interval

    @property
    def dims(self) -> frozenset[str]:
        """The dims along which it varies, without time."""
        x = self.log if self.log is not None else self.linear
        assert x is not None
        return frozenset(x.dims) - {ROW}

    def from_start(self, exclusive: bool) -> Node:
        """Product over the rows before row t of the block (and row t itself unless exclusive)."""
        if self.log is not None:
            return node("exp", cumsum(self.log, ROW, exclusive=exclusive))
        assert self.linear is not None
        run = affine_scan(self.linear, const(0.0), const(1.0), ROW)
        return where(first(), 1.0, shift(run, ROW, 1)) if exclusive else run

    def to_end(self) -> Node:
        """Product over the rows after row t."""
        if self.log is not None:
            return node("exp", cumsum(self.log, ROW, reverse=True, exclusive=True))
        assert self.linear is not None
        run = affine_scan(self.linear, const(0.0), const(1.0), ROW, reverse=True)
        last = node("eq", index(ROW), node("size", dim=ROW) - 1.0)
        return where(last, 1.0, shift(run, ROW, -1))

    def whole(self) -> Node:
        """Product over all rows."""
        if self.log is not None:
            return node("exp", total(expanded(self.log, (ROW,)), (ROW,)))
        return take(self.from_start(exclusive=False), ROW, -1)

    def pairs(self, exclusive: bool) -> Node:
        """[t, s]: product over the rows after s up to t (t itself left out if exclusive); meaningful for t >= s."""
        after = node("gt", index(ROW), index(COL))
        if self.log is not None:
            return node("exp", cumsum(where(after, self.log, 0.0), ROW, exclusive=exclusive))
        assert self.linear is not None
        here = where(node("eq", index(ROW), index(COL)), 1.0, 0.0)
        run = affine_scan(where(after, self.linear, 1.0), here, const(0.0), ROW)
        return shift(run, ROW, 1) if exclusive else run

    def level(self, block: int, exclusive: bool) -> tuple[Node, Node]:
        """(row factor, column factor) of one level: from the boundary to t, and from after s to the boundary (on t)."""
        assert self.log is not None
        if block == 1:  # the neighbour: its own step, or nothing, lies between
            return const(1.0) if exclusive else node("exp", self.log), const(1.0)
        up = node("exp", cumsum(self.log, ROW, block, exclusive=exclusive))
        down = node("exp", cumsum(self.log, ROW, block, reverse=True, exclusive=True))
        return up, down


def first() -> Node:
    """Whether a row is the block's first."""
    return node("eq", index(ROW), const(0.0))


def causal(strict: bool) -> Node:
    """[t, s]: s at or before t (strictly before)."""
    return node("gt" if strict else "ge", index(ROW), index(COL))


def columns(x: Node) -> Node:
    """The rows of x as sources: t becomes s."""
    return renamed(x, ROW, COL)
