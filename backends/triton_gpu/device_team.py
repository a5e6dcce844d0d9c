'''Device functions of the programs that share out one head of a cell, as source texts.

Comes in: nothing. Goes out: `TEAM`, name -> text. `meet` is the one place where programs wait for each other. All programs of a
launch must be resident, or a program would wait for one that waits for its room: the launcher sees to it, and asks for a
cooperative launch, which a device refuses otherwise.
'''

from __future__ import annotations

from seqc.backends.triton_gpu.texts import each

TEAM = each('''
@triton.jit
def meet(p_met, count):
    """Wait until the programs of the team have come here `count` times, all together. What each of them stored before is then
    seen by all: the counter is raised once the program's threads have stored, and read again until it is high enough."""
    tl.debug_barrier()
    tl.atomic_add(p_met, 1, sem="release", scope="gpu")
    met = tl.atomic_add(p_met, 0, sem="acquire", scope="gpu")
    while met < count:
        met = tl.atomic_add(p_met, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()


@triton.jit
def in_parts(i, LENGTH: tl.constexpr, PARTS: tl.constexpr):
    """[PARTS, LENGTH / PARTS], the positions of the i-th piece of a dim: of a product each warp takes one part."""
    EACH: tl.constexpr = LENGTH // PARTS
    return i * LENGTH + tl.arange(0, PARTS)[:, None] * EACH + tl.arange(0, EACH)[None, :]


@triton.jit
def four_as_one(a, b, c, d):
    """Four matrices [1, M, K] below each other: [4 M, K]."""
    both = tl.join(tl.join(a, c), tl.join(b, d))  # [1, M, K, 2, 2]
    return tl.reshape(tl.permute(both, (3, 4, 0, 1, 2)), (4 * a.shape[1], a.shape[2]))


@triton.jit
def one_as_four(x):
    """Four matrices [N, M] from the transposed ones below each other, [4 M, N]."""
    a_c, b_d = tl.split(tl.permute(tl.reshape(x, (2, 2, x.shape[0] // 4, x.shape[1])), (3, 2, 0, 1)))
    a, c = tl.split(a_c)
    b, d = tl.split(b_d)
    return a, b, c, d
''')
"""Name of a device function -> its text."""
