"""How busy other processes keep the cores, so that a disturbed round can be told from a quiet one. Out: a share of 0 to 1.

From the kernel's own count of busy time, where there is one (Linux); elsewhere it is taken to be 0.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
ALLOWED = 0.1  # the share of all cores that others may take in a quiet round
TICKS = 2  # of the kernel's clock: what its count may be off by


class Others:
    """A stopwatch of other processes' work: `share()` is what they took of all cores since it was made."""

    def __init__(self) -> None:
        self.start = counts()

    def share(self) -> float:
        """The share; a few ticks of the clock are forgiven."""
        busy, total, own = (now - then for now, then in zip(counts(), self.start, strict=True))
        return max(0.0, busy - own - TICKS) / max(total, 1.0)


def counts() -> tuple[float, float, float]:
    """(busy, all, own) time of all cores in ticks, up to now."""
    if not STAT.exists():
        return 0.0, 0.0, 0.0
    ticks = [float(word) for word in STAT.read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    own = os.times()
    return sum(ticks) - idle, sum(ticks), (own.user + own.system) * os.sysconf("SC_CLK_TCK")


def wait(until: float) -> None:
    """Sleep while others keep the cores busy, but not beyond the time `until` (of time.monotonic)."""
    while time.monotonic() < until:
        others = Others()
        time.sleep(0.5)
        if others.share() <= ALLOWED:
            return
        time.sleep(1.0)
