"""One way to do a task, whoever wrote it. What is timed is a call without arguments; what it gives is compared first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Results = Mapping[str, Any]
Call = Callable[[], Results]

FORWARD, TRAIN, DECODE = "forward", "forward+backward", "decode"
PARTS = (FORWARD, TRAIN, DECODE)


@dataclass(frozen=True)
class Contender:
    """A name and its calls by part; every call waits until its results are there.

    "forward": outputs by name. "forward+backward": gradients of inputs and parameters by name. "decode": outputs of one
    step from zero states. A part that a contender cannot do is missing.
    """

    name: str
    calls: Mapping[str, Call]


@dataclass(frozen=True)
class Absent:
    """A contender that does not run here, and why."""

    name: str
    reason: str


def numbers(results: Results) -> dict[str, np.ndarray]:
    """Tensors or arrays of any library as float64 numpy arrays."""
    return {k: np.asarray(x.detach() if hasattr(x, "detach") else x, dtype=np.float64) for k, x in results.items()}


def error(got: Results, want: Mapping[str, np.ndarray]) -> float:
    """Largest difference over the largest element, of the worst tensor; infinite where one is missing or misshapen."""
    found, worst = numbers(got), 0.0
    for name, x in want.items():
        if name not in found or found[name].shape != x.shape:
            return float("inf")
        difference = np.abs(found[name] - x).max(initial=0.0) / max(np.abs(x).max(initial=0.0), 1e-30)
        worst = max(worst, float("inf") if np.isnan(difference) else float(difference))
    return worst
