"""Alternating runs: contenders take turns within one process, so that what slows the machine slows them alike.

In: calls by name. Out: seconds of each, one number a round. With some patience, rounds that other processes
disturbed are made again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import monotonic, perf_counter
from typing import Any

from seqc.check.quiet import ALLOWED, Others, wait

SAMPLE = 0.02  # seconds that one sample should take at least: a quick call is repeated


@dataclass(frozen=True)
class Race:
    """seconds per call, by name and round; others: the share of the cores that other processes had meanwhile."""

    seconds: dict[str, list[float]]
    others: float


def race(calls: Mapping[str, Callable[[], Any]], rounds: int, sample: float = SAMPLE, patience: float = 0.0) -> Race:
    """The quietest rounds. Every call is made once before the first; each round starts elsewhere.

    patience: seconds to wait for others and to repeat what they disturbed; without it every round counts. Objects that
    are there before the race are not looked at by the garbage collector until the race is over.
    """
    before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        return _quietest(calls, rounds, sample, patience)
    finally:
        if not before:
            gc.unfreeze()


def _quietest(calls: Mapping[str, Callable[[], Any]], rounds: int, sample: float, patience: float) -> Race:
    until = monotonic() + patience
    wait(until)
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, min(10_000, round(sample / max(seconds(call, 1), 1e-7))))
    order = list(calls)
    made: list[tuple[float, dict[str, float]]] = []
    quiet = 0
    while len(made) < rounds or (quiet < rounds and monotonic() < until):
        wait(until)
        others = Others()
        start = len(made) % len(order)
        taken = {name: seconds(calls[name], repeats[name]) for name in order[start:] + order[:start]}
        made.append((others.share(), taken))
        quiet += made[-1][0] <= ALLOWED
    kept = sorted(made, key=lambda each: each[0])[:rounds]
    times = {name: [taken[name] for _, taken in kept] for name in order}
    return Race(times, median(share for share, _ in kept))


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
