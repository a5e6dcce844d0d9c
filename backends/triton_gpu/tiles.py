"""A block's kernels on a target -> the tiles that the solver chooses for each, and why.

In: a `Block`, the target's name, extents, the storage type, and a way to ask for verdicts (the committed table where a
spec is compiled, the toolchain where the table is refreshed). Out: `Chosen`: tiles by kernel, and what bound them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from seqc.backends.triton_gpu.emit import default_tiles, print_all
from seqc.backends.triton_gpu.jobs import kernel_job
from seqc.backends.triton_gpu.launcher import Tiles
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.summary import summarize
from seqc.backends.triton_gpu.toolchain import Job
from seqc.block import Block
from seqc.diagnostics import Diagnostic, Unsupported
from seqc.targets import target_named
from seqc.tiling.choose import choose
from seqc.tiling.kernel_summary import Limit
from seqc.tiling.problem import Clash
from seqc.tiling.verdicts import Verdict

TOO_MUCH = "more tiles are live than the registers hold, at any size: the smallest pieces are taken"
Ask = Callable[[Job], Verdict | None]


@dataclass(frozen=True)
class Chosen:
    """Tiles by kernel name, and for each a sentence on what bound the choice."""

    tiles: Mapping[str, Tiles]
    why: Mapping[str, str]


def choose_tiles(block: Block, target: str, sizes: Mapping[str, int], kind: str, ask: Ask) -> Chosen:
    """The tiles of every kernel of a block. Raises Unsupported where the constraints of one clash."""
    plan = schedule(block)
    start = default_tiles(plan)
    tiles: dict[str, Tiles] = {}
    why: dict[str, str] = {}
    for name, printed in print_all(plan).items():

        def made(assignment: Mapping[str, int]) -> Tiles:
            blocks = {d: assignment.get(f"B{d}", start.blocks[d]) for d in plan.roles.blocked}
            return Tiles(blocks, assignment["warps"], assignment["stages"])

        def verdict(assignment: Mapping[str, int], printed=printed) -> Verdict | None:  # type: ignore[no-untyped-def]
            return ask(kernel_job(plan, printed, target, sizes, kind, made(assignment)))

        summary = summarize(plan, printed, sizes, kind)
        found = choose(summary, target_named(target), verdict)
        spills = isinstance(found, Clash)
        if spills:  # even the smallest pieces hold more than the registers: the least is taken, the toolchain spills
            least = tuple(Limit(TOO_MUCH, f"B{d}", "<=", 16) for d in plan.roles.blocked)
            found = choose(replace(summary, live=(), limits=(*summary.limits, *least)), target_named(target), verdict)
        if isinstance(found, Clash):
            message = f"no tiles for the kernel `{name}` of `{block.program.name}` on {target}"
            raise Unsupported(Diagnostic("no-tiles", message, cause="; ".join(found.sentences), kind="unsupported"))
        tiles[name] = made(dict(found.solution.assignment))
        bound = [b.sentence for b in found.solution.binding]
        bound += [TOO_MUCH] if spills and TOO_MUCH not in bound else []
        why[name] = "; ".join(bound) or "nothing binds"
    return Chosen(tiles, why)
