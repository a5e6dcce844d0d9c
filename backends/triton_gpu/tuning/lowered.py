"""One block at given extents, its kernels printed and measured, and what the toolchain has said of each.

In: a block, extents, the storage type. Out: `Lowered`, which the choice of rows and tiles asks. It chooses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from seqc.backends.triton_gpu.emit import default_tiles
from seqc.backends.triton_gpu.extents import Tiles
from seqc.backends.triton_gpu.print_kernel import Printed, keeps_none, print_named
from seqc.backends.triton_gpu.print_team import print_team
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.spans import CALL
from seqc.backends.triton_gpu.tuning.jobs import Jobs
from seqc.backends.triton_gpu.tuning.kernel_problem import Told, tile_choices
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary
from seqc.backends.triton_gpu.tuning.summary import summarize, summarize_team
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.verdicts import VerdictTable
from seqc.ir.block import Block


class Lowered:
    """One block at given extents, its kernels printed and measured when they are asked for, once for all targets. kind: the
    type of inputs, but for those named in `wide`, which come in fp32."""

    def __init__(self, block: Block, sizes: Mapping[str, int], kind: str, wide: Collection[str] = ()) -> None:
        self.block, self.sizes, self.kind, self.wide = block, sizes, kind, wide
        self.plan = schedule(block)
        self.made: dict[str, tuple[Printed, KernelSummary]] = {}
        self.asked: dict[tuple[str, str], Jobs] = {}

    def kernel(self, name: str) -> tuple[Printed, KernelSummary]:
        """A kernel as it is printed, and what the solver needs to know of it."""
        if name not in self.made:
            plan = self.plan.of(name)
            if plan is self.plan.team:
                made = print_team(plan)
                self.made |= {k: (one, summarize_team(plan, one, self.sizes, self.kind)) for k, one in made.items()}
            else:
                printed = print_named(self.plan, name, lambda saving: self.kernel(saving)[0])
                self.made[name] = printed, summarize(plan, printed, self.sizes, self.kind, wide=self.wide)
        return self.made[name]

    def printed(self, name: str) -> Printed | None:
        """A kernel's text, where it has been asked for."""
        return self.made[name][0] if name in self.made else None

    def jobs(self, name: str, target: str) -> Jobs:
        """What the toolchain can be asked of a kernel: as most calls launch it, where it has switches."""
        if (name, target) not in self.asked:
            usual = keeps_none(self.kernel(name)[0]) if self.plan.spans == CALL else self.kernel(name)[0]
            self.asked[name, target] = Jobs(self.plan.of(name), usual, target, self.sizes, self.kind, self.wide)
        return self.asked[name, target]

    def every(self, target: str) -> tuple[Jobs, ...]:
        """The jobs of all kernels on a target, whichever have been asked about."""
        names = (*self.plan.kernels, *(self.plan.team.kernels if self.plan.team is not None else ()))
        return tuple(self.jobs(name, target) for name in names)

    def tiles(self, name: str, chosen: Mapping[str, int]) -> Tiles:
        """A choice of the solver for a kernel as the launcher takes it."""
        start = default_tiles(self.plan.of(name)).blocks
        blocks = {d: chosen.get(f"B{d}", size) for d, size in start.items()}
        return Tiles(blocks, chosen["warps"], chosen["stages"], chosen.get("held", 0), chosen.get("at_once", 1))

    def told(self, name: str, target: str, table: VerdictTable) -> Told:
        """What the table holds of a kernel at any tiles."""
        summary = self.kernel(name)[1]
        jobs = self.jobs(name, target)
        if not table.knows(jobs.family):
            return ()
        found = []
        for tiles in tile_choices(summary, target_named(target)):
            verdict = table.get(jobs.job(self.tiles(name, tiles)).key)
            if verdict is not None:
                found.append(({"C": self.block.rows, **tiles}, verdict))
        return tuple(found)
