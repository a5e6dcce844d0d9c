"""The rows of a block that feedback writes, as a unit lower triangular system in time, solved.

    w_r = sum over reads of scale * sum[over](by * S) + sum_i same_ri * w_i + given_r,    S the states with every w_i written

Needs: an `Unknown`, and a block that answers what a read of a state sees of the states as the block begins and of the given
writes (`linear`), and how a row that is written at s enters a read at t (`matrix`). Gives: the rows. The inverse meets the
right-hand side once it is whole: nothing but matrices [t, s] stands between reading a state and writing it.

Several rows a step are one axis of the system with the steps: (t, r), step by step and in a step row by row. Rows that follow
each other cancel before they add up, as they do step by step; solved for all steps one row after the other, they would not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

from seqc.analysis.affine import Product, product
from seqc.ir.graph import COL, ROW, Node, const, index, node
from seqc.ir.ops.elementwise import finite, where
from seqc.ir.ops.structure import expanded, tri_inv
from seqc.passes.blocks.decay import columns
from seqc.passes.blocks.selecting import added_up, both, cleaned, kept, rank_columns, renamed_rank, sound

ZERO, ONE = const(0.0), const(1.0)
HERE = node("eq", index(ROW), index(COL))


class NotChunkwise(Exception):
    """Why the recurrence has no profitable, safe chunk form."""


@dataclass(frozen=True)
class Source:
    """One rank-one family of writes: the product of `factors` (nodes with t) is added to the state at each row."""

    factors: Product
    kept: Node | None = None  # where the source is written at all: its factors are 0 elsewhere
    rank: tuple[str, ...] = ()  # of rows that are written side by side: it is summed over

    def columns(self) -> Source:
        """The same with its rank as a dim of columns."""
        mark = None if self.kept is None else renamed_rank(self.kept, self.rank)
        return Source(tuple(renamed_rank(f, self.rank) for f in self.factors), mark, rank_columns(self.rank))

    def split(self, over: tuple[str, ...]) -> tuple[Node, Product]:
        """(the part that varies along the contracted dims, the other factors)."""
        inner = [f for f in self.factors if set(f.dims) & set(over)]
        return product(inner), tuple(f for f in self.factors if f not in inner)


@dataclass(frozen=True)
class Reading:
    """scale * sum[over](by * S) of state number `of`, before the step's own writes, and before its decay unless decayed."""

    of: int
    by: Node
    over: tuple[str, ...]
    scale: float
    decayed: bool = False


@dataclass(frozen=True)
class Unknown:
    """A row that each step reads and writes, or several along a dim `rank`: its readings, + same * earlier rows, + given.

    written: (state, the factors that the row is multiplied by where it is added to it). same: [t, s, rank, rank'] for t = s,
    what rows before one, of the same step, add to it; None where they add nothing.
    """

    reads: tuple[Reading, ...]
    same: Node | None
    given: Node | None
    written: tuple[tuple[int, Source], ...]
    rank: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solved:
    """The rows of a block. plain: with NaN in all of them where one of a channel is no number, for what the block leaves
    behind; clean: as if such rows were zero; good: [t, ..], whether what a row is made of is a number."""

    plain: Node
    clean: Node
    good: Node

    def sources(self, unknown: Unknown, clean: bool) -> list[tuple[int, Source]]:
        """(state, what the rows write to it)."""
        value = self.clean if clean else self.plain
        return [(i, replace(a, factors=(*a.factors, kept(a.kept, value)))) for i, a in unknown.written]


@dataclass(frozen=True)
class Sight:
    """What a block answers to the rows. linear: what a reading sees of the block's beginning and its given writes;
    matrix: [t, s], how a source of a state enters a reading, strictly later, None where it does not; reading: [t],
    whether a reading is a number, None where it always is."""

    linear: Callable[[Reading], Node]
    matrix: Callable[[Reading, int, Source], Node | None]
    reading: Callable[[Reading], Node | None]


def solved(unknown: Unknown, sight: Sight, seen: Callable[[Node], Node] = lambda n: n) -> Solved:
    """The rows. seen: told of the inverse."""
    rank = unknown.rank
    seen_by = [_scaled(sight.linear(read), read.scale) for read in unknown.reads]
    right = reduce(_add, [*seen_by, ZERO if unknown.given is None else unknown.given])
    good = finite(expanded(right, (ROW, *rank)))
    matrix = expanded(_coupling(unknown, sight), (ROW, COL))
    if unknown.same is not None:
        matrix = matrix + where(HERE, _within(unknown, unknown.same, sight), 0.0)
    inverse = seen(tri_inv(-matrix, (ROW, *rank), (COL, *rank_columns(rank))))
    return Solved(added_up(inverse, right, rank), added_up(inverse, cleaned(right, good), rank), good)


def _within(unknown: Unknown, same: Node, sight: Sight) -> Node:
    """[t, s]: what rows of step s = t add to a later one, as factors; 0 where what one reads or another writes is no number."""
    written = [_entered(read, source) for read in unknown.reads for _, source in unknown.written]
    good = both(*(sight.reading(read) for read in unknown.reads), *written)
    return same if good is None else cleaned(same, good)


def _entered(read: Reading, source: Source) -> Node | None:
    """[s]: whether what is written at s is a number for a reading; None where it always is."""
    a = source.columns()
    written = sound([product(a.factors)], read.over, a.kept)
    return None if written is None else node("gt", columns(expanded(where(written, 1.0, 0.0), (ROW,))), ZERO)


def _coupling(unknown: Unknown, sight: Sight) -> Node:
    """[t, s]: what rows of step s < t add to those of step t; 0 where what is read or written is no number."""
    out = ZERO
    for into, source in unknown.written:
        for read in unknown.reads:
            entering = sight.matrix(read, into, source.columns())
            if entering is None:
                continue
            good = both(sight.reading(read), _entered(read, source))
            entering = entering if good is None else cleaned(entering, good)
            out = _add(out, _scaled(entering, read.scale))
    return out


def _add(a: Node, b: Node) -> Node:
    return b if a is ZERO else a if b is ZERO else a + b


def _scaled(x: Node, by: float) -> Node:
    return x if by == 1.0 else -x if by == -1.0 else x * by
