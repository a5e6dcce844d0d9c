"""docs/add-an-op.md, followed to the letter: its blocks are run, and the new operator works everywhere."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.analysis.ranges import interval_of
from seqc.backends.torch_eager.printer import Printer
from seqc.check.emitted_case import Case
from seqc.check.verify_emitted import against_oracle
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from seqc.frontend.functions import FUNCTIONS, Function, of_table
from seqc.ir.graph import Node, node
from seqc.ir.graph_text import parse, show
from seqc.ir.intervals import Interval
from seqc.ir.ops import TABLE, Op
from seqc.ir.rewrite import rewrite
from seqc.ir.verify import verify_program
from seqc.semantics.reference import gradients, run

PAGE = Path(__file__).parents[2] / "docs" / "add-an-op.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's blocks define, with its rows in the table."""
    names: dict[str, Any] = {}
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)):
        exec(compile(block, f"{PAGE.name}, block {i + 1}", "exec"), names)
        for row in (x for x in tuple(names.values()) if isinstance(x, Op)):
            monkeypatch.setitem(TABLE, row.name, row)
    monkeypatch.setitem(FUNCTIONS, "softsign", of_table()["softsign"])
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


def judged(compiled: Compiled, cast: str) -> None:
    """The emitted file gives the oracle's results and gradients."""
    module = load_emitted(compiled.text, "add_an_op")
    case = Case(compiled.program, module, {"B": 2, "D": 3}, 5, cast, False)
    assert all(finding.ok for finding in against_oracle(case)), list(against_oracle(case))


def test_one_row_is_enough_on_every_backend(page: dict[str, Any]) -> None:
    """Nothing but the row names the operator, and a spec calls it: torch and native code run it, Triton prints it."""
    judged(compile_spec(SPEC, Options("torch")), "float64")
    judged(compile_spec(SPEC, Options("cpu")), "float32")
    assert "/ (1.0 + tl.abs(" in compile_spec(SPEC, Options("triton")).text


REVERSED = """spec backwards
dim D
input x[D]
state h[D] = 0
h = 0.5 * reverse[D](h[t-1]) + x
output y = h
"""


def test_an_operator_along_a_dim_takes_a_case_a_backend(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain torch serves it by the page's case; backends without a case refuse it with a reason."""
    takes = Function(lambda args, dims: args[0].of(node("reverse", x, dim=dims[0]) for x in args[0].parts), 1, 1, "yes")
    monkeypatch.setitem(FUNCTIONS, "reverse", takes)
    others, case = Printer._operator, page["reversed_text"]
    monkeypatch.setattr(Printer, "_operator", lambda self, n, args, form: (
        case(self, n, args[0]) if n.op == "reverse" else others(self, n, args, form)))
    judged(compile_spec(REVERSED, Options("torch")), "float64")
    for backend in ("cpu", "triton"):
        with pytest.raises(Unsupported, match="reverse"):
            compile_spec(REVERSED, Options(backend))


def test_every_field_is_explained(page: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    fields = [f for f in page["softsign"].__dataclass_fields__ if f not in ("name", "elementwise")]
    assert all(f"`{f}`" in text for f in fields)
