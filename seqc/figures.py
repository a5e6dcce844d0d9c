"""The kernels of a block on a GPU: their tiles, and what the toolchain has said of them in the committed table.

In: a block, a target, extents. Out: `Figures`, one per kernel; `refreshed` asks the toolchain for what the table lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seqc.backends.triton_gpu.jobs import kernel_jobs
from seqc.backends.triton_gpu.tiles import Chosen, choose_tiles
from seqc.backends.triton_gpu.toolchain import Job, available, refresh
from seqc.block import Block
from seqc.diagnostics import Diagnostic, Unsupported
from seqc.passes.blocks.choose import NOMINAL
from seqc.program import Program
from seqc.targets import Occupancy, occupancy, target_named
from seqc.tiling.verdicts import Verdict, VerdictTable

KIND = "bf16"  # the storage type that figures are told for


@dataclass(frozen=True)
class Figures:
    """One kernel on one target. verdict, resident: None where the toolchain was never asked, or refused."""

    kernel: str
    target: str
    constants: tuple[tuple[str, int | float | bool | str | None], ...]
    warps: int
    stages: int
    verdict: Verdict | None
    resident: Occupancy | None

    def tiles(self) -> str:
        """The tiles, warps and stages in words."""
        sizes = ", ".join(f"{name} {value}" for name, value in self.constants if isinstance(value, int))
        return f"{sizes}, {self.warps} warps, {self.stages} stages"

    def words(self) -> str:
        """One line about what the kernel needs."""
        if self.verdict is None:
            return "not asked yet: `seqc tiles --refresh`"
        if self.verdict.error is not None:
            return f"refused by {self.verdict.toolchain}: {self.verdict.error}"
        v = self.verdict
        spills = f"{v.spills} bytes spilled" if v.spills else "no spills"
        text = f"{v.registers} registers, {spills}, {v.shared / 1024:.1f} KiB shared"
        if self.resident is not None:
            text += f", occupancy {self.resident.percent}% (limit: {self.resident.limit})"
        return text

    def data(self) -> dict[str, Any]:
        """The same for a machine to read."""
        found: dict[str, Any] = {"kernel": self.kernel, "target": self.target, "constants": dict(self.constants)}
        found |= {"warps": self.warps, "stages": self.stages}
        if self.verdict is not None:
            v = self.verdict
            found |= {"registers": v.registers, "spills": v.spills, "shared": v.shared, "error": v.error}
            found |= {"toolchain": v.toolchain}
        if self.resident is not None:
            found |= {"occupancy": self.resident.percent, "limit": self.resident.limit}
        return found


def figures(block: Block, target: str, sizes: Mapping[str, int], table: VerdictTable | None = None) -> tuple[Figures, ...]:
    """The kernels of a block, in the order of the emitted file."""
    known = VerdictTable.load() if table is None else table
    return tuple(_figures(job, known) for job in jobs(block, target, sizes))


def jobs(block: Block, target: str, sizes: Mapping[str, int]) -> tuple[Job, ...]:
    """What the toolchain is asked about a block, at the tiles that the solver chose for the target."""
    return kernel_jobs(block, target, sizes, KIND, tiles_of(block, target, sizes).tiles)


def tiles_of(block: Block, target: str, sizes: Mapping[str, int] | None = None) -> Chosen:
    """The solver's tiles for a target, at the extents that costs are told for; verdicts come from the committed table."""
    known = VerdictTable.load()

    def ask(job: Job) -> Verdict | None:
        return known.verdict(job.source, job.kernel, job.target, job.configuration)

    return choose_tiles(block, target, sizes or extents(block.program), KIND, ask)


def extents(program: Program) -> dict[str, int]:
    """The extents that costs are told for: defaults, and the model's for what is left open."""
    return {d.name: d.default or NOMINAL for d in program.dims.values()}


def refreshed(asked: Iterable[Job], progress: Callable[[int, int], None]) -> VerdictTable:
    """The committed table, grown by what the toolchain says of `asked`. Raises Unsupported where there is none."""
    missing = available()
    if missing is not None:
        message = f"the toolchain cannot be asked: {missing}"
        raise Unsupported(Diagnostic("no-toolchain", message, help="pip install triton", kind="unsupported"))
    return refresh(list(asked), VerdictTable.load(), progress=progress)


def _figures(job: Job, table: VerdictTable) -> Figures:
    config, target = job.configuration, target_named(job.target)
    verdict = table.verdict(job.source, job.kernel, job.target, config)
    resident = None
    if verdict is not None and verdict.error is None:
        resident = occupancy(target, verdict.registers, verdict.shared, config.warps, verdict.tensor_memory)
    return Figures(job.kernel, job.target, config.constants, config.warps, config.stages, verdict, resident)
