"""Kernels at given sizes -> jobs for the toolchain, so that every kernel is compiled for every target without a GPU.

In: a schedule, one of its kernels as printed, extents of all dims, a storage type. Out: `Jobs`, which makes the `Job` of
the kernel for any tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from seqc.backends.triton_gpu.device import helper_texts
from seqc.backends.triton_gpu.extents import Tiles
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.roles import ALL, COLUMNS
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.segments import LANES
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.toolchain import Job
from seqc.backends.triton_gpu.tuning.verdicts import Configuration, family
from seqc.emit.numbers import number_at
from seqc.ir.block import BATCH
from seqc.ir.dims import PIECE

TYPES = {"fp32": "tl.float32", "bf16": "tl.bfloat16", "fp16": "tl.float16"}


class Jobs:
    """The jobs of one kernel. kind: "fp32", "bf16" or "fp16", the type of inputs and outputs; wide: names of inputs that come
    in fp32 all the same, and whose gradients do.

    The type of operands, an argument in emitted files, is a global of the job's module.
    """

    def __init__(
        self, plan: Schedule, printed: Printed, target: str, sizes: Mapping[str, int], kind: str, wide: Collection[str] = (),
    ) -> None:
        self.plan, self.printed, self.target = plan, printed, target
        self.sizes = {d: sizes[d.removesuffix(ALL)] for d in (*sizes, *plan.block.program.dims)}
        kinds = {"io": f"*{kind}", "carry": "*fp32", "state": "*bf16" if kind == "bf16" else "*fp32", "count": "*i32"}
        names = printed.arguments
        arrays = dict(zip(names, printed.given, strict=False))
        given = [(n, a, a.role == "param" or (a.dtype == "io" and a.of(wide))) for n, a in arrays.items() if a is not None]
        signature = [(n, "*fp32" if fp32 else kinds[a.dtype]) for n, a, fp32 in given]
        self.signature = (*signature, *((n, "i32") for n in printed.runtime))
        self.rows = plan.block.rows if plan.block.rows > 1 else plan.every
        extents = {**{d: self.sizes[d] for d in plan.block.program.dims}, "t": self.rows, "s": self.rows}
        self.fixed: list[tuple[str, int | float | bool | str | None]] = []
        for arg, n in printed.scalars:
            self.fixed.append((arg, number_at(n, extents)))
        # packs and reversed runs use the same tiles: they differ in addresses only
        self.fixed += [("p_cu_seqlens", None), ("STEP", 1)]
        self.fixed += [(n, None) for n, a in arrays.items() if a is None]
        self.fixed += list(printed.switches.items())
        self.stages, self.in_parts = "STAGES" in names, "PARTS" in names
        if "PRECISION" in names:
            self.fixed.append(("PRECISION", "tf32x3" if target_named(target).vendor == "cuda" else "ieee"))
        text = "\n\n\n".join([*printed.functions.values(), printed.text.replace(" DOT: tl.constexpr,", "")])
        head = f"import triton\nimport triton.language as tl\n\nDOT = tl.constexpr({TYPES[kind]})\n\n\n"
        self.source = head + "\n\n\n".join([*helper_texts(printed.calls), text])

    @property
    def family(self) -> str:
        """What the keys of this text have in common."""
        return family(self.source, self.printed.name, self.target)

    @property
    def extents(self) -> dict[str, int]:
        """The extents that the kernel is made for, by argument."""
        return {arg: self.sizes[d] for d, arg in self.printed.dims}

    def job(self, tiles: Tiles) -> Job:
        """The kernel at these tiles."""
        constants = [*((arg, self.sizes[d]) for d, arg in self.printed.dims)]
        constants += [(arg, self.length(d, tiles)) for d, arg in self.printed.tiles]
        constants += [("STAGES", tiles.stages)] if self.stages else []
        whole = [self.length(d, tiles) for d, _ in self.printed.tiles if d.endswith(ALL)]
        if self.in_parts:
            constants.append(("PARTS", 1 if self.printed.kernel.in_fours else min(tiles.warps, whole[0] // 16)))
            constants += [("HELD", tiles.held), ("AT_ONCE", tiles.at_once)]
        if self.printed.columns:
            constants.append(("COLUMNS", max(self.length(self.printed.columns, tiles) // (LANES * tiles.warps), 1)))
        configuration = Configuration(self.signature, (*constants, *self.fixed), tiles.warps, tiles.stages)
        return Job(self.source, self.printed.name, self.target, configuration)

    def length(self, dim: str, tiles: Tiles) -> int:
        """Elements of a tile along a dim, as the launcher sets it."""
        if dim == "t":
            return self.rows
        if dim in self.plan.pieces:
            return PIECE
        least = 16 if dim in self.printed.in_dots else 1
        if dim == BATCH:
            return max(tiles.blocks[dim], least)
        whole = max(least, 1 << max(self.sizes[dim] - 1, 0).bit_length())
        if dim in self.plan.roles.passed:
            return min(whole, COLUMNS if dim.endswith(ALL) else PIECE)
        return min(whole, max(tiles.blocks[dim], least)) if dim in self.plan.roles.blocked else whole
