"""Emitted Triton kernels against the float64 reference, in Triton's interpreter: every form, forward and gradients.

Lengths around a block's rows; dims that are odd, smaller than a tile, and longer than one; batches of two. Each form runs
in one kernel and in two (states first). `interpret.py` states the tolerance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
ROWS = 16
ODD = {"H": 2, "K": 5, "V": 35, "D": 7, "N": 3}  # V in two pieces of a tile
EVEN = {"H": 1, "K": 16, "V": 16, "D": 16, "N": 16}
LENGTHS = [(1, True), (ROWS - 1, False), (ROWS, True), (ROWS + 1, False), (2 * ROWS + 1, True)]
RUNS = [(steps, hard, ODD if i % 2 else EVEN) for i, (steps, hard) in enumerate(LENGTHS)]
CASES = [
    ("specs/gla.seq", "chunkwise"),
    ("specs/gla.seq", "step"),
    ("specs/delta_rule.seq", "chunkwise"),
    ("specs/retention.seq", "chunkwise"),
    ("specs/linear_attention.seq", "chunkwise"),
    ("specs/hgrn.seq", "scan"),
    ("specs/hgrn.seq", "step"),
    ("specs/mamba.seq", "step"),
    ("specs/mamba.seq", "scan"),
    ("specs/lstm.seq", "step"),
    ("specs/gru.seq", "step"),
    ("tests/recurrences/conv.seq", "scan"),
    ("tests/recurrences/shiftmix.seq", "scan"),
    ("specs/gsa.seq", "chunkwise"),
    ("specs/aaren.seq", "scan"),
    ("specs/lif.seq", "step"),
]


@pytest.mark.parametrize("part", range(4))
def test_kernels_equal_the_reference(part: int) -> None:
    mine = CASES[part::4]
    lines = [
        json.dumps({"path": str(ROOT / path), "form": form, "rows": None if form == "step" else ROWS, "runs": RUNS})
        for path, form in mine
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
    assert len(said) == len(mine), done.stderr[-3000:]
    wrong = {f"{path} {form}": what for (path, form), what in zip(mine, said, strict=True) if what}
    assert not wrong, wrong
