"""Interval arithmetic: bounds are never too narrow, and infinite ends behave as limits."""

import math
import operator

import numpy as np
import pytest

from seqc.ir.intervals import ANY, INF, Interval

SOME = [Interval(-2.0, 3.0), Interval(0.0, 1.0), Interval(-INF, 0.0), Interval(0.5, INF), Interval(-4.0, -1.0), ANY,
        Interval(0.0, 0.0)]


def points(i: Interval) -> np.ndarray:
    low, high = max(i.lo, -40.0), min(i.hi, 40.0)
    return np.concatenate([[low, high], np.random.default_rng(0).uniform(low, high, 20)])


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul])
def test_arithmetic_holds_every_pair(op) -> None:
    for a in SOME:
        for b in SOME:
            got = op(points(a)[:, None], points(b)[None, :])
            found = op(a, b)
            assert found.lo <= got.min() and got.max() <= found.hi


def test_inverse() -> None:
    assert Interval(2.0, 4.0).inverse() == Interval(0.25, 0.5)
    assert Interval(0.0, 4.0).inverse() == Interval(0.25, INF)
    assert Interval(-4.0, 0.0).inverse() == Interval(-INF, -0.25)
    assert Interval(-1.0, 1.0).inverse() == ANY
    assert Interval(1.0, INF).inverse() == Interval(0.0, 1.0)


def test_zero_times_infinity_is_the_limit() -> None:
    assert Interval(0.0, 0.0) * ANY == Interval(0.0, 0.0)
    assert Interval(0.0, 1.0) * Interval(0.0, INF) == Interval(0.0, INF)
    assert Interval(-INF, 0.0) + Interval(0.0, INF) == ANY


def test_union_meet_inside_magnitude() -> None:
    a, b = Interval(-1.0, 2.0), Interval(1.0, 5.0)
    assert a.union(b) == Interval(-1.0, 5.0)
    assert a.meet(b) == Interval(1.0, 2.0)
    assert a.meet(Interval(7.0, 8.0)) == a  # nothing in common: a false promise proves nothing
    assert Interval(0.0, 1.0).inside(a) and not b.inside(a)
    assert Interval(-3.0, 2.0).magnitude == 3.0
    assert Interval(0.0, 1.0).map(math.exp) == Interval(1.0, math.e)
    assert Interval(0.0, 1.0).map(lambda x: -x, increasing=False) == Interval(-1.0, -0.0)
    assert str(Interval(-INF, 0.5)) == "[-inf, 0.5]"
