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
def product_in_parts(x, y, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """x [M, K] times y [K, N] in fp32, where K is long, M and N are short: each warp takes one of PARTS parts of K."""
    if PARTS == 1:
        return tl.dot(x, y, input_precision=PRECISION)
    x = tl.permute(tl.reshape(x, (x.shape[0], PARTS, x.shape[1] // PARTS)), (1, 0, 2))
    y = tl.reshape(y, (PARTS, y.shape[0] // PARTS, y.shape[1]))
    return tl.sum(tl.dot(x, y, input_precision=PRECISION), 0)
''')
"""Name of a device function -> its text."""
