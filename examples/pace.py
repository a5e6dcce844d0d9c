"""How much time is left, and whether the person wants to stop. In: seconds in all. Out: answers.

Ctrl-C does not end what `stoppable` wraps with a loss: it ends that part, and what was reached until then is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from examples import STARTED


class Pace:
    """A budget of seconds, counted from the start of the process."""

    def __init__(self, seconds: float, started: float = STARTED) -> None:
        self.seconds, self.started, self.interrupted = seconds, started, False

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self.started

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is spent; 0 once the person has asked to stop."""
        return 0.0 if self.interrupted else share * self.seconds - self.spent

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """A part that Ctrl-C ends, and the program goes on to what it can still tell."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True


def busy() -> bool:
    """Whether other processes want all cores already."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def load() -> str:
    """The load of the machine in words, to be printed beside times."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    running, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"load {running:.1f} on {cores} cores" + (", so that times are too long" if running > cores + 0.5 else "")
