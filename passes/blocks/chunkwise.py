"""step graph -> block of C steps, for linear components whose state is only read through contractions.

    S = d * S[t-1] + sum_r a_r * sum[X](b_r * S[t-1]) + sum_j k_j * v_j,   readouts sum[X](q * S)
    ->
    w_r = the unknown rows v_r + sum[X](b_r * S[t-1]):  (I + M) w = v_r + rows of (b_r, S_in) + rows of (k_j, v_j)
    (seqc.passes.blocks.rows finds them, seqc.passes.blocks.solving solves; M is lower triangular in time)
    readout at t = sum[X](q e^G S_in) + sum_s A[t, s] v_s,  A[t, s] = sum[X](q_t * decay(t, s) * k_s)
    S_out = decay * S_in + sum_s (decay to the end * k_s) * v_s     with sources (k_j, v_j) and (a_r, u_r)

Needs: components (classify), ranges. Gives: `Chunk` objects that answer readouts. When: a readout's matrix A does not
carry every remaining dim of the state (so that it is reused), each write is an outer product over the contracted dims,
decays over contracted dims are provably in (0, 1].
Source of the mathematics: docs/decisions/chunkwise.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from seqc.analysis.affine import product
from seqc.ir.block import VALID
from seqc.ir.graph import BATCH, COL, ROW, Node, combined, const, node, total
from seqc.ir.levels import level_mask, levels, same_segment
from seqc.ir.ops.elementwise import finite, where
from seqc.ir.ops.structure import cumsum, expanded
from seqc.passes.blocks.decay import FACTORED_SPAN, Decay, causal, columns
from seqc.passes.blocks.selecting import (
    NAN,
    added_up,
    all_good,
    both,
    causal_sum,
    cleaned,
    instead,
    kept,
    poisoned,
    renamed_rank,
    selected,
    sound,
    spoilt,
    taken_off,
)
from seqc.passes.blocks.solving import NotChunkwise, Reading, Sight, Source, Unknown, solved

OVERFLOW_SPAN = 40.0  # sums of log decays may exceed 0 by this much before an exponential could overflow fp32


@dataclass
class Chunk:
    """One linear state inside a block: see the file's docstring. Rows and factors carry the dim t."""

    name: str
    start: Node  # the state leaf as the block begins
    rows: int
    decays: tuple[Decay, ...]
    writes: tuple[Source, ...]
    resets: Node | None = None  # [t]: 1 at a row that drops what the state was before, 0 at others; None: none does
    feedback: tuple[Source, ...] = ()  # a_r times the rows w_r, once solved, rows that are no numbers left out
    plain: tuple[Source, ...] = ()  # the same with NaN in all rows of a channel that has such a row
    good: Node | None = None  # [t, ...]: whether what a row is made of is a number; None: without feedback
    names: dict[Node, str] = field(default_factory=dict)  # node -> a name for emitted code
    plans: dict[tuple[str, ...], str] = field(default_factory=dict)  # contracted dims -> numerical plan, in words
    decayed: bool = False  # whether what is read before a row's own writes has its own decay

    def _early(self, exclusive: bool) -> bool:
        """Whether the own decay of a row that reads is left out. exclusive: whether its writes are."""
        return exclusive and not self.decayed

    # ---- resets ----

    def _alive(self, exclusive: bool) -> Node | None:
        """[t, s]: whether no row after s, up to t (t itself left out if exclusive), is a reset."""
        if self.resets is None:
            return None
        return node("eq", cumsum(self.resets, ROW, exclusive=exclusive), columns(cumsum(self.resets, ROW)))

    def _alive_from_start(self, exclusive: bool) -> Node | None:
        """[t]: whether no row so far is a reset."""
        if self.resets is None:
            return None
        return node("eq", cumsum(self.resets, ROW, exclusive=exclusive), const(0.0))

    def _among(self, mask: Node, exclusive: bool) -> Node:
        alive = self._alive(exclusive)
        return mask if alive is None else node("and", mask, alive)

    # ---- reading ----

    def read(self, q: Node, over: tuple[str, ...], exclusive: bool) -> Node:
        """[t, ...]: sum[over](q * S) of the state after the row's own update (before it if exclusive). Raises NotChunkwise."""
        if self.resets is not None and (mixed := set(self.resets.dims) & set(over)):
            raise NotChunkwise(f"it is reset differently along {', '.join(sorted(mixed))}, which a readout contracts")
        return self._read(q, over, exclusive, self.feedback)

    def _read(self, q: Node, over: tuple[str, ...], exclusive: bool, feedback: tuple[Source, ...]) -> Node:
        """The same of a state with these writes of feedback."""
        condition, q = taken_off(q, over)
        on_state = product((q, *self._from_start(exclusive)))
        out = kept(self._alive_from_start(exclusive), total(expanded(on_state, (ROW,)) * self.start, over))
        for source in self.writes:
            out = out + self._spread(q, source, over, exclusive)
        if feedback:
            parts = [self._spread(q, source, over, exclusive, source.factors[-1]) for source in feedback]
            assert self.good is not None
            out = out + poisoned(combined("add", parts), self.good, exclusive, self._alive(exclusive))
        return kept(condition, out)

    def _from_start(self, exclusive: bool) -> list[Node]:
        """[t, ...]: what decays leave of the state as the block begins."""
        return [self._named("from_start", decay.from_start(self._early(exclusive))) for decay in self.decays]

    def _spread(
        self, q: Node, source: Source, over: tuple[str, ...], exclusive: bool, clean: Node | None = None
    ) -> Node:
        """sum_s A[t, s] * (product of the source's factors)_s; clean: the factor that is known to hold numbers alone."""
        (k, others), rank = source.split(over), source.rank
        bare = (set(q.dims) | set(k.dims)) - set(over) | {ROW, BATCH}
        folded = [f for f in others if set(f.dims) <= bare]
        v = product(f for f in others if f not in folded)
        k = source.columns().split(over)[0]
        k = product((*(renamed_rank(f, rank) for f in folded), k)) if folded else k
        outside = [d for d in self.decays if not d.dims & set(over) and not d.dims <= bare]
        along = frozenset[str]()
        if outside and not self._levelled(outside, over, v):  # then every index of theirs has a matrix of its own
            outside, along = [], frozenset().union(*(d.dims for d in outside))
        matrices = self.pair(q, k, over, exclusive, split=bool(outside), along=along)
        alive = self._alive(exclusive)
        if not outside and v is clean:
            return added_up(matrices[0][1], expanded(v, (ROW,)), rank)
        if not outside:
            return causal_sum(matrices[0][1], v, exclusive, alive, rank)
        # of each level the rows are in another half than the columns: what is not finite is told for all of them at once
        good = finite(expanded(v, (ROW,)))
        for d in outside:
            assert d.log is not None
            good = node("and", good, node("lt", d.log, const(math.inf)))
        out: Node | None = None
        for block, matrix in matrices:
            row, column = self._outside_factors(outside, block, exclusive)
            x = v if row is None else v * column
            x = expanded(x, (ROW,))
            part = added_up(matrix, cleaned(x, good if row is None else finite(x)), rank)
            part = part if row is None else part * row
            out = part if out is None else out + part
        assert out is not None
        return instead(where(spoilt(all_good(good, rank), exclusive, alive), NAN, out), out)

    def _outside_factors(self, outside: list[Decay], block: int, exclusive: bool) -> tuple[Node | None, Node]:
        if block == 0:
            return None, const(1.0)
        pairs = [d.level(block, self._early(exclusive)) for d in outside]
        return product(p[0] for p in pairs), product(p[1] for p in pairs)

    def _levelled(self, outside: list[Decay], over: tuple[str, ...], v: Node) -> bool:
        """Whether decays that A does not carry are factors of its rows and columns, level by level. Where they vary from head
        to head alone, and not along the columns of v, a matrix for each head takes one product instead of one a level."""
        width = [d for d in self.start.dims if d not in over][-1]
        if width in v.dims and not any(width in d.dims for d in outside):
            return False
        joined = [*outside, *(d for d in self.decays if d.dims & set(over))]
        return all(d.log is not None for d in joined) and not self._exact(joined)

    def pair(
        self, q: Node, k: Node, over: tuple[str, ...], exclusive: bool, split: bool = False,
        along: frozenset[str] = frozenset(),
    ) -> list[tuple[int, Node]]:
        """A[t, s] = sum[over](q_t decay(t, s) k_s) for s <= t (s < t if exclusive), zero elsewhere.

        Answers one (0, A), or one entry per level and (0, the diagonal) if `split`. along: further dims that A may have.
        """
        q, k = expanded(q, (ROW,)), expanded(k, (ROW,))
        mine = set(q.dims) | set(k.dims) | along
        inside = [d for d in self.decays if d.dims & set(over)]
        flat = [d for d in self.decays if d not in inside and d.dims <= (mine - set(over)) | {BATCH}]
        shared = None
        for d in flat:
            one = d.pairs(self._early(exclusive))
            shared = one if shared is None else shared * one

        def masked(mask: Node, matrix: Node, name: str = "A") -> Node:
            return self._named(name, where(self._among(mask, exclusive), matrix if shared is None else matrix * shared, 0.0))

        self.plans.setdefault(over, self._plan(inside, flat, split))
        if not inside and not split:
            return [(0, masked(causal(exclusive), total(q * columns(k), over)))]
        if not split and self._exact(inside):
            spans = product(d.pairs(self._early(exclusive)) for d in inside)
            return [(0, masked(causal(exclusive), total(q * columns(k) * spans, over)))]
        out = []
        narrow = 1 if split else self._factored_rows(inside)
        for block in levels(self.rows):
            if block < narrow:
                break
            up, down = q, k
            for d in inside:
                row, column = d.level(block, self._early(exclusive))
                up, down = up * row, down * column
            out.append((block, masked(level_mask(block, self.rows), total(up * columns(down), over), f"A_{block}")))
        if narrow > 1:
            near = self._factored(q, k, inside, narrow, over, exclusive)
            out.append((0, masked(self._same(narrow, exclusive), near, "A_near")))
        elif not exclusive:
            here = node("eq", node("index", dim=ROW), node("index", dim=COL))
            out.append((0, self._named("A_here", where(here, total(q * k, over), 0.0))))
        if split:
            return out
        whole = out[0][1]
        for _, matrix in out[1:]:
            whole = whole + matrix
        return [(0, self._named("A", whole))]

    def _named(self, name: str, n: Node) -> Node:
        self.names.setdefault(n, name)
        return n

    def _plan(self, inside: list[Decay], flat: list[Decay], split: bool) -> str:
        if not inside and not split:
            if not flat:
                return "no decay between the rows of a block: plain products"
            exact = any(d.log is None for d in flat)
            return "one factor per pair of rows: " + (
                "products by a scan, exact for any sign and for zero" if exact else "exp of sums over disjoint spans"
            )
        if not split and self._exact(inside):
            grow = max(d.range.hi for d in inside)
            why = "may be zero or negative" if any(d.log is None for d in inside) else f"may grow (log up to {grow:g})"
            return f"guarded: the decay {why}, so every pair of rows gets its own product"
        narrow = 1 if split else self._factored_rows(inside)
        count = len([b for b in levels(self.rows) if b >= narrow])
        text = f"{count} levels of spans with an anchor each: every exponent <= 0, so that nothing overflows"
        if max((d.range.hi for d in inside), default=0.0) > 0:
            text = text.replace("<= 0", f"<= {max(d.range.hi for d in inside) * self.rows:g}")
        if narrow > 1:
            low = min(d.range.lo for d in inside)
            text += f"; sub-blocks of {narrow} rows share one anchor (|log decay| <= {-low:g}, {-low * narrow:.2g} in all)"
        return text

    def _exact(self, inside: list[Decay]) -> bool:
        return any(d.range.hi * self.rows > OVERFLOW_SPAN for d in inside)

    def _factored_rows(self, inside: list[Decay]) -> int:
        """The largest sub-block that one anchor serves, 1 if there is none."""
        steepest = sum(max(-d.range.lo, d.range.hi, 0.0) for d in inside)
        rows = self.rows
        while rows > 1 and steepest * rows > FACTORED_SPAN:
            rows //= 2
        return rows

    def _same(self, rows: int, exclusive: bool) -> Node:
        return causal(exclusive) if rows == self.rows else node("and", same_segment(rows), causal(exclusive))

    def _factored(
        self, q: Node, k: Node, inside: list[Decay], rows: int, over: tuple[str, ...], exclusive: bool
    ) -> Node:
        for d in inside:
            assert d.log is not None
            q = q * node("exp", cumsum(d.log, ROW, rows, exclusive=self._early(exclusive)))
            k = k * node("exp", -cumsum(d.log, ROW, rows))
        return total(q * columns(k), over)

    # ---- solving and ending ----

    def solve(self, unknown: Unknown) -> None:
        """Find the rows that the feedback writes."""
        # a row has every dim of the state but those contracted: one matrix for each index of what varies along them
        varying = frozenset().union(*(d.dims for d in self.decays))

        def seen(read: Reading) -> Chunk:
            return replace(self, decayed=read.decayed)

        def linear(read: Reading) -> Node:
            return seen(read)._read(read.by, read.over, True, ())

        def matrix(read: Reading, into: int, a: Source) -> Node:
            k, others = a.split(read.over)
            along = varying - set(read.over)
            condition, by = taken_off(read.by, read.over)
            if not a.rank:
                return kept(condition, seen(read).pair(by, product((*others, k)), read.over, True, along=along)[0][1])
            # rows of one step and of others from one product, so that equal keys give equal numbers, which cancel
            found = seen(read).pair(by, k, read.over, True, along=along)[0][1]
            return kept(condition, found * columns(expanded(product(others), (ROW,))) if others else found)

        def reading(read: Reading) -> Node | None:
            condition, by = taken_off(read.by, read.over)
            spans = seen(read)._from_start(True)
            inner = [f for f in spans if set(f.dims) & set(read.over)]
            outer = [f for f in spans if f not in inner]
            return sound([product((by, *inner)), *outer], read.over, both(condition, self._alive_from_start(True)))

        found = solved(unknown, Sight(linear, matrix, reading), lambda n: self._named("inverse", n))
        for x in (found.plain, found.clean):
            self._named("solved", x)
        self.feedback, self.plain = (tuple(source for _, source in found.sources(unknown, way)) for way in (True, False))
        self.good = found.good

    def end(self) -> Node:
        """The state as the block ends."""
        out = self.start
        for d in self.decays:
            out = d.whole() * out
        alive = None
        if self.resets is not None:
            every = total(expanded(self.resets, (ROW,)), (ROW,))
            out = where(node("eq", every, const(0.0)), out, 0.0)
            alive = node("eq", cumsum(self.resets, ROW), every)
        for source in self.writes:
            out = out + self._left(source, alive)
        if not self.feedback:
            return out
        assert self.good is not None
        clean, plain = (combined("add", (self._left(source, alive) for source in way)) for way in (self.feedback, self.plain))
        if alive is None:
            return out + instead(plain, clean)
        bad = all_good(node("or", node("not", alive), self.good), [d for d in (ROW, *self.good.dims) if d not in clean.dims])
        return out + instead(where(bad, clean, NAN), clean)

    def _left(self, source: Source, alive: Node | None) -> Node:
        """What is left of a source as the block ends. alive: [t], whether no reset follows; None: none does."""
        factors = list(source.factors)
        for d in self.decays:  # each decay joins the narrowest factor that carries its dims
            home = min(
                (i for i, f in enumerate(factors) if d.dims <= set(f.dims)), default=0, key=lambda i: len(factors[i].dims)
            )
            factors[home] = factors[home] * self._named("to_end", d.to_end())
        if alive is not None:
            factors = selected(alive, factors)
        return total(expanded(product(factors), (ROW,)), (ROW, *source.rank))


def masked(x: Node, neutral: float) -> Node:
    """x on rows inside the sequence, a neutral element on the others."""
    return where(VALID, expanded(x, (ROW,)), neutral)
