"""Kernels at given sizes -> jobs for the toolchain, so that every kernel is compiled for every target without a GPU.

In: a `Block`, extents of all dims, a storage type, tiles. Out: a `Job` per kernel, in the order of the emitted file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from seqc.backends.triton_gpu.emit import default_tiles, device_texts, print_all
from seqc.backends.triton_gpu.launcher import Tiles
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.schedule import Schedule, schedule
from seqc.backends.triton_gpu.toolchain import Job
from seqc.backends.triton_gpu.values import host_code
from seqc.block import Block
from seqc.graph import BATCH
from seqc.targets import target_named
from seqc.tiling.verdicts import Configuration

TYPES = {"fp32": "tl.float32", "bf16": "tl.bfloat16", "fp16": "tl.float16"}


def kernel_jobs(
    block: Block, target: str, sizes: Mapping[str, int], kind: str = "bf16", tiles: Mapping[str, Tiles] | None = None
) -> tuple[Job, ...]:
    """One job per kernel of the block. kind: "fp32", "bf16" or "fp16", the type of inputs and outputs."""
    plan = schedule(block)
    jobs = []
    for name, printed in print_all(plan).items():
        tile = (tiles or {}).get(name) or default_tiles(plan)
        jobs.append(kernel_job(plan, printed, target, sizes, kind, tile))
    return tuple(jobs)


def kernel_job(
    plan: Schedule, printed: Printed, target: str, sizes: Mapping[str, int], kind: str, tile: Tiles
) -> Job:
    """The job of one kernel. The type of operands, an argument in emitted files, is a global of the job's module."""
    kinds = {"io": f"*{kind}", "carry": "*fp32"}
    arguments = printed.text.split("):\n")[0].split("(\n")[1].replace("\n", " ").split(",")
    names = [a.strip().removesuffix(": tl.constexpr") for a in arguments if a.strip()]
    arrays = dict(zip(names, printed.arrays, strict=False))
    signature = [(n, "*fp32" if a.role == "param" else kinds[a.dtype]) for n, a in arrays.items()]
    signature += [(n, "i32") for n in printed.runtime]
    constants: dict[str, int | float | bool | str | None] = {arg: sizes[d] for d, arg in printed.dims}
    rows = plan.block.rows if plan.block.rows > 1 else plan.every
    for d, arg in printed.tiles:
        if d == "t":
            constants[arg] = rows
            continue
        least = 16 if d in printed.in_dots else 1
        whole = max(least, 1 << max(sizes.get(d, 8) - 1, 0).bit_length())
        constants[arg] = min(whole, max(tile.blocks[d], least)) if d in plan.roles.blocked else whole
        if d == BATCH:
            constants[arg] = max(tile.blocks[d], least)
    extents = {**{d: str(sizes[d]) for d in plan.block.program.dims}, "t": str(rows), "s": str(rows)}
    for arg, n in printed.scalars:
        constants[arg] = float(eval(host_code(n, extents), {"math": math}))
    if "PRECISION" in names:
        constants["PRECISION"] = "tf32x3" if target_named(target).vendor == "cuda" else "ieee"
    text = printed.text.replace(" DOT: tl.constexpr,", "")
    head = f"import triton\nimport triton.language as tl\n\nDOT = tl.constexpr({TYPES[kind]})\n\n\n"
    source = head + "\n\n\n".join([*device_texts(text), text])
    return Job(source, printed.name, target, Configuration(tuple(signature), tuple(constants.items()), tile.warps, tile.stages))
