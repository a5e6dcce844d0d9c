"""What a recurrence's kernels cost on a GPU that need not be there: the static performance report.

In: a program, a target, shapes. Out: `Costs` of each shape: by kernel, what the toolchain says of its machine code, what it
moves and computes against the target's ceilings, and its modelled time. Tiles are those of an emitted file: they are chosen
for the dims and the target, never for the batch or the length. Modelled times rank; they predict no benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from seqc.analysis.workload import Workload, lane
from seqc.backends.triton_gpu.fetching import WALKS
from seqc.backends.triton_gpu.launcher import warps_of_call
from seqc.backends.triton_gpu.report.figures import KIND, Chosen, extents, known, tiles_of
from seqc.backends.triton_gpu.schedule import AGAIN_KERNEL
from seqc.backends.triton_gpu.spans import CALL, saved_bytes, spans_of_call
from seqc.backends.triton_gpu.tuning.choose import Choice
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary
from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.multiprocessor import Spent
from seqc.backends.triton_gpu.tuning.pace import LAUNCH, Pacing
from seqc.backends.triton_gpu.tuning.pacing import pacing, sharing
from seqc.backends.triton_gpu.tuning.summary import BYTES, summarize
from seqc.backends.triton_gpu.tuning.targets import Occupancy, Target, target_named
from seqc.backends.triton_gpu.tuning.toolchain import Job
from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable
from seqc.driver.backends import gpu_cores
from seqc.driver.pipeline import fix_dims, lowerings
from seqc.ir.block import BATCH, free_dims
from seqc.ir.dims import unprimed
from seqc.ir.program import Program
from seqc.solver.expression import evaluate


@dataclass(frozen=True)
class Shape:
    """Batch, steps, heads, and the size of a head's keys and values."""

    batch: int
    steps: int
    heads: int
    width: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.steps} H{self.heads} D{self.width}"


SHAPES = (
    Shape(1, 8192, 96, 128), Shape(2, 16384, 16, 128), Shape(4, 2048, 16, 128), Shape(8, 1024, 8, 64), Shape(8, 2048, 32, 256),
)  # fmt: skip


@dataclass(frozen=True)
class KernelCost:
    """One launch. bytes: read and written by all programs; operations: a multiply-add is two; times in nanoseconds."""

    kernel: str
    tiles: str
    verdict: Verdict | None
    resident: Occupancy
    programs: int
    bytes: int
    products: int
    """Operations in matrix products."""
    elementwise: int
    nanoseconds: int
    memory: int
    """What the bytes take at the target's bandwidth."""
    arithmetic: int
    """What the operations take at the target's rates."""
    spills: str
    """Why a choice was taken that spills; empty where it does not."""
    afterwards: int
    """Launches that follow: sums of results left in parts, and products of what was stored for every step."""
    code: Spent | None
    """The modelled time by machine code, which `nanoseconds` then is; None where that was not looked at."""
    job: Job
    """What the toolchain is asked of it."""
    outdated: bool
    """Whether the toolchain has spoken of another text of this kernel alone."""

    @property
    def bound(self) -> str:
        """What the modelled time is nearest to."""
        if self.code is not None:
            return self.code.bound
        near = {"memory": self.memory, "arithmetic": self.arithmetic}
        name = max(near, key=lambda one: near[one])
        return name if 2 * near[name] >= self.nanoseconds else "latency"


@dataclass(frozen=True)
class Costs:
    """A shape's kernels: those of a forward pass, and of a forward and backward pass."""

    program: str
    target: str
    shape: str
    rows: int
    saved: int
    """Bytes of states, and of sums before gates, that forward keeps for backward, of the whole batch."""
    inputs: int
    """Bytes of the inputs, which are kept too."""
    fixed: Mapping[str, int]
    """Extents that the kernels are made for."""
    wide: tuple[str, ...]
    """Inputs that come in fp32."""
    forward: tuple[KernelCost, ...]
    training: tuple[KernelCost, ...]

    def short(self, one: KernelCost) -> str:
        """A kernel's name without that of its spec."""
        return one.kernel.removeprefix(f"{self.program}_").removesuffix("_kernel")

    def by_tile_model(self) -> list[str]:
        """The kernels whose machine code is not known, each once."""
        return list(dict.fromkeys(self.short(one) for one in (*self.forward, *self.training) if one.code is None))

    def launches(self, kernels: Iterable[KernelCost]) -> int:
        """Kernels, and what follows each of them."""
        return sum(1 + one.afterwards for one in kernels)

    def nanoseconds(self, kernels: Iterable[KernelCost]) -> int:
        """Modelled time with launches."""
        kernels = list(kernels)
        return sum(one.nanoseconds for one in kernels) + LAUNCH * self.launches(kernels)

    def data(self) -> dict[str, Any]:
        """For a machine to read."""
        found: dict[str, Any] = {"spec": self.program, "target": self.target, "shape": self.shape, "rows": self.rows}
        found |= {"bytes saved for backward": self.saved, "bytes of inputs": self.inputs}
        for name, kernels in (("forward", self.forward), ("forward+backward", self.training)):
            listed = [_data(one) for one in kernels]
            found[name] = {"ns": self.nanoseconds(kernels), "launches": self.launches(kernels), "kernels": listed}
        return found


def costs(
    program: Program, target: str, shapes: Iterable[Shape], dims: Mapping[str, int], table: VerdictTable | None = None,
    wide: Collection[str] = (),
) -> list[Costs]:
    """The report of each recurrence of a program. dims: extents that are given, whatever a shape says; wide: inputs that calls
    give in fp32, where tiles are those of an emitted file for inputs in bf16. Raises Unsupported.

    Torch's own products before and after them are not reported.
    """
    shapes, verdicts = list(shapes), known() if table is None else table
    cores = gpu_cores(program)
    return [one for core in cores for one in _of_core(core.program, core.form, target, shapes, dims, verdicts, wide)]


def _of_core(
    program: Program, form: str | None, target: str, shapes: Iterable[Shape], dims: Mapping[str, int], table: VerdictTable,
    wide: Collection[str],
) -> list[Costs]:
    found, wide = [], [name for name in wide if name in program.inputs]
    chosen: dict[tuple[tuple[str, int], ...], tuple[Pacing, Chosen]] = {}
    for shape in shapes:
        sizes = sizes_of(program, shape) | {d: n for d, n in dims.items() if d in program.dims}
        run = {*_heads(program), *_channels(program)}  # programs share these out, and tiles do not depend on them
        fixed = {d: n for d, n in sizes.items() if d not in run}
        key = tuple(fixed.items())
        if key not in chosen:
            blocks = lowerings(fix_dims(program, fixed), form)
            best = tiles_of(blocks, target, extents(blocks[0].program), table=table)
            chosen[key] = pacing(best), _called(best, table, wide)
        found.append(_costs(*chosen[key], shape, sizes, fixed, target_named(target), wide))
    return found


def _called(chosen: Chosen, table: VerdictTable, wide: Collection[str]) -> Chosen:
    """A choice, its kernels as a call runs them that gives some inputs in fp32. Where the toolchain has not been asked about
    that, a kernel stays as it is with bf16: its job is then no key of the table."""
    if not wide:
        return chosen
    lowered, kernels = Lowered(chosen.block, chosen.sizes, KIND, wide), dict(chosen.kernels)
    for name, one in kernels.items():
        job = lowered.jobs(name, chosen.target).job(one.tiles)
        said = table.get(job.key)
        kernels[name] = replace(one, job=job) if said is None else replace(
            one, job=job, verdict=said, summary=lowered.kernel(name)[1]
        )
    return replace(chosen, kernels=kernels)


def sizes_of(program: Program, shape: Shape) -> dict[str, int]:
    """Extents of all dims: heads for the dim that stands for them, the width for others, defaults where there are any."""
    heads = _heads(program)
    sizes = {d.name: d.default or shape.width for d in program.dims.values()}
    for name in heads:
        sizes[name] = program.dims[name].default or (shape.heads if name == heads[-1] else 1)
    for name in _channels(program):
        sizes[name] = shape.heads * shape.width
    return sizes


def _heads(program: Program) -> list[str]:
    """Dims that nothing mixes, but for a lane behind other dims of a state, the width of a head: the last stands for heads,
    others are 1."""
    one = lane(program)
    width = any(one in state.dims[1:] for state in program.states.values())
    return [d for d in program.dims if d in free_dims(program.graph) and not (d == one and width)]


def _channels(program: Program) -> list[str]:
    """The dim that stands for heads and width together: the one open dim that nothing mixes, where it is the only open one."""
    open_ = [d.name for d in program.dims.values() if d.default is None]
    return [d for d in open_ if d in free_dims(program.graph)] if len(open_) == 1 else []


def _costs(
    pace: Pacing, chosen: Chosen, shape: Shape, sizes: Mapping[str, int], fixed: Mapping[str, int], target: Target,
    wide: Collection[str],
) -> Costs:
    chosen, states = _spanned(chosen, shape, sizes, pace, target)
    priced = {name: _priced(chosen, name, shape, sizes, target) for name in chosen.kernels}
    lean = _lean(chosen, wide)

    def launched(whole: str) -> list[KernelCost]:
        blocks = -(-shape.steps // chosen.block.rows)
        ways = chosen.plan.ways[whole]
        counts = [{x: priced[x].programs // (1 if pace.pace(x).walks else blocks) for x in way} for way in ways]
        at = pace.way(blocks, target.units, counts)
        first = [priced[name] for name in chosen.plan.before.get(whole, ())]
        if at or len(ways[0]) > 1:  # as the launcher decides
            narrow = at and chosen.plan.hands_on(whole)
            return [*first, *(_priced(lean, x, shape, sizes, target) if narrow else priced[x] for x in ways[at])]
        one, phases = priced[ways[0][0]], ways[-1]
        if len(ways) > 1 and blocks > 1 and one.spills:
            apart = sum(priced[name].nanoseconds + LAUNCH * (1 + priced[name].afterwards) for name in phases)
            kept = "spill too" if any(priced[name].spills for name in phases) else "keep all registers"
            told = f"in phases, which {kept}, this shape takes {apart / 1000:.0f} us by the model"
            return [*first, replace(one, spills=f"{one.spills}; {told}")]
        return [*first, one]

    infer, forward, back = map(launched, ("infer", "forward", "backward"))
    name = chosen.block.program.name
    plan = chosen.plan
    elements = sum(math.prod(sizes[unprimed(d)] for d in chosen.block.program.states[s].dims) for s in plan.saved)
    kept = 4 * states * elements
    every_step = sum(math.prod(sizes[d] for d in a.axes[2:]) for a in plan.values)  # in the type of the inputs
    kept += BYTES[KIND] * shape.batch * shape.steps * every_step
    given = shape.batch * shape.steps * saved_bytes(chosen.block.program, sizes)[1]
    rows, trained = chosen.block.rows, (*forward, *back)
    return Costs(name, target.name, str(shape), rows, kept, given, fixed, tuple(wide), tuple(infer), trained)


def _spanned(
    chosen: Chosen, shape: Shape, sizes: Mapping[str, int], pace: Pacing, target: Target
) -> tuple[Chosen, int]:
    """The choice as a call of this shape runs it, and how many states of all its sequences forward keeps."""
    plan, rows = chosen.plan, max(chosen.block.rows, chosen.plan.every)
    if plan.spans != CALL or AGAIN_KERNEL not in chosen.kernels:
        return chosen, shape.batch * -(-shape.steps // (rows * max(plan.spans, 1)))
    again = chosen.kernels[AGAIN_KERNEL]
    model = KernelModel(_at_shape(again.summary, shape, sizes), target, Workload(1, shape.steps))
    programs = int(evaluate(model.programs(model.dims), again.choice.tiles(AGAIN_KERNEL)))
    every, _, states = spans_of_call(shape.batch, shape.steps, rows, programs, pace.enough)
    again = replace(again, summary=replace(again.summary, span=every))
    return replace(chosen, kernels={**chosen.kernels, AGAIN_KERNEL: again}), states


def _lean(chosen: Chosen, wide: Collection[str]) -> Chosen:
    """The choice, what the phases of `infer` move counted as it is kept where no gradient follows."""
    kernels, plan, arrays = dict(chosen.kernels), chosen.plan, chosen.plan.lean
    for name in plan.way("infer", "states") if arrays else ():
        printed = chosen.printed(name)
        assert printed is not None
        summary = summarize(plan.of(name), printed, chosen.sizes, KIND, arrays, wide)
        kernels[name] = replace(kernels[name], summary=summary)
    return replace(chosen, kernels=kernels)


def _priced(chosen: Chosen, name: str, shape: Shape, sizes: Mapping[str, int], target: Target) -> KernelCost:
    one = chosen.kernels[name]
    summary = _at_shape(one.summary, shape, sizes)
    model = KernelModel(summary, target, Workload(shape.batch, shape.steps))
    tiles, said = one.choice.tiles(name), one.verdict
    warps = _warps(chosen, name, model, tiles)
    if warps != tiles["warps"]:
        tiles["warps"] = warps
        said = next((verdict for known, verdict in one.choice.kernels[one.name].told if dict(known) == tiles), None)
    resident, spill = sharing(model, tiles, said, target)
    tiles["resident"] = max(resident.programs, 1)
    time, parts = model.time(spill)
    told = {part: int(evaluate(expr, tiles)) for part, expr in parts}
    turns = told["programs"] * told["turns a program"]
    moved = int(evaluate(model.traffic(), tiles))
    each = [2 * dot.times * int(evaluate(model.elements((*dot.m, *dot.n, *dot.k)), tiles)) for dot in summary.dots]
    products = turns * sum(each)
    other = turns * sum(work.operations * int(evaluate(model.elements(work.dims), tiles)) for work in summary.work)
    rate = max((target.matrix_gops[dot.rate] for dot in summary.dots), default=target.vector_gops)
    arithmetic = products // rate + 2 * other // target.vector_gops
    config = one.job.configuration
    lengths = [f"{n} {v}" for n, v in config.constants if n.startswith("B") and isinstance(v, int)]
    words_ = ", ".join([*lengths, f"{warps} warp{'s' * (warps > 1)}", f"{config.stages} stage{'s' * (config.stages > 1)}"])
    took = None if said is None else model.told(said, tiles)
    nanoseconds = int(evaluate(model.scaled(time, one.factor), tiles)) if took is None else round(took.nanoseconds)
    called = f"{chosen.block.program.name}_{name}_kernel"
    return KernelCost(
        called, words_, said, resident, told["programs"], moved, products, other, nanoseconds,
        moved // target.bytes_per_ns, arithmetic, why_spilling(chosen, name), one.afterwards, took,
        one.job, one.outdated,
    )


def _warps(chosen: Chosen, name: str, model: KernelModel, tiles: Mapping[str, int]) -> int:
    """The warps with which a call launches a kernel: of a walk step by step they depend on how many programs it has."""
    summary = model.summary
    walks = name in WALKS and chosen.block.rows == 1 and not summary.dots
    if not walks or max((len(tile.dims) for tile in summary.carried), default=0) < 2:
        return tiles["warps"]
    programs = int(evaluate(model.programs(model.dims), tiles))
    held = sum(int(evaluate(model.elements(tile.dims), tiles)) for tile in summary.carried)
    return warps_of_call(programs, model.target.units, tiles["warps"], held)


def _at_shape(summary: KernelSummary, shape: Shape, sizes: Mapping[str, int]) -> KernelSummary:
    """The kernel's summary with the extents of a shape, where programs share a dim out, and do not go through its pieces."""
    there = {**sizes, BATCH: shape.batch}
    dims = tuple(replace(d, size=there[d.name]) if d.role in ("grid", "block") and d.name in there else d for d in summary.dims)
    return replace(summary, dims=dims)


def why_spilling(chosen: Chosen, name: str) -> str:
    """Why the tiles of a kernel spill: beside the best that was made and keeps all registers, or that there is none."""
    one = chosen.kernels[name]
    if one.verdict is None or not one.verdict.spills:
        return ""
    mine = one.choice.tiles(one.name)
    asked = one.choice.kernels[one.name]
    made = sorted(
        ((_nominal(asked.at[tiles["C"]], tiles, said, one.choice), tiles, said)
         for tiles, said in asked.told if said.error is None),
        key=lambda found: found[0],
    )
    own = next(time for time, tiles, _ in made if dict(tiles) == mine)
    these = f"these are modelled at {own / 1000:.0f} us with their spills, for the shape that tiles are chosen for"
    kept = [(time, tiles) for time, tiles, said in made if said.fits]
    if kept:
        time, tiles = kept[0]
        reason = "what it shares with other kernels keeps it from them"
        return f"{these}; without spills the best that was made, {_named(tiles)}, at {time / 1000:.0f} us: {reason}"
    text = (
        f"no choice within the search keeps all registers with {mine['C']} rows: {len(made)} made, all spill, and by the model "
        f"the others need no fewer registers; {these}"
    )
    others = [found for found in made if dict(found[1]) != mine]
    if others:
        time, tiles, said = others[0]
        text += f"; next: {_named(tiles)}, {said.spills} bytes spilled, {time / 1000:.0f} us"
    elsewhere = "; ".join(f"{rows} rows: {told}" for rows, told in chosen.others().items())
    return f"{text}; rows are those of least time of forward and backward: {elsewhere}" if elsewhere else text


def _nominal(summary: KernelSummary, tiles: Mapping[str, int], said: Verdict, choice: Choice) -> int:
    """Modelled nanoseconds of tiles that were made, with their spills, for the shape that tiles are chosen for."""
    model = KernelModel(summary, choice.target, choice.workload)
    took = model.told(said, tiles)
    if took is not None:
        return round(took.nanoseconds)
    resident, spill = sharing(model, tiles, said, choice.target)
    return int(evaluate(model.time(spill)[0], {**tiles, "resident": max(resident.programs, 1)}))


def _named(tiles: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {v}" for n, v in tiles.items())


def _data(one: KernelCost) -> dict[str, Any]:
    found: dict[str, Any] = {"kernel": one.kernel, "tiles": one.tiles, "programs": one.programs}
    if one.verdict is not None:
        v = one.verdict
        found |= {"registers": v.registers, "spills": v.spills, "shared": v.shared, "error": v.error}
        found |= {"matrix instructions": v.count("matrix"), "instructions": v.count("all"), "toolchain": v.toolchain}
    found |= {"occupancy": one.resident.percent, "limit": one.resident.limit, "bytes": one.bytes}
    found |= {"operations in products": one.products, "other operations": one.elementwise, "ns": one.nanoseconds}
    found |= {"ns at the memory's rate": one.memory, "ns at the arithmetic rates": one.arithmetic, "bound by": one.bound}
    return found | ({"why it spills": one.spills} if one.spills else {})
