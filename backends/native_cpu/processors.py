"""The kinds of CPU that native code is tiled for: vectors and caches, as a table.

Comes in: nothing. Goes out: `PROCESSORS`. Nothing here asks the machine at hand: emitted C++ holds the whole table, and
which kind it is built for is known when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """One kind of CPU. vector: bytes of a vector register; registers: how many there are; l1: bytes of a core's
    first-level data cache, where the build does not know better; macro: what compilers define for it, "" for any other."""

    name: str
    macro: str
    vector: int
    registers: int
    l1: int


# Registers: the instruction sets' manuals. Caches: the least of the usual server and desktop cores of each kind (Intel Skylake
# and AMD Zen: 32 KiB; Arm Neoverse N1, N2, V1 and V2, Apple M: 64 KiB and more).
PROCESSORS = (
    Processor("x86-64-v4 (AVX-512)", "__AVX512F__", 64, 32, 32 * 1024),
    Processor("x86-64-v3 (AVX2)", "__AVX__", 32, 16, 32 * 1024),
    Processor("arm64", "__aarch64__", 16, 32, 64 * 1024),
    Processor("any other", "", 16, 16, 32 * 1024),
)
