"""Two linear states -> the rotation and the scale with which each step turns them, where that is what their transition is.

    x' = m (cos(a) x - sin(a) y) + ..,    y' = m (sin(a) x + cos(a) y) + ..        a complex state x + i y times m e^(i a)

In: the affine forms of two states. Out: `Rotation`, or None. Criterion: each state enters each update by one elementwise
product; the products agree but for one factor, which is a cosine in two of them and the sine of the same in the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seqc.analysis.affine import Affine, product
from seqc.analysis.normal_forms import factors
from seqc.ir.graph import Node, combined, const


@dataclass(frozen=True)
class Rotation:
    """scale: sign and factors whose product is m; angle: a."""

    sign: float
    scale: tuple[Node, ...]
    angle: Node

    @property
    def modulus(self) -> Node:
        """|m|, where its factors are not negative."""
        return product(self.scale)


def rotation(states: Sequence[str], leaves: Sequence[Node], forms: Mapping[str, Affine]) -> Rotation | None:
    """The rotation of two states (names, their leaves, their forms), or None."""
    if len(states) != 2:
        return None
    parts = []
    for name in states:
        for leaf in leaves:
            terms = [t for t in forms[name].terms if t.state is leaf]
            if len(terms) != 1 or terms[0].over:
                return None
            parts.append(factors(combined("mul", (const(1.0), *terms[0].outer))))  # what is chosen is a factor too
    (c1, same), (c3, cross), (c4, cross2), (c2, same2) = parts
    repeated = len(set(same)) < len(same) or len(set(cross)) < len(cross)
    if repeated or c1 != c2 or c3 != -c4 or abs(c1) != abs(c3) or set(same) != set(same2) or set(cross) != set(cross2):
        return None
    common = tuple(f for f in same if f in cross)
    p, q = ([f for f in side if f not in common] for side in (same, cross))
    if len(p) != 1 or len(q) != 1 or {p[0].op, q[0].op} != {"cos", "sin"} or p[0].args != q[0].args:
        return None
    angle = p[0].args[0] if p[0].op == "cos" else const(math.pi / 2) - p[0].args[0]
    sized = common if abs(c1) == 1.0 else (const(abs(c1)), *common)
    return Rotation(math.copysign(1.0, c1), sized, angle if c3 == -c1 else -angle)
