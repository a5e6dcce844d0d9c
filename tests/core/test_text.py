"""The text form of a graph: it parses back to the same nodes, and says where text is no graph."""

import re

import pytest

from seqc.frontend.elaborate import load
from seqc.ir.formula import spell
from seqc.ir.graph import Node, const, index, leaf, node, size
from seqc.ir.graph_text import IrError, parse, show
from seqc.ir.ops.structure import cumsum, shift, take
from seqc.ir.windows import window
from seqc.passes.derive_backward import derive_backward

SPEC = """spec demo
dim H, K, V
input q[H, K], k[H, K] unit[K], v[H, V]
input beta[H] in [0, 2]
param R[K, K]
state S[H, K, V] = 0
S = S[t-1] + beta * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S) / sqrt(K)
output p = R @ q[t-2]
"""


def test_a_step_and_its_gradient_come_back_as_the_same_nodes() -> None:
    program = load(SPEC)
    backward = derive_backward(program, "step", program.graph)
    for graph in (program.graph, backward):
        again = parse(show(graph))
        assert list(again) == list(graph)
        assert all(again[key] is graph[key] for key in graph)


def test_names_are_used_where_given() -> None:
    program = load(SPEC)
    text = show(program.graph, {program.updates["S"]: "S_new"})
    assert "%S_new = add(%S, " in text
    assert parse(text)["S.next"] is program.updates["S"]


def test_every_kind_of_attribute_comes_back() -> None:
    x = leaf("input", "x", ("B", "t", "K"), offset=-3)
    mask = leaf("mask", "valid", ("t",), dtype="bool")
    graph: dict[str, Node] = {
        "a": cumsum(x, "t", 4, True), "b": shift(x, "t", -1), "c": take(x, "t", -1),
        "d": node("where", mask, x, const(-0.0)), "e": node("rename", x, old="K", new="K'"),
        "f": node("sum", x, over=("K", "t")), "g": index("K") * size("V") + float("-inf"), "h": const(1e-30),
    }
    again = parse(show(graph))
    assert all(again[key] is graph[key] for key in graph)


def test_many_lags_of_an_input() -> None:
    x, other = (window("x", ("B", "D"), "L", lags) for lags in (range(64), range(8, -184, -3)))
    graph = {"o": x, "p": other, "q": leaf("input", "x", ("B", "D"))}
    text = show(graph)
    assert "input x @0..63 by 1 over L [B, L, D]" in text and "@8..-181 by -3 over L" in text
    assert all(again is graph[key] for key, again in parse(text).items())


def test_the_form_itself() -> None:
    g, s = leaf("input", "g", ("B", "K"), 2), leaf("state", "S", ("B", "K", "V"))
    out = node("sum", node("exp", g) * s * 0.5, over=("K",))
    assert show({"o": out}) == (
        "%g@2 = input g @2 [B, K]\n"
        "%0 = exp(%g@2) : [B, K]\n"
        "%S = state S [B, K, V]\n"
        "%1 = mul(%0, %S) : [B, K, V]\n"
        "%2 = mul(%1, 0.5) : [B, K, V]\n"
        "%3 = sum(%2) over=(K) : [B, V]\n"
        "out o = %3\n"
    )


def test_formula_of_shared_values_stays_short() -> None:
    """Each value is read twice by the next: written out, sixty of them are 2^60 words."""
    x = leaf("state", "x", ("B",))
    for _ in range(60):
        x = node("exp", x) * x
    text = spell(x)
    assert len(text) < 1000 and text.startswith("exp(") and ".." in text


@pytest.mark.parametrize(("text", "problem"), [
    ("out o = %x", "line 1: `%x` is not defined above"),
    ("%x = input x [B]\n%y = frob(%x)", "line 2: unknown operator `frob`"),
    ("%x = input x [B]\n%y = add(%x)", "`add` takes 2 arguments"),
    ("%x = input x [B]\n%y = exp(%x) : [B, K]", "this node is [B]"),
    ("%x = input x [B]\n%y = sum(%x) over=(K)", "line 2: sum over ['K']"),
    ("what is this", "not a line of the text form"),
    ("out o = 1.2.3", "neither a name nor a number"),
])
def test_bad_text_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(IrError, match=re.escape(problem)):
        parse(text)
