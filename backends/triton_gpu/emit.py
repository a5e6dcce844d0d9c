"""Block -> the Triton part of an emitted file.

In: a `Block` of any form, and the tile solver's choices. Out: `Kernels` (`seqc.emit.signature`): device functions,
kernels, and the functions that launch them, as one text that is the same to the byte on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from seqc.backends.triton_gpu.device import helper_texts
from seqc.backends.triton_gpu.extents import EXTENTS, Tiles
from seqc.backends.triton_gpu.gradient_sums import OF_EACH
from seqc.backends.triton_gpu.launch_team import WARPS, TeamLauncher, team_text
from seqc.backends.triton_gpu.launcher import STATE_TYPE, SUPPORT, Launcher
from seqc.backends.triton_gpu.launcher import WARPS as WARPS_TEXT
from seqc.backends.triton_gpu.order import WHOLE
from seqc.backends.triton_gpu.print_kernel import Printed, print_named
from seqc.backends.triton_gpu.print_team import print_team
from seqc.backends.triton_gpu.schedule import Schedule, schedule
from seqc.backends.triton_gpu.spans import SPAN, SPANS
from seqc.backends.triton_gpu.team import UNITS
from seqc.backends.triton_gpu.tuning.pace import Pacing
from seqc.backends.triton_gpu.tuning.room import device_text, open_dims, room_text
from seqc.backends.triton_gpu.tuning.summary import summarize, summarize_team
from seqc.emit.names import safe_name
from seqc.emit.packs import shifted_text
from seqc.emit.signature import Kernels
from seqc.ir.block import BATCH, Block

__all__ = ["Tiles", "default_tiles", "triton_kernels"]


def triton_kernels(
    block: Block, tiles: Mapping[str, Tiles] | None = None, plan: Schedule | None = None,
    pacing: Pacing | None = None, known: Callable[[str], Printed | None] = lambda name: None,
) -> Kernels:
    """The kernels of a block and their launchers. tiles: by kernel ("forward", "backward", ...), defaults elsewhere.

    plan: the block's schedule where it is known; pacing: when a call takes which kernels; known: a kernel of the plan that is
    printed already. Raises Unsupported where the
    recurrence cannot be served.
    """
    plan = plan or schedule(block)
    pacing = pacing or Pacing()
    printed = print_all(plan, known)
    chosen = {name: (tiles or {}).get(name) or default_tiles(plan.of(name)) for name in printed}
    sizes = {name: dim.default or WHOLE for name, dim in block.program.dims.items()}
    summaries = {name: summarize(plan.of(name), one, sizes, "bf16") for name, one in printed.items() if one.in_dots}
    open_ = open_dims(block.program, summaries.values(), plan.team is not None)
    team: dict[str, Printed] = {}
    if plan.team is None:
        launcher = Launcher(plan, printed, chosen, open_, pacing.enough)
    else:
        team = {name: one for name, one in print_team(plan.team).items() if printed[name.removeprefix("team_")].in_dots}
        shared = [d for d in plan.team.roles.blocked if d != BATCH]
        chosen |= {name: Tiles({BATCH: 16, **dict.fromkeys(shared, UNITS)}, WARPS, 1) for name in team}
        summaries |= {name: summarize_team(plan.team, one, sizes, "bf16") for name, one in team.items()}
        launcher = TeamLauncher(plan, printed, chosen, open_)
        launcher.join(team)
    functions = [*launcher.forward(), launcher.backward(), launcher.step()]
    if plan.single is not None:
        functions.insert(0, launcher.steps(pacing.few))
    every = [*printed.values(), *team.values()]
    kernels = list(dict.fromkeys([*(text for p in every for text in p.functions.values()), *(p.text for p in every)]))
    several = any(len(ways) > 1 for ways in plan.ways.values())
    support = [pacing.text(plan.ways)] if several else []
    helpers = {"_add_shifted": shifted_text("_add_shifted"), "_warps": WARPS_TEXT, "_state_type": STATE_TYPE,
               "_of_each": OF_EACH, "_way": pacing.function, SPAN: SPANS}
    runtime = [*helper_texts(chain.from_iterable(p.calls for p in every)), SUPPORT, EXTENTS]
    runtime += [text for name, text in helpers.items() if name in launcher.helpers]
    if open_:
        runtime.append(device_text())
        blocks = {name: one.blocks for name, one in chosen.items()}
        whole = {d: [k for name, k in printed.items() if d in plan.of(name).roles.whole and d in dict(k.tiles)] for d in open_}
        lengths = {d: launcher.length_of_tile(d, whole[d] or printed.values()) for d in open_}
        infer = [*plan.before.get("infer", ()), *chain(*plan.ways["infer"]), *(["steps"] if plan.single is not None else [])]
        names = launcher.dims, launcher.blocks, lengths
        support.append(room_text(block.program.name, summaries, blocks, open_, *names, infer))
        support += [team_text(launcher)] if isinstance(launcher, TeamLauncher) else []
    text = "\n\n\n".join(t.strip() for t in (*kernels, *support, *functions)) + "\n"
    limited, common = tuple(safe_name(d) for d in open_), tuple(t.strip() for t in runtime)
    return Kernels(text, saved=launcher.saved(), infer=True, packs=True, limited=limited, runtime=common)


def print_all(plan: Schedule, known: Callable[[str], Printed | None] = lambda name: None) -> dict[str, Printed]:
    """Every kernel of a schedule, by its name. known: one that is printed already, if its functions may have their names."""
    printed: dict[str, Printed] = {}
    taken: dict[str, str] = {}
    for name in plan.kernels:
        one = known(name)
        fits = one is not None and all(taken.get(called, text) == text for called, text in one.functions.items())
        printed[name] = one if one is not None and fits else print_named(plan, name, printed.__getitem__, dict(taken))
        taken |= printed[name].functions
    return printed


def default_tiles(plan: Schedule) -> Tiles:
    """Tiles where the solver has not been asked: about 4,096 elements of the largest state in a program."""
    inner = max((len(plan.roles.axes(d.dims)) for d in plan.block.program.states.values()), default=1)
    rows = plan.block.rows
    block = 32 if inner > 1 or plan.block.form == "chunkwise" else 128 if rows == 1 else max(16, 2048 // rows)
    blocks = {d: 16 if d == BATCH else block for d in plan.roles.blocked}
    return Tiles(blocks, warps=4, stages=2 if plan.block.rows > 1 else 1)
