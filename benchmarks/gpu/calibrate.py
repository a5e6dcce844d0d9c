"""`python -m benchmarks.gpu.calibrate RESULTS KERNELS`: measured times of kernels against the model that chose their tiles.

In: results of a campaign (`python -m benchmarks.gpu`), and the folder of files that it ran with its `manifest.json`. Out: a
table of measured and modelled nanoseconds of a turn; the constants of the model under which its times agree best with the
measured ones; with `--write`, `seqc/backends/triton_gpu/tuning/measured.json`, from which files that are emitted later take
their `_PACE` instead of from the model. It needs nothing of seqc.

A turn is what one program does with one block. A launch of `programs` programs, `resident` of which share one of `units`
multiprocessors, takes ceil(programs / (resident * units)) waves of turns, and so its time gives that of a turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.gpu.__main__ import read
from benchmarks.gpu.emit import MANIFEST

TABLE = Path(__file__).resolve().parents[2] / "backends" / "triton_gpu" / "tuning" / "measured.json"
STEP = 2.0**0.25  # by which a constant is changed
CONSTANTS = ("chain", "barriers", "loads", "overlap")


@dataclass(frozen=True)
class Turn:
    """One measured kernel: nanoseconds of a turn, and what the model knows of it (see `benchmarks.gpu.emit.modelled`)."""

    file: str
    case: str
    kernel: str
    measured: float
    memory: float
    """Nanoseconds of a turn that the bytes of all programs take at the target's bandwidth."""
    model: dict[str, Any]

    def modelled(self, factors: dict[str, float]) -> float:
        """The model's nanoseconds with its constants multiplied by these."""
        m = self.model
        waits = factors["loads"] * m["loads"] + factors["barriers"] * m["barriers"]
        alone = max(factors["chain"] * m["chain"], m["busy"]) + waits
        return max(alone, factors["overlap"] * m["overlap"] * m["resident"] * m["busy"], self.memory, 1.0)


def turns(rows: Iterable[dict[str, Any]], manifest: Iterable[dict[str, Any]]) -> list[Turn]:
    """Every kernel that was timed and that the manifest knows."""
    files = {one["file"]: one for one in manifest}
    found = []
    for row in rows:
        if row["stage"] != "kernels" or "kernels" not in row or row["file"] not in files:
            continue
        file = files[row["file"]]
        blocks = -(-row["steps"] // file["rows"])
        for kernel, seen in row["kernels"].items():
            model = file["kernels"].get(kernel) or file["kernels"].get(kernel.replace("_infer_", "_forward_"))  # of one text
            if model is None:
                continue
            waves = -(-seen["programs"] // (model["resident"] * row["units"]))
            repeated = blocks if model["walks"] else 1
            nanoseconds = 1e6 * seen["milliseconds"][1] / (waves * repeated)
            memory = seen["programs"] * model["moved"] / file["bandwidth"] / waves
            found.append(Turn(row["file"], row["case"], kernel, nanoseconds, memory, model))
    return found


def distance(found: Iterable[Turn], factors: dict[str, float]) -> float:
    """The geometric mean of the factors by which model and measurement differ."""
    return exp(fmean(abs(log(one.measured / one.modelled(factors))) for one in found))


def fitted(found: list[Turn]) -> dict[str, float]:
    """The factors of the constants under which they differ least: steps of all constants together, as long as one helps."""
    best, least = dict.fromkeys(CONSTANTS, 1.0), distance(found, dict.fromkeys(CONSTANTS, 1.0))
    while True:
        tried = [
            {name: best[name] * step for name, step in zip(CONSTANTS, steps, strict=True)}
            for steps in product((1.0, STEP, 1 / STEP), repeat=len(CONSTANTS))
        ]
        nearest = min(tried, key=lambda one: distance(found, one))
        if distance(found, nearest) >= least * (1 - 1e-9):
            return best
        best, least = nearest, distance(found, nearest)


def paces(found: Iterable[Turn]) -> dict[str, int]:
    """By the key of a kernel: nanoseconds of a turn where programs share a multiprocessor, over all grids the median."""
    by_key: dict[str, list[float]] = {}
    for one in found:
        by_key.setdefault(one.model["key"], []).append(one.measured)
    return {key: max(1, round(median(times))) for key, times in sorted(by_key.items())}


def main(arguments: list[str] | None = None) -> int:
    """Compare, fit, and write; 1 where nothing was timed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.calibrate", description="Times against the model.")
    parser.add_argument("results", type=Path)
    parser.add_argument("kernels", type=Path, help="the folder of the files that were timed")
    parser.add_argument("--write", nargs="?", type=Path, const=TABLE, help=f"the table of paces (default: {TABLE.name})")
    args = parser.parse_args(arguments)
    rows = read(args.results)
    found = turns(rows, json.loads((args.kernels / MANIFEST).read_text(encoding="utf-8")))
    if not found:
        print("no kernel was timed", file=sys.stderr)
        return 1
    one = dict.fromkeys(CONSTANTS, 1.0)
    for x in found:
        print(f"{x.file} {x.case}: {x.kernel}: {x.measured:.0f} ns a turn, modelled {x.modelled(one):.0f}")
    best = fitted(found)
    print(f"model and measurement differ by {distance(found, one):.2f}, by {distance(found, best):.2f} with constants times")
    print(", ".join(f"{name} {factor:.2f}" for name, factor in best.items()))
    if args.write is not None:
        machine = next((row for row in rows if row["stage"] == "machine"), {})
        known = json.loads(args.write.read_text(encoding="utf-8")) if args.write.exists() else {"paces": {}}
        told = {"machine": machine, "constants": best, "paces": known["paces"] | paces(found)}
        args.write.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(f"written to {args.write}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
