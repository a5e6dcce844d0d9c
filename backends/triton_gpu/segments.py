"""Sums over the steps of a block that are exponents alone: decays over segments, which a kernel forms as products.

In: a schedule, and who takes the values of a kernel. Out: the sums.

exp(a + b) is exp(a) exp(b), and where neither exponent is above 0, no factor overflows and none underflows unless the product
does. Products over segments of 2 b steps are then made of those over b steps, and each step has one exponential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqc.analysis.ranges import infer
from seqc.ir.graph import Node
from seqc.ir.intervals import ANY

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.schedule import Schedule
    from seqc.backends.triton_gpu.uses import Uses


def decays(schedule: Schedule, uses: Uses) -> frozenset[Node]:
    """Running sums of logarithms that are never above 0 and that vary along another tile axis than the steps, where nothing but
    exponentials takes them."""
    found = [
        n for n, by in uses.by_nodes.items()
        if n.op == "cumsum" and all(u.op == "exp" for u in by) and n not in uses.by_items and len(schedule.roles.axes(n.dims)) > 1
    ]
    ranges = infer(schedule.program, [n.args[0] for n in found], dict.fromkeys(schedule.program.states, ANY))
    return frozenset(n for n in found if ranges[n.args[0]].hi <= 0.0)
