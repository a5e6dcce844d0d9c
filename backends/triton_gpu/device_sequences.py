'''Device functions that find a program's sequence, of a batch of equal ones or of a pack, as source texts.

Comes in: nothing. Goes out: `SEQUENCES`, name -> text. The bounds of a pack stay on the device.

Sequence i of a pack has the rows from cu[i] up to cu[i + 1]. Its blocks begin at cu[i] // BT + i in what has an entry per
block: floor(cu[i + 1] / BT) - floor(cu[i] / BT) + 1 >= ceil((cu[i + 1] - cu[i]) / BT), so total // BT + N entries hold all.
These beginnings increase with i, so an entry tells its sequence, and no table of blocks is needed.
'''

from __future__ import annotations

from seqc.backends.triton_gpu.texts import each

SEQUENCES = each('''
@triton.jit
def sequence(p_cu_seqlens, i_b, T, STEP: tl.constexpr):
    """(row of the first step taken, number of steps) of sequence i_b, which is taken from its end where STEP is -1."""
    if p_cu_seqlens is None:
        first = i_b * T
    else:
        first = tl.load(p_cu_seqlens + i_b).to(tl.int64)
        T = (tl.load(p_cu_seqlens + i_b + 1) - first).to(tl.int32)
    if STEP < 0:
        first += T - 1
    return first, T


@triton.jit
def first_block_of(p_cu_seqlens, i_b, NT, BT):
    """Where the blocks of sequence i_b begin, in what has an entry per block."""
    if p_cu_seqlens is None:
        at = i_b * NT
    else:
        at = tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + i_b
    return at


@triton.jit
def block_of(p_cu_seqlens, i_s, B, T, BT):
    """(sequence, its block) at entry i_s of what has an entry per block; past the sequence's end where no block is there."""
    if p_cu_seqlens is None:
        NT = tl.cdiv(T, BT)
        i_b = i_s // NT
        i_n = i_s % NT
    else:  # the last sequence whose blocks begin here or before: each turn leaves a 32nd of them
        i_b = 0 * i_s
        left = B
        while left > 1:
            part = tl.cdiv(left, 32)
            o_part = tl.arange(0, 32) * part
            bounds = tl.load(p_cu_seqlens + i_b + o_part, mask=o_part < left, other=0).to(tl.int64)
            before = (bounds // BT + i_b + o_part <= i_s) & (o_part < left)
            skipped = (tl.sum(before.to(tl.int32), 0) - 1) * part
            i_b += skipped
            left = tl.minimum(part, left - skipped)
        i_n = i_s - (tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + i_b)
    return i_b, i_n.to(tl.int32)


@triton.jit
def sequences(p_cu_seqlens, i_b, o_b, T, STEP: tl.constexpr):
    """`sequence` of each of the sequences o_b of a program; of a pack a program has the one, i_b."""
    if p_cu_seqlens is None:
        first = o_b * T
    else:
        first = tl.load(p_cu_seqlens + i_b).to(tl.int64) + 0 * o_b
        T = (tl.load(p_cu_seqlens + i_b + 1) - tl.load(p_cu_seqlens + i_b)).to(tl.int32)
    if STEP < 0:
        first += T - 1
    return first, T


@triton.jit
def first_blocks_of(p_cu_seqlens, i_b, o_b, NT, BT):
    """`first_block_of` each of the sequences o_b of a program; of a pack a program has the one, i_b."""
    if p_cu_seqlens is None:
        at = o_b * NT
    else:
        at = tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + o_b
    return at
''')
