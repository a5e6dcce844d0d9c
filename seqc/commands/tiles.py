"""`seqc tiles`: the tiles of a spec's kernels, and registers, spills, shared memory and occupancy for each target. In: specs
and wishes. Out: text or JSON; with --refresh the toolchain is asked (no GPU needed) and the committed table grows."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from seqc.commands.options import add_json, dim, say, spec_path

if TYPE_CHECKING:
    from seqc.figures import Figures


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help="a .seq file")
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="a GPU (default: all known ones)")
    parser.add_argument("--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE",
                        help="the size of a dim")
    parser.add_argument("--refresh", action="store_true", help="ask the toolchain for what the committed table lacks")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Tell the figures of every kernel of every spec."""
    from tqdm import tqdm

    from seqc.build import load
    from seqc.diagnostics import Diagnostic, Unsupported
    from seqc.driver import fix_dims, lower
    from seqc.figures import extents, figures, jobs, refreshed
    from seqc.targets import TARGETS
    from seqc.tiling.verdicts import VerdictTable

    unknown = [name for name in args.target if name not in TARGETS]
    if unknown:
        help = f"known: {', '.join(TARGETS)}"
        raise Unsupported(Diagnostic("no-such-target", f"no target `{unknown[0]}`", help=help, kind="unsupported"))
    targets = args.target or list(TARGETS)
    programs = [fix_dims(load(path), dict(args.dims)) for path in args.specs]
    blocks = [(program, lower(program)) for program in programs]
    table = VerdictTable.load()
    if args.refresh:
        asked = [job for p, block in blocks for target in targets for job in jobs(block, target, extents(p))]
        with tqdm(total=len(asked), desc="toolchain", file=sys.stderr, disable=None, leave=False) as bar:
            table = refreshed(asked, lambda done, total: bar.update())
        table.save()
        say(f"{len(table)} verdicts in the table")
    found = {p.name: [f for t in targets for f in figures(block, t, extents(p), table)] for p, block in blocks}
    if args.json:
        print(json.dumps({name: [one.data() for one in rows] for name, rows in found.items()}, indent=2))
    else:
        for name, rows in found.items():
            print(text(name, rows))
    return 0


def text(name: str, rows: list[Figures]) -> str:
    """The figures of one spec."""
    lines = [name]
    for target in dict.fromkeys(one.target for one in rows):
        lines.append(f"  {target}")
        for one in (row for row in rows if row.target == target):
            lines.append(f"    {one.kernel}: {one.tiles()}")
            lines.append(f"        {one.words()}")
    return "\n".join(lines)
