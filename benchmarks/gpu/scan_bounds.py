"""Scans of vectors and of states of a channel beside what no kernel can be faster than.

In: shipped specs whose recurrences have no matrix product, a shape, a target. Out: rows of `docs/benchmarks/machine-code.md`:
modelled time of forward, what its inputs and outputs take at the data sheet's bandwidth, and what its special functions take at
16 a cycle and multiprocessor: one for each exponential, logarithm, division and the like that a step asks for, an element.
Matrix products before and after a recurrence are torch's, and not counted on either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from seqc.backends.triton_gpu.tuning.targets import Target
from seqc.driver.backends import gpu_cores
from seqc.driver.explain.gpu_costs import Costs, Shape, costs, sizes_of
from seqc.frontend.elaborate import load
from seqc.frontend.sources import shipped
from seqc.ir.block import BATCH
from seqc.ir.graph import topological
from seqc.ir.ops import TABLE
from seqc.ir.program import Program

SCANS = ("mamba", "longhorn", "rwkv4", "hgrn", "s5", "lru")
SHAPE = Shape(8, 2048, 32, 128)
SIZES = {"longhorn": {"D": 4096, "N": 16}, "s5": {"D": 1024, "N": 1024}, "lru": {"M": 1024, "N": 1024}}
"""Extents of specs with two open dims; others have 4,096 channels."""
SPECIAL = 16  # functions a cycle of a multiprocessor
BYTES = 2  # of an input's or output's number
HEAD = ("scan", "shape", "forward ms", "memory ms", "special functions ms", "ratio", "bound by", "with backward ms")


def bounds(program: Program, sizes: Mapping[str, int], target: Target) -> tuple[float, float]:
    """Nanoseconds of (memory, special functions) that forward takes at least."""
    steps = SHAPE.batch * SHAPE.steps

    def elements(dims: tuple[str, ...]) -> int:
        return prod(sizes[d] for d in dims if d != BATCH)

    nodes = topological(program.graph.values())
    changes = set()  # values that differ from step to step: what is made of params alone is made once
    for n in nodes:
        moves = n.text("kind") != "param" if n.op == "leaf" else any(a in changes for a in n.args)
        changes |= {n} if moves else set()
    asked = (n for n in changes if TABLE[n.op].elementwise and TABLE[n.op].cost == "dear")
    special = steps * sum(elements(n.dims) for n in asked)
    arrays = [x.dims for x in program.inputs.values()] + [program.graph[name].dims for name in program.outputs]
    moved = BYTES * steps * sum(map(elements, arrays))
    return moved / target.bytes_per_ns, 1000 * special / (SPECIAL * target.units * target.clock_mhz)


def rows(target: Target) -> Iterator[tuple[object, ...]]:
    """A row for each scan; kernels whose machine code is not known are named with the shape."""
    for spec in SCANS:
        program, given = load(shipped()[spec]), SIZES.get(spec, {})
        for core, found in zip(gpu_cores(program), costs(program, target.name, [SHAPE], given), strict=True):
            memory, special = bounds(core.program, {**sizes_of(core.program, SHAPE), **given}, target)
            yield row(spec, found, memory, special)


def row(spec: str, found: Costs, memory: float, special: float) -> tuple[object, ...]:
    """Modelled beside least times."""
    unknown = found.by_tile_model()
    told = ", by the tile model: " + ", ".join(unknown) if unknown else ""
    took = found.nanoseconds(found.forward)
    bound = ", ".join(dict.fromkeys(one.bound for one in found.forward))
    figures = (f"{x / 1e6:.2f}" for x in (took, memory, special))
    trained = f"{found.nanoseconds(found.training) / 1e6:.2f}"
    sizes = ", ".join(f"{d} {n}" for d, n in SIZES.get(spec, {"D": SHAPE.heads * SHAPE.width}).items())
    return spec, f"B{SHAPE.batch} T{SHAPE.steps}, {sizes}{told}", *figures, f"{took / max(memory, special):.2f}", bound, trained
