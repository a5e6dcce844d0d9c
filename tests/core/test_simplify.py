"""Simplification: short graphs before and after, both evaluated, with their gradients."""

import math
import time

import numpy as np
import pytest

from seqc.analysis.derivative import vjp
from seqc.diagnostics import SeqcBug
from seqc.frontend.elaborate import load
from seqc.ir.graph import BATCH, Node, leaf, leaves, node, topological
from seqc.ir.graph_text import parse, show
from seqc.ir.rewrite import law, rewrite, var
from seqc.ir.verify import verify
from seqc.passes.simplify.laws import RULES
from seqc.passes.simplify.simplify import folded, simplify, simplify_named
from seqc.semantics.evaluate import evaluate, to_order

HEAD = "%x = input x [B, K]\n%y = input y [B, K]\n%z = input z [B, V]\n%c = input c [B]\n%m = mask m [K] bool\n"

# Definitions before, and the formula after; both have the result `out o`.
CASES = {
    "neutral": ("%0 = add(%x, 0.0)\n%1 = mul(%0, 1.0)\n%2 = div(%1, 1.0)\nout o = %2", "out o = %x"),
    "constants": ("%0 = mul(2.0, 3.0)\n%1 = exp(0.0)\n%2 = add(%0, %1)\n%3 = mul(%x, %2)\nout o = %3",
                  "%0 = mul(%x, 7.0)\nout o = %0"),
    "merged constants": ("%0 = mul(2.0, %x)\n%1 = mul(%0, 4.0)\nout o = %1", "%0 = mul(%x, 8.0)\nout o = %0"),
    "zero minus": ("%0 = sub(0.0, %x)\n%1 = neg(%0)\nout o = %1", "out o = %x"),
    "signs": ("%0 = neg(%x)\n%1 = mul(%0, %y)\n%2 = add(%c, %1)\nout o = %2",
              "%0 = mul(%x, %y)\n%1 = sub(%c, %0)\nout o = %1"),
    "log of exp": ("%0 = exp(%x)\n%1 = log(%0)\nout o = %1", "out o = %x"),
    "log of a gate": ("%0 = sigmoid(%x)\n%1 = sub(1.0, %0)\n%2 = log(%1)\nout o = %2",
                      "%0 = neg(%x)\n%1 = logsigmoid(%0)\nout o = %1"),
    "constant choice": ("%0 = lt(1.0, 2.0)\n%1 = where(%0, %x, %y)\nout o = %1", "out o = %x"),
    "half-known choice": ("%0 = gt(1.0, 2.0)\n%1 = and(%0, %m)\n%2 = where(%1, %x, %y)\nout o = %2", "out o = %y"),
    "choice of equals": ("%0 = where(%m, %c, %c)\nout o = %0", "out o = %c"),
    "same condition twice": ("%0 = where(%m, %x, %y)\n%1 = where(%m, %0, 0.0)\nout o = %1",
                             "%0 = where(%m, %x, 0.0)\nout o = %0"),
    "factor out of a sum": ("%0 = mul(%c, %x)\n%1 = mul(%0, %y)\n%2 = sum(%1) over=(K)\nout o = %2",
                            "%0 = mul(%x, %y)\n%1 = sum(%0) over=(K)\n%2 = mul(%c, %1)\nout o = %2"),
    "independent sums": ("%0 = mul(%x, %z)\n%1 = sum(%0) over=(K, V)\nout o = %1",
                         "%0 = sum(%x) over=(K)\n%1 = sum(%z) over=(V)\n%2 = mul(%0, %1)\nout o = %2"),
    "nested sums": ("%0 = mul(%x, %z)\n%1 = exp(%0)\n%2 = sum(%1) over=(K)\n%3 = sum(%2) over=(V)\nout o = %3",
                    "%0 = mul(%x, %z)\n%1 = exp(%0)\n%2 = sum(%1) over=(K, V)\nout o = %2"),
    "sum of a broadcast": ("%0 = expand(%c) over=(K)\n%1 = sum(%0) over=(K)\nout o = %1",
                           "%0 = size() dim=K\n%1 = mul(%c, %0)\nout o = %1"),
    "late broadcast": ("%0 = expand(%c) over=(K)\n%1 = exp(%0)\n%2 = mul(%1, %x)\nout o = %2",
                       "%0 = exp(%c)\n%1 = mul(%0, %x)\nout o = %1"),
    "broadcast at a root": ("%0 = expand(%c) over=(K)\n%1 = exp(%0)\nout o = %1", "%0 = exp(%c)\nout o = %0"),
    "renamed twice": ("%0 = rename(%x) new=K' old=K\n%1 = rename(%0) new=D old=K'\nout o = %1",
                      "%0 = rename(%x) new=D old=K\nout o = %0"),
    "renamed and back": ("%0 = rename(%x) new=D old=K\n%1 = rename(%0) new=K old=D\nout o = %1", "out o = %x"),
    "powers": ("%0 = pow(%x, 2.0)\n%1 = pow(%x, 1.0)\n%2 = add(%0, %1)\nout o = %2",
               "%0 = mul(%x, %x)\n%1 = add(%0, %x)\nout o = %1"),
}
KEPT = {
    "zero times": "%0 = mul(%x, 0.0)\nout o = %0",
    "difference of equals": "%0 = sub(%x, %x)\nout o = %0",
    "quotient of equals": "%0 = div(%x, %x)\nout o = %0",
    "stopgrad": "%0 = stopgrad(%x)\n%1 = mul(%0, %y)\nout o = %1",
    "surrogate": "%0 = gt(%x, 1.0)\n%1 = surrogate(%0, %x, %y)\nout o = %1",
    "exp of log": "%0 = log(%x)\n%1 = exp(%0)\nout o = %1",
    "not a power of two": "%0 = div(%x, 3.0)\nout o = %0",
}


def aligned(n: Node, like: Node, values, sizes):
    return to_order(evaluate({"v": n}, values, sizes)["v"], n.dims, like.dims, sizes)


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name, values, sizes) -> None:
    before, wanted = (parse(HEAD + text) for text in CASES[name])
    after = simplify(before)
    assert show(after) == show(wanted)
    verify(after, "simplify")
    given = values({"before": before["o"], "wanted": wanted["o"]})
    np.testing.assert_allclose(aligned(after["o"], before["o"], given, sizes),
                               aligned(before["o"], before["o"], given, sizes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_stay(name, values, sizes) -> None:
    before = parse(HEAD + CASES[name][0])
    after = simplify(before)
    cot = leaf("cot", "o", before["o"].dims)
    wrt = leaves(before.values(), "input")
    given = {**values(before), **values({"cot": cot}, 1)}
    old = vjp(before, {"o": cot}, wrt)
    new = vjp(after, {"o": cot}, wrt)
    for x in wrt:
        np.testing.assert_allclose(aligned(new[x], x, given, sizes), aligned(old[x], x, given, sizes),
                                   rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", KEPT)
def test_what_must_stay(name) -> None:
    before = parse(HEAD + KEPT[name])
    assert simplify(before)["o"] is before["o"]


def test_a_second_time_changes_nothing_and_laws_are_written_down() -> None:
    for text, _ in CASES.values():
        once = simplify(parse(HEAD + text))
        assert simplify(once) == once
    assert all(" -> " in rule.law for rule in RULES)
    assert len({rule.law for rule in RULES}) == len(RULES)


def test_infinities_do_not_become_nan(sizes) -> None:
    g = leaf("input", "g", (BATCH, "K"))
    before = {"a": node("log", node("exp", g)), "b": node("log", node("sigmoid", g)), "c": g + 0.0}
    given = {g: np.array([[-np.inf, 0.0, np.inf], [-1e4, 1e4, -0.0]])}
    for key, value in evaluate(simplify(before), given, sizes).items():
        assert not np.isnan(value).any(), key
        assert value[0, 0] == -np.inf


def test_a_program_keeps_its_names_and_spans() -> None:
    program = load("""spec demo
dim K, V
input x[K], z[V] in [0, 1]
state S[K, V] = 0
f = 1 * sigmoid(x) + 0
S = f * S[t-1] + (1 - f) * z
output o = sum[K](S * 1)
""")
    graph, names = simplify_named(program.graph, program.definitions)
    verify(graph, "simplify")
    assert names[next(n for n in topological(graph.values()) if n.op == "sigmoid")] == "f"


def test_rules_that_run_in_circles_are_a_bug() -> None:
    x, y = var("x"), var("y")
    a, b = leaf("input", "a", ("B",)), leaf("input", "b", ("B",))
    with pytest.raises(SeqcBug, match="do not come to rest"):
        rewrite({"o": node("min", a, b)}, [law(node("sub", x, y), node("sub", y, x)),
                                           law(node("min", x, y), node("sub", x, y))])


def test_a_rule_may_not_invent_dims() -> None:
    x = var("x")
    with pytest.raises(SeqcBug, match="exp"):
        rewrite({"o": node("exp", leaf("input", "a", ("B",)))}, [law(node("exp", x), leaf("input", "q", ("B", "K")))])


def test_three_hundred_nodes_take_less_than_a_blink() -> None:
    x = leaf("input", "x", (BATCH, "K"))
    n = x
    for i in range(100):
        n = node("tanh", n * float(i + 1) + 0.0) - x
    start = time.perf_counter()
    simplify({"o": n})
    assert time.perf_counter() - start < 0.25  # a fifth of that on an idle machine


def test_the_verifier_names_the_pass() -> None:
    x = leaf("input", "x", (BATCH, "K"))
    with pytest.raises(SeqcBug, match=r"demo pass.*two shapes"):
        verify({"o": x, "p": leaf("input", "x", (BATCH, "V"))}, "demo pass")
    with pytest.raises(SeqcBug, match="is real, not bool"):
        verify({"o": node("where", x, x, x)}, "demo pass")
    wrong = node("exp", x + 5.0)
    wrong.dims = ("K",)
    try:
        with pytest.raises(SeqcBug, match="should have dims"):
            verify({"o": wrong}, "demo pass")
    finally:
        wrong.dims = ("B", "K")


def test_a_program_is_folded() -> None:
    """Operators on constants are their values, in the step too; what reads a value is left as it is written."""
    text = "spec a\ninput x\nstate h = 0\nh = sinh(tanh(0.3)) * h[t-1] + x * where(2 > 1, sqrt(2), 0)\n"
    text += "output o = h + log1p(erf(0.2)) + x * 1\n"
    program = folded(load(text))
    done = [n for n in topological(program.graph.values()) if n.args]
    assert sorted(n.op for n in done) == ["add", "add", "add", "mul", "mul", "mul"]
    found = {n.attr("value") for n in topological(program.graph.values()) if n.op == "const"}
    wanted = (math.sinh(math.tanh(0.3)), math.sqrt(2), math.log1p(math.erf(0.2)), 1.0)
    assert all(min(abs(x - float(str(y))) for y in found) < 1e-15 for x in wanted) and len(found) == 4
    assert folded(program) is program
