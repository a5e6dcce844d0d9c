"""docs/add-an-op.md, followed to the letter: its blocks are run, and the new operator works everywhere."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.analysis.ranges import interval_of
from seqc.frontend.elaborate import load
from seqc.frontend.functions import FUNCTIONS
from seqc.ir.graph import Node, node
from seqc.ir.graph_text import parse, show
from seqc.ir.intervals import Interval
from seqc.ir.ops import TABLE
from seqc.ir.rewrite import rewrite
from seqc.ir.verify import verify_program
from seqc.semantics.reference import gradients, run

PAGE = Path(__file__).parents[2] / "docs" / "add-an-op.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's blocks define, with its row in the table."""
    names: dict[str, Any] = {}
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)):
        exec(compile(block, f"{PAGE.name}, block {i + 1}", "exec"), names)
        if i == 0:
            monkeypatch.setitem(TABLE, "softsign", names["softsign"])
    monkeypatch.setitem(FUNCTIONS, "softsign", names["name_in_specs"])
    return names


SPEC = """spec soft
dim D
input x[D], a[D] in [0, 1]
state h[D] = 0
h = a * h[t-1] + softsign(x)
output y = softsign(h)
"""


def test_the_operator_runs_and_has_a_gradient(page: dict[str, Any]) -> None:
    program = load(SPEC)
    verify_program(program, "build")
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((2, 5, 3)), "a": rng.uniform(0, 1, (2, 5, 3))}
    cot = rng.standard_normal((2, 5, 3))
    _, found = gradients(program, given, {"y": cot})
    step = 1e-6
    moved = []
    for sign in (1, -1):
        x = given["x"].copy()
        x[1, 0, 2] += sign * step
        moved.append((cot * run(program, {**given, "x": x})["y"]).sum())
    assert np.isclose(found["x"][1, 0, 2], (moved[0] - moved[1]) / (2 * step), rtol=1e-6)


def test_its_range_is_known(page: dict[str, Any]) -> None:
    program = load(SPEC)
    assert interval_of(program)[program.outputs["y"]] == Interval(-1.0, 1.0)


def test_it_has_a_text_and_a_law(page: dict[str, Any]) -> None:
    program = load(SPEC)
    assert parse(show(program.graph))["y"] is program.outputs["y"]
    x: Node = program.inputs["x"].leaf()
    (new,) = rewrite({"o": node("abs", node("softsign", x))}, [page["rule"]])[0].values()
    assert new is node("softsign", node("abs", x))


def test_every_field_is_explained(page: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    fields = [f for f in page["softsign"].__dataclass_fields__ if f not in ("name", "elementwise")]
    assert all(f"`{f}`" in text for f in fields)
