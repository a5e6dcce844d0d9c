"""The updates of linear states -> the unknown rows of a block (`seqc.passes.blocks.solving`), and the forms that have them.

    S = a * S[t-1] + sum[R](k * (v - sum[K](k * S[t-1])))   ->   R unknowns a step, w_r = v_r - sum[K](k_r * S[t-1])

Needs: updates, the dims that feedback contracts, how a step's value is lifted to rows. Refuses with `NotChunkwise`: feedback
that contracts other dims, or what it has read once more, or is of a rank that no fixed size says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from itertools import zip_longest

from seqc.analysis.affine import Affine, NotAffine, Product, chosen, condition, parted, product
from seqc.analysis.normal_forms import without
from seqc.ir.dims import rank_dim, unprimed
from seqc.ir.graph import BATCH, Node, index, node, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import at_position
from seqc.passes.blocks.rows import Read, Row, rows_of
from seqc.passes.blocks.selecting import both, kept
from seqc.passes.blocks.solving import ZERO, NotChunkwise, Reading, Source, Unknown
from seqc.passes.blocks.stacking import Stacking

MOST_ROWS = 16  # rows a step that are solved together: the system's text grows as their square
Place = Mapping[str, int]  # an index of each dim of a row's rank


@dataclass(frozen=True)
class Feedback:
    """forms: the updates in the old states and the rows; unknown: what a block solves for, None where nothing is fed back."""

    forms: tuple[Affine, ...]
    unknown: Unknown | None


@dataclass(frozen=True)
class Lifting:
    """How a step's values stand on the rows of a block. sum: of products; source: factors that write; here: [t], whether a row
    is one of those that are lowered, None where all are."""

    sum: Callable[[Sequence[Product]], Node]
    source: Callable[[Product], Source]
    sizes: Mapping[str, int]  # of the dims that have one size only
    lift: Callable[[Node], Node]
    here: Node | None = None


def feedback(
    updates: Sequence[Node], olds: Sequence[Node], over: tuple[str, ...], lifting: Lifting, decay: Product = ()
) -> Feedback:
    """over: the dims that feedback contracts; decay: the coefficient of the one state, () for none or where there are several.
    Where every row reads the state times that, rows read it decayed. Raises NotChunkwise."""
    try:
        rows, forms = rows_of(updates, olds, over)
    except NotAffine as stop:
        raise NotChunkwise(stop.why) from None
    every = [(row, place) for row in rows for place in _places(row, lifting.sizes)]
    reads = [p for row in rows for read in row.reads for p in read.products]
    decay = decay if all(without(p, decay) is not None for p in reads) else ()
    if len(every) > MOST_ROWS:
        raise NotChunkwise(f"its feedback has {len(every)} rows a step: at most {MOST_ROWS} are solved together")
    for form in forms:
        _check(form, rows, over)
    out: list[Unknown] = []
    same: dict[tuple[int, int], Node] = {}
    uses = _uses(rows, forms)
    for row, place in every:
        _check(row.form, rows, over)
        use = uses[row.node]
        used = both(None if use is None else lifting.lift(use), lifting.here)
        given = _given(row, place, lifting)
        same |= {
            (len(out), i): kept(used, x) for i, (other, there) in enumerate(every[: len(out)])
            if (x := _same(row, place, other, there, lifting)) is not None
        }
        out.append(Unknown(
            tuple(_reading(read, place, olds, over, lifting, used, decay) for read in row.reads),
            None, None if given is None else kept(used, given),
            tuple(
                (i, lifting.source(_at((*t.outer, *t.inner), place)))
                for i, form in enumerate(forms) for t in form.terms if t.state is row.node
            ),
        ))
    return Feedback(forms, _together(out, same, lifting.sizes))


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


def _together(
    unknowns: Sequence[Unknown], same: Mapping[tuple[int, int], Node], sizes: Mapping[str, int]
) -> Unknown | None:
    """The rows of a step as one unknown, side by side along a dim of their own. same: (a row, one before it) -> what this one
    adds to it, as a factor."""
    if len(unknowns) < 2:
        return unknowns[0] if unknowns else None
    dim = rank_dim(len(unknowns))
    stacked = Stacking((dim,), len(unknowns), sizes)

    def column(parts: Sequence[Node]) -> Node:
        return stacked({(i,): x for i, x in enumerate(parts)})

    reads = []
    for of, over, decayed in dict.fromkeys((read.of, read.over, read.decayed) for row in unknowns for read in row.reads):
        for mine in zip_longest(*([r for r in row.reads if (r.of, r.over) == (of, over)] for row in unknowns)):
            scales = {read.scale for read in mine if read is not None}
            scale = scales.pop() if len(scales) == 1 else 1.0
            factors = [ZERO if read is None else read.by if scale == read.scale else read.by * read.scale for read in mine]
            reads.append(Reading(of, column(factors), over, scale, decayed))
    every = range(len(unknowns))
    pairs = Stacking((dim, dim + "'"), len(unknowns), sizes, moved=True)
    within = pairs({(i, j): same.get((i, j), ZERO) for i in every for j in range(i)})
    written = []
    for state in dict.fromkeys(i for row in unknowns for i, _ in row.written):
        each = zip_longest(*([source for i, source in row.written if i == state] for row in unknowns))
        written += [(state, _beside(sources, reads, dim, column)) for sources in each]
    given = [row.given for row in unknowns]
    return Unknown(
        tuple(reads),
        where(node("gt", index(dim), index(dim + "'")), within, 0.0) if same else None,
        None if not any(given) else column([ZERO if x is None else x for x in given]),
        tuple(written), (dim,),
    )


def _beside(
    sources: Sequence[Source | None], reads: Sequence[Reading], dim: str, column: Callable[[Sequence[Node]], Node]
) -> Source:
    """Sources of the rows side by side: factor by factor where these have the same dims, else in two."""
    whole = [Source((ZERO,)) if source is None else source for source in sources]
    lists = [source.factors for source in whole]
    if len({tuple(f.dims for f in factors) for factors in lists}) > 1:
        over = tuple(sorted({d for read in reads for d in read.over}))
        lists = [(k, product(others)) for k, others in (source.split(over) for source in whole)]
    factors = tuple(column(parts) for parts in zip(*lists, strict=True))
    if all(source.kept is None for source in whole):
        return Source(factors, None, (dim,))
    always = node("ge", index(dim), ZERO)
    return Source(factors, column([always if source.kept is None else source.kept for source in whole]), (dim,))


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
    read: Read, place: Place, olds: Sequence[Node], over: tuple[str, ...], lifting: Lifting, used: Node | None,
    decay: Product,
) -> Reading:
    along = tuple(d for d in read.over if d in read.state.dims)
    extra = tuple(d for d in read.over if d not in along)
    wanted = tuple(sorted(d for d in over if d in read.state.dims))
    if along != wanted:
        raise NotChunkwise(f"its feedback contracts {', '.join(along)} and also {', '.join(wanted)}")
    products = [_at(without(p, decay) or (), place) for p in read.products]
    by = lifting.sum([(total(product(p), extra),) for p in products] if extra else products)
    return Reading(list(olds).index(read.state), kept(used, by), along, read.scale, bool(decay))


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
