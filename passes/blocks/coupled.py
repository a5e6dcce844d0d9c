"""step graph -> block of C steps, for several linear states that feed each other.

    S_i = sum_j D_ij * S_j[t-1] + sum_f a_f * sum[X](b_f * S_j(f)[t-1]) + writes
    ->
    P_ij[t, s] = (D_t ... D_{s+1})_ij, so that a source of S_j at s is read through S_i at t by P_ij times its matrix

Needs: the affine forms of a coupled component. Gives: `System`, which answers readouts of each state like
`seqc.passes.blocks.chunkwise.Chunk` does of one. When: no cycle runs through coefficients of different states alone (a
momentum feeds the memory, the memory feeds the momentum through a contraction): products of D are then scans, one after the
other, exact for any sign and for zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from seqc.analysis.affine import product
from seqc.ir.graph import BATCH, COL, ROW, Node, combined, index, node, size, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import affine_scan, expanded, shift, take
from seqc.passes.blocks.decay import causal, columns, first
from seqc.passes.blocks.selecting import added_up, causal_sum, instead, kept, poisoned, renamed_rank, sound, taken_off
from seqc.passes.blocks.solving import ONE, ZERO, NotChunkwise, Reading, Sight, Source, Unknown, solved


@dataclass
class System:
    """States 0..n-1 of one component; coefficients carry t, with rows outside the sequence made neutral."""

    names: tuple[str, ...]
    starts: tuple[Node, ...]
    rows: int
    coefficients: Mapping[tuple[int, int], Node]  # D_ij, absent where it is zero
    writes: tuple[tuple[int, Source], ...]
    contracted: frozenset[str]  # the dims over which feedback reads
    feedback: list[tuple[int, Source]] = field(default_factory=list)  # what rows write, once solved: see `Solved`
    plain: list[tuple[int, Source]] = field(default_factory=list)
    good: Node | None = None

    def __post_init__(self) -> None:
        self.order = self._order()

    def _order(self) -> list[int]:
        """The states such that each coefficient leads from an earlier one (or from itself)."""
        left, out = list(range(len(self.names))), list[int]()
        while left:
            ready = [i for i in left if not any((i, j) in self.coefficients for j in left if j != i)]
            if not ready:
                names = [self.names[i] for i in left]
                lagged = next((x.split(".")[0] for x in names if ".lag" in x), None)
                instead = f"; a state for {lagged}[t-1] - {lagged}[t-2], where that is read, has one" if lagged else ""
                raise NotChunkwise(f"{', '.join(names)} feed each other through coefficients alone{instead}")
            out.append(ready[0])
            left.remove(ready[0])
        return out

    # ---- products of coefficients ----

    def pairs(self, i: int, j: int, exclusive: bool) -> Node | None:
        """[t, s]: P_ij, zero for t < s; None where it is zero throughout."""
        after = node("gt", index(ROW), index(COL))
        here = where(node("eq", index(ROW), index(COL)), 1.0, 0.0)

        def scan(i: int, own: Node, drive: Node | None) -> Node:
            given = here if drive is None else where(after, drive, 0.0)  # no state drives itself through others: see `_order`
            return affine_scan(where(after, own, 1.0), given, ZERO, ROW)

        found = self._scans(j, lambda m, x: shift(x, ROW, 1), scan).get(i)
        if found is None or not exclusive:
            return found
        return shift(found, ROW, 1)

    def from_start(self, i: int, j: int, exclusive: bool) -> Node | None:
        """[t]: the share of S_j as the block begins in S_i after row t (before it if exclusive)."""
        column = self._starting(j)
        if i not in column:
            return None
        return _before(column[i], ONE if i == j else ZERO) if exclusive else column[i]

    def _starting(self, j: int) -> dict[int, Node]:
        """F_ij for all i: products from the start of the block."""
        starts = {m: ONE if m == j else ZERO for m in self.order}
        return self._scans(
            j, lambda m, x: _before(x, starts[m]), lambda i, own, drive: affine_scan(own, drive or ZERO, starts[i], ROW)
        )

    def _scans(
        self, j: int, before: Callable[[int, Node], Node], scan: Callable[[int, Node, Node | None], Node]
    ) -> dict[int, Node]:
        """What S_j makes of each state, where it makes anything. before: the row before of what was found for a state; scan: of
        a state's own coefficient and of what other states drive it with, None for nothing."""
        out: dict[int, Node] = {}
        for i in self.order:
            parts = [self.coefficients[i, m] * before(m, x) for m, x in out.items() if (i, m) in self.coefficients]
            if i == j or parts:
                out[i] = scan(i, self.coefficients.get((i, i), ZERO), combined("add", parts) if parts else None)
        return out

    def to_end(self, i: int, j: int) -> Node | None:
        """[s]: the share of a source of S_j at row s in S_i as the block ends."""
        last = node("eq", index(ROW), size(ROW) - 1.0)

        def after(x: Node, m: int) -> Node:
            return where(last, 1.0 if m == i else 0.0, shift(x, ROW, -1))

        out: dict[int, Node] = {}
        for m in reversed(self.order):  # Z_im[s] = sum_l Z_il[s+1] D_lm[s]
            parts = [after(x, el) * self.coefficients[el, m] for el, x in out.items() if (el, m) in self.coefficients]
            if m == i or parts:
                own = self.coefficients.get((m, m), ZERO)
                out[m] = affine_scan(own, combined("add", parts, ZERO), ONE if m == i else ZERO, ROW, reverse=True)
        return after(out[j], j) if j in out else None

    # ---- reading, solving, ending ----

    def read(self, i: int, q: Node, over: tuple[str, ...], exclusive: bool) -> Node:
        """[t, ...]: sum[over](q * S_i) after the row's own update (before it if exclusive)."""
        return self._read(Reading(i, q, over, 1.0), exclusive, self.feedback)

    def _read(self, read: Reading, exclusive: bool, feedback: list[tuple[int, Source]]) -> Node:
        """The same of states with these writes of feedback."""
        condition, by = taken_off(read.by, read.over)
        read = replace(read, by=by)
        parts = []
        for j, start in enumerate(self.starts):
            share = self.from_start(read.of, j, exclusive)
            if share is not None:
                parts.append(total(expanded(read.by * share, (ROW,)) * start, read.over))
        parts += [x for j, source in self.writes if (x := self._spread(read, j, source, exclusive)) is not None]

        found = [
            x for j, source in feedback
            if (x := self._spread(read, j, source, exclusive, source.factors[-1])) is not None
        ]
        if found:
            assert self.good is not None
            parts.append(poisoned(combined("add", found), self.good, exclusive))
        return kept(condition, combined("add", parts))

    def _spread(
        self, read: Reading, j: int, source: Source, exclusive: bool, clean: Node | None = None
    ) -> Node | None:
        """sum_s A[t, s] * source_s, of a source of S_j; None where it never enters. clean: the factor that is known to hold
        numbers alone."""
        k, others = source.split(read.over)
        bare = (set(read.by.dims) | set(k.dims)) - set(read.over) | {ROW, BATCH}
        folded = [f for f in others if set(f.dims) <= bare]
        k = product((*(renamed_rank(f, source.rank) for f in folded), source.columns().split(read.over)[0]))
        matrix = self._matrix(read, j, k, exclusive)
        rows = product(f for f in others if f not in folded)
        if matrix is None or rows is not clean:
            return None if matrix is None else causal_sum(matrix, rows, exclusive, rank=source.rank)
        return added_up(matrix, rows, source.rank)

    def _matrix(self, read: Reading, j: int, k: Node, exclusive: bool) -> Node | None:
        """A[t, s]: how k at s, written to S_j, enters a reading at t; None where it never does."""
        spans = self.pairs(read.of, j, exclusive)
        if spans is None:
            return None
        q, k = expanded(read.by, (ROW,)), expanded(k, (ROW,))
        if set(spans.dims) & set(read.over):  # every pair of rows gets its own product
            return where(causal(exclusive), total(q * columns(k) * spans, read.over), 0.0)
        return where(causal(exclusive), total(q * columns(k), read.over) * spans, 0.0)

    def solve(self, unknown: Unknown) -> None:
        """Find the rows that the feedback writes."""

        def linear(read: Reading) -> Node:
            return self._read(read, True, [])

        def matrix(read: Reading, into: int, a: Source) -> Node | None:
            condition, by = taken_off(read.by, read.over)
            found = self._matrix(replace(read, by=by), into, product(a.factors), True)
            return None if found is None else kept(condition, found)

        def reading(read: Reading) -> Node | None:
            condition, by = taken_off(read.by, read.over)
            shares = [self.from_start(read.of, j, True) for j in range(len(self.starts))]
            return sound([by * x for x in shares if x is not None], read.over, condition)

        found = solved(unknown, Sight(linear, matrix, reading))
        self.feedback, self.plain = found.sources(unknown, True), found.sources(unknown, False)
        self.good = found.good

    def end(self, i: int) -> Node:
        """State i as the block ends."""
        out: Node = ZERO
        for j, start in enumerate(self.starts):
            column = self._starting(j)
            if i in column:
                out = out + take(expanded(column[i], (ROW,)), ROW, -1) * start
        for j, source in self.writes:
            out = out + self._left(i, j, source)
        if not self.feedback:
            return out
        clean, plain = (combined("add", (self._left(i, j, source) for j, source in way)) for way in (self.feedback, self.plain))
        return out + instead(plain, clean)

    def _left(self, i: int, j: int, source: Source) -> Node:
        """What a source of S_j leaves in S_i as the block ends."""
        share = self.to_end(i, j)
        if share is None:
            return ZERO
        factors = list(source.factors)
        home = min(range(len(factors)), key=lambda n: (not set(share.dims) <= set(factors[n].dims), len(factors[n].dims)))
        factors[home] = factors[home] * share
        return total(expanded(product(factors), (ROW,)), (ROW, *source.rank))


def _before(x: Node, start: Node) -> Node:
    """[t]: the row before; `start` before the first."""
    return where(first(), start, shift(x, ROW, 1))
