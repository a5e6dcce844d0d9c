"""The keys of noise from a seed, in numpy: what an emitted file's `_keys` gives.

In: a program, a seed, the number of sequences. Out: the initial states that hold the keys, by their names in a call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.analysis.noise import HIGH, LOW
from seqc.ir.both_ways import twin
from seqc.ir.ops.random import LARGEST, uniform
from seqc.ir.program import Program


def keys(program: Program, seed: Any, count: int, width: int = 0) -> dict[str, Any]:
    """NAME_0 -> [count], or [count, width] of two axes, the second of which has so many places. seed: a whole number below
    2^63, or one for each sequence; ValueError for another number of them."""
    given = np.asarray(seed, np.int64)
    if given.ndim and given.shape != (count,):
        raise ValueError(f"seed has shape {given.shape}; it is one number, or one for each of {count} sequences")
    row = np.zeros(count) if given.ndim else np.arange(count)
    parts = given & (LARGEST - 1), given >> 24 & (LARGEST - 1)
    found = {}
    for run, names in enumerate(((LOW, HIGH), (twin(LOW), twin(HIGH)))):
        words = [uniform(*parts, row, run, given >> 48 & 0xFFFF, word) * LARGEST for word in (0, 1)]
        if program.plane is not None:
            low, high = (x[:, None] for x in words)
            words = [uniform(low, high, np.arange(width), run, 0, word) * LARGEST for word in (0, 1)]
        for name, x in zip(names, words, strict=True):
            if name in program.states:
                found[f"{name}_0"] = x
    return found
