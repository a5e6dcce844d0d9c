"""`python -m benchmarks.gpu.emit`: the files that the GPU benchmark runs. It needs seqc, and no GPU.

In: a target and a folder. Out: one emitted file for each spec and size of head, and a list of those that were refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu.shapes import GRIDS, SPECS, dims, file_name


def main(arguments: list[str] | None = None) -> int:
    """Write the files; 1 if one was refused."""
    import seqc
    from seqc.diagnostics import Refusal

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.emit", description="Write the files that are timed.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("bench_out/kernels"))
    parser.add_argument("--target", default="sm_90", help="GPU to choose tiles for (default: sm_90)")
    parser.add_argument("--backend", default="triton", help="backend (default: triton)")
    parser.add_argument("--spec", action="append", choices=SPECS, help="only these specs (default: all)")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    refused = 0
    root = Path(__file__).resolve().parents[2] / "specs"
    for spec in args.spec or SPECS:
        for grid in {grid.D: grid for grid in GRIDS}.values():
            path = args.folder / file_name(spec, grid)
            try:
                found = next(root.rglob(f"{spec}.seq"))
                seqc.compile(found, args.backend, target=args.target, dims=dims(spec, grid)).save(path)
                print(path)
            except Refusal as refusal:
                print(f"{path.name}: {refusal.render()}", file=sys.stderr)
                refused = 1
    return refused


if __name__ == "__main__":
    sys.exit(main())
