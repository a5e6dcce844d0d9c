"""`seqc bench`: times of specs on this machine: the eager step loop beside what seqc emits. In: specs and sizes. Out: a table
for each, or JSON; 1 if a result is wrong. It needs nothing but an installation; peers of other projects are raced by
`python -m benchmarks` in a checkout."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from seqc.cli.commands.options import SPEC, add_json, count, dim, spec_path

if TYPE_CHECKING:
    from seqc.check.races import Row


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    parser.add_argument("--size", action="append", default=[], type=dim, metavar="NAME=N",
                        help="the size of a dim, of the batch (B=2) or of time (T=1024); may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="alternating rounds (default: 5)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads for everyone (default: torch's)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default) or cuda")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Race every spec; 1 if a contender is wrong."""
    from tqdm import tqdm

    from seqc.check.races import rows, sizes_of, table
    from seqc.cli.commands.verify import known_device
    from seqc.diagnostics import Unsupported
    from seqc.driver.compile import compile_spec

    if empty := [f"{name}={size}" for name, size in args.size if not size]:
        raise Unsupported.of("no-work", f"nothing is left to be timed with {', '.join(empty)}", help="sizes above 0")
    device = known_device(args.device, interpreter=False)
    threads = set_threads(args.threads)
    told, good = [], True
    for path in args.specs:
        compiled = compile_spec(path)
        sizes = sizes_of(compiled.program, dict(args.size), args.quick)
        found: list[Row] = []
        with tqdm(desc=f"{compiled.program.name}: building and racing", file=sys.stderr, disable=None, leave=False) as bar:
            for row in rows(compiled, sizes, device, args.rounds):
                found.append(row)
                bar.update()
        good = good and all(row.good for row in found)
        told.append({"spec": compiled.program.name, "sizes": sizes, "device": device, "threads": threads, "load": load(),
                     "rows": [vars(row) | {"error": row.error if row.seconds else None} for row in found]})
        if not args.json:
            shape = ", ".join(f"{name} {size}" for name, size in sizes.items())
            taking = f"{threads} thread{'s' * (threads != 1)}"
            print(f"{compiled.program.name}: {shape}; float32 on {device}, {taking}, load {load():.1f}")
            print(table(found))
    if args.json:
        print(json.dumps({"ok": good, "races": told}, indent=2))
    else:
        print("Medians of a call (lower to upper quartile), how many times as fast as the loop, and the relative error\n"
              "against float64. The first call, which builds the native kernels, is not counted.")
    return 0 if good else 1


def set_threads(wanted: int | None) -> int:
    """Give everyone the same threads; how many these are."""
    import torch

    if wanted:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()


def load() -> float:
    """How many processes wanted a core, on average over the last minute: beyond the number of cores times are too long."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else float("nan")

