"""Alternating runs: contenders take turns within one process, so that what slows the machine slows them alike.

In: calls by name. Out: seconds of each, one number a round; `ratio` and `quartiles` sum them up.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles
from time import perf_counter
from typing import Any

SAMPLE = 0.02  # seconds that one sample should take at least: a quick call is repeated


def race(calls: Mapping[str, Callable[[], Any]], rounds: int, sample: float = SAMPLE) -> dict[str, list[float]]:
    """Seconds per call, by name and round. Every call is made once before the first round; each round starts elsewhere."""
    repeats = {}
    for name, call in calls.items():
        call()
        taken = seconds(call, 1)
        repeats[name] = max(1, min(10_000, round(sample / max(taken, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for i in range(rounds):
        start = i % len(order)
        for name in order[start:] + order[:start]:
            times[name].append(seconds(calls[name], repeats[name]))
    return times


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Mean seconds of a call, with the garbage collector out of the way."""
    gc.collect()
    gc.disable()
    start = perf_counter()
    for _ in range(repeats):
        call()
    taken = perf_counter() - start
    gc.enable()
    return taken / repeats


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratio(times: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of time over base, round by round."""
    return quartiles([t / b for t, b in zip(times, base, strict=True)])
