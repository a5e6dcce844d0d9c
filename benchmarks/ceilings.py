"""What the machine can do, measured in the same run, and what a task needs at least.

The bound of a task is the larger of two times: its operations at the highest rate that is found (a large matrix product of
the BLAS that torch calls, one of oneDNN with packed weights, and a loop of nothing but multiply-adds in registers), and the
bytes of its arguments and results at the rate of a large copy or sum. Operations are those of the step graph as
`seqc.analysis.cost` counts them (a transcendental function is 4), one evaluation a step, whatever form a contender takes;
backward counts twice the forward. Bytes: each input read and each output written once; backward reads inputs and cotangents
and writes gradients. A task whose arrays fit the caches may run faster than the memory bound; one of transcendental
functions never comes near.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import torch

from benchmarks.contender import DECODE, TRAIN
from benchmarks.tasks import Task
from seqc.analysis.cost import cost
from seqc.backends.native_cpu import loader


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of float32 multiply-adds; bytes a second of a large copy or sum; operations a second by their way."""

    flops: float
    bytes: float
    ways: dict[str, float] = field(default_factory=dict)

    def above(self, other: Ceilings) -> Ceilings:
        """The higher of each: what was once reached can be reached."""
        ways = {k: max(ceilings.ways.get(k, 0.0) for ceilings in (self, other)) for k in {**self.ways, **other.ways}}
        return Ceilings(max(self.flops, other.flops), max(self.bytes, other.bytes), ways)

    def told(self) -> str:
        """The rates in words."""
        ways = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in self.ways.items())
        return f"{ways or f'multiply-adds {self.flops / 1e9:.0f}'} GFLOP/s (float32), memory {self.bytes / 1e9:.1f} GB/s"


# R sums of a vector each are in flight at once: more than the latency of a multiply-add times the units that do them.
LOOP = """
// seqc: multiply-adds, the most that this processor does.
#include <cstdint>
#if defined(__AVX512F__)
constexpr int W = 16, R = 24;
#elif defined(__AVX__)
constexpr int W = 8, R = 12;
#else
constexpr int W = 4, R = 12;
#endif
typedef float vec __attribute__((vector_size(4 * W)));
extern "C" double seqc_multiply_adds(std::int64_t rounds, std::int64_t threads, float a, float b) {
  double total = 0;
#pragma omp parallel for num_threads(int(threads)) reduction(+ : total)
  for (std::int64_t thread = 0; thread < threads; ++thread) {
    vec sums[R], x = a - vec{}, y = b - vec{};
    for (int r = 0; r < R; ++r) sums[r] = float(r) - vec{};
    for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) sums[r] = sums[r] * x + y;
    }
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < W; ++w) total += sums[r][w];
  }
  return total;
}
extern "C" int seqc_width() { return W * R; }
"""


def measure(size: int = 2048, elements: int = 1 << 26) -> Ceilings:
    """The best of several tries of each; three arrays of `elements` floats lie far beyond the caches."""
    a, b = torch.randn(2, size, size)
    c = torch.empty(size, size)
    ways = {"torch.mm": 2 * size**3 / best(lambda: torch.mm(a, b, out=c))}
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(b, size)
        with torch.inference_mode():
            product = lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")  # noqa: E731
            torch.testing.assert_close(product(), a @ b.T, rtol=0, atol=1e-2)  # sums of 2,048 products: roundoff 1e-4
            ways["oneDNN, packed weights"] = 2 * size**3 / best(product)
    if loader._native_compiler() is not None:
        ways["multiply-adds in registers"] = multiply_adds(20 * size)
    x, y, z = torch.ones(elements), torch.ones(elements), torch.ones(elements)
    copied = 8 * elements / best(lambda: z.copy_(x))
    added = 12 * elements / best(lambda: torch.add(x, y, out=z))
    return Ceilings(max(ways.values()), max(copied, added), ways)


def multiply_adds(rounds: int) -> float:
    """Operations a second of the loop, on torch's number of threads."""
    library, threads = loader._native_library(LOOP, {}), torch.get_num_threads()
    library.seqc_multiply_adds.argtypes = [ctypes.c_int64] * 2 + [ctypes.c_float] * 2
    library.seqc_multiply_adds.restype = ctypes.c_double
    seconds = best(lambda: library.seqc_multiply_adds(rounds, threads, 0.999, 0.5))
    return 2.0 * library.seqc_width() * rounds * threads / seconds


def best(call: Callable[[], object], tries: int = 7) -> float:
    """The shortest of some calls, in seconds."""
    times = []
    for _ in range(tries):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one part of a task."""

    flops: float
    bytes: float

    def bound(self, ceilings: Ceilings) -> float:
        """The least seconds that the machine needs."""
        return max(self.flops / ceilings.flops, self.bytes / ceilings.bytes)


def work(task: Task, part: str) -> Work:
    """The operations and bytes of a part; see the file's docstring."""
    steps = 1 if part == DECODE else task.sizes["T"]
    flops = steps * cost(task.program.graph.values(), dict(task.sizes)).flops
    share = steps / max(task.sizes["T"], 1)
    inputs = share * sum(4 * x.numel() for x in task.inputs.values())
    outputs = share * sum(4 * x.numel() for x in task.cotangents.values())
    params = sum(4 * x.numel() for x in task.params.values())
    states = sum(4 * x.numel() for x in task.zeros.values())
    if part == TRAIN:
        return Work(3 * flops, 3 * (inputs + params) + 2 * outputs)
    return Work(flops, inputs + outputs + params + 2 * states * (part == DECODE))
