"""The kernels of a recurrence on a GPU: rows, tiles, and what the toolchain has said of them in the committed table.

In: a program, a target, extents. Out: `Chosen` of the Triton backend, and `Figures`, one per kernel; `refreshed` asks the
toolchain for what the table lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from seqc.analysis.workload import TILES, TILES_OF_MATRICES, nominal_sizes
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.kernel_problem import tile_choices
from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.targets import Occupancy, occupancy, target_named
from seqc.backends.triton_gpu.tuning.tiles import Chosen, ChosenKernel, choose_tiles
from seqc.backends.triton_gpu.tuning.toolchain import Job, available, refresh
from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable, own_table
from seqc.diagnostics import Unsupported
from seqc.ir.block import Block
from seqc.ir.program import Program

__all__ = ["KIND", "Asked", "Chosen", "Figures", "committed", "extents", "figures", "known", "measured", "pruned", "refreshed",
           "tiles_of"]

KIND = "bf16"  # the storage type that figures are told for
ROUNDS = 12  # of asking the toolchain and choosing again, at most
BATCH = 8  # kernels between two versions of a growing table
INHERITED = 2  # tiles that are asked about first, of those that were fastest before the text of a kernel changed


@dataclass(frozen=True)
class Figures:
    """One kernel on one target. verdict, resident: None where the toolchain was never asked, or refused."""

    chosen: ChosenKernel
    target: str
    resident: Occupancy | None

    @property
    def verdict(self) -> Verdict | None:
        """What the toolchain said."""
        return self.chosen.verdict

    @property
    def kernel(self) -> str:
        """The kernel's name in the emitted file."""
        return self.chosen.job.kernel

    def tiles(self) -> str:
        """The tiles, warps and stages in words."""
        config = self.chosen.job.configuration
        sizes = ", ".join(f"{name} {value}" for name, value in config.constants if isinstance(value, int))
        return f"{sizes}, {config.warps} warp{'s' * (config.warps > 1)}, {config.stages} stage{'s' * (config.stages > 1)}"

    def words(self) -> str:
        """One line about what the kernel needs."""
        if self.verdict is None:
            other = "those of this kernel are of another text; " if self.chosen.outdated else ""
            return f"no verdict recorded: {other}`seqc tiles SPEC --target {self.target} --refresh` asks the toolchain"
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
        config = self.chosen.job.configuration
        found: dict[str, Any] = {"kernel": self.kernel, "target": self.target, "constants": dict(config.constants)}
        found |= {"warps": config.warps, "stages": config.stages, "binds": self.chosen.why}
        if self.verdict is not None:
            v = self.verdict
            found |= {"registers": v.registers, "spills": v.spills, "shared": v.shared, "error": v.error}
            found |= {"matrix instructions": v.count("matrix"), "toolchain": v.toolchain}
        if self.resident is not None:
            found |= {"occupancy": self.resident.percent, "limit": self.resident.limit}
        return found


def figures(chosen: Chosen) -> tuple[Figures, ...]:
    """The kernels of a choice, in the order of the emitted file."""
    return tuple(_figures(one, chosen.target) for one in chosen.kernels.values())


def tiles_of(
    blocks: Sequence[Block], target: str, sizes: Mapping[str, int] | None = None, *, table: VerdictTable | None = None
) -> Chosen:
    """The solver's rows and tiles for a target, at the extents that costs are told for unless others are given."""
    return choose_tiles(measured(blocks, sizes), target, known() if table is None else table)


def measured(blocks: Sequence[Block], sizes: Mapping[str, int] | None = None) -> list[Lowered]:
    """Blocks at the extents that costs are told for, unless others are given."""
    given = extents(blocks[0].program) if sizes is None else sizes
    return [Lowered(block, given, KIND) for block in blocks]


def extents(program: Program) -> dict[str, int]:
    """The extents that costs are told for: defaults, and the model's for what is left open."""
    sizes = nominal_sizes(program)
    return {d: sizes[d] for d in program.dims}


@cache
def committed() -> VerdictTable:
    """The committed table."""
    return VerdictTable.load()


def known() -> VerdictTable:
    """The committed table, and what a person's own has on kernels that the committed one knows nothing of."""
    path = own_table()
    return committed().beside(_own(path)) if path is not None and path.exists() else committed()


@cache
def _own(path: Path) -> VerdictTable:
    return VerdictTable.load(path)


Asked = tuple[Sequence[Lowered], str]
"""The blocks of a program, and a target."""


def refreshed(
    asked: Iterable[Asked], table: VerdictTable, progress: Callable[[int, int], None], rounds: int = ROUNDS
) -> Iterator[VerdictTable]:
    """The table, growing until the toolchain has spoken of every choice, and of what lies beside it. Of a kernel whose text has
    changed it is asked first about tiles that were fastest before. Raises Unsupported where there is no toolchain."""
    missing = available()
    if missing is not None:
        raise Unsupported.of("no-toolchain", f"the toolchain cannot be asked: {missing}", help="pip install triton")
    open_ = list(asked)
    wanted = {job.key: job for lowered, target in open_ for one in lowered for job in inherited(one, target, table)}
    for _ in range(rounds + 1):
        left = list(wanted.values())
        for at in range(0, len(left), BATCH):
            table = refresh(left[at : at + BATCH], table, again=True, progress=progress)
            yield table
        wanted, still = {}, []
        for one in open_:
            lowered, target = one
            chosen = choose_tiles(lowered, target, table)
            jobs = (*chosen.missing(), *chosen.beside())
            wanted |= {job.key: job for job in jobs}
            still += [one] if jobs else []
        if not wanted:
            break
        open_ = still


def inherited(lowered: Lowered, target: str, table: VerdictTable) -> Iterator[Job]:
    """Of each kernel of which the table knows another text alone: the jobs of those tiles that were fastest with that."""
    workload = TILES_OF_MATRICES if lowered.block.form == "chunkwise" else TILES
    for name in lowered.plan.kernels:
        jobs, summary = lowered.jobs(name, target), lowered.kernel(name)[1]
        before = table.before(jobs.family, jobs.extents)
        if not before:
            continue
        model, found = KernelModel(summary, target_named(target), workload), []
        for tiles in tile_choices(summary, target_named(target)):
            job = jobs.job(lowered.tiles(name, tiles))
            said = before.get(job.configuration.tiles)
            took = None if said is None or said.error is not None else model.told(said, {"C": lowered.block.rows, **tiles})
            found += [] if took is None else [(took.nanoseconds, job)]
        yield from (job for _, job in sorted(found, key=lambda one: one[0])[:INHERITED])


def pruned(table: VerdictTable, asked: Iterable[Asked]) -> VerdictTable:
    """The table without records that no present text can find, of the kernels, targets and extents asked for.

    Which rows are offered, and so which texts a kernel has, depends on the extents: records at others stay.
    """
    current: set[str] = set()
    known: dict[tuple[str, str], list[dict[str, str]]] = {}
    for lowered, target in asked:
        for jobs in (jobs for one in lowered for jobs in one.every(target)):
            current.add(jobs.family)
            known.setdefault((jobs.printed.name, target), []).append({arg: str(size) for arg, size in jobs.extents.items()})

    def stale(key: str) -> bool:
        kind, _, words = key.partition(": ")
        name, _, target = kind.split()
        told = dict(word.split(" ", 1) for word in words.split(", "))
        return kind not in current and any(
            all(told.get(arg, size) == size for arg, size in sizes.items()) for sizes in known.get((name, target), ())
        )

    return table.only(key for key in table if not stale(key))


def _figures(one: ChosenKernel, target: str) -> Figures:
    resident, said = None, one.verdict
    if said is not None and said.error is None:
        resident = occupancy(target_named(target), said.registers, said.shared, one.tiles.warps, said.tensor_memory)
    return Figures(one, target, resident)
