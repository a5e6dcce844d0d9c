"""`python -m benchmarks`: times of compiled specs on this machine's CPU, beside the peers that exist for them.

In: specs and wishes. Out: a table; results.json, results.md and plots in a folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

from tqdm import tqdm

from benchmarks import layers, ours, page, report, tasks
from benchmarks.ceilings import Ceilings, measure, work
from benchmarks.contender import FORWARD, PARTS, TRAIN, Absent, Contender
from benchmarks.entry import Entry, Row
from benchmarks.entry import measure as measure_entry
from benchmarks.machine import machine, pin
from benchmarks.peers import peers
from seqc.check.quiet import wait
from seqc.diagnostics import Refusal

LOOP_LIMIT = 4096  # steps beyond which a sweep leaves out the loop, and peers, some of which keep every state
SWEEPS = {
    "T": [{"T": T} for T in (256, 1024, 4096, 16384, 65536)],
    "B": [{"B": B, "T": 512} for B in (1, 2, 4, 8, 16)],
    "dims": [{"K": n, "V": n, "D": 16 * n, "T": 512} for n in (16, 32, 64, 128)],
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    configure(made)
    return made


def configure(made: argparse.ArgumentParser) -> None:
    """The arguments."""
    made.add_argument("specs", nargs="*", metavar="SPEC", help=f"names or files (default: {' '.join(tasks.DEFAULT)})")
    made.add_argument("--all", action="store_true", help="every spec of specs/")
    made.add_argument("--part", action="append", choices=PARTS, help="only these parts (default: all)")
    made.add_argument("--quick", action="store_true", help="tiny shapes: does it run?")
    made.add_argument("--rounds", type=int, default=9, help="alternating rounds (default: 9)")
    made.add_argument("--patience", type=float, default=0.0, metavar="S", help="seconds to wait, in each part, for other"
                      " processes to leave the cores alone, and to repeat rounds that they disturbed (default: 0)")
    made.add_argument("--threads", type=int, default=2, help="cores and threads for everyone (default: 2)")
    made.add_argument("--size", action="append", default=[], type=size, metavar="NAME=N", help="another extent, as T=512")
    made.add_argument("--no-peers", action="store_true", help="only the eager loop and what seqc emits")
    made.add_argument("--compile", action="store_true", help="torch.compile of the loop too: slow to start")
    made.add_argument("--sweeps", action="store_true", help="plots against T, batch and dims")
    made.add_argument("--resume", action="store_true", help="keep what the folder holds, and measure the rest")
    made.add_argument("--minutes", type=float, default=math.inf, metavar="N", help="begin no other spec after so many")
    made.add_argument("--out", type=Path, default=Path("bench_out"), help="folder of the results (default: bench_out)")


def size(text: str) -> tuple[str, int]:
    """`T=512`."""
    name, equals, number = text.partition("=")
    if not (equals and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"`{text}` should look like T=512")
    return name, int(number)


def main(arguments: list[str] | None = None) -> int:
    """Measure and report; 1 where a spec is refused."""
    try:
        return run(parser().parse_args(arguments))
    except Refusal as refusal:
        print(refusal.render(), file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    """Measure and report; 1 if a contender gave wrong results."""
    pin(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    specs = args.specs or (tasks.every() if args.all else list(tasks.DEFAULT))
    known = machine()
    ceilings = look(args)
    print(f"{known['cpu']}, {args.threads} threads; {ceilings.told()}")
    rows: list[Row] = []
    if args.resume and (args.out / "results.json").exists():
        rows, ceilings = page.kept(args.out, known, ceilings)
    end, left = monotonic() + 60 * args.minutes, list[str]()
    with tqdm(total=len(specs), file=sys.stderr, disable=None, leave=False) as bar:
        for spec in specs:
            if any(row.spec == spec for row in rows) or monotonic() > end:
                left += [spec] * all(row.spec != spec for row in rows)
                continue
            ceilings = ceilings.above(look(args))
            for entry in entries(spec, args):
                new = measure_entry(entry, args.part or PARTS, ceilings, args.rounds, args.patience, bar.set_description)
                bar.write(report.table(new), file=sys.stdout)
                rows += [replace(row, spec=spec) for row in new]
            page.save([row.under(ceilings) for row in rows], {}, known, ceilings, args.out)
            bar.update()
    ceilings = ceilings.above(look(args))
    rows = [row.under(ceilings) for row in rows]
    swept = sweep(specs, args, ceilings) if args.sweeps else {}
    page.save(rows, swept, known, ceilings, args.out)
    if left:
        print(f"\nLeft, after {args.minutes:g} minutes: {' '.join(left)}; --resume goes on with them")
    print(f"\nWritten to {args.out}/: results.json and results.md" + (", and a picture for each spec" if swept else ""))
    return 1 if any(row.error is not None and row.seconds is None for row in rows) else 0


def look(args: argparse.Namespace) -> Ceilings:
    """The machine's ceilings as they are seen now."""
    wait(monotonic() + args.patience)
    return measure(256, 1 << 20) if args.quick else measure()


def entries(spec: str, args: argparse.Namespace) -> list[Entry]:
    """What is measured for a spec: the recurrence, and for a cell of torch.nn the layer too, with heads and without."""
    found = [entry(spec, dict(args.size), args)]
    if spec in layers.CELLS and not args.no_peers:
        found.append(layers.entry(spec, dict(args.size), args.quick))
        found.append(layers.entry(spec, {**dict(args.size), "H": 1, "D": 16 if args.quick else 512}, args.quick))
    return found


def entry(spec: str, given: dict[str, int], args: argparse.Namespace, loop: bool = True) -> Entry:
    """The contenders of a recurrence. Without the loop the truth is the plain torch form in float64, itself compared with
    the loop where that is short enough."""
    task = tasks.task(spec, given, args.quick)
    contenders: list[Contender | Absent] = [ours.emitted(task, "cpu"), ours.emitted(task, "torch")]
    steps = loop and not task.program.no_step  # what reads other steps has no step to loop over
    if steps:
        contenders.append(ours.loop(task))
        if args.compile:
            contenders.append(ours.compiled_loop(task))
    if loop and not args.no_peers:
        contenders += peers(task)
    truth = ours.truth(task, steps)
    return Entry(task.name, task.sizes, contenders, truth, {part: work(task, part) for part in PARTS})


def sweep(specs: list[str], args: argparse.Namespace, ceilings: Ceilings) -> dict[str, list[Row]]:
    """Rows by the axis that was swept; forward and forward+backward."""
    found: dict[str, list[Row]] = {axis: [] for axis in SWEEPS}
    plan = [(axis, spec, given) for axis, points in SWEEPS.items() for spec in specs for given in points]
    with tqdm(plan, file=sys.stderr, disable=None, leave=False, desc="sweeps") as bar:
        for axis, spec, given in bar:
            entry_ = entry(spec, {**dict(args.size), **given}, args, loop=given["T"] <= LOOP_LIMIT)
            rounds = min(args.rounds, 5)
            found[axis] += measure_entry(entry_, (FORWARD, TRAIN), ceilings, rounds, args.patience, bar.set_postfix_str)
    return found


if __name__ == "__main__":
    sys.exit(main())
