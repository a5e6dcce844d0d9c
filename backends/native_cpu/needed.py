"""What kernels need of the C++ that is the same for all. In: the names that they mention. Out: the parts of it, and their text.

A part is there where a kernel mentions a name that it gives, or where another part needs it. What includes headers, and what
other languages call, is always there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from seqc.backends.native_cpu.active import ACTIVE
from seqc.backends.native_cpu.copies import COPIES
from seqc.backends.native_cpu.parts import PARTS, Part
from seqc.backends.native_cpu.runtime import RUNTIME
from seqc.backends.native_cpu.sparse_runtime import SPARSE
from seqc.backends.native_cpu.vector_math import MATH

KERNELS = """
// Pages of two megabytes, where the system grants them, for the part of an array that fills such pages.
extern "C" void seqc_large_pages(void* array, i64 bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(array), end = begin + std::uintptr_t(bytes);
  const std::uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: it may be refused
#endif
}

// The kernels of this library: FORWARD, BACKWARD, STEP (one step, with its function for Python) or ALL.
#define FORWARD 1
#define BACKWARD 2
#define STEP 4
#define ALL 7
#ifndef SEQC_KERNELS
#define SEQC_KERNELS ALL
#endif
"""
ALL: tuple[Part, ...] = (*PARTS, *MATH, *COPIES, SPARSE, ACTIVE)  # each behind those that it needs
GIVEN = {name: part for part in ALL for name in part.gives.split()}


def needed(names: Iterable[str]) -> tuple[str, ...]:
    """The texts of the parts that give these names, and of those that these parts need."""
    kept, waiting = set[Part](), [*names]
    while waiting:
        part = GIVEN.get(waiting.pop())
        if part and part not in kept:
            kept.add(part)
            waiting += part.needs.split()
    return tuple(part.text for part in ALL if part in kept)


def runtime_of(texts: Collection[str]) -> str:
    """The runtime with these parts."""
    return f"{RUNTIME.strip()}\n{''.join(part.text for part in ALL if part.text in texts)}}}  // namespace\n{KERNELS}"
