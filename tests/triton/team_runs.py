"""The process that runs kernels whose programs wait for each other, in orders that are drawn. Fails by an exception.

Every order of the programs gives the same bits, forward and backward. Without one of the programs the others wait for ever:
that is what the launcher must never let happen, and it is seen here. Each launch has no more programs than run at once.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.triton import interpreter, lockstep

SIZES = {"H": 3, "D": 35}  # teams of three programs, two pieces
ORDERS = 3


def main(path: str) -> None:
    """Run one spec."""
    interpreter.choose()
    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from tests.harness import draw, tensors
    from tests.triton.interpret import functions

    torch.set_num_threads(1)
    program = load(Path(path))
    drawn = draw(program, 4, SIZES)
    given = [x.contiguous() for x in tensors(drawn, torch.float32)]
    with tempfile.TemporaryDirectory() as folder:
        made = functions(triton_kernels(lower(program, "step", None)).alone, Path(folder), "team")
        space: dict[str, Any] = made["_pad"].__globals__
        lockstep.in_pieces(space)
        found = []
        for seed in range(ORDERS):
            launches = lockstep.choose(seed)
            space["_machine"] = lambda device, units=seed + 3: (units, 1 << 20, 32768)  # one program each
            forward = made["_forward_triton"](*given)
            outputs = len(program.outputs) + len(program.states)
            ends = [torch.ones_like(x) for x in forward[:outputs]]
            backward = made["_backward_triton"](*given, *forward[outputs:], *ends)
            found.append([*forward, *backward])
            assert launches and all(programs % 3 == 0 and programs <= seed + 3 for programs in launches), launches
        for others in found[1:]:
            assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True)), "the order of programs shows"
        lockstep.choose(0, absent=1)
        try:
            made["_infer_triton"](*given)
        except lockstep.Stuck:
            return
        raise AssertionError("programs went on without one of their team")


if __name__ == "__main__":
    main(*sys.argv[1:])
