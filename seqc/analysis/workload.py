"""The workload that costs are counted for where a spec leaves extents open: how many batches, heads and elements."""

from __future__ import annotations

from seqc.ir.block import free_dims
from seqc.ir.graph import BATCH
from seqc.ir.program import Program

NOMINAL = 64  # extent assumed for a dim that has no default
HEADS = 8  # the same for a dim that nothing mixes, beside the innermost such dim
BATCHES = 2


def lane(program: Program) -> str:
    """The last dim of the widest state that nothing mixes: the one that a program holds many indices of; "" if none.

    Not the heads of a state of which a program holds a matrix: the first of three dims, or one before two that are mixed.
    """
    free = free_dims(program.graph)
    heads = {
        d for state in program.states.values() for i, d in enumerate(state.dims)
        if (i == 0 and len(state.dims) > 2) or sum(x not in free for x in state.dims[i + 1 :]) > 1
    }
    places = [(i, d) for state in program.states.values() for i, d in enumerate(state.dims) if d in free and d not in heads]
    return max(places, key=lambda p: p[0], default=(0, ""))[1]


def nominal_sizes(program: Program) -> dict[str, int]:
    """Extents to count with: defaults where the spec has them, or the largest of its choices, else NOMINAL, or HEADS for
    dims beside the lane."""
    free = free_dims(program.graph)
    sizes = {}
    for d in program.dims.values():
        beside = d.name in free and d.name != lane(program)
        sizes[d.name] = d.default or (d.choices[-1] if d.choices else HEADS if beside else NOMINAL)
    return sizes | {BATCH: BATCHES}
