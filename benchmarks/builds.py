"""`python -m benchmarks.builds`: processor seconds of the C++ compiler for each spec's native kernels, as a first call of a new
size builds them.

In: specs, and processors to build for. Out: a table: a spec, its seconds for a first call without gradients (the library of
forward), for one with gradients (forward and backward) and for a first step, three columns for each processor; lines of C++.
Then those above the limit, the dearest first. Processor time hardly depends on what else the machine does. A spec of several
recurrences counts all of them. Nothing is read from the cache or left there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table; 1 where a build takes longer than `--limit`."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.builds", description="processor seconds of native builds")
    made.add_argument("specs", nargs="*", metavar="SPEC", help="names or files (default: all)")
    made.add_argument("--arch", action="append", metavar="NAME", help="as in -march=NAME, such as x86-64-v3 (default: native)")
    made.add_argument("--real", choices=("float", "double"), default="float", help="the type of numbers (default: float)")
    made.add_argument("--batch", type=int, default=2, help="rows of the batch that the kernels are for (default: 2)")
    made.add_argument("--limit", type=float, default=SECONDS, help=f"seconds that a spec may take (default: {SECONDS:g})")
    args = made.parse_args(arguments)
    arches = args.arch or ["native"]
    print(f"{machine()['cpu']}; {loader._native_search()[1].splitlines()[0]}; {args.real}, batch {args.batch}")
    print(f"{'processor seconds for':28}" + "".join(f"{arch:>12}{'':20}" for arch in arches))
    print(f"{'a first call of':28}" + "".join(f"{call:>10}" for call in CALLS) * len(arches))
    found: list[tuple[list[float], str]] = []
    for spec in args.specs or tasks.every():
        try:
            sources, sizes = sources_of(spec)
        except Refusal as refusal:
            print(f"{spec}: refused: {refusal.diagnostics[0].message}", file=sys.stderr)
            continue
        built = [x for arch in arches for x in calls(sources, sizes, args.real, arch, args.batch)]
        lines = sum(source.text.count("\n") for source in sources)
        found.append((built, f"{spec:28}" + "".join(f"{x:10.2f}" for x in built) + f"{lines:8} lines"))
        print(found[-1][1], flush=True)
    above = sorted((row for row in found if max(row[0]) > args.limit), key=lambda row: -max(row[0]))
    print(f"\n{len(found)} specs, {len(above)} above {args.limit:g} s", *(row[1] for row in above), sep="\n")
    return 1 if above else 0


def sources_of(spec: str) -> tuple[list[NativeSource], dict[str, int]]:
    """The native text of each recurrence of a spec, and the extents that benchmarks give it. Raises Unsupported."""
    task, native, options = tasks.task(spec), KERNELS["cpu"], Options("cpu")
    found, refused = list[NativeSource](), list[Diagnostic]()
    for stage in native.plan(counted(task.program), options).cores:
        problem = native.refuses(stage, options)
        if problem is None:
            found.append(native_source(lower(stage.program, "step")))
        refused += [problem] if problem else []
    if not found:
        raise Unsupported(*refused)
    return found, dict(task.sizes)


def calls(sources: Sequence[NativeSource], sizes: dict[str, int], real: str, arch: str, batch: int) -> list[float]:
    """Processor seconds of each of `CALLS`, for all recurrences of a spec together; none for a step where there is none."""
    kernels = dict.fromkeys(x for needed in CALLS.values() for x in needed)
    made = [source for source in sources if not source.plan.program.no_step]
    cost = {x: sum(build(source, sizes, real, arch, batch, x) for source in (made if x == "step" else sources))
            for x in kernels}
    return [sum(cost[x] for x in needed) for needed in CALLS.values()]


def build(source: NativeSource, sizes: dict[str, int], real: str, arch: str, batch: int, kernels: str) -> float:
    """Processor seconds of the compiler, as the loader calls it for a library of some kernels."""
    words = loader._native_search()[0]
    own = source.plan.program.dims
    defines = {f"SEQC_DIM_{ident(d)}": str(own[d].default or sizes[d]) for d in source.dims}
    flags: Sequence[str] = [f"-march={arch}" if x == "-march=native" else x for x in loader._native_flags()[0]]
    with tempfile.TemporaryDirectory(prefix="builds-") as folder:
        text = Path(folder, "kernel.cpp")
        text.write_text(source.text)
        defines |= {"SEQC_KERNELS": kernels.upper(), "SEQC_REAL": real, "SEQC_ROWS": str(4 * (batch > 3) + batch % 4)}
        macros = loader._native_macros(defines)
        before = os.times()
        subprocess.run([*words, *flags, *macros, "-c", str(text), "-o", f"{folder}/kernel.o"], check=True)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    sys.exit(main())
