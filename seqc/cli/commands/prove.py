"""`seqc prove`: a spec's blocks are its steps, many times over, and gradients are derivatives: shown in exact arithmetic.

In: a spec and wishes. Out: a line per fact (or JSON); exit code 1 if one does not hold. Nothing is emitted or run.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from seqc.cli.commands.options import add_json, add_spec, count, dim

if TYPE_CHECKING:
    from seqc.ir.block import Block
    from seqc.ir.program import Program


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    help = "give a dim this size (default: small odd ones)"
    parser.add_argument("--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE", help=help)
    parser.add_argument("--form", metavar="NAME", help="step, scan or chunkwise (default: those that are chosen)")
    parser.add_argument("--rows", type=int, metavar="C", help="steps per block, a power of two (default: as few as are served)")
    parser.add_argument("--points", type=count, default=2, metavar="N", help="random points for each fact (default: 2)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Lower, show, tell."""
    from seqc.check.proof import prove
    from seqc.check.sampling import sample_sizes
    from seqc.frontend.elaborate import load
    from seqc.ir.two_axes import lowered

    program = lowered(load(args.spec))
    given = dict(args.dims)
    sizes = {name: size for name, size in sample_sizes(program, given=given).items() if name in program.dims}
    found = [(block, list(prove(program, block, sizes, args.points))) for block in blocks(program, args.form, args.rows)]
    good = all(fact.ok for _, facts in found for fact in facts)
    if args.json:
        rows = [{"form": block.form, "rows": block.rows, "fact": fact.what, "equal": fact.equal, "of": fact.of, "ok": fact.ok,
                 "wrong": list(fact.wrong), "refused": fact.refused} for block, facts in found for fact in facts]
        print(json.dumps({"ok": good, "facts": rows}, indent=2))
        return 0 if good else 1
    for block, facts in found:
        print(f"{block.form}{f', {block.rows} rows' if block.rows > 1 else ''}")
        for fact in facts:
            numbers = f"refused: {fact.refused}" if fact.refused else f"{fact.equal} of {fact.of} numbers are equal"
            wrong = f"; not those of {', '.join(fact.wrong)}" if fact.wrong else ""
            print(f"  {'ok  ' if fact.ok else 'FAIL'}  {fact.what}: {numbers}{wrong}")
    if all(block.form == "step" for block, _ in found):
        print("there is no block form: the recurrence runs as it is written, step by step")
    else:
        words = "by the law of composition, and induction over the blocks, a chain of blocks equals the recurrence"
        print(words if good else "not shown")
    return 0 if good else 1


def blocks(program: Program, form: str | None, rows: int | None) -> list[Block]:
    """The blocks of the forms that are chosen for plain torch and for a GPU, each of as few rows as it is served with."""
    from seqc.diagnostics import Unsupported
    from seqc.driver.pipeline import lower
    from seqc.passes.blocks.choose import EAGER, GPU

    found: dict[tuple[str, int], Block] = {}
    for machine in (EAGER, GPU):
        block = lower(program, form, rows, machine)
        if block.form != "step" and rows is None:
            for fewer in (16, 32):
                try:
                    block = lower(program, block.form, fewer, machine)
                    break
                except Unsupported:
                    continue
        found.setdefault((block.form, block.rows), block)
    return list(found.values())
