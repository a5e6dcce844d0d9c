"""Exact arithmetic: the laws of its numbers, and that it tells right blocks and gradients from wrong ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqc.check.proof import Fact, prove
from seqc.check.sampling import sample_sizes
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.block import Block
from seqc.ir.graph import Node, const, node, substitute, topological
from seqc.passes.blocks.choose import EAGER
from seqc.semantics import exact

ROOT = Path(__file__).parents[2]
GATED = """spec gated
dim K, V
input q[K], k[K] unit[K], v[V], b in [0, 1], f[K], n in [-inf, 0]
param rate
state S[K, V] = 0
S = sigmoid(f) * exp(n - exp(rate)) * S[t-1] + b * k * v
output o = sum[K](q * S) / (1 + exp(-sum[K](k * f)))
"""
DELTA = """spec delta
dim K, V
input q[K], k[K] unit[K], v[V], b in [0, 1], a in [-1, 1]
state S[K, V] = 0
S = a * S[t-1] + b * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S)
"""
SCANS = """spec scans
dim D
input x[D], a[D], m in [0, 1]
param turn[D]
state h[D] = 0, z[D] complex = 0, top[D] = -inf
h = where(m > 0.5, tanh(a) * h[t-1] + x, h[t-1])
z = exp(-softplus(a) + 1i * turn) * z[t-1] + x[t-1]
top = max(top[t-1] - m, x)
output o = h[t-1] + re(z) * exp(top)
"""

SYSTEM = (ROOT / "specs" / "mesa_net.seq").read_text(encoding="utf-8")
TABLE = """spec read
dim V, D
input w index V
param E[V, D], a[D] in [0, 1]
state h[D] = 0
h = a * h[t-1] + E[w]
output h
"""


def facts(text: str, change: dict[str, Block] | None = None, rows: int = 16) -> list[Fact]:
    """What is shown of the form that is chosen for plain torch."""
    program = load(text)
    sizes = {name: size for name, size in sample_sizes(program).items() if name in program.dims}
    return list(prove(program, lower(program, None, rows, EAGER), sizes, 1))


def test_numbers_keep_the_laws_of_functions() -> None:
    rng = np.random.default_rng(0)
    a, b = exact.drawn(rng, (200,)), exact.drawn(rng, (200,))
    one, half = exact.constant(1.0), exact.constant(0.5)
    pairs = [
        (exact.exp(exact.add(a, b)), exact.multiply(exact.exp(a), exact.exp(b))),
        (exact.exp(exact.exp(exact.add(a, b))), exact.exp(exact.multiply(exact.exp(a), exact.exp(b)))),
        (exact.exp(exact.subtract(exact.log(a), exact.log(b))), exact.divide(a, b)),
        (exact.subtract(one, exact.sigmoid(a)), exact.sigmoid(exact.negative(a))),
        (exact.exp(exact.multiply(half, exact.log(exact.multiply(a, a)))), exact.sqrt(exact.multiply(a, a))),
        (exact.exp(exact.constant(math.log(0.9))), exact.constant(0.9)),
        (exact.multiply(exact.constant(0.1), exact.constant(0.3)), exact.constant(0.1 * 0.3)),
    ]
    (cos_a, sin_a), (cos_b, sin_b), (cos, sin) = (exact.cos_sin(x) for x in (a, b, exact.add(a, b)))
    pairs.append((cos, exact.subtract(exact.multiply(cos_a, cos_b), exact.multiply(sin_a, sin_b))))
    pairs.append((sin, exact.add(exact.multiply(cos_a, sin_b), exact.multiply(sin_a, cos_b))))
    assert all(exact.same(left, right).all() for left, right in pairs)
    assert not exact.same(exact.exp(exact.multiply(a, b)), exact.multiply(exact.exp(a), exact.exp(b))).any()


@pytest.mark.parametrize("text", [GATED, DELTA, SCANS, SYSTEM, TABLE], ids=["chunk", "solved", "scans", "system", "table"])
def test_blocks_are_steps(text: str) -> None:
    found = facts(text)
    assert len(found) == 5 and all(f.ok and f.of for f in found), found


@pytest.mark.parametrize("text", [GATED, SCANS], ids=["chunk", "scans"])
def test_what_is_wrong_is_told(text: str) -> None:
    program = load(text)
    sizes = {name: size for name, size in sample_sizes(program).items() if name in program.dims}
    block = lower(program, rows=16)

    def spoilt(graph: dict[str, Node], op: str) -> dict[str, Node]:
        found = [n for n in topological(graph.values()) if n.op == op]
        return substitute(graph, {found[len(found) // 2]: node("add", found[len(found) // 2], const(1.0))})

    forward = replace(block, forward=spoilt(dict(block.forward), "mul"))
    whole, part = list(prove(program, forward, sizes, 1))[1:3]
    assert not whole.ok and not part.ok and whole.wrong
    backward = replace(block, backward=spoilt(dict(block.backward), "mul"))
    *_, derivative, simplified = prove(program, backward, sizes, 1)
    assert not derivative.ok and not simplified.ok
    masked = replace(block, forward=substitute(dict(block.forward), {
        n: node("ge", node("index", dim="t"), const(0.0)) for n in topological(block.forward.values())
        if n.op == "leaf" and n.text("kind") == "mask"}))
    _, whole, part, *_ = prove(program, masked, sizes, 1)
    assert whole.ok and not part.ok, "rows after the end of a sequence count for nothing"
