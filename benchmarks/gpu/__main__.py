"""`python -m benchmarks.gpu`: times of emitted Triton kernels on this machine's GPU, beside the peers that are installed.

In: a folder of emitted files (`python -m benchmarks.gpu.emit` writes it, on any machine). Out: lines on the terminal and a
JSON file. Each contender is compared with a float64 step loop before it is timed; a wrong one is reported, not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.gpu.measure import ROUNDINGS, Function, emitted, errors, race
from benchmarks.gpu.peers import peers
from benchmarks.gpu.shapes import GRIDS, SPECS, Grid, arguments, file_name
from benchmarks.timing import quartiles, ratio

OURS = "seqc triton"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--kernels", type=Path, default=Path("bench_out/kernels"), help="folder of the emitted files")
    made.add_argument("--spec", action="append", choices=SPECS, help="only these specs (default: all)")
    made.add_argument("--grid", action="append", choices=[str(grid) for grid in GRIDS], help="only these grids")
    made.add_argument("--rounds", type=int, default=25, help="alternating rounds (default: 25)")
    made.add_argument("--out", type=Path, default=Path("bench_out/gpu.json"), help="the results")
    return made


def main(arguments_: list[str] | None = None) -> int:
    """Measure and report; 1 where there is no GPU, or a contender gave wrong results."""
    args = parser().parse_args(arguments_)
    if not torch.cuda.is_available():
        print("There is no CUDA device here: this benchmark needs one. `python -m benchmarks` times the CPU.", file=sys.stderr)
        return 1
    grids = [grid for grid in GRIDS if args.grid is None or str(grid) in args.grid]
    rows = []
    for spec in args.spec or SPECS:
        for grid in grids:
            path = args.kernels / file_name(spec, grid)
            if not path.exists():
                print(f"{spec} {grid}: no {path}; `python -m benchmarks.gpu.emit` writes it", file=sys.stderr)
                continue
            rows += measure(spec, grid, path, args.rounds)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")
    return 1 if any("wrong" in row for row in rows) or not rows else 0


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "capability": list(torch.cuda.get_device_capability()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "date": date.today().isoformat(),
    }


def measure(spec: str, grid: Grid, path: Path, rounds: int) -> list[dict[str, object]]:
    """All rows of a spec on a grid."""
    module = loaded(path)
    contenders: dict[str, Function] = {OURS: emitted(module, spec)}
    rows: list[dict[str, object]] = []
    scale: list[str] = []  # contenders that compute something else
    for name, peer in peers(spec).items():
        if isinstance(peer, str):
            rows.append(row(spec, grid, name, absent=peer))
            continue
        contenders[name] = peer
        scale += [name] * ("scale only" in name)
    checked = {name: run for name, run in contenders.items() if name not in scale}
    found = errors(checked, module, spec, grid, "cuda")
    allowed = ROUNDINGS * 2.0**-8
    for name, error in found.items():
        if not error <= allowed:
            rows.append(row(spec, grid, name, wrong=f"relative error {error:.1e}, allowed {allowed:.1e}"))
            del contenders[name]
    given = arguments(spec, grid, torch.bfloat16, "cuda")
    for part, backward in (("forward", False), ("forward+backward", True)):
        times = race(contenders, given, backward, rounds)
        for name, taken in times.items():
            against = ratio(taken, times[OURS]) if OURS in times else None
            more = {"error": found.get(name), "milliseconds": quartiles(taken), "ratio": against}
            rows.append(row(spec, grid, name, part=part, **more))
    return rows


def row(spec: str, grid: Grid, contender: str, **facts: object) -> dict[str, object]:
    """One row, which is also printed."""
    words = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    print(f"{spec} {grid}: {contender}: {words}", flush=True)
    return {"spec": spec, "grid": str(grid), "contender": contender, **facts}


def loaded(path: Path) -> ModuleType:
    """An emitted file as a module."""
    found = spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = sys.modules[path.stem] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
