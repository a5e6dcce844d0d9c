"""Numbers of constants and sizes: what Python computes of them is what the operator table says, and nothing raises."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from seqc.emit.numbers import number_at, number_spelling
from seqc.ir.graph import Node, const, node, size
from seqc.ir.ops import TABLE

CONSTANTS = (-math.inf, -2.0, -1.0, -0.5, 0.0, 0.5, 3.0, 1000.0, math.inf)
UNARY = [name for name, row in TABLE.items() if row.elementwise and row.arity == 1 and name not in ("not", "stopgrad")]
BINARY = ("add", "sub", "mul", "div", "pow", "min", "max", "logaddexp")


def python(n: Node, sizes: dict[str, int]) -> float:
    """What the printed text gives."""
    if n.op == "const":
        return float(n.attr("value"))  # type: ignore[arg-type]
    if n.op == "size":
        return sizes[n.text("dim")]
    names = {f"a{i}": python(a, sizes) for i, a in enumerate(n.args)}
    return float(eval(number_spelling(n).format(*names), {"math": math, "torch": torch}, names))


def same(n: Node, sizes: dict[str, int]) -> bool:
    """Equal, but for what torch answers of its own: 0 for the sign of NaN, NaN for the root of -inf."""
    found, wanted = python(n, sizes), number_at(n, sizes)
    if (n.op == "sign" and math.isnan(wanted)) or (n.op == "pow" and n.args[0] is const(-math.inf)):
        return True
    return found == wanted or (math.isnan(found) and math.isnan(wanted)) or math.isclose(found, wanted, rel_tol=1e-14)


@pytest.mark.parametrize("op", UNARY)
def test_one_argument(op: str) -> None:
    numbers = [const(c) for c in CONSTANTS] + [size("K"), size("K") - 3.0, node("log", const(-1.0))]
    wrong = [(x, k) for x in numbers for k in (0, 1, 4) if not same(node(op, x), {"K": k})]
    assert not wrong


@pytest.mark.parametrize("op", BINARY)
def test_two_arguments(op: str) -> None:
    numbers = [*map(const, CONSTANTS), size("K"), node("log", const(-1.0))]
    wrong = [(x, y, k) for x, y in product(numbers, repeat=2) for k in (0, 4) if not same(node(op, x, y), {"K": k})]
    assert not wrong


def test_choices_and_truth_values() -> None:
    few = node("lt", size("K"), const(3.0))
    both = node("and", few, node("not", node("gt", size("K"), const(1.0))))
    n = node("where", both, const(2.0), node("surrogate", few, const(0.0), const(1.0)))
    assert [python(n, {"K": k}) for k in (1, 2, 5)] == [2.0, 1.0, 0.0]
