"""What the machine can do, measured in the same run, and what a task needs at least.

The bound of a task is the larger of two times: its operations at the rate of a large matrix product, and the bytes of its
arguments and results at the rate of a large copy or sum. Operations are those of the step graph as `seqc.analysis.cost` counts
them (a transcendental function is 4), one evaluation a step, whatever form a contender takes; backward counts twice the
forward. Bytes: each input read and each output written once; backward reads inputs and cotangents and writes gradients.
A task whose arrays fit the caches may run faster than the memory bound; one of transcendental functions never comes near.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from benchmarks.contender import DECODE, TRAIN
from benchmarks.tasks import Task
from seqc.analysis.cost import cost


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of a large float32 matrix product; bytes a second of a large copy or sum."""

    flops: float
    bytes: float

    def above(self, other: Ceilings) -> Ceilings:
        """The higher of each: what was once reached can be reached."""
        return Ceilings(max(self.flops, other.flops), max(self.bytes, other.bytes))


def measure(size: int = 2048, elements: int = 1 << 26) -> Ceilings:
    """The best of several tries of each; three arrays of `elements` floats lie far beyond the caches."""
    a, b = torch.randn(2, size, size)
    c = torch.empty(size, size)
    flops = 2 * size**3 / best(lambda: torch.mm(a, b, out=c))
    x, y, z = torch.ones(elements), torch.ones(elements), torch.ones(elements)
    copied = 8 * elements / best(lambda: z.copy_(x))
    added = 12 * elements / best(lambda: torch.add(x, y, out=z))
    return Ceilings(flops, max(copied, added))


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
