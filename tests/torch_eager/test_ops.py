"""Every operator of the table as torch text, against its float64 reference; and operators on infinities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.layout import Layout
from seqc.backends.torch_eager.printer import Printer
from seqc.backends.torch_eager.runtime import helper_texts
from seqc.emit.expressions import Text
from seqc.ir.graph import Node, leaf, leaves, node
from seqc.ir.ops import TABLE
from seqc.ir.ops.structure import affine_scan, cumsum, max_scan
from seqc.semantics.evaluate import evaluate, to_order
from tests.core.test_ops import SAMPLES, SIZES, values_for

LAYOUT = Layout(("t", "s", "H", "K", "V"), {"t": SIZES["t"]}, (), ())
UNSUPPORTED: dict[str, str] = {}  # operator -> why the torch backend does not serve it


def computed(n: Node, values: dict[Node, Any]) -> Any:
    """The value of n by emitted torch text, axes in the node's sorted dims."""
    given = {x: x.text("name") for x in leaves([n])}
    arguments = {name: x.names("shape") for x, name in given.items()} or {"like": ("K",)}
    fn = Function("value", "One value.", arguments, SIZES["t"], False, SIZES)
    texts = {x: Text(name, x.names("shape")) for x, name in given.items()}
    printer = Printer(fn, [n], texts, {}, LAYOUT.order, LAYOUT.extent, {})
    x = printer.exactly(printer.value(n), n.dims)
    fn.say(f"return {x.code}")
    namespace: dict[str, Any] = {}
    exec("\n".join(["import math", "import torch", *helper_texts(fn.helpers), fn.text()]), namespace)
    arrays = {name: torch.tensor(values[x]) for x, name in given.items()} or {"like": torch.zeros(3, dtype=torch.float64)}
    out = namespace["value"](**arrays)
    return out.numpy() if isinstance(out, torch.Tensor) else np.asarray(out)


def expected(n: Node, values: dict[Node, Any]) -> Any:
    with np.errstate(all="ignore"):
        return to_order(evaluate({"x": n}, values, SIZES)["x"], n.dims, n.dims, SIZES)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_operator(name: str) -> None:
    if name in UNSUPPORTED:
        pytest.skip(UNSUPPORTED[name])
    for n in SAMPLES[name]:
        values = values_for(n, np.random.default_rng(0))
        got = computed(n, values)
        assert got.dtype in (np.float64, np.bool_, np.int64), got.dtype
        np.testing.assert_allclose(got, expected(n, values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("block", [0, 2])
def test_sums_of_infinities(reverse: bool, exclusive: bool, block: int) -> None:
    x = leaf("param", "x", ("K", "t"))
    values = {x: np.where(np.arange(24).reshape(3, 8) % 5 == 2, -np.inf, 0.5)}
    n = cumsum(x, "t", block, reverse, exclusive)
    assert np.array_equal(computed(n, values), expected(n, values))


def test_scans_pass_resets_and_infinities() -> None:
    a, b, h = leaf("param", "a", ("K", "t")), leaf("param", "b", ("K", "t")), leaf("param", "h", ("K",))
    rng = np.random.default_rng(0)
    values = {a: rng.choice([0.0, -1.0, 1.0, 0.5], (3, 8)), b: rng.standard_normal((3, 8)), h: rng.standard_normal(3)}
    for reverse in (False, True):
        n = affine_scan(a, b, h, "t", reverse)
        np.testing.assert_allclose(computed(n, values), expected(n, values), rtol=1e-14)
    infinite = {**values, b: np.where(values[a] == 0.5, -np.inf, values[b]), h: np.full(3, -np.inf)}
    n = max_scan(a, b, h, "t")
    np.testing.assert_array_equal(computed(n, infinite), expected(n, infinite))


def test_a_contraction_is_never_written_out() -> None:
    q, k = leaf("param", "q", ("H", "K", "t")), leaf("param", "k", ("H", "K", "s"))
    v, w = leaf("param", "v", ("H", "V", "s")), leaf("param", "w", ("H", "s"))
    n = node("sum", q * k * v * w, over=("K", "s"))
    fn = Function("f", "", {x.text("name"): x.names("shape") for x in (q, k, v, w)}, 8, False, SIZES)
    texts = {x: Text(x.text("name"), x.names("shape")) for x in (q, k, v, w)}
    extent = {"t": 64, "s": 64, "K": 64, "V": 64, "H": 4}
    printer = Printer(fn, [n], texts, {}, LAYOUT.order, extent, {})
    x = printer.value(n)
    text = "\n".join([*fn.lines, x.code])
    assert text.count("@") + text.count("einsum") == 2, text
    rng = np.random.default_rng(0)
    values = {x: rng.standard_normal([SIZES.get(d, 2) for d in x.names("shape")]) for x in (q, k, v, w)}
    want = np.einsum("hkt,hks,hvs,hs->htv", *(values[x] for x in (q, k, v, w)))
    namespace: dict[str, Any] = {"torch": torch}
    fn.say(f"return {printer.exactly(x, ('H', 't', 'V')).code}")
    exec(fn.text(), namespace)
    np.testing.assert_allclose(namespace["f"](*(torch.tensor(values[x]) for x in (q, k, v, w))).numpy(), want, rtol=1e-12)
