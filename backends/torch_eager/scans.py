"""Scans as they are printed: with the shift of their coefficients, and only the last value where no other is read.

In: nodes. Out: `Scan`s: what a call computes, and of which nodes. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seqc.ir.graph import Node
from seqc.ir.ops.structure import resets, unexpanded


@dataclass(frozen=True)
class Scan:
    """One call. later: row i is multiplied by the coefficient of the row visited before; end: only the last value.

    product: it is the running product of a (b is 0, start is 1).
    """

    op: str
    a: Node
    b: Node
    start: Node
    dim: str
    reverse: bool
    later: bool
    end: bool
    resets: bool = False

    @property
    def product(self) -> bool:
        """Whether the values are the running products of a."""
        return self.op == "affine_scan" and not self.later and _constant(self.b, 0.0) and _constant(self.start, 1.0)

    @property
    def from_zero(self) -> bool:
        """Whether a linear scan starts from zero."""
        return self.op == "affine_scan" and _constant(self.start, 0.0)

    @property
    def parts(self) -> tuple[Node, ...]:
        """The nodes that the call reads."""
        return (self.a, self.b, self.start)


def scans_of(order: Sequence[Node], once: Callable[[Node], bool]) -> dict[Node, Scan]:
    """Node -> its scan, for scans and for the last values of scans that nobody reads otherwise."""
    out: dict[Node, Scan] = {}
    for n in order:
        if n.op in ("affine_scan", "max_scan"):
            out[n] = _scan(n, end=False)
        elif n.op == "take" and n.args[0].op in ("affine_scan", "max_scan") and once(n.args[0]):
            scan = _scan(n.args[0], end=True)
            if scan.dim == n.text("dim") and n.number("at") == (0 if scan.reverse else -1):
                out[n] = scan
    return out


def befores_of(order: Sequence[Node]) -> dict[Node, tuple[Node, Node]]:
    """Node -> (first, x) where it is x one row earlier, and `first` on the first row."""
    out: dict[Node, tuple[Node, Node]] = {}
    for n in order:
        if n.op != "where" or n.args[0].op != "eq" or n.args[2].op != "shift" or n.args[2].number("by") != 1:
            continue
        dim, rows = n.args[2].text("dim"), n.args[0].args
        first = any(x.op == "index" and x.text("dim") == dim for x in rows) and any(_constant(x, 0.0) for x in rows)
        if first and dim not in n.args[1].dims and n.args[0].dims == (dim,):
            out[n] = (n.args[1], n.args[2].args[0])
    return out


def _scan(n: Node, end: bool) -> Scan:
    a, b, start = n.args
    reverse = n.op == "affine_scan" and bool(n.number("reverse"))
    dim = n.text("dim")
    moved = unexpanded(a, dim)
    a = moved if moved.op == "shift" else a
    later = (
        n.op == "affine_scan" and a.op == "shift" and a.text("dim") == dim
        and a.number("by") == (-1 if reverse else 1) and _constant(start, 0.0)
    )
    return Scan(n.op, a.args[0] if later else a, b, start, dim, reverse, later, end, resets(n))


def _constant(n: Node, value: float) -> bool:
    n = unexpanded(n)
    return n.op == "const" and n.attr("value") == value
