"""`seqc tiles`: rows and tiles of specs' kernels, with registers, spills, shared memory and occupancy for each target. In:
specs and wishes. Out: text or JSON; with --refresh the toolchain is asked (no GPU needed) and the committed table grows."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from seqc.commands.options import SPEC, add_json, dim, say, spec_path

if TYPE_CHECKING:
    from seqc.figures import Figures


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="a GPU (default: all known ones)")
    parser.add_argument("--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE",
                        help="the size of a dim; one that a spec lacks is passed over")
    parser.add_argument("--refresh", action="store_true", help="ask the toolchain for what the committed table lacks")
    parser.add_argument("--prune", action="store_true",
                        help="drop records of the kernels and targets told of that their present text cannot find")
    parser.add_argument("--rounds", type=int, metavar="N", help="with --refresh: ask and choose again at most so often")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Tell the figures of every kernel of every spec."""
    from tqdm import tqdm

    from seqc.backends.triton_gpu.tiles import choose_tiles
    from seqc.build import load
    from seqc.driver import fix_dims, lowerings
    from seqc.figures import ROUNDS, committed, figures, measured, pruned, refreshed
    from seqc.passes.split_parallel import split_parallel

    targets = known_targets(args.target)
    blocks = {}
    for path in args.specs:
        program = load(path)
        program = fix_dims(program, {d: n for d, n in args.dims if d in program.dims})
        blocks[program.name] = measured(lowerings(split_parallel(program).core))
    asked = [(one, target) for target in targets for one in blocks.values()]
    table = committed()
    if args.refresh:
        with tqdm(desc="toolchain", file=sys.stderr, disable=None, leave=False) as bar:
            for grown in refreshed(asked, table, lambda done, total: bar.update(), args.rounds or ROUNDS):
                grown.save()
                table = grown
    found = {
        name: [f for target in targets for f in figures(choose_tiles(one, target, table))] for name, one in blocks.items()
    }
    if args.prune:
        table = pruned(table, asked)
        table.save()
    if args.refresh or args.prune:
        say(f"{len(table)} verdicts in the table")
    if args.json:
        print(json.dumps({name: [one.data() for one in rows] for name, rows in found.items()}, indent=2))
    else:
        for name, rows in found.items():
            print(text(name, rows))
    return 0


def known_targets(wanted: list[str]) -> list[str]:
    """The targets asked for, or all."""
    from seqc.diagnostics import Diagnostic, Unsupported
    from seqc.targets import TARGETS

    unknown = [name for name in wanted if name not in TARGETS]
    if unknown:
        help = f"known: {', '.join(TARGETS)}"
        raise Unsupported(Diagnostic("no-such-target", f"no target `{unknown[0]}`", help=help, kind="unsupported"))
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
