"""Sums over the steps of a block, and those that are exponents alone: decays over segments, which a kernel forms as products.

In: a schedule, and who takes the values of a kernel. Out: the device functions of the sums.

exp(a + b) is exp(a) exp(b), and where neither exponent is above 0, no factor overflows and none underflows unless the product
does. Products over segments of 2 b steps are then made of those over b steps, and each step has one exponential.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from seqc.analysis.ranges import infer
from seqc.backends.triton_gpu.kernel import Let
from seqc.ir.dims import is_time
from seqc.ir.graph import COL, ROW, Node, const, depends, index, node
from seqc.ir.intervals import ANY

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.roles import Roles
    from seqc.backends.triton_gpu.schedule import Schedule
    from seqc.backends.triton_gpu.uses import Uses

LANES = 32  # threads of a warp
SCANS = ("affine_scan", "max_scan")
PRODUCT, DECAY = "product_", "decay"  # how the names of device functions begin, and end
PAIR = "pair_decay"  # of pairs of steps
BEHIND = node("gt", index(ROW), index(COL))


def runs(spans: Collection[Node], schedule: Schedule, uses: Uses, apart: bool) -> dict[Node, str]:
    """By running sum of values with a tile axis that is no step, its device function; spans: of those that are `decays`, of the
    exponential. Where matrix products make what is summed, tiles lie as products leave them, and sums are products too, if
    each block has a program of its own (apart): one that walks blocks would wait for each."""
    found = [n for n in uses.by_nodes if n.op == "cumsum" and across(n, schedule.roles)]
    late = depends([n.args[0] for n in found], filter(uses.is_dot, uses.by_nodes))
    kind = PRODUCT if apart and any(n.args[0] in late for n in found if n not in spans) else "column_"
    pairs = {n: PAIR for n in spans if between(n, schedule.roles) is not None}
    return pairs | {n: kind + (DECAY if n in spans else "cumsum") for n in found}


def decays(schedule: Schedule, uses: Uses) -> frozenset[Node]:
    """Running sums of logarithms that are never above 0 and that vary along a tile axis that is no step, or from step to step
    between two of them, where nothing but exponentials takes them."""
    found = [
        n for n, by in uses.by_nodes.items()
        if n.op == "cumsum" and all(u.op == "exp" for u in by) and n not in uses.by_items
        and (across(n, schedule.roles) or between(n, schedule.roles) is not None)
    ]
    ranges = infer(schedule.program, [n.args[0] for n in found], dict.fromkeys(schedule.program.states, ANY))
    return frozenset(n for n in found if ranges[n.args[0]].hi <= 0.0)


def between(n: Node, roles: Roles) -> Node | None:
    """The value [t] whose sums over the steps after s up to t a running sum [t, s] is; None where it is another sum."""
    inside = n.args[0]
    if n.op != "cumsum" or inside.op != "where" or n.number("block") or n.number("reverse") or across(n, roles):
        return None
    after, x, rest = inside.args
    return x if after is BEHIND and rest is const(0.0) and n.text("dim") == ROW and COL not in x.dims else None


def crossing(n: Node, roles: Roles) -> Node | None:
    """The running sum [t, s] back from the last step that a sum takes, for each step, of those s before it; None for others."""
    if n.op != "sum" or n.names("over") != (COL,) or n.args[0].op != "where" or n.args[0].args[0] is not BEHIND:
        return None
    run, rest = n.args[0].args[1:]
    back = run.op == "cumsum" and not run.number("block") and run.number("reverse") and run.text("dim") == ROW
    return run if back and rest is const(0.0) and not across(run, roles) else None


def hidden(spans: Collection[Node], uses: Uses, roles: Roles) -> frozenset[Node]:
    """The exponents `spans`, and what device functions of pairs of steps make for themselves and nothing else takes."""
    crossed = {i.node: run for i in uses.items if isinstance(i, Let) and (run := crossing(i.node, roles)) is not None}
    heads = {*crossed, *(n for n in spans if between(n, roles) is not None)}
    masked = {n.args[0] for n in heads if set(uses.by_nodes[n.args[0]]) <= heads} - uses.by_items
    return frozenset(spans) | masked | {n for n in crossed.values() if set(uses.by_nodes[n]) <= masked} - uses.by_items


def columns(spans: Collection[Node], uses: Uses, roles: Roles) -> str:
    """The last tile axis, beside the steps, of such sums or of scans; "" where they have several. A load whose threads take few
    neighbours along it gives each thread all steps of these, and then nothing of a sum over steps moves between threads.

    Not where rows are shifted by several beside scans: what a `tl.gather` along steps gives lies in several threads.
    """
    steps = [item.node for item in uses.items if isinstance(item, Let) and item.node.op in (*SCANS, "shift")]
    steps = [n for n in steps if is_time(n.text("dim")) and across(n, roles)]
    scans = [] if spans or any(n.op == "shift" and not next_to(n) for n in steps) else steps
    axes = {wide[-1] for n in (*spans, *scans) if (wide := across(n, roles))}
    return axes.pop() if len(axes) == 1 else ""


def next_to(n: Node) -> bool:
    """Whether each row of a shift takes the row next to it."""
    return abs(n.number("by")) == 1


def neighbours(tile: str, warps: int) -> str:
    """How many neighbours along a tile a thread takes, so that all threads share out the tile and none of its steps."""
    return f"max({tile} // {LANES * warps}, 1)"


def across(n: Node, roles: Roles) -> list[str]:
    """The tile axes of a value that are no steps."""
    return [d for d in roles.axes(n.dims) if not is_time(d)]
