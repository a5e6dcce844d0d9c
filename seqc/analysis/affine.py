"""step graph node -> its affine form in the states of one component, or the reason why it has none.

    sum_i  sum[across_i](outer_i * sum[over_i](inner_i * S_i[t-1]))  +  sum_j  product_j

Needs: the step graph. Gives: `Affine`, products kept as tuples of factors (each factor a node free of the component's
states), so that later passes can tell which factor carries which dims: an outer product `k * v` stays two factors.
Criterion: additions, multiplication by state-free factors, sums, and choices by a state-free condition are followed;
anything else that touches a state stops with `NotAffine`, which quotes the node.

A choice is no number: 0 * NaN is NaN. What `where(c, x, ..)` keeps under c carries the factor `chosen(c)`, and `product` makes
it a `where` around the other factors again. A coefficient under a choice between an update and the old value is itself a
choice, `where(c, d, 1)`; one under a choice between the old value and none keeps its factor `chosen(c)`: a reset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from seqc.analysis.normal_forms import linear
from seqc.ir.dims import primed
from seqc.ir.graph import Node, combined, const, constant, depends, node, renamed, topological, total
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.ir.traverse import postorder

Product = tuple[Node, ...]
LINEAR = frozenset(("add", "sub", "neg", "mul", "div", "where", "sum", "expand", "rename", "take", "shift"))  # in one value
MOST = 4096  # products and terms of an affine form: put into each other, steps within a step double them each time
MOST_APART = 16  # products without a state that stay apart where a sum contracts them: steps within a step double them too


class NotAffine(Exception):
    """The node that depends on a state in a way that is not affine, and why."""

    def __init__(self, at: Node, why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


@dataclass(frozen=True)
class Term:
    """sum[across](outer * sum[over](inner * state)); `over` is empty for an elementwise term (and then `inner` is).

    across: dims of several contractions that are written back together: a term of that rank.
    """

    state: Node
    outer: Product = ()
    inner: Product = ()
    over: tuple[str, ...] = ()
    across: tuple[str, ...] = ()


@dataclass(frozen=True)
class Affine:
    """Terms in the states, and products without any."""

    terms: tuple[Term, ...] = ()
    rest: tuple[Product, ...] = ()


def chosen(c: Node) -> Node:
    """The factor of what is kept where c holds, and dropped elsewhere. Its negative zero tells it from a number of a spec."""
    return node("where", c, const(1.0), const(-0.0))


def condition(f: Node) -> Node | None:
    """c, where the factor is `chosen(c)`; None for a number."""
    return f.args[0] if f.op == "where" and f.args[1] is const(1.0) and f.args[2] is const(-0.0) else None


def parted(factors: Iterable[Node]) -> tuple[Node | None, Product]:
    """(the condition under which a product is kept, the other factors); None where it always is."""
    listed = list(factors)
    conditions = dict.fromkeys(c for f in listed if (c := condition(f)) is not None)
    kept = combined("and", conditions) if conditions else None
    return kept, tuple(f for f in listed if condition(f) is None)


def product(factors: Iterable[Node]) -> Node:
    """The factors multiplied, left to right, where they are kept; the constant 1 for none."""
    kept, others = parted(factors)
    out = combined("mul", others, 1.0)
    return out if kept is None else where(kept, out, 0.0)


def value(form: Affine) -> Node:
    """The affine form as one node again."""
    parts = []
    for term in form.terms:
        inside = product((*term.inner, term.state))
        parts.append(total(product((*term.outer, total(inside, term.over))), term.across))
    parts += [product(p) for p in form.rest]
    return combined("add", parts, 0.0)


def affine(n: Node, states: Sequence[Node]) -> Affine:
    """The affine form of n in the nodes `states`, which are not looked into. Raises NotAffine."""
    active = depends([n], states)
    done: dict[Node, Affine] = {x: Affine((Term(x),)) for x in states}

    def form(x: Node) -> Affine:
        return done[x] if x in active else Affine(rest=(factors_of(x),))

    for x in postorder([n], lambda x: [a for a in x.args if a in active], done):
        if x in active:
            done[x] = made = _rule(x, active, form)
            if len(made.terms) + len(made.rest) > MOST:
                raise NotAffine(x, f"written out, its linear form has more than {MOST} products")
    return form(n)


def nonlinear(n: Node, states: Sequence[Node]) -> NotAffine | None:
    """The first value below n that is not linear in the nodes `states`, whether or not n has an affine form; or None."""
    active = depends([n], states)
    for x in topological([n]):
        if x in active and x not in states and (why := _nonlinear(x, active)):
            return NotAffine(x, why)
    return None


def _nonlinear(x: Node, active: set[Node]) -> str:
    hit = [a in active for a in x.args]
    if x.op == "mul" and all(hit):
        return "two values that depend on the state are multiplied"
    if x.op == "div" and hit[1]:
        return "the state stands in a denominator"
    if x.op == "where" and hit[0]:
        return "a choice depends on the state"
    if x.op in LINEAR:
        return ""
    return f"`{TABLE[x.op].word or x.op}` is applied to a value that depends on the state"


def _merged(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms, those that read the same contraction as one."""
    out: dict[tuple[Node, Product, tuple[str, ...], tuple[str, ...]], Term] = {}
    plain = []
    for t in terms:
        key = t.state, t.inner, t.over, t.across
        if not t.over:
            plain.append(t)
        elif key in out:
            out[key] = replace(t, outer=(product(out[key].outer) + product(t.outer),))
        else:
            out[key] = t
    return (*plain, *out.values())


def factors_of(n: Node) -> Product:
    """The factors of a product tree; constants last, so that names come first."""
    out: list[Node] = []
    stack = [n]
    while stack:
        x = stack.pop()
        if x.op == "mul":
            stack += [x.args[1], x.args[0]]
        elif x.op == "neg":
            out.append(const(-1.0))
            stack.append(x.args[0])
        elif x.op == "div":
            out.append(const(1.0) / x.args[1])
            stack.append(x.args[0])
        elif x.op != "const" or x.attr("value") != 1.0:
            out.append(x)
    return tuple(out)


def shared_factors(products: Sequence[Product]) -> list[list[Node]]:
    """What products have in common, as often as all have it; then what is left of each."""
    common, left = [], [list(p) for p in products]
    for f in products[0]:
        if all(f in p for p in left):
            common.append(f)
            for p in left:
                p.remove(f)
    return [common, *left]


def common_factors(products: Sequence[Product]) -> Product:
    """Factors whose product is the sum of the products: what they have in common, then the sum of what is left of each.

    A sum that is a constant in exact arithmetic, such as (1 - b) + b, is that constant.
    """
    if len(products) == 1:
        return products[0]
    common, *left = shared_factors(products)
    rest = combined("add", map(product, left))
    known = linear(rest)
    return (*common, rest if known.weights else const(known.constant))


def _rule(x: Node, active: set[Node], form: Callable[[Node], Affine]) -> Affine:
    if x.op in ("add", "sub"):
        left, right = form(x.args[0]), form(x.args[1])
        if x.op == "sub":
            right = scaled(right, (const(-1.0),))
        return Affine(_merged(left.terms + right.terms), left.rest + right.rest)
    if x.op == "neg":
        return scaled(form(x.args[0]), (const(-1.0),))
    if why := _nonlinear(x, active):
        raise NotAffine(x, why)
    if x.op == "mul":
        a, b = x.args
        return scaled(form(a), factors_of(b)) if a in active else scaled(form(b), factors_of(a))
    if x.op == "div":
        return scaled(form(x.args[0]), (node("div", const(1.0), x.args[1]),))
    if x.op == "where":
        return _choice(x.args[0], form(x.args[1]), form(x.args[2]))
    if x.op == "sum":
        inner = form(x.args[0])
        over = x.names("over")
        rest = tuple(_summed_rest(p, over) for p in inner.rest)
        if len(rest) > MOST_APART:
            rest = ((combined("add", map(product, rest)),),)
        return Affine(tuple(_summed(t, over, x) for t in inner.terms), rest)
    if x.op == "expand":
        return form(x.args[0])
    if x.op == "rename":
        inner, old, new = form(x.args[0]), x.text("old"), x.text("new")
        terms = tuple(_called(t, old, new, x) for t in inner.terms)
        return Affine(terms, tuple(tuple(renamed(f, old, new) for f in p) for p in inner.rest))
    if x.op == "shift":
        raise NotAffine(x, "values that depend on the state are moved along a dim")
    raise NotAffine(x, "one position of a dim is read of a value that depends on the state")


def _choice(c: Node, left: Affine, right: Affine) -> Affine:
    """left where c holds, else right: elementwise terms in one state become one, with a coefficient that is chosen."""
    sides = left, right
    together = {t.state for t in left.terms if not t.over} & {t.state for t in right.terms if not t.over}
    plain = [
        Term(state, _either(c, *([t.outer for t in side.terms if t.state is state and not t.over] for side in sides)))
        for state in dict.fromkeys(t.state for t in left.terms) if state in together
    ]
    rest: list[Product] = []
    for side, here in zip(sides, (c, node("not", c)), strict=True):
        others = Affine(tuple(t for t in side.terms if t.over or t.state not in together), side.rest)
        kept = scaled(others, (chosen(here),))
        plain += kept.terms
        rest += [p for p in kept.rest if not any(f.op == "const" and constant(f) == 0.0 for f in p)]
    return Affine(tuple(plain), tuple(rest))


def _either(c: Node, left: Sequence[Product], right: Sequence[Product]) -> Product:
    """Factors whose product is the sum of the products on the left where c holds, else that of those on the right."""
    (keep_left, a), (keep_right, b) = parted(common_factors(left)), parted(common_factors(right))
    out, *rest = shared_factors((a, b))
    if all(rest):
        out.append(where(c, *map(product, rest)))
    else:
        out += [where(c, f, 1.0) for f in rest[0]] + [where(c, 1.0, f) for f in rest[1]]
    resets = ((c, keep_left), (node("not", c), keep_right))
    return (*out, *(chosen(node("or", node("not", here), keep)) for here, keep in resets if keep is not None))


def scaled(form: Affine, factors: Product) -> Affine:
    """The form times state-free factors."""
    dims = {d for f in factors for d in f.dims}
    terms = (_apart(t, dims) for t in form.terms)
    return Affine(
        tuple(replace(t, outer=(*factors, *t.outer)) for t in terms), tuple((*factors, *p) for p in form.rest)
    )


def _apart(term: Term, dims: set[str]) -> Term:
    """The term with none of `dims` summed inside it: a summed dim takes a name of its own where a factor has it too."""
    for d in (*term.across, *(d for d in term.over if d not in term.state.dims)):
        if d in dims:
            own = primed(d, dims.union(*(f.dims for f in (*term.outer, *term.inner, term.state))))
            bound = d in term.across  # else it is summed inside, and the outer factors do not have it
            outer = tuple(renamed(f, d, own) for f in term.outer) if bound else term.outer
            inner = tuple(renamed(f, d, own) for f in term.inner)
            over, across = (tuple(sorted(own if x == d else x for x in dims)) for dims in (term.over, term.across))
            term = Term(term.state, outer, inner, over, across)
    return term


def _called(term: Term, old: str, new: str, at: Node) -> Term:
    """The term with its dim `old` called `new`. A dim that the state is summed over inside keeps its name there."""
    if old in term.over:  # what is renamed is the outer factors' own
        term = _apart(term, {new})
        return replace(term, outer=tuple(renamed(f, old, new) for f in term.outer))
    captured = new in term.over and any(old in f.dims for f in term.inner)
    if old in term.state.dims or (captured and new in term.state.dims):
        raise NotAffine(at, "the state is mixed along a dim by a matrix")
    term = _apart(term, {old, new})
    outer, inner = (tuple(renamed(f, old, new) for f in p) for p in (term.outer, term.inner))
    return replace(term, outer=outer, inner=inner)


def _summed(term: Term, over: tuple[str, ...], at: Node) -> Term:
    """sum[over] of a term: each summed dim goes to the contraction with the state, to the outer factors alone, or, where
    these carry it beside a dim that the state was contracted over, across both."""
    term = _apart(term, set(over))
    row = set(product((*term.inner, term.state)).dims) - set(term.over)  # dims that the contracted state still has
    outside = [d for d in over if d not in row]
    outer = term.outer
    if outside:
        touched = [f for f in outer if set(f.dims) & set(outside)]
        outer = (*(f for f in outer if f not in touched), total(product(touched), outside))
    mixed = [d for d in over if d in row and any(d in f.dims and set(f.dims) & set(term.over) for f in outer)]
    if any(d in term.state.dims for d in mixed):
        raise NotAffine(at, f"what is read of the state is mixed along {', '.join(mixed)} again, differently for each "
                            f"index of {', '.join(term.over)}")
    within = [d for d in over if d in row and d not in mixed]
    moved = tuple(f for f in outer if set(f.dims) & set(within))
    kept = tuple(f for f in outer if f not in moved)
    return Term(
        term.state, kept, (*moved, *term.inner), tuple(sorted((*within, *term.over))),
        tuple(sorted((*mixed, *term.across))),
    )


def _summed_rest(factors: Product, over: tuple[str, ...]) -> Product:
    touched = [f for f in factors if set(f.dims) & set(over)]
    missing = [d for d in over if not any(d in f.dims for f in touched)]
    kept = tuple(f for f in factors if f not in touched)
    return (*kept, total(product(touched), (*over, *missing)))
