"""`python -m benchmarks.gpu.small FILE`: every kernel of an emitted file, launched once on little, for its compiler or a tool.

In: an emitted file whose name tells spec and size (`gla_d128.py`). Out: exit status 0 where all kernels ran: in bfloat16
and float32, in every way of the file, with gradients and without, and a pack.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.gpu import stages
from benchmarks.gpu.machine import Cuda, Machine, Stub, loaded
from benchmarks.gpu.shapes import parsed


def main(arguments: list[str] | None = None) -> int:
    """Launch them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.small", description="Launch every kernel of a file once.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--stub", action="store_true", help="in Triton's interpreter, on the CPU")
    args = parser.parse_args(arguments)
    machine: Machine = Stub() if args.stub else Cuda()
    module = loaded(args.file)
    machine.choose(module)
    spec, D = parsed(args.file.name)
    for dtype in machine.dtypes:
        for way in stages.ways(args.file):
            undo = stages.taking(module, way)
            for case in ("plain", "pack"):
                given = stages.tensors(module, spec, D, 33, case, dtype, machine.device)
                stages.results(module, spec, given)
                with torch.no_grad():
                    getattr(module, spec)(**given)
            undo()
    machine.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
