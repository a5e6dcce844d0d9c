"""docs/add-a-backend.md, followed to the letter: its backend passes the gate for all that it serves, and runs specs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from tests.gate import running
from tests.gate.cells import NODES
from tests.harness import compare, draw
from tests.parts import loaded

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-backend.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's blocks define; its backend is one of the gate's."""
    names: dict[str, Any] = {}
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)):
        exec(compile(block, f"{PAGE.name}, block {i + 1}", "exec"), names)
    monkeypatch.setitem(running.PRINTERS, "numpy", names["emit"])
    monkeypatch.setitem(running.DTYPES, "numpy", (torch.float64, 1e-10))
    return names


@pytest.mark.parametrize("place", ["step", "loop"])
def test_it_passes_the_gate(page: dict[str, Any], place: str, tmp_path: Path) -> None:
    said = {name: running.emits("numpy", place, name) for name in NODES[place]}
    refused = {name: why for name, why in said.items() if why}
    assert refused == {name: why for name, why in page["REFUSED"].items() if name in NODES[place]}
    running.run("numpy", place, [name for name, why in said.items() if not why], tmp_path)


@pytest.mark.parametrize("name", ["gla", "lstm", "delta_rule", "signed"])
def test_it_runs_specs(page: dict[str, Any], name: str) -> None:
    folder = "specs" if name != "signed" else "tests/recurrences"
    program = load(ROOT / folder / f"{name}.seq")
    made = loaded(page["emit"](lower(program, "step")), program, f"numpy_{name}")
    with np.errstate(all="ignore"):
        for steps in (0, 1, 9):
            compare(draw(program, steps), made._forward_numpy, made._backward_numpy, 1e-10)
