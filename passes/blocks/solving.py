"""The rows of a block that feedback writes, as a unit lower triangular system in time, solved.

    w_r = sum over reads of scale * sum[over](b * S) + sum_i same_ri * w_i + given_r,    S the states with every w_i written

Needs: `Unknown`s, and a block that answers what a read of a state sees of the states as the block begins and of the given
writes (`linear`), and how a row that is written at s enters a read at t (`matrix`). Gives: the rows. The inverse meets the
right-hand side once it is whole: nothing but matrices [t, s] stands between reading a state and writing it. Two methods for
several rows a step:

    in turn   elimination of one row after the other, each for all steps: every pivot is unit lower triangular in time. It
              meets the recurrence with the first rows alone, without the later ones, which must not grow.
    joint     substitution from step to step, by halves: (I - M) over 2 b steps from that over b steps. It meets nothing but
              the recurrence itself, and takes more products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from seqc.analysis.affine import Product, product
from seqc.ir.graph import COL, ROW, Node, const, index, node, renamed, total
from seqc.ir.levels import level_mask, levels
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded
from seqc.passes.blocks.decay import columns
from seqc.passes.blocks.selecting import added_up, both, cleaned, finite, kept

Blocks = list[list[Node]]  # of matrices [t, s]: how each row of a step enters each
MOST_JOINT = 64  # rows of a block that are solved jointly: the text grows as the square of those of a step, and more
ZERO, ONE = const(0.0), const(1.0)
HERE = node("eq", index(ROW), index(COL))


class NotChunkwise(Exception):
    """Why the recurrence has no profitable, safe chunk form."""


@dataclass(frozen=True)
class Source:
    """One rank-one family of writes: the product of `factors` (nodes with t) is added to the state at each row."""

    factors: Product
    kept: Node | None = None  # where the source is written at all: its factors are 0 elsewhere

    def split(self, over: tuple[str, ...]) -> tuple[Node, Product]:
        """(the part that varies along the contracted dims, the other factors)."""
        inner = [f for f in self.factors if set(f.dims) & set(over)]
        return product(inner), tuple(f for f in self.factors if f not in inner)


@dataclass(frozen=True)
class Reading:
    """scale * sum[over](by * S) of state number `of`, before the step's own update."""

    of: int
    by: Node
    over: tuple[str, ...]
    scale: float


@dataclass(frozen=True)
class Unknown:
    """A row that each step reads and writes: its readings + sum over i of same[i] * (row i) + given.

    written: (state, the factors that the row is multiplied by where it is added to it). same: rows before it, of the same
    step.
    """

    reads: tuple[Reading, ...]
    same: Mapping[int, Node]
    given: Node | None
    written: tuple[tuple[int, Source], ...]


@dataclass(frozen=True)
class Solved:
    """The rows of a block. plain: with NaN in all of them where one of a channel is no number, for what the block leaves
    behind; clean: as if such rows were zero; good: [t, ..], whether what a row is made of is a number."""

    plain: tuple[Node, ...]
    clean: tuple[Node, ...]
    good: Node

    def sources(self, unknowns: Sequence[Unknown], clean: bool) -> list[tuple[int, Source]]:
        """(state, what the rows write to it)."""
        rows = self.clean if clean else self.plain
        return [
            (i, Source((*a.factors, kept(a.kept, value))))
            for row, value in zip(unknowns, rows, strict=True) for i, a in row.written
        ]


@dataclass(frozen=True)
class Sight:
    """What a block answers to the rows. linear: what a reading sees of the block's beginning and its given writes;
    matrix: [t, s], how a source of a state enters a reading, strictly later, None where it does not; reading, writing: [t],
    whether a reading and a source are numbers, None where they always are."""

    linear: Callable[[Reading], Node]
    matrix: Callable[[Reading, int, Source], Node | None]
    reading: Callable[[Reading], Node | None]
    writing: Callable[[Reading, Source], Node | None]


def solved(
    unknowns: Sequence[Unknown], sight: Sight, joint: int = 0, seen: Callable[[Node], Node] = lambda n: n
) -> Solved:
    """The rows. joint: the rows of a block that are solved together, 0 to solve in turn. seen: told of each inverse."""
    right, coupling, same = [], [], []
    for row in unknowns:
        seen_by = [_scaled(sight.linear(read), read.scale) for read in row.reads]
        right.append(reduce(_add, [*seen_by, ZERO if row.given is None else row.given]))
        coupling.append([_coupling(row, other, sight) for other in unknowns])
        same.append([_within(row, i, other, sight) for i, other in enumerate(unknowns)])
    if joint * len(unknowns) > MOST_JOINT:
        each = f"{len(unknowns)} rows a step that are solved jointly"
        raise NotChunkwise(f"its feedback has {each}, {joint * len(unknowns)} in {joint} steps: at most {MOST_JOINT}")
    good = [finite(expanded(x, (ROW,))) for x in right]
    clean = [cleaned(x, g) for x, g in zip(right, good, strict=True)]
    every = reduce(lambda a, b: node("and", a, b), good)
    if joint:
        inverse = _by_halves(coupling, same, joint)

        def found(rows: list[Node]) -> tuple[Node, ...]:
            return tuple(
                reduce(_add, (added_up(x, y) for x, y in zip(line, rows, strict=True) if x is not ZERO)) for line in inverse
            )

        return Solved(found(right), found(clean), every)
    here = [[_where(HERE, x) for x in line] for line in same]
    matrices = [
        [expanded(_add(m, x), (ROW, COL)) for m, x in zip(*lines, strict=True)]
        for lines in zip(coupling, here, strict=True)
    ]
    return Solved(tuple(eliminated(matrices, right, seen)), tuple(eliminated(matrices, clean, seen)), every)


def _within(row: Unknown, i: int, other: Unknown, sight: Sight) -> Node:
    """[t]: what another row of the step adds to `row`, as a factor; 0 where what one reads or the other writes is no number."""
    if i not in row.same:
        return ZERO
    flags = [sight.reading(read) for read in row.reads]
    flags += [sight.writing(read, source) for read in row.reads for _, source in other.written]
    good = both(*flags)
    return row.same[i] if good is None else cleaned(row.same[i], good)


def _coupling(row: Unknown, other: Unknown, sight: Sight) -> Node:
    """[t, s]: what another row of step s < t adds to `row` at step t; 0 where what is read or written is no number."""
    out = ZERO
    for into, source in other.written:
        for read in row.reads:
            entering = sight.matrix(read, into, source)
            if entering is None:
                continue
            written = sight.writing(read, source)
            entered = None if written is None else node("gt", columns(expanded(where(written, 1.0, 0.0), (ROW,))), ZERO)
            good = both(sight.reading(read), entered)
            entering = entering if good is None else cleaned(entering, good)
            out = _add(out, _scaled(entering, read.scale))
    return out


def _by_halves(later: Blocks, same: Blocks, rows: int) -> Blocks:
    """The blocks [t, s] of (I - M)^-1; later: those of M at t > s; same: [t], those at t = s, strictly lower.

    Over single steps it is the inverse of what rows of one step add to each other. Over twice as many steps,

        (A 0; -B D)^-1 = (A^-1 0; D^-1 B A^-1  D^-1)        B: how steps of the first half enter those of the second
    """
    count = range(len(later))
    step = [[ONE if i == j else ZERO for j in count] for i in count]
    for i in count:
        for j in range(i):
            step[i][j] = reduce(_add, (_times(same[i][m], step[m][j]) for m in range(i)))
    inverse = [[_where(HERE, x) for x in line] for line in step]
    for half in reversed(levels(rows)):
        between = [[_where(level_mask(half, rows), m) for m in line] for line in later]
        if half == 1:  # the inverses are diagonal yet
            new = _product(_product(step, between, _times), [[columns(x) for x in line] for line in step], _times)
        else:
            new = _product(_product(inverse, between, compose), inverse, compose)
        inverse = [[_add(a, b) for a, b in zip(*lines, strict=True)] for lines in zip(inverse, new, strict=True)]
    return inverse


def _product(a: Blocks, b: Blocks, times: Callable[[Node, Node], Node]) -> Blocks:
    """The product of two block matrices; blocks that are the constant 0 cost nothing."""

    def entry(line: list[Node], j: int) -> Node:
        pairs = [(x, row[j]) for x, row in zip(line, b, strict=True)]
        return reduce(_add, (times(x, y) for x, y in pairs if ZERO not in (x, y)), ZERO)

    return [[entry(line, j) for j in range(len(b))] for line in a]


def _where(condition: Node, x: Node) -> Node:
    return x if x is ZERO else where(condition, x, 0.0)


def _times(a: Node, b: Node) -> Node:
    return ZERO if ZERO in (a, b) else b if a is ONE else a if b is ONE else a * b


def _add(a: Node, b: Node) -> Node:
    return b if a is ZERO else a if b is ZERO else a + b


def eliminated(
    coupling: list[list[Node]], right: list[Node], seen: Callable[[Node], Node] = lambda n: n
) -> list[Node]:
    """The x_r with x_r = right_r + sum_r' coupling[r][r'] x_r', every coupling strictly lower triangular in time.

    Block Gauss elimination over r: each pivot has a unit lower triangular inverse. seen: told of each inverse.
    """
    x, m, count = list(right), [list(line) for line in coupling], len(right)
    for r in range(count):
        inverse = seen(node("tri_inv", -m[r][r], row=ROW, col=COL))
        x[r] = added_up(inverse, x[r])
        m[r] = [c if j <= r else compose(inverse, c) for j, c in enumerate(m[r])]
        for i in range(r + 1, count):
            factor = m[i][r]
            x[i] = x[i] + added_up(factor, x[r])
            for j in range(r + 1, count):
                m[i][j] = m[i][j] + compose(factor, m[r][j])
    for r in reversed(range(count)):
        for j in range(r + 1, count):
            x[r] = x[r] + added_up(m[r][j], x[j])
    return x


def compose(left: Node, right: Node) -> Node:
    """[t, s]: the product of two [t, s] matrices."""
    inner = COL + "'"
    return total(renamed(left, COL, inner) * renamed(right, ROW, inner), (inner,))


def _scaled(x: Node, by: float) -> Node:
    return x if by == 1.0 else -x if by == -1.0 else x * by
