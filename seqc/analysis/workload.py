"""The workloads that choices are made for where a spec leaves extents open: how many sequences, steps, heads and elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.ir.block import free_dims
from seqc.ir.graph import BATCH
from seqc.ir.once import found_once
from seqc.ir.program import Program


@dataclass(frozen=True)
class Workload:
    """batch: sequences; length: steps of one; dim: extent of a dim that has no default; heads: of a dim that nothing mixes,
    beside the innermost such dim."""

    batch: int = 8
    length: int = 2048
    dim: int = 64
    heads: int = 8


TILES = Workload()  # of a GPU, which are then used for every batch and length
TILES_OF_MATRICES = Workload(batch=16)  # the same, of states that are matrices: their programs fill a GPU more than once
FEW_MATRICES = Workload(batch=8)  # the same, of kernels that calls take where programs are few
TILED_BATCH = Workload(batch=16)  # the same, where the batch is an axis of a tile
FORMS = Workload(batch=2)  # of a block: step, scan, chunkwise
PRODUCTS = Workload(batch=4, length=32)  # in which order plain torch multiplies; length: blocks


@found_once
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


@found_once
def nominal_sizes(program: Program) -> Mapping[str, int]:
    """Extents to count with: defaults where the spec has them, or the largest of its choices, else those of FORMS, which
    are others for dims beside the lane."""
    free = free_dims(program.graph)
    sizes = {}
    for d in program.dims.values():
        beside = d.name in free and d.name != lane(program)
        sizes[d.name] = d.default or (d.choices[-1] if d.choices else FORMS.heads if beside else FORMS.dim)
    return sizes | {BATCH: FORMS.batch}
