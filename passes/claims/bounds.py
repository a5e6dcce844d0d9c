"""One linear map on a state -> an interval that holds its eigenvalues, a bound of its 2-norm, and the argument.

In: the map as terms `outer * sum[over](inner * x)` (diagonal where `over` is empty), and the facts about the factors.
Out: `Bound`. The map is D + sum_r a_r b_r^T along the contracted dims, one such matrix for every index of the others.
- A scalar D with one term: the eigenvalues are D and D + b.a, exactly.
- a and b whose elementwise product has one sign: a diagonal scaling makes the map symmetric (zeros by continuity), so
  the eigenvalues are real and lie in D + [min(0, b.a), max(0, b.a)] (Weyl).
- several terms with a_r a multiple of b_r: symmetric; the same with the sum over r.
- otherwise |eigenvalue| <= |D| + sum_r |a_r| |b_r|, and an interval [-x, x] means a disc where they are not real.
A factor of D that stands in every term is taken out first: D N with D >= 0 and N symmetric up to a diagonal scaling has
real eigenvalues within range(D) * range(N). Where a mask chooses the factors (`where(m, .., S[t-1])`), and not along the
contracted dims, the map is one of two: both are bounded, and the range holds what either has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

from seqc.analysis.normal_forms import number
from seqc.analysis.norms import Facts, norm_over
from seqc.ir.graph import Dims, Node, combined, const, total
from seqc.ir.intervals import Interval, magnitude
from seqc.ir.ops.structure import expanded

Product = tuple[Node, ...]
MASKS = 2  # so many are told apart, which are twice as many maps each
Survey = Callable[[Iterable[Node]], Facts]
ZERO = Interval(0.0, 0.0)


class Term(Protocol):
    """sum[across](outer * sum[over](inner * state))."""

    @property
    def state(self) -> Node: ...
    @property
    def outer(self) -> Product: ...
    @property
    def inner(self) -> Product: ...
    @property
    def over(self) -> Dims: ...
    @property
    def across(self) -> Dims: ...


@dataclass(frozen=True)
class Rank:
    """a b^T along `over`, summed `across` dims that a and b share."""

    a: Product
    b: Product
    over: Dims
    across: Dims


@dataclass(frozen=True)
class Bound:
    """eigenvalues: an interval (a disc [-x, x] if not `real`). scalable: symmetric after a positive diagonal scaling.

    diagonal, scalar: along the contracted dims. exact: expressions that are eigenvalues themselves, for messages.
    """

    eigenvalues: Interval
    norm: float
    why: str
    real: bool = True
    scalable: bool = True
    symmetric: bool = True
    diagonal: bool = False
    scalar: bool = False
    exact: tuple[Node, ...] = ()


def contracted(terms: Iterable[Term]) -> Dims:
    """The dims along which the map mixes."""
    return tuple(sorted({d for t in terms for d in t.over}))


def bound(terms: Sequence[Term], survey: Survey, along: Dims) -> Bound:
    """Where the eigenvalues of the map lie; see the file's docstring. `along`: the dims that it, or a map that it is to
    be composed with, contracts."""
    diagonals = [t.outer for t in terms if not t.over]
    ranks = [Rank(t.outer, t.inner, t.over, t.across) for t in terms if t.over]
    return _masked(diagonals, ranks, along, survey, MASKS)


def _masked(diagonals: list[Product], ranks: list[Rank], along: Dims, survey: Survey, masks: int) -> Bound:
    """The bound of the map, or what holds whether the condition of a mask is met or not, where that is more."""
    every = (f for p in (*diagonals, *(x for r in ranks for x in (r.a, r.b))) for f in p)
    met = next((f.args[0] for f in every if f.op == "where" and not set(f.args[0].dims) & set(along)), None)
    whole = _unmasked(diagonals, ranks, along, survey)
    if met is None or not masks or not ranks:
        return whole

    def chosen(branch: int) -> Bound:
        parts = [_branch(p, met, branch) for p in diagonals]
        terms = [(_branch(r.a, met, branch), _branch(r.b, met, branch), r) for r in ranks]
        left = [Rank(a, b, r.over, r.across) for a, b, r in terms if a is not None and b is not None]
        return _masked([p for p in parts if p is not None], left, along, survey, masks - 1)

    one, other = chosen(1), chosen(2)
    found = one.eigenvalues.union(other.eigenvalues)
    real = whole.real or (one.real and other.real)
    return replace(whole, eigenvalues=whole.eigenvalues.meet(found), norm=min(whole.norm, max(one.norm, other.norm)),
                   real=real, scalable=whole.scalable or (one.scalable and other.scalable))


def _branch(p: Product, met: Node, branch: int) -> Product | None:
    """The factors where a condition is met (1) or is not (2); None where one is 0."""
    out = tuple(f.args[branch] if f.op == "where" and f.args[0] is met else f for f in p)
    return None if any(number(f) == 0.0 for f in out) else tuple(f for f in out if number(f) != 1.0)


def _unmasked(diagonals: list[Product], ranks: list[Rank], along: Dims, survey: Survey) -> Bound:
    if len(diagonals) == 1 and ranks:
        pulled = _pull(diagonals[0], ranks, along)
        if pulled is not None:
            left = _diagonal(combined("mul", diagonals[0], 1.0), along, survey)
            return compose(_ranked(const(1.0), pulled, along, survey), left)
    d = combined("add", (combined("mul", p, 1.0) for p in diagonals), 0.0)
    return _ranked(d, ranks, along, survey) if ranks else _diagonal(d, along, survey)


def compose(first: Bound, second: Bound) -> Bound:
    """The product of two maps, in either order."""
    for one, other in ((first, second), (second, first)):
        if one.scalar or (one.diagonal and other.diagonal) or (
            one.diagonal and one.eigenvalues.lo >= 0 and other.scalable
        ):
            return _scaled(one, other)
    norm = magnitude(first.norm, second.norm)
    return Bound(Interval(-norm, norm), norm, _words(first, second, "the norms multiply"), False, False, False)


def _scaled(d: Bound, other: Bound) -> Bound:
    """diag(d) N or N diag(d), where every eigenvalue lies in range(d) * range(N)."""
    both = d.diagonal and other.diagonal
    plain = d.scalar or both
    return Bound(
        d.eigenvalues * other.eigenvalues,
        magnitude(d.norm, other.norm),
        _words(d, other, "" if plain else "a nonnegative diagonal times a matrix that is symmetric up to scaling"),
        real=other.real,
        scalable=other.scalable,
        symmetric=other.symmetric and plain,
        diagonal=both,
        scalar=d.scalar and other.scalar,
        exact=tuple(x * y for x in d.exact for y in other.exact) if plain else (),
    )


def _words(first: Bound, second: Bound, more: str) -> str:
    return "; ".join(dict.fromkeys(w for said in (first.why, second.why, more) for w in said.split("; ") if w))


def _pull(diagonal: Product, ranks: list[Rank], along: Dims) -> list[Rank] | None:
    """The terms without the factors of D: D (1 + a' b^T) or (1 + a b'^T) D; None if some term lacks one."""
    if not diagonal:
        return None
    for left in (True, False):
        out = []
        for r in ranks:
            a, b = list(r.a), list(r.b)
            for f in diagonal:
                places = (a, b) if not set(f.dims) & set(along) else ((a,) if left else (b,))
                place = next((p for p in places if f in p), None)
                if place is None:
                    break
                place.remove(f)
            else:
                out.append(Rank(tuple(a), tuple(b), r.over, r.across))
        if len(out) == len(ranks):
            return out
    return None


def _diagonal(d: Node, along: Dims, survey: Survey) -> Bound:
    interval = survey([d]).of(d)
    scalar = not set(d.dims) & set(along)
    return Bound(interval, interval.magnitude, "", diagonal=True, scalar=scalar, exact=(d,))


def _ranked(d: Node, ranks: list[Rank], along: Dims, survey: Survey) -> Bound:
    """D + sum_r a_r b_r^T."""
    base = _diagonal(d, along, survey)
    insides = [total(combined("mul", (*r.a, *r.b), 1.0), (*r.over, *r.across)) for r in ranks]
    everything = [d, *insides, *(_along(p, r.over) for r in ranks for p in (r.a, r.b))]
    top = [d + inside for inside in insides]
    facts = survey([*everything, *top])
    norm = base.norm
    for r in ranks:
        a, b = (norm_over(_along(p, r.over), r.over, facts).hi for p in (r.a, r.b))
        every = total(const(magnitude(a, b)), r.across)
        norm += survey([every]).of(every).hi
    mirrored = all(_parallel(r) for r in ranks)
    alone = len(ranks) == 1 and not ranks[0].across
    one_sign = mirrored or (alone and _one_sign(ranks[0], facts))
    spread = [facts.of(x).union(ZERO) for x in insides]
    if alone and base.scalar:
        found = base.eigenvalues.union(facts.of(top[0]))
        size = min(norm, found.magnitude) if mirrored else norm
        why = "one rank-one term on a multiple of the identity"
        return Bound(found, size, why, True, one_sign, mirrored, exact=(d, top[0]))
    if one_sign:
        found = reduce(lambda x, y: x + y, spread, base.eigenvalues)
        size = min(norm, found.magnitude) if mirrored else norm
        why = "symmetric" if mirrored else "symmetric after a positive diagonal scaling"
        return Bound(found, size, why, True, True, mirrored)
    return Bound(Interval(-norm, norm), norm, "bounded by the sum of the terms' norms", False, False, False)


def _along(p: Product, over: Dims) -> Node:
    return expanded(combined("mul", p, 1.0), over)


def _split(r: Rank) -> tuple[list[Node], list[Node]]:
    """The factors of a and of b that vary along the contracted dims."""
    a, b = ([f for f in p if set(f.dims) & set(r.over)] for p in (r.a, r.b))
    return a, b


def _parallel(r: Rank) -> bool:
    """a is a multiple of b along the contracted dims."""
    a, b = _split(r)
    for f in list(a):
        if f in b:
            a.remove(f)
            b.remove(f)
    return not a and not b


def _one_sign(r: Rank, facts: Facts) -> bool:
    """Whether a_i b_i has the same sign for all i: equal factors pair up, what is left does not change sign."""
    a, b = _split(r)
    rest = [*a, *b]
    for f in dict.fromkeys(rest):
        for _ in range(rest.count(f) // 2):
            rest.remove(f)
            rest.remove(f)
    return all(i.lo >= 0 or i.hi <= 0 for i in map(facts.of, rest))
