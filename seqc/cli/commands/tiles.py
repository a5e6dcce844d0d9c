"""`seqc tiles`: rows and tiles of specs' kernels, with registers, spills, shared memory and occupancy for each target. In:
specs and wishes. Out: text or JSON; with --refresh the toolchain is asked (no GPU needed) and a table grows: in a checkout
the committed one, for the specs that ship; for all others the one in the person's cache folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqc.cli.commands.options import SPEC, add_json, count, dim, say, spec_path

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.report.figures import Asked, Figures
    from seqc.backends.triton_gpu.tuning.lowered import Lowered
    from seqc.backends.triton_gpu.tuning.verdicts import VerdictTable


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="a GPU (default: all known ones)")
    parser.add_argument("--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE",
                        help="the size of a dim; one that a spec lacks is passed over")
    parser.add_argument("--refresh", action="store_true", help="ask the toolchain for what the table lacks")
    parser.add_argument("--prune", action="store_true",
                        help="drop records that no present text can find, of the kernels, targets and sizes told of")
    parser.add_argument("--rounds", type=count, metavar="N", help="with --refresh: ask and choose again at most so often")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Tell the figures of every kernel of every spec."""
    from seqc.backends.triton_gpu.report.figures import figures, known, measured
    from seqc.backends.triton_gpu.tuning.tiles import choose_tiles
    from seqc.driver.backends import gpu_cores
    from seqc.driver.pipeline import fix_dims, lowerings
    from seqc.frontend.elaborate import load

    targets = known_targets(args.target)
    groups: dict[bool, dict[str, Sequence[Lowered]]] = {True: {}, False: {}}
    for path in args.specs:
        program = load(path)
        program = fix_dims(program, {d: n for d, n in args.dims if d in program.dims})
        for core in gpu_cores(program):
            groups[committed_here(path)][core.program.name] = measured(lowerings(core.program, core.form))
    found: dict[str, list[Figures]] = {}
    for ours, blocks in groups.items():
        if blocks:
            asked = [(one, target) for target in targets for one in blocks.values()]
            table = grown(asked, ours, args) if args.refresh or args.prune else known()
            for name, one in blocks.items():
                found[name] = [f for target in targets for f in figures(choose_tiles(one, target, table))]
    if args.json:
        print(json.dumps({name: [one.data() for one in rows] for name, rows in found.items()}, indent=2))
    else:
        for name, rows in found.items():
            print(text(name, rows))
    return 0


def committed_here(path: Path) -> bool:
    """Whether a spec's verdicts belong into the committed table: it ships, and the package is a checkout's."""
    from seqc.backends.triton_gpu.tuning.verdicts import TABLE
    from seqc.frontend.sources import shipped

    checkout = (TABLE.resolve().parents[3] / "pyproject.toml").is_file()
    return checkout and path.resolve() in {one.resolve() for one in shipped().values()}


def grown(asked: Sequence[Asked], ours: bool, args: argparse.Namespace) -> VerdictTable:
    """The table after asking the toolchain, or dropping what is stale, or both; the file grows with it, beside what others
    write. ours: the committed one."""
    from tqdm import tqdm

    from seqc.backends.triton_gpu.report.figures import ROUNDS, committed, known, pruned, refreshed
    from seqc.backends.triton_gpu.tuning.verdicts import TABLE, VerdictTable, own_table
    from seqc.diagnostics import Diagnostic, Refusal

    path = TABLE if ours else own_table()
    if path is None:
        raise Refusal(Diagnostic("no-cache", "there is no home folder to keep verdicts in", help="set XDG_CACHE_HOME"))
    table, dropped = committed() if ours else known(), set[str]()
    if args.refresh:
        with tqdm(desc="toolchain", file=sys.stderr, disable=None, leave=False) as bar:
            for more in refreshed(asked, table, lambda done, total: bar.update(), args.rounds or ROUNDS):
                VerdictTable.change(path, ((key, more[key]) for key in more if table.get(key) != more[key]))
                table = more
    if args.prune:
        dropped = set(table)
        table = pruned(table, asked)
        dropped -= set(table)
    say(f"{len(VerdictTable.change(path, (), dropped))} verdicts in {path}")
    return table


def known_targets(wanted: list[str]) -> list[str]:
    """The targets asked for, or all."""
    from seqc.backends.triton_gpu.tuning.targets import TARGETS, instead_of
    from seqc.diagnostics import Unsupported

    unknown = [name for name in wanted if name not in TARGETS]
    if unknown:
        raise Unsupported.of("no-such-target", f"there is no target `{unknown[0]}`", help=instead_of(unknown[0]))
    return wanted or list(TARGETS)


def text(name: str, rows: list[Figures]) -> str:
    """The figures of one spec."""
    lines = [name]
    for target in dict.fromkeys(one.target for one in rows):
        lines.append(f"  {target}")
        for one in (row for row in rows if row.target == target):
            lines.append(f"    {one.kernel}: {one.tiles()}")
            lines.append(f"        {one.words()}")
    return "\n".join(lines)
