"""What is known of a graph's values while ranges are derived, and the 2-norms that follow from it.

In: extents of dims, intervals of nodes, the unit norms that the spec declares. Out: `norm_over`, an interval of the
2-norm of a node over some dims: declared, or by division by a norm, followed through signs, products, sums, renaming
and choices, or from the node's range and the number of elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from seqc.analysis.normal_forms import bare, factors, linear, number
from seqc.ir.dims import unprimed
from seqc.ir.graph import Dims, Node
from seqc.ir.intervals import ANY, INF, Interval, magnitude
from seqc.ir.ops import TABLE

DEPTH = 12  # how far a norm is followed


@dataclass
class Facts:
    """What is known so far: extents of dims, intervals of nodes, and 2-norms of leaves over some dims."""

    extents: Mapping[str, Interval]
    ranges: dict[Node, Interval]
    units: dict[Node, tuple[Dims, Interval]] = field(default_factory=dict)

    def count(self, dims: Dims) -> Interval:
        """The number of elements along `dims`."""
        many = Interval(1.0, 1.0)
        for d in dims:
            many = many * self.extents.get(d, self.extents.get(unprimed(d), Interval(1.0, INF)))
        return many

    def of(self, n: Node) -> Interval:
        """The interval of a node, also of one that an analysis made up (by its parts)."""
        found = self.ranges.get(n)
        if found is None:
            found = self.ranges.get(bare(n))
        if found is not None:
            return found
        if len(n.args) > 2 or any(a not in self.ranges and number(a) is None for a in n.args):
            return ANY
        return TABLE[n.op].interval(n, tuple(self.of(a) for a in n.args))


def divisor_norm(y: Node, x: Node) -> tuple[Dims, bool] | None:
    """(dims, exact) if y is at least the 2-norm of x over dims: sqrt(sum[K](x x)), + eps inside, or max with eps."""
    if y.op == "max":
        hits = [h for a in y.args if (h := divisor_norm(bare(a), x)) is not None]
        return (hits[0][0], False) if hits else None
    if y.op != "sqrt":
        return None
    form = linear(y.args[0])
    if form.constant < 0 or len(form.weights) != 1:
        return None
    ((square, w),) = form.weights.items()
    if square.op != "sum" or w < 1.0:
        return None
    c, parts = factors(square.args[0])
    if c == 1.0 and len(parts) == 2 and parts[0] is parts[1] is x:
        return square.names("over"), form.constant == 0 and w == 1.0
    return None


def regrouped(parts: list[Node]) -> list[Node]:
    """Factors with x and 1 / |x| (or 1 / sum(x)) put together as the one factor x / |x|."""
    out = list(parts)
    for inverse in parts:
        if inverse.op != "div" or number(inverse.args[0]) != 1.0:
            continue
        y = bare(inverse.args[1])
        x = next((p for p in out if p is not inverse and is_normaliser(y, bare(p))), None)
        if x is not None:
            out[out.index(x)] = x / inverse.args[1]
            out.remove(inverse)
    return out


def is_normaliser(y: Node, x: Node) -> bool:
    """Whether x / y is known to have a 2-norm of at most 1, or to sum to 1."""
    return divisor_norm(y, x) is not None or (y.op == "sum" and bare(y.args[0]) is x)


def root(i: Interval) -> Interval:
    """The square root, rounded outward."""
    lo, hi = math.sqrt(i.lo), math.sqrt(i.hi)
    lo = lo if lo * lo <= i.lo else math.nextafter(lo, 0.0)
    return Interval(lo, hi if hi * hi >= i.hi else math.nextafter(hi, INF))


def norm_over(n: Node, over: Dims, facts: Facts, depth: int = DEPTH) -> Interval:
    """The 2-norm of n over the dims `over`, all of which it has."""
    n = bare(n)
    spread = root(facts.count(over))
    size = facts.of(n)
    least = 0.0 if size.lo <= 0 <= size.hi else min(abs(size.lo), abs(size.hi))
    found = Interval(magnitude(spread.lo, least), magnitude(spread.hi, size.magnitude))
    if n in facts.units:
        dims, norm = facts.units[n]
        if set(dims) <= set(over):
            found = found.meet(norm * root(facts.count(tuple(d for d in over if d not in dims))))
        elif set(over) <= set(dims):
            found = found.meet(Interval(0.0, norm.hi))
    return found.meet(_norm_by_parts(n, over, facts, depth - 1)) if depth else found


def _norm_by_parts(n: Node, over: Dims, facts: Facts, depth: int) -> Interval:
    unknown = Interval(0.0, INF)

    def norm(x: Node) -> Interval:
        return norm_over(x, over, facts, depth) if set(over) <= set(x.dims) else unknown

    def times(scalar: Node, x: Node) -> Interval:
        size = facts.of(scalar)
        least = 0.0 if size.lo <= 0 <= size.hi or set(scalar.dims) & set(over) else min(abs(size.lo), abs(size.hi))
        inner = norm(x)
        return Interval(magnitude(least, inner.lo), magnitude(size.magnitude, inner.hi))

    match n.op:
        case "neg" | "abs":
            return norm(n.args[0])
        case "tanh" | "sin":
            return Interval(0.0, norm(n.args[0]).hi)
        case "max" if 0.0 in (number(n.args[0]), number(n.args[1])):
            return Interval(0.0, norm(n.args[1] if number(n.args[0]) == 0.0 else n.args[0]).hi)
        case "rename":
            back = tuple(sorted(n.text("old") if d == n.text("new") else d for d in over))
            return norm_over(n.args[0], back, facts, depth)
        case "expand" | "take":
            return norm(n.args[0])
        case "shift" if n.text("dim") not in over:
            return Interval(0.0, norm(n.args[0]).hi)
        case "mul":
            a, b = n.args
            c, parts = factors(n)
            units = regrouped(parts)
            found = times(a, b).meet(times(b, a))
            if len(units) < len(parts):
                for i, p in enumerate(units):
                    hi = magnitude(abs(c), norm(p).hi)
                    for q in (*units[:i], *units[i + 1 :]):
                        hi = magnitude(hi, facts.of(q).magnitude)
                    found = found.meet(Interval(0.0, hi))
            return found
        case "div":
            hit = divisor_norm(bare(n.args[1]), bare(n.args[0]))
            if hit is not None and set(over) <= set(hit[0]):
                return Interval(1.0 if hit[1] and hit[0] == over else 0.0, 1.0)
            inverse = facts.of(n.args[1]).inverse()
            return Interval(0.0, magnitude(inverse.magnitude, norm(n.args[0]).hi))
        case "add" | "sub":
            return Interval(0.0, norm(n.args[0]).hi + norm(n.args[1]).hi)
        case "where" if not set(n.args[0].dims) & set(over):
            branches = [Interval(0.0, 0.0) if number(x) == 0.0 else norm(x) for x in n.args[1:]]
            return branches[0].union(branches[1])
        case _:
            return unknown
