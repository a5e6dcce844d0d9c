"""Facts about several nodes at once, which an operator's own interval rule cannot see.

In: a node, the interval that its operator's rule gives, and the intervals of everything below it. Out: an interval that
may be smaller. The facts, each true of every real value:
- x - max(x, y) <= 0, x - logaddexp(x, y) <= 0, logsigmoid(x) <= x, and what follows by cancelling equal terms of a sum;
- f a + (1 - f) b and b + f (a - b) lie between a and b when f is in [0, 1];
- x - f x = (1 - f) x; f (1 - f) <= 1/4; x sigmoid(x) >= -0.2785;
- x / sum[K](x) is in [0, 1] for x >= 0, and averages what it multiplies; x / sqrt(sum[K](x x)) is a unit vector;
- sum[K](p p w) averages w with weights that add up to |p|^2;
- |sum[K](a b)| <= |a| |b| (Cauchy-Schwarz), with 2-norms from `unit[K]`, from division by a norm, or from ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from seqc.algebra import Linear, bare, complement, factors, linear, number
from seqc.graph import Dims, Node
from seqc.intervals import ANY, INF, SIGNED_UNIT, UNIT, Interval

DEPTH = 12  # how far a norm is followed through products, signs and renamings
SILU_LOW = -0.2784645427610738  # min of x sigmoid(x)


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
            many = many * self.extents.get(d, self.extents.get(d.rstrip("'"), Interval(1.0, INF)))
        return many

    def of(self, n: Node) -> Interval:
        """The interval of a node, also of one that an analysis made up (by its parts)."""
        found = self.ranges.get(n)
        if found is None:
            found = self.ranges.get(bare(n))
        if found is not None:
            return found
        from seqc.ops import TABLE

        if len(n.args) > 2 or any(a not in self.ranges and number(a) is None for a in n.args):
            return ANY
        return TABLE[n.op].interval(n, tuple(self.of(a) for a in n.args))


def sharpen(n: Node, row: Interval, facts: Facts) -> Interval:
    """`row` met with everything that relations prove of n."""
    match n.op:
        case "add" | "sub":
            form = linear(n)
            found = row.meet(_combination(form, facts)).meet(_convex(form, facts)).meet(_between(form, facts))
            return found.meet(_common_factor(n, facts)) if n.op == "sub" else found
        case "mul":
            return row.meet(_product(n, facts))
        case "div":
            return row.meet(_quotient(n, facts))
        case "sum":
            return row.meet(_sum(n, facts))
        case "where":
            return row.meet(_choice(n, facts))
        case _:
            return row


# ---- sums of terms ----


def _plain(form: Linear, facts: Facts) -> Interval:
    out = Interval(form.constant, form.constant)
    for atom, w in form.weights.items():
        out = out + facts.of(atom) * Interval(w, w)
    return out


def _below(n: Node) -> list[Node]:
    """Nodes that are never larger than n."""
    match n.op:
        case "max" | "logaddexp":
            return [x for a in n.args for x in (a, *_below(bare(a)))][:8]
        case "amax" | "softplus" | "abs":
            return [n.args[0]]
        case _:
            return []


def _above(n: Node) -> list[Node]:
    """Nodes that are never smaller than n."""
    match n.op:
        case "min":
            return [x for a in n.args for x in (a, *_above(bare(a)))][:8]
        case "logsigmoid":
            return [n.args[0]]
        case _:
            return []


def _combination(form: Linear, facts: Facts) -> Interval:
    """The interval of a linear form, with equal terms cancelled and maxima replaced by what they exceed."""
    found = _plain(form, facts)
    for atom, w in form.weights.items():
        rest = form.plus(Linear(0.0, {atom: w}), -1.0)
        lower, upper = (_below(atom), _above(atom)) if w > 0 else (_above(atom), _below(atom))
        for x in lower:  # w * atom >= w * x
            found = found.meet(Interval(_plain(rest.plus(linear(x), w), facts).lo, INF))
        for x in upper:
            found = found.meet(Interval(-INF, _plain(rest.plus(linear(x), w), facts).hi))
        if atom.op == "abs":  # |x| >= -x too
            other = _plain(rest.plus(linear(atom.args[0]), -w), facts)
            found = found.meet(Interval(other.lo, INF) if w > 0 else Interval(-INF, other.hi))
    return found


def _convex(form: Linear, facts: Facts) -> Interval:
    """f a + (1 - f) b + rest, for f in [0, 1]."""
    terms = [(w, *factors(atom)) for atom, w in form.weights.items()]
    for i, (w1, c1, parts1) in enumerate(terms):
        for p in parts1:
            f = complement(p)
            if f is None or not facts.of(f).inside(UNIT):
                continue
            wanted = factors(f)
            for j, (w2, c2, parts2) in enumerate(terms):
                rest2 = _without(parts2, wanted[1])
                if i == j or wanted[0] != 1.0 or rest2 is None:
                    continue
                rest1 = _without(parts1, [p])
                assert rest1 is not None
                a, b = _times(w2 * c2, rest2, facts), _times(w1 * c1, rest1, facts)
                others = Linear(form.constant, {
                    atom: w for k, (atom, w) in enumerate(form.weights.items()) if k not in (i, j)})
                return a.union(b) + _plain(others, facts)
    return ANY


def _between(form: Linear, facts: Facts) -> Interval:
    """a + f (b - a) + rest, for f in [0, 1]."""
    for atom, w in form.weights.items():
        c, parts = factors(atom)
        for p in parts:
            way = linear(p)
            back = [x for x, weight in way.weights.items() if form.weights.get(x) == -w * c * weight]
            others = _without(parts, [p])
            if not back or others is None or not _times(1.0, others, facts).inside(UNIT):
                continue
            a = Linear(0.0, {back[0]: -way.weights[back[0]]})
            b = way.plus(a)
            rest = form.plus(Linear(0.0, {atom: w, back[0]: form.weights[back[0]]}), -1.0)
            scale = Interval(w * c, w * c)
            return scale * _plain(a, facts).union(_plain(b, facts)) + _plain(rest, facts)
    return ANY


def _without(parts: list[Node], gone: list[Node]) -> list[Node] | None:
    """The factors left when `gone` are taken out; None if one is not there."""
    left = list(parts)
    for g in gone:
        if g not in left:
            return None
        left.remove(g)
    return left


def _times(c: float, parts: list[Node], facts: Facts) -> Interval:
    out = Interval(c, c)
    for p in parts:
        out = out * facts.of(p)
    return out


def _common_factor(n: Node, facts: Facts) -> Interval:
    """x - f x is (1 - f) x."""
    x, y = n.args
    c, parts = factors(y)
    whole = factors(x)
    rest = _without(parts, whole[1])
    if rest is None or whole[0] == 0.0 or not rest:
        return ANY
    return facts.of(x) * (Interval(1.0, 1.0) - _times(c / whole[0], rest, facts))


# ---- products and quotients ----


def _product(n: Node, facts: Facts) -> Interval:
    a, b = (bare(x) for x in n.args)
    found = ANY
    for x, y in ((a, b), (b, a)):
        if y.op == "sigmoid" and y.args[0] is x:
            found = found.meet(Interval(SILU_LOW, INF))
        if complement(y) is x:
            found = found.meet(Interval(-INF, 0.25))
    return found


def _quotient(n: Node, facts: Facts) -> Interval:
    x, y = (bare(a) for a in n.args)
    if y.op == "sum" and bare(y.args[0]) is x and facts.of(x).lo >= 0:
        return UNIT
    if _norm_of(y, x) is not None:
        return SIGNED_UNIT
    if facts.of(y).lo < 0:
        return ANY
    larger = _combination(linear(y).plus(linear(x), -1.0), facts).lo >= 0  # y >= x
    if larger and facts.of(x).lo >= 0:
        return UNIT
    if larger and _combination(linear(y).plus(linear(x)), facts).lo >= 0:  # y >= -x
        return SIGNED_UNIT
    return ANY


def _choice(n: Node, facts: Facts) -> Interval:
    """where(x < y, x, b): the branch knows its condition."""
    test, a, b = n.args
    if test.op not in ("lt", "le", "gt", "ge"):
        return ANY
    x, y = test.args if test.op in ("lt", "le") else test.args[::-1]  # a branch when x <= y, b when x >= y
    first, second = facts.of(a), facts.of(b)
    if a is x:
        first = _cut(first, -INF, facts.of(y).hi)
    if a is y:
        first = _cut(first, facts.of(x).lo, INF)
    if b is x:
        second = _cut(second, facts.of(y).lo, INF)
    if b is y:
        second = _cut(second, -INF, facts.of(x).hi)
    return first.union(second)


def _cut(i: Interval, lo: float, hi: float) -> Interval:
    return i.meet(Interval(lo, hi))


# ---- reductions ----


def _sum(n: Node, facts: Facts) -> Interval:
    over = n.names("over")
    found = facts.of(n.args[0]) * facts.count(over)
    c, parts = factors(n.args[0], whole=_normalised)
    outer = [p for p in parts if not set(over) & set(p.dims)]
    inner = [p for p in parts if set(over) & set(p.dims)]
    scale = _times(c, outer, facts)
    missing = tuple(d for d in over if all(d not in p.dims for p in inner))
    scale = scale * facts.count(missing)
    over = tuple(d for d in over if d not in missing)
    for p in dict.fromkeys(inner):
        if inner.count(p) > 1 and set(over) <= set(p.dims):  # sum of p^2 w: the squares weigh the values of w
            norm = norm_over(p, over, facts)
            rest = _without(inner, [p, p])
            assert rest is not None
            found = found.meet(scale * (norm * norm * _times(1.0, rest, facts)))
    if any(set(over) - set(p.dims) for p in inner):
        return found
    for i, p in enumerate(inner):
        if _averages(p, over, facts):
            return found.meet(scale * _times(1.0, inner[:i] + inner[i + 1 :], facts))
    if len(inner) == 1:
        bound = math.sqrt(facts.count(over).hi) * norm_over(inner[0], over, facts).hi
        found = found.meet(scale * Interval(-bound, bound))
    for (i, a), (j, b) in combinations(enumerate(inner), 2):
        bound = _bound(norm_over(a, over, facts).hi, norm_over(b, over, facts).hi)
        for k, p in enumerate(inner):
            bound = bound if k in (i, j) else _bound(bound, facts.of(p).magnitude)
        found = found.meet(scale * Interval(-bound, bound))
    return found


def _normalised(n: Node) -> bool:
    """x / |x| or x / sum(x): taken apart, it would lose what is known of it."""
    if n.op != "div":
        return False
    x, y = (bare(a) for a in n.args)
    return _norm_of(y, x) is not None or (y.op == "sum" and bare(y.args[0]) is x)


def _averages(p: Node, over: Dims, facts: Facts) -> bool:
    """Whether p is nonnegative and sums to one over `over`: x / sum(x), spelled as a quotient."""
    if p.op != "div":
        return False
    x, y = bare(p.args[0]), bare(p.args[1])
    return y.op == "sum" and bare(y.args[0]) is x and y.names("over") == over and facts.of(x).lo >= 0


def _norm_of(y: Node, x: Node) -> tuple[Dims, bool] | None:
    """(dims, exact) if y is at least the 2-norm of x over dims: sqrt(sum[K](x x)), + eps inside, or max with eps."""
    if y.op == "max":
        hits = [h for a in y.args if (h := _norm_of(bare(a), x)) is not None]
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


def _bound(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def norm_over(n: Node, over: Dims, facts: Facts, depth: int = DEPTH) -> Interval:
    """The 2-norm of n over the dims `over`, all of which it has."""
    n = bare(n)
    spread = facts.count(over)
    size = facts.of(n)
    least = 0.0 if size.lo <= 0 <= size.hi else min(abs(size.lo), abs(size.hi))
    found = Interval(_bound(math.sqrt(spread.lo), least), _bound(math.sqrt(spread.hi), size.magnitude))
    if n in facts.units:
        dims, norm = facts.units[n]
        if set(dims) <= set(over):
            rest = facts.count(tuple(d for d in over if d not in dims))
            found = found.meet(norm * Interval(math.sqrt(rest.lo), math.sqrt(rest.hi)))
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
        return Interval(_bound(least, inner.lo), _bound(size.magnitude, inner.hi))

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
        case "expand":
            return norm(n.args[0])
        case "mul":
            a, b = n.args
            return times(a, b).meet(times(b, a))
        case "div":
            hit = _norm_of(bare(n.args[1]), bare(n.args[0]))
            if hit is not None and set(over) <= set(hit[0]):
                return Interval(1.0 if hit[1] and hit[0] == over else 0.0, 1.0)
            inverse = facts.of(n.args[1]).inverse()
            return Interval(0.0, _bound(inverse.magnitude, norm(n.args[0]).hi))
        case "add" | "sub":
            return Interval(0.0, norm(n.args[0]).hi + norm(n.args[1]).hi)
        case "where" if not set(n.args[0].dims) & set(over):
            branches = [Interval(0.0, 0.0) if number(x) == 0.0 else norm(x) for x in n.args[1:]]
            return branches[0].union(branches[1])
        case _:
            return unknown
