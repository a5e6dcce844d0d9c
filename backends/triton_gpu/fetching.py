"""Loads of a walk over steps, sent for some steps before they are used.

In: a kernel and the roles of its dims. Out: the kernel; where nothing but the walk's own loop hides what a load takes, the loop
sends for what a later step loads, to registers. Without products a lane has a channel or two, and no asynchronous copy moves
as few bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seqc.backends.triton_gpu.kernel import SCRATCH, STEPS, Fetch, Item, Kernel, Load, Loop
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.roles import Roles

ONWARD = ("forward", "infer")  # kernels that walk all steps in their order,
WALKS = (*ONWARD, "backward")  # and all that may walk step after step, and send for what later steps load:
AHEAD = 2  # steps ahead, as one step's instructions take less time than a load


def with_fetches(kernel: Kernel, roles: Roles) -> Kernel:
    """for t: load, .. -> fetch the first; for t: take what was sent for, fetch for a later step, .."""
    if kernel.rows > 1 or kernel.name not in WALKS or Products(kernel, roles).of:
        return kernel
    return replace(kernel, body=_rewritten(kernel.body, kernel.name in ONWARD))


def _rewritten(items: Iterable[Item], onward: bool) -> tuple[Item, ...]:
    """onward: whether the loops over all blocks go through all steps, so that the first are sent for once, before all loops."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, Loop):
            loads = tuple(i for i in item.body if isinstance(i, Load)) if item.over == "steps" else ()
            if loads and all({STEPS, SCRATCH} & {*x.array.axes} and not x.offset for x in loads):
                through = onward and not item.reverse
                fetch = Fetch(loads, False, item.reverse, AHEAD, through)
                out.append(replace(fetch, start=True))
                taken = (replace(x, ahead=True) for x in loads)
                item = replace(item, body=(*taken, fetch, *(x for x in item.body if x not in loads)))
            else:
                item = replace(item, body=_rewritten(item.body, onward))
        out.append(item)
    return tuple(out)
