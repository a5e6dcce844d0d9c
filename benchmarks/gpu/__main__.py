"""`python -m benchmarks.gpu`: a campaign on this machine's GPU: are emitted kernels right there, and what do they take?

In: a folder of emitted files (`python -m benchmarks.gpu.emit` writes it, on any machine). Out: lines on the terminal, and
results, a JSON row a line, each written as soon as it is known. A campaign that was cut goes on where it stopped: rows
that the file has are not taken again. Stages, in this order, those that show faults first:

warm       every kernel is compiled, several files at once
numerics   results and gradients against the file's own plain torch form in float64: bfloat16 and float32, lengths around
           blocks, reversed, packs, closed gates, repeated keys, given states; in every way of the file
repeat     many calls give the same bits, with free memory full of numbers that are none
capture    a CUDA graph of a call, replayed on new values
sanitize   one small call under compute-sanitizer's memcheck and racecheck
kernels    milliseconds of every kernel, in every way, of variants too: what `benchmarks.gpu.calibrate` reads
race       whole calls beside the peers that are installed; each is compared with a float64 step loop before it is timed
decode     milliseconds of one step
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu import stages
from benchmarks.gpu.machine import Cuda, Machine, Stub, loaded
from benchmarks.gpu.measure import ROUNDINGS, Function, emitted, errors, race
from benchmarks.gpu.peers import peers
from benchmarks.gpu.shapes import GRIDS, SPECS, Grid, arguments, parsed
from benchmarks.timing import quartiles, ratio

OURS = "seqc triton"
FIRST = ("delta_rule", "gated_delta_rule")  # their backward holds what compilers have been wrong about
STAGES = ("warm", "numerics", "repeat", "capture", "sanitize", "kernels", "race", "decode")
Row = dict[str, object]
Task = Callable[[], stages.Facts]  # what takes a row
Asked = tuple[str, str, Task]  # file, case, and the task


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--kernels", type=Path, default=Path("bench_out/kernels"), help="folder of the emitted files")
    made.add_argument("--spec", action="append", choices=SPECS, help="only these specs (default: all)")
    made.add_argument("--grid", action="append", choices=[str(grid) for grid in GRIDS], help="only these grids")
    made.add_argument("--stage", action="append", choices=STAGES, help="only these stages (default: all)")
    made.add_argument("--rounds", type=int, default=25, help="alternating rounds of a race (default: 25)")
    made.add_argument("--seconds", type=float, default=3e7, help="stop before the next row once so much time is over")
    made.add_argument("--processes", type=int, default=14, help="files that are compiled at once (default: 14)")
    made.add_argument("--stub", action="store_true", help="no device: Triton's interpreter, to try the campaign itself")
    made.add_argument("--out", type=Path, default=Path("bench_out/gpu.jsonl"), help="the results")
    return made


def main(arguments_: list[str] | None = None) -> int:
    """Measure and report; 1 where there is no GPU, or something failed; 3 where the time was over."""
    args = parser().parse_args(arguments_)
    if not args.stub and not torch.cuda.is_available():
        print("There is no CUDA device here: this benchmark needs one. `python -m benchmarks` times the CPU.", file=sys.stderr)
        return 1
    files = sorted(args.kernels.glob("*.py"), key=lambda p: (parsed(p.name)[0] not in FIRST, p.name))
    files = [path for path in files if args.spec is None or parsed(path.name)[0] in args.spec]
    if not files:
        print(f"no files in {args.kernels}; `python -m benchmarks.gpu.emit` writes them", file=sys.stderr)
        return 1
    return Campaign(args, Stub() if args.stub else Cuda(), files).run()


class Campaign:
    """The stages, and the rows that are known."""

    def __init__(self, args: argparse.Namespace, machine: Machine, files: list[Path]) -> None:
        self.args, self.machine, self.files = args, machine, files
        self.until = time.monotonic() + args.seconds
        self.modules: dict[Path, ModuleType] = {}
        self.broken: set[str] = set()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[Row] = read(args.out)
        self.known = {(row.get("stage"), row.get("file"), row.get("case")) for row in self.rows}

    def run(self) -> int:
        """All that is not known yet."""
        if ("machine", "", "") not in self.known:
            self.write("machine", "", "", self.machine.facts())
        for stage in self.args.stage or STAGES:
            over = self.warm() if stage == "warm" else self.take(stage, getattr(self, stage)())
            if over:
                print("the time is over: the same command goes on from here", file=sys.stderr)
                return 3
        print(f"written to {self.args.out}")
        return int(any("failed" in row or "wrong" in row for row in self.rows))

    def write(self, stage: str, file: str, case: str, facts: dict[str, object]) -> None:
        """One row, told and kept."""
        words = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None and key != "kernels")
        print(f"{stage} {file} {case}: {words or 'right'}", flush=True)
        row: Row = {"stage": stage, "file": file, "case": case, **facts}
        self.rows.append(row)
        with self.args.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")

    def take(self, stage: str, tasks: Iterator[Asked]) -> bool:
        """Take the rows that are not known; whether the time is over. A task that raises is a row that says so."""
        for file, case, task in tasks:
            if (stage, file, case) in self.known or file in self.broken:
                continue
            if time.monotonic() > self.until:
                return True
            try:
                facts = task()
            except Exception as error:  # one file must not stop the others, whatever a driver says
                facts = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
            self.write(stage, file, case, facts)
        return False

    def module(self, path: Path) -> ModuleType:
        """A file, loaded once, its Triton kernels chosen."""
        if path not in self.modules:
            self.modules[path] = loaded(path)
            self.machine.choose(self.modules[path])
        return self.modules[path]

    def warm(self) -> bool:
        """Compile, in processes that fill Triton's cache."""
        left = [path for path in self.files if ("warm", path.name, "") not in self.known]
        with ThreadPoolExecutor(self.args.processes) as pool:
            for path, facts in zip(left, pool.map(partial(self._warm, stub=self.args.stub), left), strict=True):
                if facts is not None:
                    self.write("warm", path.name, "", facts)
        self.broken = {str(row["file"]) for row in self.rows if row["stage"] == "warm" and "failed" in row}
        return time.monotonic() > self.until

    def _warm(self, path: Path, stub: bool) -> dict[str, object] | None:
        return None if time.monotonic() > self.until else stages.warm(path, stub)

    def own(self) -> list[Path]:
        """The files with the compiler's own number of rows."""
        return [path for path in self.files if "_r" not in path.stem.rpartition("_d")[2]]

    def grids(self, path: Path) -> list[Grid]:
        """The grids that a file is timed on: those of its size of a head."""
        D = parsed(path.name)[1]
        asked = [grid for grid in GRIDS if grid.D == D and (self.args.grid is None or str(grid) in self.args.grid)]
        asked = asked if asked or not self.args.stub else [Grid(1, 33, 1, D)]
        return [self.machine.grid(grid) for grid in asked]

    # ---- tasks of the stages ----

    def on(self, path: Path, stage: Callable[..., stages.Facts], *more: object) -> Task:
        """What a stage's function says of a file."""
        return lambda: stage(self.module(path), *parsed(path.name), *more, self.machine)

    def numerics(self) -> Iterator[Asked]:
        """Every file, case and dtype."""
        for path in self.own():
            for dtype in self.machine.dtypes:
                for case in stages.CASES:
                    words = f"{case} {str(dtype).removeprefix('torch.')}"
                    yield path.name, words, self.on(path, stages.numerics, case, dtype)

    def repeat(self) -> Iterator[Asked]:
        """Every file."""
        return ((path.name, "", self.on(path, stages.repeated)) for path in self.own())

    def capture(self) -> Iterator[Asked]:
        """Every file."""
        return ((path.name, "", self.on(path, stages.captured)) for path in self.own())

    def sanitize(self) -> Iterator[Asked]:
        """Every spec at its smallest size, with two tools."""
        smallest: dict[str, Path] = {}
        for path in sorted(self.own(), key=lambda p: parsed(p.name)[1]):
            smallest.setdefault(parsed(path.name)[0], path)
        for path in smallest.values():
            for tool in ("memcheck", "racecheck"):
                yield path.name, tool, partial(stages.sanitized, path, self.args.stub, tool)

    def kernels(self) -> Iterator[Asked]:
        """Every file, variants too, on its grids."""
        for path in self.files:
            for grid in self.grids(path):
                for way, words in stages.ways(path).items():
                    yield path.name, f"{grid} {words}", self.on(path, stages.kernel_times, grid, way)

    def race(self) -> Iterator[Asked]:
        """Every file beside its peers."""
        return ((p.name, str(grid), partial(self._race, p, grid)) for p in self.own() for grid in self.grids(p))

    def decode(self) -> Iterator[Asked]:
        """One step, of one sequence and of 64."""
        for path in self.own():
            for batch in (1, 64):
                grid = Grid(batch, 1, 16, parsed(path.name)[1])
                yield path.name, f"B{batch}", self.on(path, stages.decoded, grid)

    def _race(self, path: Path, grid: Grid) -> dict[str, Any]:
        """Milliseconds and ratios by contender; who is absent or wrong, and why."""
        module, spec = self.module(path), parsed(path.name)[0]
        contenders: dict[str, Function] = {OURS: emitted(module, spec)}
        absent: dict[str, str] = {}
        for name, peer in peers(spec).items():
            if isinstance(peer, str):
                absent[name] = peer
            else:
                contenders[name] = peer
        scale = [name for name in contenders if "scale only" in name]  # they compute something else
        checked = {name: run for name, run in contenders.items() if name not in scale}
        found = errors(checked, module, spec, grid, self.machine.device, self.machine.dtype)
        wrong = {name: error for name, error in found.items() if not error <= ROUNDINGS * 2.0**-8}
        contenders = {name: run for name, run in contenders.items() if name not in wrong}
        given = arguments(spec, grid, self.machine.dtype, self.machine.device)
        facts: dict[str, Any] = {"errors": found, "absent": absent, **({"wrong": wrong} if wrong else {})}
        for part, backward in (("forward", False), ("forward+backward", True)):
            times = race(contenders, given, backward, self.args.rounds, self.machine)
            facts[part] = {
                name: {"milliseconds": quartiles(taken), "ratio": ratio(taken, times[OURS]) if OURS in times else None}
                for name, taken in times.items()
            }
        return facts


def read(path: Path) -> list[Row]:
    """The rows of a file of results; a last line that was cut is left out."""
    rows: list[Row] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


if __name__ == "__main__":
    sys.exit(main())
