"""A choice of rows and tiles -> when a call takes which kernels, by the model that made the choice.

In: `Chosen`, and what was measured on a GPU (`python -m benchmarks.gpu.calibrate --write`). Out: `Pacing`. A block of `rows`
rows costs the same however few of them lie in the sequence; single steps cost little each, but each waits for its loads,
and in neither do earlier turns hide them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path

from seqc.analysis.workload import Workload
from seqc.backends.triton_gpu.schedule import AGAIN_KERNEL, STEPS_KERNEL
from seqc.backends.triton_gpu.tuning.kernel_model import MEET_LATENCY, OVERHEAD_REGISTERS, KernelModel
from seqc.backends.triton_gpu.tuning.multiprocessor import MEMORY, code, meeting, wave
from seqc.backends.triton_gpu.tuning.pace import Pace, Pacing
from seqc.backends.triton_gpu.tuning.targets import Occupancy, Target, occupancy, target_named
from seqc.backends.triton_gpu.tuning.tiles import Chosen, ChosenKernel
from seqc.backends.triton_gpu.tuning.verdicts import Verdict
from seqc.solver.expression import evaluate

LITTLE = 1.1  # times what a kernel takes with all programs that the device holds
MEASURED = Path(__file__).parent / "measured.json"
"""Nanoseconds of a turn by `pace_key`, as `benchmarks.gpu.calibrate` writes them; absent until a GPU was there."""


@cache
def measured(path: Path = MEASURED) -> Mapping[str, int]:
    """Nanoseconds of a turn that were measured, by `pace_key`."""
    found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["paces"] if path.exists() else {}
    return found


def pace_key(chosen: Chosen, kernel: str) -> str:
    """What a measured time belongs to: target, spec, sizes, rows, kernel and tiles."""
    tiles = ", ".join(f"{name} {n}" for name, n in sorted(chosen.kernels[kernel].choice.tiles(kernel).items()))
    sizes = ", ".join(f"{d} {n}" for d, n in chosen.sizes.items())
    return f"{chosen.target} {chosen.block.program.name} {kernel}: {sizes}; {tiles}"


def pacing(chosen: Chosen) -> Pacing:
    """What the launchers of a choice are told."""
    target = target_named(chosen.target)
    sizes = ", ".join(f"{d} = {n}" for d, n in chosen.sizes.items())
    kernels = {name: _pace(one, target) for name, one in chosen.kernels.items()}
    seen = {name: measured()[key] for name in kernels if (key := pace_key(chosen, name)) in measured()}
    kernels |= {name: replace(kernels[name], alone=nanoseconds, busy=nanoseconds) for name, nanoseconds in seen.items()}
    words = f"{chosen.target}, bf16, {sizes}" + (f"; measured: {', '.join(seen)}" if seen else "")
    return Pacing(few_steps(chosen), enough(chosen, kernels, target), kernels, int(MEMORY * target.bytes_per_ns), words)


def enough(chosen: Chosen, kernels: Mapping[str, Pace], target: Target) -> int:
    """The fewest programs of the kernel `again` that take little more time than any number of them."""
    if AGAIN_KERNEL not in kernels:
        return 1
    kernel, pace = chosen.kernels[AGAIN_KERNEL], kernels[AGAIN_KERNEL]

    def busy(sharing: int) -> float:
        if kernel.verdict is None or not kernel.verdict.work:
            return pace.busy
        one = code(kernel.verdict, kernel.tiles.warps)
        return 1000 * wave(one, one.turn(kernel.summary.rows), sharing, target) / target.clock_mhz

    times = {many: busy(many) for many in range(1, pace.resident + 1)}  # by programs that share a unit, of a turn of each
    best = max(pace.moved / (MEMORY * target.bytes_per_ns), min(ns / (many * target.units) for many, ns in times.items()))
    wanted = {many: max((many - 1) * target.units + 1, ceil(ns / (LITTLE * best))) for many, ns in times.items()}
    return next((n for many, n in wanted.items() if n <= many * target.units), pace.resident * target.units)


def few_steps(chosen: Chosen) -> int:
    """The most steps, of those that fit a block, for which single steps are modelled no slower than a block; at least one."""
    if STEPS_KERNEL not in chosen.kernels:
        return 1
    target = target_named(chosen.target)
    steps, plan = chosen.kernels[STEPS_KERNEL], chosen.plan
    block = sum(_time(chosen.kernels[name], target, 1) for name in (*plan.before.get("infer", ()), *plan.ways["infer"][0]))
    return max([1, *(t for t in range(2, chosen.block.rows + 1) if _time(steps, target, t) <= block)])


def sharing(
    model: KernelModel, tiles: Mapping[str, int], said: Verdict | None, target: Target
) -> tuple[Occupancy, int]:
    """(how programs share a unit, nanoseconds a block that spills take): by the toolchain's word, or else the model's."""
    warps = tiles["warps"]
    threads = warps * target.warp
    if said is not None and said.error is None:
        room = occupancy(target, said.registers, said.shared, warps, said.tensor_memory)
        return room, model.spill_time(said, threads)
    held = OVERHEAD_REGISTERS + -(-int(evaluate(model.words(), tiles)) // threads)
    shared = int(evaluate(model.shared(), tiles))
    return occupancy(target, min(held, target.registers_per_thread), shared, warps), 0


def _shared(kernel: ChosenKernel, model: KernelModel, target: Target) -> tuple[dict[str, int], int]:
    """(a kernel's tiles and the programs that share a unit, nanoseconds a block that spills take)."""
    tiles = kernel.choice.tiles(kernel.name)
    room, spilled = sharing(model, tiles, kernel.verdict, target)
    return {**tiles, "resident": max(room.programs, 1)}, spilled


def _pace(kernel: ChosenKernel, target: Target) -> Pace:
    model = KernelModel(kernel.summary, target)
    at, spilled = _shared(kernel, model, target)
    walks = kernel.summary.loops_over_time or kernel.summary.span > 1
    told = {name: int(evaluate(expr, at)) for name, expr in model.time(spilled)[1]}
    busy = told["ns at the units"] // (told["waves"] * told["turns a program"])
    alone = told["ns of arithmetic a turn"] + told["ns of waiting a turn"]
    moved = int(evaluate(model.traffic(), at)) // (told["programs"] * told["turns a program"])
    if kernel.verdict is not None and kernel.verdict.work:
        one = code(kernel.verdict, at["warps"])
        run = one.turn(kernel.summary.rows) if walks else one.run(0)
        meets = meeting(run, kernel.summary.meets * MEET_LATENCY, target)
        alone, busy = (round(1000 * wave(one, run, n, target) / target.clock_mhz + meets) for n in (1, at["resident"]))
    else:
        alone, busy, moved = (kernel.factor * n // 100 for n in (alone, busy, moved))
    return Pace(at["resident"], max(alone, 1), max(busy, 1), moved, walks, 1 + kernel.afterwards)


def _time(kernel: ChosenKernel, target: Target, length: int) -> int:
    """Modelled nanoseconds of a kernel for short sequences, of the batch that tiles are chosen for."""
    model = KernelModel(kernel.summary, target, Workload(length=length))
    at, spilled = _shared(kernel, model, target)
    return int(evaluate(model.time(spilled)[0], {**at, "stages": 1}))
