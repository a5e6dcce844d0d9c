"""`python -m benchmarks.builds`: processor seconds of the C++ compiler for each spec's native kernels, as a first call of a new
size builds them.

In: specs, processors to build for, sizes of the batch. Out: a table: a spec, its seconds for a first call without gradients
(the library of forward), for one with gradients (forward and backward) and for a first step, three columns for each processor
and batch; lines of C++. Then those above the limit, the dearest first. `--page FILE` writes a page too, the dearest first.
Processor time depends less than the clock's on what else the machine does. A spec of several recurrences counts all of them.
Nothing is read from the cache or left there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path

from benchmarks import tasks
from benchmarks.machine import machine
from seqc.analysis.matrices import counted
from seqc.backends.native_cpu import NativeSource, loader, native_source
from seqc.backends.native_cpu.places import ident
from seqc.diagnostics import Diagnostic, Refusal, Unsupported
from seqc.driver.backends import KERNELS
from seqc.driver.options import Options
from seqc.driver.pipeline import lower

SECONDS = 5.0  # what a first call may cost
CALLS = {"forward": ("forward",), "gradients": ("forward", "backward"), "step": ("step",)}  # a call, and the kernels it needs
CALLED = tuple(CALLS)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table; 1 where a build takes longer than `--limit`."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.builds", description="processor seconds of native builds")
    made.add_argument("specs", nargs="*", metavar="SPEC", help="names or files (default: all)")
    made.add_argument("--arch", action="append", metavar="NAME", help="as in -march=NAME, such as x86-64-v3 (default: native)")
    made.add_argument("--real", choices=("float", "double"), default="float", help="the type of numbers (default: float)")
    made.add_argument("--batch", type=int, action="append", metavar="B", help="rows of the batch (default: 1, 2 and 7)")
    made.add_argument("--limit", type=float, default=SECONDS, help=f"seconds that a spec may take (default: {SECONDS:g})")
    made.add_argument("--page", type=Path, metavar="FILE", help="write the table as a page of Markdown too")
    args = made.parse_args(arguments)
    ways = [(arch, batch) for arch in args.arch or ["native"] for batch in args.batch or [1, 2, 7]]
    where = f"{machine()['cpu']}; {loader._native_search()[1].splitlines()[0]}; {args.real}"
    print(where)
    print(f"{'processor seconds for':28}" + "".join(f"{f'{arch}, batch {batch}':>24}" for arch, batch in ways))
    print(f"{'a first call of':28}" + f"{CALLED[0]:>8}{CALLED[1]:>10}{CALLED[2]:>6}" * len(ways))
    found: list[Row] = []
    begun, spent = time.monotonic(), os.times()
    for spec in args.specs or tasks.every():
        try:
            sources, sizes = sources_of(spec)
        except Refusal as refusal:
            print(f"{spec}: refused: {refusal.diagnostics[0].message}", file=sys.stderr)
            continue
        cost = cache(partial(build, sources, sizes, args.real))
        built = [calls(sources, partial(cost, arch=arch), batch) for arch, batch in ways]
        found.append(Row(spec, built, sum(source.text.count("\n") for source in sources)))
        print(found[-1].text(), flush=True)
    clock, now = time.monotonic() - begun, os.times()
    total = now.children_user + now.children_system - spent.children_user - spent.children_system
    ended = f"{len(found)} specs: {total:.0f} processor seconds of the compiler in {clock:.0f} s by the clock"
    found.sort(key=lambda row: -row.most)
    above = [row for row in found if row.most > args.limit]
    print(f"\n{ended}; {len(above)} above {args.limit:g} s", *(row.text() for row in above), sep="\n")
    if args.page:
        args.page.write_text(page(found, ways, [f"{where}; {date.today()}", f"{ended}; {len(above)} above {args.limit:g} s"]))
    return 1 if above else 0


@dataclass(frozen=True)
class Row:
    """What was measured of a spec: the seconds of each of `CALLS`, for each processor and batch; lines: of C++."""

    spec: str
    seconds: list[list[float]]
    lines: int

    @property
    def most(self) -> float:
        """The seconds of its dearest first call."""
        return max(x for way in self.seconds for x in way)

    def text(self) -> str:
        """A line of the table."""
        return f"{self.spec:28}" + "".join(f"{x:8.2f}{y:10.2f}{z:6.2f}" for x, y, z in self.seconds) + f"{self.lines:8} lines"


def page(rows: Sequence[Row], ways: Sequence[tuple[str, int]], notes: Sequence[str]) -> str:
    """The table in Markdown, with what it was measured on."""
    head = ["spec", *(f"{call}, {arch}, batch {batch}" for arch, batch in ways for call in CALLED), "lines of C++"]
    lines = ["# What a first call of a new size builds", "",
             "Processor seconds of the C++ compiler, written by `python -m benchmarks.builds --page FILE`: the dearest first.",
             "A call with gradients builds the libraries of forward and backward; a spec without a step has none.", "",
             *(f"- {note}" for note in notes), "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"{x:.2f}" if x else "" for way in row.seconds for x in way]
        lines.append(f"| {' | '.join([row.spec, *cells, str(row.lines)])} |")
    return "\n".join([*lines, ""])


def sources_of(spec: str) -> tuple[list[NativeSource], dict[str, int]]:
    """The native text of each recurrence of a spec, and the extents that benchmarks give it. Raises Unsupported."""
    task, native, options = tasks.task(spec), KERNELS["cpu"], Options("cpu")
    found, refused = list[NativeSource](), list[Diagnostic]()
    for stage in native.plan(counted(task.program), options).cores:
        problem = native.refuses(stage, options)
        if problem is None:
            found.append(native_source(lower(stage.program, "step")))
        refused += problem.diagnostics if problem else ()
    if not found:
        raise Unsupported(*refused)
    return found, dict(task.sizes)


def calls(sources: Sequence[NativeSource], cost: Callable[..., float], batch: int) -> list[float]:
    """Processor seconds of each of `CALLS`, for all recurrences of a spec together; none for a step where there is none.

    cost: of the number of a source, a library's kernels, and the rows of its batch, which kernels of blocks alone read.
    """
    kernels = dict.fromkeys(x for needed in CALLS.values() for x in needed)
    rows = 4 * (batch > 3) + batch % 4
    spent = {x: sum(cost(i, kernels=x, rows=rows * source.plan.roles.blocked) for i, source in enumerate(sources)
                    if x != "step" or not source.plan.program.no_step) for x in kernels}
    return [sum(spent[x] for x in needed) for needed in CALLS.values()]


def build(
    sources: Sequence[NativeSource], sizes: dict[str, int], real: str, number: int, *, arch: str, rows: int, kernels: str
) -> float:
    """Processor seconds of the compiler, as the loader calls it for a library of some kernels of one of the sources."""
    source = sources[number]
    words = loader._native_search()[0]
    own = source.plan.program.dims
    defines = {f"SEQC_DIM_{ident(d)}": str(own[d].default or sizes[d]) for d in source.dims}
    flags: Sequence[str] = [f"-march={arch}" if x == "-march=native" else x for x in loader._native_flags()[0]]
    with tempfile.TemporaryDirectory(prefix="builds-") as folder:
        text = Path(folder, "kernel.cpp")
        text.write_text(source.text)
        defines |= {"SEQC_KERNELS": kernels.upper(), "SEQC_REAL": real, "SEQC_ROWS": str(rows)}
        macros = loader._native_macros(defines)
        before = os.times()
        subprocess.run([*words, *flags, *macros, "-c", str(text), "-o", f"{folder}/kernel.o"], check=True)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    sys.exit(main())
