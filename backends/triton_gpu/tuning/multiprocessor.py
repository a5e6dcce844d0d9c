"""What a kernel takes on a GPU by its machine code: one model for kernels of this compiler and of others.

In: what a warp runs (`machine_code`), registers, shared memory and warps, how many programs there are, and the bytes that they
move between chip and memory. Out: `Spent`, nanoseconds and what they are of.

A multiprocessor has four schedulers, each of an instruction a cycle; one load/store unit of 128 bytes a cycle, which shuffles
too; lanes for half a warp of integers and 16 special functions a cycle; four tensor cores. Programs that share it are done no
sooner than the most loaded of these allows, and none sooner than its own chain: instructions that wait for each other,
barriers, loads that nothing fetched ahead. Published figures that the constants are held against:
`docs/benchmarks/gpu-model.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.backends.triton_gpu.tuning.machine_code import CHAIN, MISS, STEPS
from seqc.backends.triton_gpu.tuning.targets import Target, occupancy
from seqc.backends.triton_gpu.tuning.verdicts import Verdict

SCHEDULERS = 4
BARRIER = 40  # cycles of a barrier, or of waiting for a product
OVERLAP = 1.8  # by how much programs that share a unit take longer than its most loaded part
MEMORY = 0.85  # of the data sheet's bandwidth
CACHE = 24  # bytes a cycle between a unit and the second-level cache
HOPPER = 4096  # operations in bf16 a cycle of a unit, by which `machine_code` counts cycles of products
SYNCHRONOUS, BY_WARPS = "sm_80", 1.6  # where products of single warps reach the full rate; how much longer they take elsewhere
NEAR = 0.8  # of the time, from which on a part of a unit is what a kernel is bound by
FEW = 4  # waves, up to which the last one is counted whole


@dataclass(frozen=True)
class Code:
    """One kernel's machine code. work: by kind, what a warp runs for each 64 steps of a walk, and what once."""

    registers: int
    shared: int
    warps: int
    work: Mapping[str, tuple[float, float]]
    tensor_memory: int = 0

    def run(self, steps: int) -> dict[str, float]:
        """What a warp runs, in a sequence of so many steps."""
        return {kind: each * (steps / STEPS) + once for kind, (each, once) in self.work.items()}

    def turn(self, rows: int) -> dict[str, float]:
        """What a warp runs in a turn of so many steps of a walk, apart from what it runs once."""
        return {kind: each * (rows / STEPS) for kind, (each, _) in self.work.items()}


def code(verdict: Verdict, warps: int) -> Code:
    """A kernel's machine code as the toolchain has told of it."""
    work = {kind: (each, once) for kind, each, once in verdict.work}
    return Code(verdict.registers, verdict.shared, warps, work, verdict.tensor_memory)


@dataclass(frozen=True)
class Spent:
    """Nanoseconds of a launch. units: at the multiprocessors; parts: what the parts of these are busy; memory, cache: what the
    bytes take."""

    nanoseconds: float
    units: float
    parts: Mapping[str, float]
    memory: float
    cache: float
    resident: int

    @property
    def bound(self) -> str:
        """What the time is: bytes, the most loaded part, or waiting, where a program's own chain is longer than that."""
        outside = {"memory": self.memory, "second-level cache": self.cache}
        slower = max(outside, key=lambda one: outside[one])
        if outside[slower] >= self.units:
            return slower
        part = max(self.parts, key=lambda one: self.parts[one])
        return part if OVERLAP * self.parts[part] > NEAR * self.units else "waiting"


def priced(run: Mapping[str, float], warps: int, target: Target) -> dict[str, float]:
    """Cycles that a program keeps each part of a multiprocessor busy."""
    rate = 1000 * target.matrix_gops["bf16"] / target.units / target.clock_mhz  # operations a cycle
    slow = 1.0 if target.name == SYNCHRONOUS else BY_WARPS
    return {
        "issue": run.get("issue", 0.0) * warps / SCHEDULERS,
        "load/store": run.get("lsu", 0.0) * warps,
        "special functions": run.get("special", 0.0) * warps * 2,
        "integers": run.get("half", 0.0) * warps * 2 / SCHEDULERS,
        "products": (slow * run.get("mma", 0.0) + run.get("wgmma", 0.0)) * warps / SCHEDULERS * HOPPER / rate,
    }


def wave(code: Code, run: Mapping[str, float], many: float, target: Target) -> float:
    """Cycles of so many programs that share a unit."""
    busy = max(priced(run, code.warps, target).values())
    waits = BARRIER * run.get("barrier", 0.0) + MISS * run.get("wait", 0.0)
    return max(max(CHAIN * run.get("issue", 0.0), busy) + waits, OVERLAP * many * busy)


def room(code: Code, target: Target) -> int:
    """Programs that share a unit; a kernel for which there is no room counts as one that has a unit for itself."""
    return max(1, occupancy(target, code.registers, code.shared, code.warps, code.tensor_memory).programs)


def meeting(run: Mapping[str, float], waits: float, target: Target) -> float:
    """Nanoseconds for which a program waits longer for others than for its loads. waits: nanoseconds from what a program tells
    to what the others have read of it; its loads are on their way in that time, and what it is told comes by loads too."""
    return max(0.0, waits - 1000 * MISS * run.get("wait", 0.0) / target.clock_mhz)


def spent(code: Code, target: Target, programs: int, steps: int, moved: int, waits: float = 0.0) -> Spent:
    """Modelled time of one launch. programs: all; steps: of a sequence, for walks; moved: bytes between chip and memory; waits:
    nanoseconds that a program waits for others (`meeting`)."""
    resident, run = room(code, target), code.run(steps)
    waits = meeting(run, waits, target)
    waves, rest = divmod(-(-programs // target.units), resident)
    if waves < FEW:
        cycles = waves * wave(code, run, resident, target) + (wave(code, run, rest, target) if rest else 0.0)
    else:
        cycles = programs / (target.units * resident) * wave(code, run, resident, target)
    clock = target.clock_mhz / 1000
    memory = moved / (MEMORY * target.bytes_per_ns)
    cache = run.get("bytes", 0.0) * code.warps * programs / (CACHE * target.units * clock)
    parts = {name: cycles * programs / target.units / clock for name, cycles in priced(run, code.warps, target).items()}
    units = cycles / clock + max(waves + bool(rest), 1) * waits
    return Spent(max(units, memory, cache), units, parts, memory, cache, resident)
