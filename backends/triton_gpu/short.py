"""Up to how many steps a sequence is taken step by step rather than in blocks, by the model that chose the tiles.

In: a choice of rows and tiles. Out: a number of steps. A block of `rows` rows costs the same however few of them lie in the
sequence; single steps cost little each, but each waits for its loads. In either no earlier turn hides them.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.schedule import STEPS_KERNEL
from seqc.backends.triton_gpu.tiles import Chosen, ChosenKernel
from seqc.targets import Target, target_named
from seqc.tiling.expression import evaluate
from seqc.tiling.kernel_model import KernelModel
from seqc.tiling.kernel_summary import Workload

__all__ = ["few_steps", "time"]


def few_steps(chosen: Chosen) -> int:
    """The most steps, of those that fit a block, for which single steps are modelled no slower than a block; at least one."""
    if STEPS_KERNEL not in chosen.kernels:
        return 1
    target = target_named(chosen.target)
    steps, block = chosen.kernels[STEPS_KERNEL], time(chosen.kernels["infer"], target, 1)
    return max([1, *(t for t in range(2, chosen.block.rows + 1) if time(steps, target, t) <= block)])


def time(kernel: ChosenKernel, target: Target, length: int) -> int:
    """Modelled nanoseconds of a kernel for short sequences, of the batch that tiles are chosen for."""
    model = KernelModel(kernel.summary, target, Workload(length=length))
    said, choice = kernel.verdict, kernel.choice
    made = said is not None and said.error is None
    spilled = model.spill_time(said, kernel.tiles.warps * target.warp) if said is not None and made else 0
    at = {**choice.tiles(kernel.name), "stages": 1, "resident": choice.own(kernel.name, "resident")}
    return int(evaluate(model.time(spilled)[0], at))
