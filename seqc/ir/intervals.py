"""Closed real intervals: what a value can be. In: bounds. Out: bounds that are never too narrow (in exact arithmetic).

Infinite bounds are legal. `0 * inf` counts as 0 in a product of bounds: a bound is a limit, and the limit of a value that
is exactly zero times anything finite is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

INF = math.inf


@dataclass(frozen=True)
class Interval:
    """All reals x with lo <= x <= hi."""

    lo: float = -INF
    hi: float = INF

    def __post_init__(self) -> None:
        assert self.lo <= self.hi, (self.lo, self.hi)

    def __add__(self, other: Interval) -> Interval:
        return Interval(_sum(self.lo, other.lo, -INF), _sum(self.hi, other.hi, INF))

    def __neg__(self) -> Interval:
        return Interval(-self.hi, -self.lo)

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        corners = [magnitude(a, b) for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(min(corners), max(corners))

    def inverse(self) -> Interval:
        """1 / x; the whole line where x may be 0 inside."""
        if self.lo > 0 or self.hi < 0:
            return Interval(_inverse(self.hi), _inverse(self.lo))
        if self.lo == 0 and self.hi > 0:
            return Interval(_inverse(self.hi), INF)
        if self.hi == 0 and self.lo < 0:
            return Interval(-INF, _inverse(self.lo))
        return ANY

    def union(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.lo, other.lo), max(self.hi, other.hi))

    def meet(self, other: Interval) -> Interval:
        """What both allow; `self` if they are disjoint (a claim about nothing)."""
        lo, hi = max(self.lo, other.lo), min(self.hi, other.hi)
        return Interval(lo, hi) if lo <= hi else self

    def inside(self, other: Interval) -> bool:
        """Every value of self is one of other."""
        return other.lo <= self.lo and self.hi <= other.hi

    def map(self, f: Callable[[float], float], increasing: bool = True) -> Interval:
        """The image under a monotone function."""
        lo, hi = f(self.lo), f(self.hi)
        return Interval(lo, hi) if increasing else Interval(hi, lo)

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.lo), abs(self.hi))

    def __str__(self) -> str:
        return f"[{_short(self.lo)}, {_short(self.hi)}]"


ANY = Interval()
UNIT = Interval(0.0, 1.0)
SIGNED_UNIT = Interval(-1.0, 1.0)
POSITIVE = Interval(0.0, INF)


def _sum(a: float, b: float, if_opposite: float) -> float:
    return if_opposite if math.isinf(a) and math.isinf(b) and a != b else a + b


def magnitude(a: float, b: float) -> float:
    """The product of two bounds; zero wins over infinity."""
    return 0.0 if a == 0 or b == 0 else a * b


def _inverse(x: float) -> float:
    return 0.0 if math.isinf(x) else 1.0 / x


def _short(x: float) -> str:
    return f"{x + 0.0:g}"  # -0 is written as 0
