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

from collections.abc import Iterable
from itertools import combinations
from math import isnan

from seqc.analysis.normal_forms import LIMIT, Linear, bare, complement, factors, linear, without
from seqc.analysis.norms import Facts, divisor_norm, is_normaliser, norm_over, regrouped, root
from seqc.analysis.running_maximum import below
from seqc.ir.graph import Dims, Node
from seqc.ir.intervals import ANY, INF, SIGNED_UNIT, UNIT, Interval, magnitude

SILU_LOW = -0.2784645427610738  # min of x sigmoid(x)


def sharpen(n: Node, row: Interval, facts: Facts) -> Interval:
    """`row` met with everything that relations prove of n."""
    match n.op:
        case "add" | "sub":
            form = linear(n)
            if len(form.weights) >= LIMIT:  # a longer sum, of which the form holds a part as it is
                return row
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
    if isnan(form.constant):  # inf - inf: what cancels tells nothing
        return ANY
    out = Interval(form.constant, form.constant)
    for atom, w in form.weights.items():
        out = out + facts.of(atom) * Interval(w, w)
    return out


def _above(n: Node) -> list[Linear]:
    """Values that are never smaller than n."""
    match n.op:
        case "min":
            return [x for a in n.args for x in (linear(a), *_above(bare(a)))][:8]
        case "logsigmoid":
            return [linear(n.args[0])]
        case _:
            return []


def _combination(form: Linear, facts: Facts) -> Interval:
    """The interval of a linear form, with equal terms cancelled and maxima replaced by what they exceed."""
    found = _plain(form, facts)
    for atom, w in form.weights.items():
        rest = form.plus(Linear(0.0, {atom: w}), -1.0)
        lower, upper = (below(atom), _above(atom)) if w > 0 else (_above(atom), below(atom))
        for x in lower:  # w * atom >= w * x
            found = found.meet(Interval(_plain(rest.plus(x, w), facts).lo, INF))
        for x in upper:
            found = found.meet(Interval(-INF, _plain(rest.plus(x, w), facts).hi))
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
                rest2 = without(parts2, wanted[1])
                if i == j or wanted[0] != 1.0 or rest2 is None:
                    continue
                rest1 = without(parts1, [p])
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
            others = without(parts, [p])
            if not back or others is None or not _times(1.0, others, facts).inside(UNIT):
                continue
            a = Linear(0.0, {back[0]: -way.weights[back[0]]})
            b = way.plus(a)
            rest = form.plus(Linear(0.0, {atom: w, back[0]: form.weights[back[0]]}), -1.0)
            scale = Interval(w * c, w * c)
            return scale * _plain(a, facts).union(_plain(b, facts)) + _plain(rest, facts)
    return ANY


def _times(c: float, parts: Iterable[Node], facts: Facts) -> Interval:
    out = Interval(c, c)
    for p in parts:
        out = out * facts.of(p)
    return out


def _common_factor(n: Node, facts: Facts) -> Interval:
    """x - f x is (1 - f) x."""
    x, y = n.args
    c, parts = factors(y)
    whole = factors(x)
    rest = without(parts, whole[1])
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
    if divisor_norm(y, x) is not None:
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
    parts = regrouped(parts)
    outer = [p for p in parts if not set(over) & set(p.dims)]
    inner = [p for p in parts if set(over) & set(p.dims)]
    scale = _times(c, outer, facts)
    missing = tuple(d for d in over if all(d not in p.dims for p in inner))
    scale = scale * facts.count(missing)
    over = tuple(d for d in over if d not in missing)
    for p in dict.fromkeys(inner):
        if inner.count(p) > 1 and set(over) <= set(p.dims):  # sum of p^2 w: the squares weigh the values of w
            norm = norm_over(p, over, facts)
            rest = without(inner, [p, p])
            assert rest is not None
            found = found.meet(scale * (norm * norm * _times(1.0, rest, facts)))
    if any(set(over) - set(p.dims) for p in inner):
        return found
    for i, p in enumerate(inner):
        if _averages(p, over, facts):
            return found.meet(scale * _times(1.0, inner[:i] + inner[i + 1 :], facts))
    if len(inner) == 1:
        bound = magnitude(root(facts.count(over)).hi, norm_over(inner[0], over, facts).hi)
        found = found.meet(scale * Interval(-bound, bound))
    for (i, a), (j, b) in combinations(enumerate(inner), 2):
        bound = magnitude(norm_over(a, over, facts).hi, norm_over(b, over, facts).hi)
        for k, p in enumerate(inner):
            bound = bound if k in (i, j) else magnitude(bound, facts.of(p).magnitude)
        found = found.meet(scale * Interval(-bound, bound))
    return found


def _normalised(n: Node) -> bool:
    """x / |x| or x / sum(x): taken apart, it would lose what is known of it."""
    if n.op != "div":
        return False
    return is_normaliser(bare(n.args[1]), bare(n.args[0]))


def _averages(p: Node, over: Dims, facts: Facts) -> bool:
    """Whether p is nonnegative and sums to one over `over`: x / sum(x), spelled as a quotient."""
    if p.op != "div":
        return False
    x, y = bare(p.args[0]), bare(p.args[1])
    return y.op == "sum" and bare(y.args[0]) is x and y.names("over") == over and facts.of(x).lo >= 0
