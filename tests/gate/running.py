"""Cells of the gate, run: a program's nodes as the text of one backend, against the float64 reference, with gradients.

In: a backend and the nodes of a place. Out: nothing, or an AssertionError; `Unsupported` where the backend refuses. As a
process of its own (`python -m tests.gate.running`) it runs Triton's cells in Triton's interpreter.

Tolerances are relative to the largest element: float64 1e-10, float32 2e-5, roundoff times a few dozen roundings.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqc.diagnostics import Refusal, SeqcBug
from seqc.driver.pipeline import lower
from seqc.ir.block import Block
from seqc.ir.graph import Node
from seqc.ir.program import Program
from tests.block_runner import run_block
from tests.gate.cells import NODES, PLACES, ROWS, SIZES, arrays, block_along_time, program
from tests.harness import Case, close, compare, tensors
from tests.parts import loaded

DTYPES = {"torch": (torch.float64, 1e-10), "cpu": (torch.float64, 1e-10), "triton": (torch.float32, 2e-5)}
STEPS = {"step": 3, "loop": 3, "block": ROWS + 3, "time": ROWS}
SERVED = {"torch": PLACES, "cpu": ("step", "loop"), "triton": PLACES}


def lowered(place: str, wanted: Mapping[str, Node]) -> tuple[Program, Block]:
    """The program of some nodes, and its block in the form of the place."""
    made = program(place, wanted)
    if place == "time":
        return block_along_time(made)
    block = lower(made, "scan", ROWS) if place == "block" and made.states else lower(made, "step")
    return made, block


def _torch(block: Block) -> str:
    from seqc.backends.torch_eager import emit

    return emit(block).text


def _cpu(block: Block) -> str:
    from seqc.backends.native_cpu import emit

    return emit(block).alone


def _triton(block: Block) -> str:
    from seqc.backends.triton_gpu.emit import triton_kernels

    return triton_kernels(block).alone


PRINTERS: dict[str, Callable[[Block], str]] = {"torch": _torch, "cpu": _cpu, "triton": _triton}  # the text of a backend


def functions(backend: str, source: str, made: Program, folder: Path) -> dict[str, Any]:
    """The emitted definitions."""
    if backend == "triton":
        from tests.triton.interpret import functions as from_file

        return from_file(source, folder, f"gate_{len(list(folder.iterdir()))}")
    return vars(loaded(source, made, "gate"))


def emits(backend: str, place: str, operator: str) -> str:
    """Why a backend refuses an operator in a place; "" where it prints it."""
    try:
        _, block = lowered(place, named(place, [operator]))
        PRINTERS[backend](block)
    except Refusal as refusal:
        return refusal.diagnostics[0].message
    except (SeqcBug, AssertionError, LookupError, ValueError) as fault:  # never listed: a cell that fails is a fault
        return f"fails: {type(fault).__name__} {fault}".splitlines()[0]
    return ""


def named(place: str, operators: list[str]) -> dict[str, Node]:
    """The nodes of some operators, each with the name of an output."""
    return {f"y_{name}_{i}": n for name in operators for i, n in enumerate(NODES[place][name])}


def run(backend: str, place: str, operators: list[str], folder: Path) -> None:
    """Compare the nodes of some operators, all in one program."""
    made, block = lowered(place, named(place, operators))
    source = functions(backend, PRINTERS[backend](block), made, folder)
    forward, backward = (source[f"_{part}_{backend}"] for part in ("forward", "backward"))
    dtype, tolerance = DTYPES[backend]
    given = arrays(made, STEPS[place], operators[0] if len(operators) == 1 else "")
    rng = np.random.default_rng(1)
    sizes = {**SIZES, "B": 2, "T": STEPS[place]}
    axes = {n: ("B", "T", *d.dims) for n, d in made.output_decls.items()}
    cotangents = {n: rng.standard_normal([sizes[a.rstrip("'")] for a in own]) for n, own in axes.items()}
    cotangents |= {f"{n}_T": rng.standard_normal(given[f"{n}_0"].shape) for n in made.states}
    case = Case(made, given, cotangents)
    if place != "time":
        with np.errstate(all="ignore"):
            compare(case, forward, backward, tolerance, dtype)
        return
    args = tensors(case, dtype)
    cots = [torch.tensor(cotangents[n], dtype=dtype) for n in case.results]
    got = forward(*args)
    slopes = backward(*args, *got[len(cots) :], *cots)
    taken = [x.double() if x.is_floating_point() else x for x in args]
    want, want_slopes = run_block(block, {n: x.numpy() for n, x in zip(case.arguments, taken, strict=True)},
                                  {n: x.double().numpy() for n, x in zip(case.results, cots, strict=True)})  # fmt: skip
    for name, x in zip(case.results, got, strict=False):
        close(x, want[name], tolerance, name, dtype)
    for name, x in zip(case.moved, slopes, strict=True):
        close(x, want_slopes[name], tolerance, f"gradient of {name}", dtype)


def main() -> None:
    """Run Triton's cells: on standard input a JSON list of (place, operators); out: what went wrong, a line each."""
    from tests.triton import interpreter

    interpreter.choose()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for place, operators in json.load(sys.stdin):
            try:
                run("triton", place, operators, Path(folder))
            except Exception as problem:  # told to the test, which fails
                print(json.dumps(f"{place} {operators}: {type(problem).__name__} {' '.join(str(problem).split())[:500]}"))


if __name__ == "__main__":
    main()
