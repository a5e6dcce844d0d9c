"""`python -m benchmarks.gpu.emit`: the files that the GPU benchmark runs. It needs seqc, and no GPU.

In: a target and a folder. Out: one emitted file for each spec and size of head, with `--variants` for other numbers of rows
too, and `manifest.json`: for each file its spec, size and rows, and what the model of the tiles says of each kernel, so
that times can be held against it where seqc is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.shapes import GRIDS, SPECS, Grid, dims, file_name

ROWS = (16, 32, 64)  # of the variants
MANIFEST = "manifest.json"


def main(arguments: list[str] | None = None) -> int:
    """Write the files; 1 if one was refused that is no variant."""
    from seqc.diagnostics import Refusal
    from seqc.driver.compile import Options, compile_spec

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.emit", description="Write the files that are timed.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("bench_out/kernels"))
    parser.add_argument("--target", default="sm_90", help="GPU to choose tiles for (default: sm_90)")
    parser.add_argument("--spec", action="append", choices=SPECS, help="only these specs (default: all)")
    parser.add_argument("--width", action="append", type=int, help="only these sizes of a head (default: those of the grids)")
    parser.add_argument("--variants", action="store_true", help=f"also with {', '.join(map(str, ROWS))} rows")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[2] / "specs"
    listed: list[dict[str, Any]] = []
    refused = 0
    for spec in args.spec or SPECS:
        for D in args.width or dict.fromkeys(grid.D for grid in GRIDS):
            grid = Grid(1, 1, 1, D)
            for rows in (None, *(ROWS if args.variants else ())):
                path = args.folder / file_name(spec, grid, rows)
                options = Options("triton", args.target, dims(spec, grid), rows=rows)
                try:
                    made = compile_spec(next(root.rglob(f"{spec}.seq")), options)
                except Refusal as refusal:
                    print(f"{path.name}: {refusal.render()}", file=sys.stderr)
                    refused |= rows is None
                    continue
                if rows is not None and (made.gpu.block.rows != rows or rows == _chosen_rows(listed, spec, D)):
                    continue  # the spec has no blocks of so many rows, or the first file has them
                path.write_text(made.text, encoding="utf-8")
                listed.append({"file": path.name, "spec": spec, "D": D, "variant": rows is not None, **modelled(made)})
                print(path)
    (args.folder / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return int(refused)


def _chosen_rows(listed: list[dict[str, Any]], spec: str, D: int) -> int | None:
    return next((int(x["rows"]) for x in listed if (x["spec"], x["D"], x["variant"]) == (spec, D, False)), None)


def modelled(made: Any) -> dict[str, Any]:
    """Target, rows, sizes, and by kernel: what a turn of a program costs by the model of the tiles."""
    from seqc.backends.triton_gpu.schedule import AGAIN_KERNEL
    from seqc.backends.triton_gpu.tuning.kernel_model import DOT_LATENCY, LOAD_LATENCY, KernelModel
    from seqc.backends.triton_gpu.tuning.machine_code import CHAIN, MISS
    from seqc.backends.triton_gpu.tuning.multiprocessor import BARRIER, OVERLAP, code, priced
    from seqc.backends.triton_gpu.tuning.pacing import pace_key, pacing, sharing
    from seqc.backends.triton_gpu.tuning.targets import target_named
    from seqc.solver.expression import evaluate

    (chosen, *_) = made.chosen.values()
    target, paces = target_named(chosen.target), pacing(chosen).kernels
    kernels: dict[str, Any] = {}
    for name, one in chosen.kernels.items():
        if name == AGAIN_KERNEL:  # a turn of it is a span, and the launcher never asks for its time
            continue
        model = KernelModel(one.summary, target)
        tiles = one.choice.tiles(name)
        room, spilled = sharing(model, tiles, one.verdict, target)
        if one.verdict is not None and one.verdict.work:
            read, clock = code(one.verdict, tiles["warps"]), target.clock_mhz / 1000
            run = read.turn(one.summary.rows) if one.summary.loops_over_time else read.run(0)
            counted = {"issue": CHAIN, "barrier": BARRIER, "wait": MISS}
            chain, barriers, loads = (run.get(kind, 0.0) * cycles / clock for kind, cycles in counted.items())
            busy = max(priced(run, tiles["warps"], target).values()) / clock
        else:  # by the model of the tiles
            chain, shared = (int(evaluate(x, tiles)) + spilled for x in model.arithmetic())
            barriers, loads = DOT_LATENCY * sum(dot.times for dot in one.summary.dots), LOAD_LATENCY / tiles["stages"]
            busy = shared / OVERLAP
        kernels[f"{chosen.block.program.name}_{name}_kernel"] = {
            "phase": name, "key": pace_key(chosen, name), "resident": max(room.programs, 1),
            "walks": one.summary.loops_over_time,
            "pace": paces[name].busy, "moved": paces[name].moved, "chain": chain, "busy": busy, "barriers": barriers,
            "loads": loads, "overlap": OVERLAP,
        }  # fmt: skip
    found = {"target": chosen.target, "rows": chosen.block.rows, "bandwidth": target.bytes_per_ns, "kernels": kernels}
    return found


if __name__ == "__main__":
    sys.exit(main())
