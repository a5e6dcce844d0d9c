"""The judge's own noise: numbers from a hash of the sequence's key, the step, the draw and the place.

Written from `docs/decisions/noise.md` and from J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), in
which Threefry is Threefish with a simple key schedule: additions, rotations and exclusive ors of 32-bit words, here in int64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = (1 << 32) - 1
ONCE = 1 << 24  # the step of what is drawn once a sequence


def threefry(key: Sequence[Tensor], counter: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 of 20 rounds: two words of 32 bits for two words of a counter under two words of a key."""
    schedule = [key[0], key[1], torch.bitwise_xor(torch.bitwise_xor(key[0], key[1]), torch.tensor(0x1BD11BDA))]
    left, right = (counter[0] + schedule[0]) & WORD, (counter[1] + schedule[1]) & WORD
    for round_ in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[round_ % 8]
        left = (left + right) & WORD
        right = torch.bitwise_xor(((right << turn) | (right >> (32 - turn))) & WORD, left)
        if round_ % 4 == 3:
            injected = round_ // 4 + 1
            left = (left + schedule[injected % 3]) & WORD
            right = (right + schedule[(injected + 1) % 3] + injected) & WORD
    return left, right


def fractions(low: Tensor, high: Tensor, step: Tensor, place: Tensor, site: Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers in [0, 1) of a draw, multiples of 2^-24, of whole numbers below 2^24 that broadcast."""
    low, high, step, place, site = torch.broadcast_tensors(*(x.long() for x in (low, high, step, place, site)))
    words = threefry((low | ((site & 255) << 24), high | ((site >> 8) << 24)), (step, place))
    first, second = ((word >> 8).double() / (1 << 24) for word in words)
    return first, second


def normal(first: Tensor, second: Tensor) -> Tensor:
    """Box and Muller's: a length from one fraction, an angle from the other."""
    return torch.sqrt(-2 * torch.log(1 - first)) * torch.cos(2 * math.pi * second)


def keys(seed: Tensor, count: int, back: bool) -> tuple[Tensor, Tensor]:
    """(low, high), [count], of a call with a seed, or with one for each sequence. back: of the second run of `scan both`."""
    row = torch.zeros(count) if seed.ndim else torch.arange(count)
    parts = (seed >> by for by in (0, 24))
    first, second = fractions(*(x & (ONCE - 1) for x in parts), row, torch.tensor(int(back)), (seed >> 48) & 0xFFFF)
    return first * ONCE, second * ONCE


__all__ = ["ONCE", "fractions", "keys", "normal", "threefry"]
