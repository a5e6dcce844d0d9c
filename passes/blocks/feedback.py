"""The updates of linear states -> the unknown rows of a block (`seqc.passes.blocks.solving`), and the forms that have them.

    S = a * S[t-1] + sum[R](k * (v - sum[K](k * S[t-1])))   ->   R unknowns a step, w_r = v_r - sum[K](k_r * S[t-1])

Needs: updates, the dims that feedback contracts, how a step's value is lifted to rows. Refuses with `NotChunkwise`: feedback
that contracts other dims, or what it has read once more, or is of a rank that no fixed size says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as combinations

from seqc.analysis.affine import Affine, NotAffine, Product, chosen, condition, parted, product
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, constant, total
from seqc.ir.intervals import ANY, Interval
from seqc.ir.ops.structure import at_position
from seqc.passes.blocks.rows import Read, Row, rows_of
from seqc.passes.blocks.selecting import both, kept
from seqc.passes.blocks.solving import NotChunkwise, Reading, Source, Unknown

MOST_ROWS = 16  # rows a step that are solved together: the system's text grows as their square
Place = Mapping[str, int]  # an index of each dim of a row's rank


@dataclass(frozen=True)
class Feedback:
    """forms: the updates in the old states and the rows; unknowns: a block's; joint: whether to solve these together."""

    forms: tuple[Affine, ...]
    unknowns: tuple[Unknown, ...]
    joint: bool


@dataclass(frozen=True)
class Lifting:
    """How a step's values stand on the rows of a block. sum: of products; source: factors that write; here: [t], whether a row
    is one of those that are lowered, None where all are."""

    sum: Callable[[Sequence[Product]], Node]
    source: Callable[[Product], Source]
    sizes: Mapping[str, int]  # of the dims that have one size only
    ranges: Mapping[Node, Interval]
    lift: Callable[[Node], Node]
    here: Node | None = None


def feedback(
    updates: Sequence[Node], olds: Sequence[Node], over: tuple[str, ...], lifting: Lifting
) -> Feedback:
    """over: the dims that feedback contracts. Raises NotChunkwise."""
    try:
        rows, forms = rows_of(updates, olds, over)
    except NotAffine as stop:
        raise NotChunkwise(stop.why) from None
    every = [(row, place) for row in rows for place in _places(row, lifting.sizes)]
    if len(every) > MOST_ROWS:
        raise NotChunkwise(f"its feedback has {len(every)} rows a step: at most {MOST_ROWS} are solved together")
    for form in forms:
        _check(form, rows, over)
    out = []
    uses = _uses(rows, forms)
    for row, place in every:
        _check(row.form, rows, over)
        use = uses[row.node]
        used = both(None if use is None else lifting.lift(use), lifting.here)
        given = _given(row, place, lifting)
        out.append(Unknown(
            tuple(_reading(read, place, olds, over, lifting, used) for read in row.reads),
            {i: kept(used, x) for i, (other, there) in enumerate(every)
             if (x := _same(row, place, other, there, lifting)) is not None},
            None if given is None else kept(used, given),
            tuple(
                (i, lifting.source(_at((*t.outer, *t.inner), place)))
                for i, form in enumerate(forms) for t in form.terms if t.state is row.node
            ),
        ))
    return Feedback(forms, tuple(out), not (_micro_steps(out) or _one_sign(rows, forms, lifting.ranges)))


def _uses(rows: Sequence[Row], forms: Sequence[Affine]) -> dict[Node, Node | None]:
    """Of each row the condition without which nothing uses it: elsewhere it may be 0. None where it is always used.

    A condition with a dim that the row lacks, such as one that the row was contracted over, chooses no rows.
    """
    found: dict[Node, list[Node]] = {}
    for row in reversed(rows):
        each = [
            [*(c for f in t.outer if (c := condition(f)) is not None), *after]
            for form, after in (*((form, []) for form in forms), *((x.form, found[x.node]) for x in rows if x.node in found))
            for t in form.terms if t.state is row.node
        ]
        common = [c for c in dict.fromkeys(each[0] if each else ()) if all(c in other for other in each)]
        found[row.node] = [c for c in common if set(c.dims) <= {*row.node.dims, BATCH} - set(row.rank)]
    return {n: parted(map(chosen, conditions))[0] for n, conditions in found.items()}


def _micro_steps(unknowns: Sequence[Unknown]) -> bool:
    """Whether each row reads what the one before it has left: the first rows alone are the first micro-steps."""
    return all(i in row.same for i, row in enumerate(unknowns[1:]))


def _one_sign(rows: Sequence[Row], forms: Sequence[Affine], ranges: Mapping[Node, Interval]) -> bool:
    """Whether the rows add c * b b^T to the transition with factors c of one sign: with some of them alone it lies between
    the transition without rows and that with all of them."""
    signs = set()
    for row in rows:
        written = [t for form in forms for t in form.terms if t.state is row.node]
        if len(row.reads) != 1 or len(written) != 1 or len(row.form.terms) != 1 or len(row.reads[0].products) != 1:
            return False
        left = [*written[0].outer, *written[0].inner]
        sign = row.reads[0].scale
        for f in row.reads[0].products[0]:
            if f in left:
                left.remove(f)
            else:
                left.append(f)
        for f in parted(left)[1]:
            if set(f.dims) & set(row.reads[0].over):
                return False
            known = ranges.get(f, ANY) if f.op != "const" else Interval(constant(f), constant(f))
            sign = sign if known.lo >= 0 else -sign if known.hi <= 0 else 0.0
        signs.add(math.copysign(1.0, sign) if sign else 0.0)
    return len(signs) == 1 and 0.0 not in signs


def _places(row: Row, sizes: Mapping[str, int]) -> list[Place]:
    """Every index of the dims of a row's rank."""
    for d in row.rank:
        if unprimed(d) not in sizes:
            size = f"`dim {d} {{4}}`, or dims={{\"{d}\": 4}} to the compiler"
            raise NotChunkwise(f"its feedback has a row for each index of {d}, which needs one fixed size ({size})")
    counts = [range(sizes[unprimed(d)]) for d in row.rank]
    return [dict(zip(row.rank, at, strict=True)) for at in combinations(*counts)]


def _check(form: Affine, rows: Sequence[Row], over: tuple[str, ...]) -> None:
    """Whether the form takes rows as they are, or summed over their rank, and contracts states in rows alone."""
    rank = {row.node: row.rank for row in rows}
    for t in form.terms:
        mixed = [d for d in t.over if d not in rank[t.state]] if t.state in rank else list(t.across)
        if mixed:
            read, again = ", ".join(over), ", ".join(mixed)
            raise NotChunkwise(f"what its feedback reads over {read} is contracted over {again} before it is written")


def _at(factors: Product, place: Place) -> Product:
    out = factors
    for d, i in place.items():
        out = tuple(at_position(f, d, i) for f in out)
    return out


def _reading(
    read: Read, place: Place, olds: Sequence[Node], over: tuple[str, ...], lifting: Lifting, used: Node | None
) -> Reading:
    along = tuple(d for d in read.over if d in read.state.dims)
    extra = tuple(d for d in read.over if d not in along)
    wanted = tuple(sorted(d for d in over if d in read.state.dims))
    if along != wanted:
        raise NotChunkwise(f"its feedback contracts {', '.join(along)} and also {', '.join(wanted)}")
    products = [_at(p, place) for p in read.products]
    by = lifting.sum([(total(product(p), extra),) for p in products] if extra else products)
    return Reading(list(olds).index(read.state), kept(used, by), along, read.scale)


def _same(row: Row, place: Place, other: Row, there: Place, lifting: Lifting) -> Node | None:
    """What another row of the step adds to this one, as a factor of it."""
    found: list[Product] = []
    for t in row.form.terms:
        if t.state is other.node and all(place[d] == i for d, i in there.items() if d not in t.over):
            inner = _at(t.inner, {d: i for d, i in there.items() if d in t.over})  # summed: each index of the other
            factors = _at((*t.outer, *inner), place)
            found.append((total(product(factors), t.across),) if t.across else factors)
    return lifting.sum(found) if found else None


def _given(row: Row, place: Place, lifting: Lifting) -> Node | None:
    given = [_at(p, place) for p in row.form.rest if not is_zero(p)]
    return lifting.sum(given) if given else None


def is_zero(p: Product) -> bool:
    """Whether a product has a factor 0."""
    return any(f.op == "const" and f.attr("value") == 0.0 for f in p)
