"""The machines that kernels are tiled for: hardware limits and rates, as a table.

Comes in: a target's name ("sm_80", "sm_90", "sm_100", "gfx942"). Goes out: its limits as a frozen `Target`, and the
occupancy that a kernel's registers, shared memory and warps allow. Nothing here asks the machine at hand: what
the compiler emits never depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from seqc.diagnostics import near_miss


@dataclass(frozen=True)
class Target:
    """One kind of GPU. "Unit" stands for NVIDIA's streaming multiprocessor and AMD's compute unit.

    Register counts are of 32-bit registers; rates are dense, in 10^9 operations (a multiply-add is two) a second.
    """

    name: str
    machine: str
    vendor: str
    """Triton's name of its backend: "cuda" or "hip"."""
    arch: int | str
    """Triton's name of the architecture."""
    warp: int
    """Threads of a warp."""
    units: int
    registers_per_unit: int
    registers_per_thread: int
    register_granule: int
    """Registers a thread are rounded up to a multiple of this."""
    shared_per_unit: int
    shared_per_program: int
    shared_reserved: int
    """Bytes that the system takes from each resident program's share."""
    tensor_memory: int
    """Columns of tensor memory of a unit; 0 where there is none."""
    warps_per_unit: int
    programs_per_unit: int
    bytes_per_ns: int
    """Memory bandwidth in 10^9 bytes a second."""
    matrix_gops: Mapping[str, int]
    """Rate of the matrix units per operand type; "fp32" is the way that keeps fp32 accuracy (three tf32 products)."""
    vector_gops: int
    """Rate of fp32 outside the matrix units."""
    clock_mhz: int
    """Highest clock of the units, in 10^6 cycles a second."""


@dataclass(frozen=True)
class Occupancy:
    """How many programs of a kernel one unit holds at once, the share of its warps that they fill, and what limits."""

    programs: int
    warps: int
    percent: int
    limit: str


# NVIDIA: limits from the CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"; rates and
# sizes from the A100 80GB SXM data sheet, the H100 SXM data sheet and the HGX B200 data sheet (dense figures). AMD:
# "AMD CDNA 3 Architecture" white paper, the CDNA3 instruction set reference and the MI300X data sheet.
_A100 = Target(
    name="sm_80",
    machine="NVIDIA A100 80GB SXM",
    vendor="cuda",
    arch=80,
    warp=32,
    units=108,
    registers_per_unit=65536,
    registers_per_thread=255,
    register_granule=8,
    shared_per_unit=164 * 1024,
    shared_per_program=163 * 1024,
    shared_reserved=1024,
    tensor_memory=0,
    warps_per_unit=64,
    programs_per_unit=32,
    bytes_per_ns=2039,
    matrix_gops=MappingProxyType({"bf16": 312_000, "fp16": 312_000, "tf32": 156_000, "fp32": 52_000}),
    vector_gops=19_500,
    clock_mhz=1410,
)
_H100 = replace(
    _A100, name="sm_90", machine="NVIDIA H100 SXM", arch=90, units=132, shared_per_unit=228 * 1024,
    shared_per_program=227 * 1024, bytes_per_ns=3350, vector_gops=67_000, clock_mhz=1830,
    matrix_gops=MappingProxyType({"bf16": 989_000, "fp16": 989_000, "tf32": 494_000, "fp32": 164_000}),
)
_B200 = replace(
    _H100, name="sm_100", machine="NVIDIA B200", arch=100, units=148, tensor_memory=512, bytes_per_ns=8000, vector_gops=75_000,
    clock_mhz=1965, matrix_gops=MappingProxyType({"bf16": 2_250_000, "fp16": 2_250_000, "tf32": 1_120_000, "fp32": 373_000}),
)
_TABLE = (
    _A100,
    _H100,
    _B200,
    Target(
        name="gfx942", machine="AMD Instinct MI300X", vendor="hip", arch="gfx942", warp=64, units=304,
        registers_per_unit=131072, registers_per_thread=512, register_granule=8,
        shared_per_unit=64 * 1024, shared_per_program=64 * 1024, shared_reserved=0, tensor_memory=0,
        warps_per_unit=32, programs_per_unit=32, bytes_per_ns=5300, vector_gops=163_000, clock_mhz=2100,
        matrix_gops=MappingProxyType({"bf16": 1_307_000, "fp16": 1_307_000, "tf32": 653_000, "fp32": 163_000}),
    ),
)

TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _TABLE})
"""Name -> target, NVIDIA by age, then AMD."""


def target_named(name: str) -> Target:
    """The target of that name; KeyError, with the known names, for another."""
    if name not in TARGETS:
        raise KeyError(f"no target {name!r}; known: {', '.join(TARGETS)}")
    return TARGETS[name]


def occupancy(target: Target, registers: int, shared: int, warps: int, tensor_memory: int = 0) -> Occupancy:
    """Programs that one unit holds at once, for `registers` a thread, `shared` bytes and `warps` warps a program.

    `limit` names the scarcest resource: "registers", "shared memory", "warps", "programs" or "tensor memory". Zero
    programs means that the kernel cannot run at all.
    """
    granule = target.register_granule
    rounded = -(-max(registers, 1) // granule) * granule
    room = {
        "registers": target.registers_per_unit // (rounded * target.warp * warps),
        "shared memory": target.shared_per_unit // max(shared + target.shared_reserved, 1),
        "warps": target.warps_per_unit // warps,
        "programs": target.programs_per_unit,
    }
    if tensor_memory:
        room["tensor memory"] = target.tensor_memory // tensor_memory
    if registers > target.registers_per_thread:
        room["registers"] = 0
    if shared > target.shared_per_program:
        room["shared memory"] = 0
    limit = min(room, key=lambda resource: room[resource])
    programs = room[limit]
    return Occupancy(programs, programs * warps, 100 * programs * warps // target.warps_per_unit, limit)


def instead_of(name: str) -> str:
    """What to write for a name that is no target's: a machine's own name leads to its target."""
    found = [one for one in TARGETS.values() if name.lower() in one.machine.lower().split()]
    return f"{found[0].machine} is `{found[0].name}`" if found else near_miss(name, TARGETS, "one of")
