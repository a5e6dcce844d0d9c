"""Passes that backends ask for: short graphs before and after as text, both evaluated; and on every shipped spec."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from seqc.driver.pipeline import fix_dims, lower
from seqc.frontend.elaborate import load
from seqc.ir.block import Block
from seqc.ir.graph import BATCH, ROW, Node, leaf, leaves
from seqc.ir.graph_text import parse, show
from seqc.passes import LOWERINGS
from seqc.passes.blocks.choose import EAGER
from seqc.passes.lower.along import along
from seqc.passes.lower.hoist import hoist
from seqc.passes.lower.pieces import long_dims, pieces
from seqc.passes.lower.regroup import regroup
from seqc.passes.lower.unroll_steps import unroll_steps
from seqc.semantics.evaluate import evaluate

Graph = Mapping[str, Node]
SPECS = Path(__file__).parents[2] / "specs"
SIZES = {"B": 2, "t": 4, "K": 3, "V": 2, "N": 3}
HEAD = """%x = input x [B, K]
%y = input y [B, K]
%n = input n [B, V]
%c = input c [B]
%S = state S [B, K, V]
%h = state h [B, K]
%a = input a [B, t, K]
%b = input b [B, t, K]
"""
H = leaf("state", "h", (BATCH, "K"))


def regrouped(graph: Graph) -> Graph:
    return regroup(graph, lambda dims: tuple(sorted(set(dims) - {BATCH})))[0]


def hoisted(graph: Graph) -> Graph:
    return hoist(graph, {H: "h.next"}, SIZES[ROW])[0]


CASES: dict[str, tuple[Callable[[Graph], Graph], str, str]] = {
    "a shift along a dim is a choice of positions": (
        along, "%i = index() dim=K\n%0 = shift(%i) by=1 dim=K\n%1 = mul(%0, %x)\nout o = %1",
        "%0 = index() dim=K\n%1 = ge(%0, 1.0)\n%2 = sub(%0, 1.0)\n%3 = where(%1, %2, 0.0)\n%4 = mul(%3, %x)\nout o = %4"),
    "a running sum is a sum behind a mask": (
        along, "%0 = cumsum(%x) block=0 dim=K exclusive=false reverse=true\nout o = %0",
        "%0 = index() dim=K'\n%1 = index() dim=K\n%2 = ge(%0, %1)\n%3 = rename(%x) new=K' old=K\n"
        "%4 = where(%2, %3, 0.0)\n%5 = sum(%4) over=(K')\nout o = %5"),
    "factors of equal dims meet first": (
        regrouped, "%0 = mul(%x, %n)\n%1 = mul(%0, %y)\nout o = %1", "%0 = mul(%x, %y)\n%1 = mul(%0, %n)\nout o = %1"),
    "a sign goes to the smallest factor": (
        regrouped, "%0 = mul(%S, %c)\n%1 = neg(%0)\nout o = %1", "%0 = neg(%c)\n%1 = mul(%0, %S)\nout o = %1"),
    "a factor with another user stays": (
        regrouped, "%0 = mul(%x, %n)\n%1 = mul(%0, %y)\nout o = %1\nout p = %0",
        "%0 = mul(%x, %n)\n%1 = mul(%0, %y)\nout o = %1\nout p = %0"),
    "a scan that begins with the state": (
        hoisted, "%0 = affine_scan(%a, %b, %h) dim=t reverse=false\n%1 = take(%0) at=-1 dim=t\nout h.next = %1",
        "%0 = expand(0.0) over=(B, K, t)\n%1 = expand(1.0) over=(B, K)\n%2 = affine_scan(%a, %0, %1) dim=t reverse=false\n"
        "%3 = take(%2) at=-1 dim=t\n%4 = mul(%3, %h)\n%5 = expand(0.0) over=(B, K)\n"
        "%6 = affine_scan(%a, %b, %5) dim=t reverse=false\n%7 = take(%6) at=-1 dim=t\n%8 = add(%4, %7)\nout h.next = %8"),
    "a row of an elementwise value": (
        hoisted, "%0 = mul(%a, %h)\n%1 = add(%0, %b)\n%2 = take(%1) at=-1 dim=t\nout h.next = %2",
        "%0 = take(%a) at=-1 dim=t\n%1 = mul(%0, %h)\n%2 = take(%b) at=-1 dim=t\n%3 = add(%1, %2)\nout h.next = %3"),
    "factors that do not change in the loop meet first": (
        hoisted, "%0 = mul(%h, %c)\n%1 = mul(%0, %x)\nout h.next = %1", "%0 = mul(%c, %x)\n%1 = mul(%h, %0)\nout h.next = %1"),
}


def drawn(graph: Graph, sizes: Mapping[str, int]) -> dict[Node, np.ndarray]:
    """Numbers for the leaves, moderate ones, so that no exponential overflows; all rows exist."""
    found = {}
    for n in sorted(set(leaves(graph.values())), key=repr):
        rng = np.random.default_rng(sum(repr(n).encode()))
        shape = [sizes[d.rstrip("'")] for d in n.names("shape")]
        found[n] = np.ones(shape, bool) if n.dtype == "bool" else -rng.uniform(0.1, 0.9, shape)
    return found


def same(before: Graph, after: Graph, sizes: Mapping[str, int]) -> None:
    values = drawn(before, sizes)
    told, found = evaluate(before, values, sizes), evaluate(after, {**drawn(after, sizes), **values}, sizes)
    for key in after:
        wanted = np.broadcast_to(told[key], np.broadcast_shapes(np.shape(told[key]), np.shape(found[key])))
        np.testing.assert_allclose(found[key], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str) -> None:
    change, before, after = CASES[name]
    given = parse(HEAD + before)
    found = change(given)
    assert show(found, {}) == show(parse(HEAD + after), {})
    same(given, found, SIZES)


def test_the_second_of_two_steps() -> None:
    step = parse(HEAD + "%0 = mul(%h, %x)\n%1 = add(%0, %y)\nout h.next = %1\nout o = %0")
    first, second = unroll_steps(step, {H: "h.next"}, 2)
    assert first == step
    values = drawn({**first, **second}, SIZES)
    between = {**values, H: evaluate(first, values, SIZES)["h.next"]}
    for n in leaves(step.values(), "input"):
        between[n] = values[leaf("input", n.text("name"), n.names("shape"), -1)]
    for key, x in evaluate(step, between, SIZES).items():
        np.testing.assert_allclose(evaluate(second, values, SIZES)[key], x, rtol=1e-15)


def test_a_long_dim_in_pieces() -> None:
    """`sum[K](q * S)` with K = 300 is three sums; elements beyond the last are zeros, and nothing divides by them."""
    text = "spec long\ndim K, V\ninput q[K], v[V]\nstate S[K, V] = 0\nS = 0.5 * S[t-1] + q * v\noutput o = sum[K](q * S)\n"
    program = fix_dims(load(text), {"K": 300})
    block = lower(program, "chunkwise", 16)
    found = pieces(block, long_dims(block))
    assert {d for n in leaves(found.forward.values()) for d in n.dims} >= {"K~0", "K~1", "K~2"}
    sizes = {"B": 1, ROW: 16, "s": 16, "V": 2, "K": 300}
    values = drawn(block.forward, sizes)
    whole = {n.text("name"): (n.names("shape"), x) for n, x in values.items()}
    cut: dict[Node, np.ndarray] = {}
    for n in leaves(found.forward.values()):
        name, _, at = n.text("name").partition("~")
        axes, x = whole[name]
        if at:
            padded = np.pad(x, [(0, 84 if d == "K" else 0) for d in axes])
            x = np.take(padded, range(128 * int(at), 128 * int(at) + 128), axes.index("K"))
        cut[n] = x
    told = evaluate({"o": block.forward["o"]}, values, sizes)["o"]
    got = evaluate({"o": found.forward["o"]}, cut, {**sizes, **{f"K~{i}": 128 for i in range(3)}})["o"]
    np.testing.assert_allclose(got, told, rtol=1e-12)


QUICK = ("gla", "delta_rule", "lstm", "lru", "mamba", "rwkv6")


EVERY = [path.stem for path in sorted(SPECS.glob("*.seq"))]


@pytest.mark.parametrize("spec", [x if x in QUICK else pytest.param(x, marks=pytest.mark.long) for x in EVERY])
def test_a_block_keeps_its_values(spec: str) -> None:
    """Every lowering of a whole block, forward and backward: of blocks of torch and of steps, whose second step is another."""
    program = load(SPECS / f"{spec}.seq")
    sizes = {d: x.choices[0] if x.choices else 2 for d, x in program.dims.items()} | {BATCH: 2, ROW: 16, "s": 16}
    for block in (lower(program, machine=EAGER), lower(program, "step")):
        sizes |= {ROW: block.rows, "s": block.rows}
        for stage in LOWERINGS:
            found = stage.run(block)
            if isinstance(found, Block) and found.program is block.program:
                same(block.forward, found.forward, sizes)
                same(block.backward, found.backward, sizes)
