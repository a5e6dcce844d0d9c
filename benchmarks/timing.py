"""Times of several rounds, summed up. In: seconds, one number a round. Out: quartiles, of times or of their ratios.

The benchmark on GPUs imports it too, which runs where seqc is not installed: it needs nothing but Python."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratio(times: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of time over base, round by round."""
    return quartiles([t / b for t, b in zip(times, base, strict=True)])
