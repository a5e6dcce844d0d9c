"""Emitted Triton kernels against the float64 reference, in Triton's interpreter: every spec, every form, forward and gradients.

Some specs at lengths around a block's rows, with extreme arguments, and dims that are odd, smaller than a tile, and longer
than one; every spec of `specs/` and `tests/recurrences/` step by step and in its parallel form, at lengths that end in the
middle of a block. Batches of two. Each form runs in one kernel and in two (states first). `interpret.py` states the tolerance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqc.build import load
from seqc.driver import lower

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
PATHS = {p.stem: p for folder in ("tests/recurrences", "specs") for p in sorted((ROOT / folder).rglob("*.seq"))}
PARTS = 2  # processes: each takes seconds to begin
ROWS = 16
ODD = {"H": 2, "K": 5, "V": 35, "D": 7, "N": 3}  # V in two pieces of a tile
EVEN = {"H": 1, "K": 16, "V": 16, "D": 16, "N": 16}
LENGTHS = [(1, True), (ROWS - 1, False), (ROWS, True), (ROWS + 1, False), (2 * ROWS + 1, True)]
RUNS = [(steps, hard, ODD if i % 2 else EVEN) for i, (steps, hard) in enumerate(LENGTHS)]
EDGES: list[tuple[str, str | None]] = [
    ("gla", "chunkwise"),
    ("gla", "step"),
    ("delta_rule", "chunkwise"),
    ("retention", "chunkwise"),
    ("linear_attention", "chunkwise"),
    ("hgrn", "scan"),
    ("hgrn", "step"),
    ("mamba", "step"),
    ("mamba", "scan"),
    ("lstm", "step"),
    ("gru", "step"),
    ("conv", "scan"),
    ("shiftmix", "scan"),
    ("gsa", "chunkwise"),
    ("aaren", "scan"),
    ("lif", "step"),
    ("lru", "chunkwise"),
    ("mamba_complex", "scan"),
]
SMALL = {"H": 1, "K": 3, "V": 5, "D": 4, "N": 3}


def interpret(
    cases: list[tuple[str, str | None]], runs: list[tuple[int, bool, dict[str, int]]], steps: int = 0, **dims: int
) -> None:
    """Fails with what went wrong in any case (spec, form; None is the compiler's choice), each at all runs (length, whether
    arguments are extreme, sizes), and in a loop of that many single steps. dims: extents that the kernels are made for."""
    given = {"runs": runs, "steps": steps, "dims": dims}
    lines = [
        json.dumps({"path": str(PATHS[name]), "form": form, "rows": None if form == "step" else ROWS} | given)
        for name, form in cases
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/triton/interpret.py")],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(cases), done.stderr[-3000:]
    wrong = {f"{name} {form}": what for (name, form), what in zip(cases, said, strict=True) if what}
    assert not wrong, wrong


@pytest.mark.parametrize("part", range(PARTS))
def test_lengths_dims_and_extreme_arguments(part: int) -> None:
    interpret(EDGES[part::PARTS], RUNS, steps=3)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_spec_in_its_parallel_form(part: int) -> None:
    parallel = [name for name, path in PATHS.items() if lower(load(path), rows=ROWS).form != "step"]
    interpret([(name, None) for name in parallel[part::PARTS]], [(ROWS + 2, False, SMALL)])


@pytest.mark.parametrize("part", range(PARTS))
def test_every_spec_step_by_step(part: int) -> None:
    interpret([(name, "step") for name in PATHS][part::PARTS], [(3, False, SMALL)])


def test_dims_longer_than_a_tile() -> None:
    """K in three pieces, the last of them short."""
    interpret([("simple_gla", "chunkwise")], [(ROWS + 2, False, {"H": 1, "K": 300, "V": 17})], K=300)
