"""Complex arithmetic on pairs of real nodes (real part, imaginary part).

In: pairs. Out: pairs; the imaginary part ZERO stands for a real number, and terms that are ZERO never reach the graph. A
row of RULES is an operator that complex values have; for every other one the caller must refuse. Nothing here knows names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from seqc.ir.graph import Node, const, constant, node

Pair: TypeAlias = tuple[Node, Node]
ZERO, ONE = const(0.0), const(1.0)


def plus(a: Node, b: Node) -> Node:
    """a + b"""
    return b if a is ZERO else a if b is ZERO else node("add", a, b)


def minus(a: Node, b: Node) -> Node:
    """a - b"""
    return a if b is ZERO else opposite(b) if a is ZERO else node("sub", a, b)


def opposite(a: Node) -> Node:
    """-a"""
    return ZERO if a is ZERO else const(-constant(a)) if a.op == "const" else node("neg", a)


def times(a: Node, b: Node) -> Node:
    """a * b"""
    if a is ZERO or b is ZERO:
        return ZERO
    if a.op == "const" and b.op == "const":
        return const(constant(a) * constant(b))
    return b if a is ONE else a if b is ONE else node("mul", a, b)


def over(a: Node, b: Node) -> Node:
    """a / b"""
    return ZERO if a is ZERO else a if b is ONE else node("div", a, b)


def add(a: Pair, b: Pair) -> Pair:
    """a + b"""
    return plus(a[0], b[0]), plus(a[1], b[1])


def sub(a: Pair, b: Pair) -> Pair:
    """a - b"""
    return minus(a[0], b[0]), minus(a[1], b[1])


def mul(a: Pair, b: Pair) -> Pair:
    """a * b"""
    return minus(times(a[0], b[0]), times(a[1], b[1])), plus(times(a[0], b[1]), times(a[1], b[0]))


def div(a: Pair, b: Pair) -> Pair:
    """a / b: a times the conjugate of b, over the square of |b|."""
    if b[1] is ZERO:
        return over(a[0], b[0]), over(a[1], b[0])
    square = plus(times(b[0], b[0]), times(b[1], b[1]))
    top = mul(a, conj(b))
    return over(top[0], square), over(top[1], square)


def neg(a: Pair) -> Pair:
    """-a"""
    return opposite(a[0]), opposite(a[1])


def conj(a: Pair) -> Pair:
    """The conjugate."""
    return a[0], opposite(a[1])


def exp(a: Pair) -> Pair:
    """e^x (cos y + i sin y)"""
    size = ONE if a[0] is ZERO else node("exp", a[0])
    return times(size, node("cos", a[1])), times(size, node("sin", a[1]))


def expm1(a: Pair) -> Pair:
    """e^(x + iy) - 1, without cancellation near 0: (e^x - 1) cos y - 2 sin(y/2)^2."""
    half = node("sin", times(const(0.5), a[1]))
    grown = ZERO if a[0] is ZERO else times(node("expm1", a[0]), node("cos", a[1]))
    return minus(grown, times(const(2.0), times(half, half))), exp(a)[1]


def magnitude(a: Pair) -> Pair:
    """|a|, with derivative 0 (not 0/0) at zero."""
    square = plus(times(a[0], a[0]), times(a[1], a[1]))
    there = node("gt", square, ZERO)
    return node("where", there, node("sqrt", node("where", there, square, ONE)), ZERO), ZERO


def where(test: Pair, a: Pair, b: Pair) -> Pair:
    """a where the test holds, else b."""
    imag = ZERO if a[1] is ZERO and b[1] is ZERO else node("where", test[0], a[1], b[1])
    return node("where", test[0], a[0], b[0]), imag


def stopgrad(a: Pair) -> Pair:
    """a, with derivative 0."""
    return node("stopgrad", a[0]), a[1] if a[1] is ZERO else node("stopgrad", a[1])


RULES: dict[str, Callable[..., Pair]] = {
    "add": add, "sub": sub, "mul": mul, "div": div, "neg": neg, "exp": exp, "expm1": expm1, "abs": magnitude,
    "where": where, "stopgrad": stopgrad,
}
