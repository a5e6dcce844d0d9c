"""Loads of a walk, sent for some steps before they are used.

In: a kernel and the roles of its dims. Out: the kernel; where nothing but the walk's own loop hides what a load takes, the loop
sends for what a later step loads, to registers. Without products a lane has a channel or two, and no asynchronous copy moves
as few bytes; with products that holds of what a step has one number of, decays and rates, in two bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from seqc.backends.triton_gpu.kernel import SCRATCH, STEPS, Fetch, Item, Kernel, Load, Loop, tile_axes
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.roles import Roles
from seqc.ir.block import ROW

ONWARD = ("forward", "infer")  # kernels that walk all steps in their order,
WALKS = (*ONWARD, "backward")  # and all that may walk step after step, and send for what later steps load:
AHEAD = 2  # steps ahead, as one step's instructions take less time than a load


def with_fetches(kernel: Kernel, roles: Roles) -> Kernel:
    """for t: load, .. -> fetch the first; for t: take what was sent for, fetch for a later step, .."""
    products = bool(Products(kernel, roles).of)
    if kernel.rows > 1 and products and not kernel.block_in_grid:
        return replace(kernel, body=tuple(_of_blocks(kernel, roles)))
    if kernel.rows > 1 or kernel.name not in WALKS or products:
        return kernel
    return replace(kernel, body=_rewritten(kernel.body, kernel.name in ONWARD))


def _of_blocks(kernel: Kernel, roles: Roles) -> Iterator[Item]:
    """A walk over blocks, whose loop sends for the numbers that the next block has of each step."""
    for item in kernel.body:
        if isinstance(item, Loop) and item.over == "blocks":
            every = [i for i in item.body if isinstance(i, Load) and i.array.role == "input" and STEPS in i.array.axes]
            every = [x for x in every if tile_axes(x.array, roles, kernel.rows) == (ROW,)]
            loads = tuple(x for x in every if not x.offset and not x.first_only)
            if loads:
                fetch = Fetch(loads, False, item.reverse)
                yield replace(fetch, start=True)
                taken = (replace(x, ahead=True) for x in loads)
                item = replace(item, body=(*taken, fetch, *(x for x in item.body if x not in loads)))
        yield item


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


def step_of(item: Fetch, steps: int, low: str, high: str, now: str = "i_t") -> str:
    """The step or block that lies so many behind the first one, or behind that of the loop; of those past the end the last."""
    if not item.start:
        steps += item.ahead
    first = f"{high} - 1" if item.reverse else low
    if item.start and not steps:
        return first
    base = first if item.start else now
    base = f"{base} - {steps}" if item.reverse else str(steps) if base == "0" else f"{base} + {steps}"
    return f"tl.maximum({base}, {low})" if item.reverse else f"tl.minimum({base}, {high} - 1)"
