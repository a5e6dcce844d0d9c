"""The row of `draw`, the one source of noise: a hash of counters that gives the same bits in every backend and dtype.

    draw(low, high, clock, element, site, word)  ->  a multiple of 2^-24 in [0, 1)

low, high: the key of the sequence, two words of 24 bits; clock: the step; element: the place in the value that is drawn; site:
which draw of the spec it is, 16 bits; word: 0 or 1, for two independent numbers. All are whole numbers below 2^24, so float32
holds them exactly; they are cut to integers before anything is computed. The hash is Threefry-2x32, 20 rounds (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), its key (low + 2^24 (site mod 256), high + 2^24 (site / 256)), its
counter (clock, element). The upper 24 bits of a word of the result are the fraction. The derivative is exactly zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.ir.intervals import Interval
from seqc.ir.ops.row import Op

PARITY = 0x1BD11BDA
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
LARGEST = 1 << 24
"""What counters and words of keys stay below: the whole numbers that float32 tells apart."""


def threefry(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Threefry-2x32-20 of arrays of uint32."""
    k0, k1 = key
    ks = (k0, k1, k0 ^ k1 ^ np.uint32(PARITY))
    x0, x1 = counter[0] + k0, counter[1] + k1
    for group in range(5):
        for by in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(by)) | (x1 >> np.uint32(32 - by))
            x1 = x1 ^ x0
        x0 = x0 + ks[(group + 1) % 3]
        x1 = x1 + ks[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def _whole(x: Any) -> Any:
    return np.trunc(np.asarray(x, np.float64)).astype(np.int64).astype(np.uint32)


def uniform(low: Any, high: Any, clock: Any, element: Any, site: Any, word: Any) -> Any:
    """The reference of `draw`."""
    low, high, clock, element, site = np.broadcast_arrays(*map(_whole, (low, high, clock, element, site)))
    key = low ^ ((site & np.uint32(255)) << np.uint32(24)), high ^ ((site >> np.uint32(8)) << np.uint32(24))
    first, second = threefry(key, (clock, element))
    return (np.where(np.asarray(word) == 0, first, second) >> np.uint32(8)).astype(np.float64) * 2.0**-24


_CALL = "({0}, {1}, {2}, {3}, {4}, {5})"
ROWS: tuple[Op, ...] = (
    Op("draw", 6, uniform, (None,) * 6, interval=lambda n, a: Interval(0.0, 1.0 - 2.0**-24), elementwise=True,
       spell={"torch": f"_draw{_CALL}", "triton": f"seqc_draw{_CALL}", "cpp": f"seqc_draw{_CALL}"},
       safe="whole numbers only: the same bits everywhere"),
)
