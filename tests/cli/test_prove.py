"""`seqc prove`: what it says, for a person and for a machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Seqc = Callable[..., tuple[int, str, str]]
SCAN = "spec held\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n"
CELL = "spec cell\ndim D\ninput x[D]\nstate h[D] = 0\nh = tanh(h[t-1] + x)\noutput h\n"


def test_prove_tells_what_was_shown(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "held.seq"
    path.write_text(SCAN)
    code, out, _ = seqc("prove", path, "--points", 1)
    assert code == 0
    assert "ok    a block of 16 rows is 16 steps, from any state:" in out and "FAIL" not in out
    assert out.endswith("a chain of blocks equals the recurrence\n")
    code, out, _ = seqc("prove", path, "--points", 1, "--form", "step", "--json")
    told = json.loads(out)
    assert code == 0 and told["ok"] and {fact["form"] for fact in told["facts"]} == {"step"}


def test_a_cell_has_no_block_form(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "cell.seq"
    path.write_text(CELL)
    code, out, _ = seqc("prove", path, "--points", 1)
    assert code == 0 and "there is no block form" in out and "the gradient is the derivative" in out
