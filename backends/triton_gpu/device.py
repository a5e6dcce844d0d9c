"""The tile primitives that emitted Triton kernels call: a table of source texts, printed verbatim.

Comes in: the names of the primitives that kernels call. Goes out: their texts, and before them those of the
primitives that they call, each a complete `@triton.jit` function that needs only `import triton` and
`import triton.language as tl`. This module never imports Triton.

Ground rules of every text: fp32 values; tile sides are powers of two; no libdevice call (its names differ between
vendors); an infinity is never subtracted from itself nor multiplied by zero; only operators that Triton 3.6 to 3.9
share. Further texts live in `device_elementwise`, `device_more`, `device_team` and `device_sequences`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from seqc.backends.triton_gpu.device_elementwise import ELEMENTWISE
from seqc.backends.triton_gpu.device_more import MORE
from seqc.backends.triton_gpu.device_sequences import SEQUENCES
from seqc.backends.triton_gpu.device_team import TEAM
from seqc.backends.triton_gpu.texts import each
from seqc.ir.traverse import reached

TILES = each('''
@triton.jit
def down_rows(o, x):
    """A value for each row (axis 0) of x, as it broadcasts against x."""
    for _ in tl.static_range(len(x.shape) - 1):
        o = tl.expand_dims(o, -1)
    return o


@triton.jit
def shift_rows(x, BY: tl.constexpr):
    """x with its rows (axis 0; rank 1 to 4) moved down by BY, up where BY < 0; rows that come free are zero."""
    C: tl.constexpr = x.shape[0]
    o_from = tl.arange(0, C) - BY
    m_from = down_rows((o_from >= 0) & (o_from < C), x)
    o_from = down_rows(tl.minimum(tl.maximum(o_from, 0), C - 1), x)
    return tl.where(m_from, tl.gather(x, tl.broadcast_to(o_from, x.shape), 0), 0.0)


@triton.jit
def next_to(x_past, near_past, one_past, x_now, near_now, one_now):
    """Of two runs of rows as one: the last row, the row before it, and whether they are one row alone."""
    return x_now, tl.where(one_now, x_past, near_now), one_now & False


@triton.jit
def shift_in_columns(x, BY: tl.constexpr):
    """shift_rows(x, BY) where BY is 1 or -1, as a scan: threads that hold whole columns move nothing."""
    none = tl.zeros(x.shape, tl.float32)
    if BY < 0:
        return tl.flip(tl.associative_scan((tl.flip(x, 0), none, none == 0.0), 0, next_to)[1], 0)
    else:
        return tl.associative_scan((x, none, none == 0.0), 0, next_to)[1]


@triton.jit
def segment_cumsum(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Running sum of x along axis 0 (rank 1, 2 or 3), begun afresh every BLOCK rows, from the end where REVERSE.

    EXCLUSIVE leaves the own row out by shifting before the sum, never by a difference, so -inf rows are exact.
    """
    C: tl.constexpr = x.shape[0]
    if EXCLUSIVE:
        first = tl.arange(0, C) % BLOCK == (BLOCK - 1 if REVERSE else 0)
        x = tl.where(down_rows(first, x), 0.0, shift_rows(x, -1 if REVERSE else 1))
    if BLOCK == C:
        return tl.cumsum(x, 0, reverse=REVERSE)
    elif len(x.shape) == 1:
        return tl.reshape(tl.cumsum(tl.reshape(x, (C // BLOCK, BLOCK)), 1, reverse=REVERSE), x.shape)
    else:
        pieces = tl.reshape(x, (C // BLOCK, BLOCK, x.numel // C))
        return tl.reshape(tl.cumsum(pieces, 1, reverse=REVERSE), x.shape)


@triton.jit
def joined_segments(run, whole, REVERSE: tl.constexpr, PRODUCT: tl.constexpr):
    """Running sums `run` [C, W] and sums `whole` [N, W] of N segments of C rows -> those of N/2 segments of two each.

    Of two neighbours the one that is run through later takes the other's sum; PRODUCT: products instead of sums.
    """
    N: tl.constexpr = whole.shape[0] // 2
    C: tl.constexpr = run.shape[0]
    W: tl.constexpr = run.shape[1]
    later = tl.arange(0, 2)[None, :, None] == (0 if REVERSE else 1)
    whole = tl.reshape(whole, (N, 2, W))
    before = tl.sum(tl.where(later, -0.0, whole), 1)
    own = tl.sum(tl.where(later, whole, -0.0), 1)
    run = tl.reshape(run, (N, 2, C // N // 2, W))
    added = run * before[:, None, None, :] if PRODUCT else run + before[:, None, None, :]
    run = tl.where(later[:, :, None, :], added, run)
    return tl.reshape(run, (C, W)), before * own if PRODUCT else before + own


@triton.jit
def column_cumsum(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Running sum of x along axis 0 (rank 2 or 3), begun afresh every BLOCK rows, from the end where REVERSE.

    Two by two segments become one: threads that hold whole columns exchange no value. Nothing is added and taken off again, so
    -inf rows are exact; EXCLUSIVE leaves the own row out.
    """
    C: tl.constexpr = x.shape[0]
    if BLOCK == C and not EXCLUSIVE:
        return tl.cumsum(x, 0, reverse=REVERSE)
    whole = tl.reshape(x, (C, x.numel // C))
    run = tl.zeros(whole.shape, tl.float32) if EXCLUSIVE else whole
    for i in tl.static_range(7):
        if 1 << i < BLOCK:
            run, whole = joined_segments(run, whole, REVERSE, False)
    return tl.reshape(run, x.shape)


@triton.jit
def column_decay(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """exp(column_cumsum(x, ..)) of x <= 0, as products of one exponential for each element of x, whatever BLOCK is.

    No factor is above 1: nothing overflows, and a product is 0 only where its exponential is.
    """
    C: tl.constexpr = x.shape[0]
    whole = tl.exp(tl.reshape(x, (C, x.numel // C)))
    run = tl.full(whole.shape, 1.0, tl.float32) if EXCLUSIVE else whole
    for i in tl.static_range(7):
        if 1 << i < BLOCK:
            run, whole = joined_segments(run, whole, REVERSE, True)
    return tl.reshape(run, x.shape)


@triton.jit
def sum_by_product(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """column_cumsum(x, ..) of rank 2 as a product with zeros and ones: nothing of a tile that a product left moves first.

    x is the sum of three parts in bf16, to the last bit. Elements that are no finite numbers are counted by another product,
    and make NaN of the sums that they are in, and of no others.
    """
    o_t = tl.arange(0, x.shape[0])[:, None]
    o_s = tl.arange(0, x.shape[0])[None, :]
    before = o_s > o_t if REVERSE else o_s < o_t
    own = before if EXCLUSIVE else before | (o_s == o_t)
    b_ones = tl.where(own & (o_t // BLOCK == o_s // BLOCK), 1.0, 0.0).to(tl.bfloat16)
    finite = tl.abs(x) < float("inf")
    x = tl.where(finite, x, 0.0)
    b_high = x.to(tl.bfloat16)
    x -= b_high.to(tl.float32)
    b_mid = x.to(tl.bfloat16)
    b_sum = tl.dot(b_ones, (x - b_mid.to(tl.float32)).to(tl.bfloat16))
    b_sum = tl.dot(b_ones, b_high, tl.dot(b_ones, b_mid, b_sum))
    return tl.where(tl.dot(b_ones, tl.where(finite, 0.0, 1.0).to(tl.bfloat16)) == 0.0, b_sum, float("nan"))


@triton.jit
def product_cumsum(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr, DOT: tl.constexpr):
    """column_cumsum(x, ..); where products take bf16 it is one of them."""
    if DOT == tl.bfloat16 and len(x.shape) == 2 and min(x.shape[0], x.shape[1]) >= 16:
        return sum_by_product(x, BLOCK, REVERSE, EXCLUSIVE)
    else:
        return column_cumsum(x, BLOCK, REVERSE, EXCLUSIVE)


@triton.jit
def product_decay(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr, DOT: tl.constexpr):
    """column_decay(x, ..), likewise; -inf counts as -1e30, of which the exponential is 0 as well."""
    if DOT == tl.bfloat16 and len(x.shape) == 2 and min(x.shape[0], x.shape[1]) >= 16:
        return tl.exp(sum_by_product(tl.where(x < -1e30, -1e30, x), BLOCK, REVERSE, EXCLUSIVE))
    else:
        return column_decay(x, BLOCK, REVERSE, EXCLUSIVE)


@triton.jit
def of_level(o_t, LEVEL: tl.constexpr):
    """[t, s]: whether t lies in the upper and s in the lower half of one segment of 2 * LEVEL of the steps o_t."""
    later = (o_t // LEVEL)[:, None] > (o_t // LEVEL)[None, :]
    if 2 * LEVEL < o_t.shape[0]:
        later &= (o_t // (2 * LEVEL))[:, None] == (o_t // (2 * LEVEL))[None, :]
    return later


@triton.jit
def join_inverses(M, b_X, C: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr):
    """From the inverses b_X [C/SIDE, SIDE, SIDE] of the diagonal blocks of I + M to those of blocks twice as wide.

    The inverse of [[A, 0], [B, D]] has -D^-1 B A^-1 below its diagonal; all pairs of blocks are joined at once.
    """
    NB: tl.constexpr = C // SIDE
    b_halves = tl.reshape(M, (NB // 2, 2, SIDE, NB // 2, 2, SIDE))
    b_left, _ = tl.split(tl.permute(b_halves, (0, 2, 3, 5, 1, 4)))
    _, b_B = tl.split(b_left)
    if NB > 2:
        o_b = tl.arange(0, NB // 2)
        b_B = tl.sum(tl.where((o_b[:, None] == o_b[None, :])[:, None, :, None], b_B, 0.0), 2)
    else:
        b_B = tl.reshape(b_B, (1, SIDE, SIDE))
    b_X = tl.reshape(b_X, (NB // 2, 2, SIDE, SIDE))
    b_A, b_D = tl.split(tl.permute(b_X, (0, 2, 3, 1)))
    b_B = tl.dot(b_D, tl.dot(b_B, b_A, input_precision=PRECISION), input_precision=PRECISION)
    lower = tl.arange(0, 2) == 1
    row, column = lower[None, :, None, None, None], lower[None, None, None, :, None]
    b_X = tl.where(row == column, b_X[:, :, :, None, :], tl.where(row, -b_B[:, None, :, None, :], 0.0))
    return tl.reshape(b_X, (NB // 2, 2 * SIDE, 2 * SIDE))


@triton.jit
def unit_lower_inverse(M, C: tl.constexpr, PRECISION: tl.constexpr):
    """(I + M)^-1 for a strictly lower triangular tile M [C, C] in fp32, C a power of two from 16 to 128.

    Substitution in all 16 x 16 blocks of the diagonal at once; then neighbouring blocks are joined, two by two, until
    one is left. No power of M is ever formed: those grow on repeated keys. PRECISION is the `input_precision` of
    the products: "tf32x3" on NVIDIA, "ieee" on AMD. C = 128 wants eight warps: with four the tile spills on NVIDIA.
    """
    NB: tl.constexpr = C // 16
    o_b = tl.arange(0, NB)
    o_r = tl.arange(0, 16)
    own = (o_b[:, None] == o_b[None, :])[:, None, :, None]
    b_M = tl.sum(tl.where(own, tl.reshape(M, (NB, 16, NB, 16)), 0.0), 2)
    eye = (o_r[:, None] == o_r[None, :]).to(tl.float32)
    b_X = tl.broadcast_to(eye[None, :, :], (NB, 16, 16))
    for i in tl.static_range(15):
        b_column = tl.sum(tl.where(o_r[None, None, :] == i, b_M, 0.0), 2)
        b_row = tl.sum(tl.where(o_r[None, :, None] == i, b_X, 0.0), 1)
        b_X -= b_column[:, :, None] * b_row[:, None, :]
    if C > 16:
        b_X = join_inverses(M, b_X, C, 16, PRECISION)
    if C > 32:
        b_X = join_inverses(M, b_X, C, 32, PRECISION)
    if C > 64:
        b_X = join_inverses(M, b_X, C, 64, PRECISION)
    return tl.reshape(b_X, (C, C))


@triton.jit
def affine_after(a_past, b_past, a_now, b_now):
    """The map h -> a_now * (a_past * h + b_past) + b_now as its pair of slope and offset."""
    return a_now * a_past, a_now * b_past + b_now


@triton.jit
def affine_scan(a, b, REVERSE: tl.constexpr):
    """h[t] = a[t] * h[t-1] + b[t] along axis 0 from h = 0, from the end where REVERSE; also the products of a.

    Returns (products of a up to t, h): with a state h_in before the tile, h[t] + product[t] * h_in.
    """
    if REVERSE:  # the rows are turned around, which moves nothing where a thread holds whole columns
        slope, offset = tl.associative_scan((tl.flip(a, 0), tl.flip(b, 0)), 0, affine_after)
        return tl.flip(slope, 0), tl.flip(offset, 0)
    else:
        return tl.associative_scan((a, b), 0, affine_after)
''')

HELPERS: Mapping[str, str] = {**TILES, **ELEMENTWISE, **MORE, **TEAM, **SEQUENCES}
"""Name of a primitive -> its source text, in an order in which each text calls only itself and earlier ones."""


def needs(name: str) -> tuple[str, ...]:
    """The other primitives that the text of `name` calls, in table order."""
    return tuple(other for other in HELPERS if other != name and re.search(rf"\b{other}(\(|\)|, reverse)", HELPERS[name]))


def helper_texts(names: Iterable[str]) -> tuple[str, ...]:
    """The texts of `names` and of all that they call, callees first, each once, in table order. Raises KeyError."""
    wanted = reached(names, needs)
    return tuple(text for name, text in HELPERS.items() if name in wanted)
