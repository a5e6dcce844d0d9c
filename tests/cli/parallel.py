"""Emitted files of specs with products before and after the recurrence: their parts against the float64 reference.

Run as a process, for Triton's interpreter is chosen when Triton is first imported: `python -m tests.cli.parallel NAME...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seqc.driver.compile import Compiled, Options, compile_spec
from tests.triton import interpreter

ROOT = Path(__file__).parents[2]
FOLDERS = {
    **dict.fromkeys(("layer", "mixer"), "tests/recurrences"),
    **dict.fromkeys(("lru", "qrnn"), "specs"),
    **dict.fromkeys(("pvrnn_layer", "rwkv7_time_mix"), "tests/peers/specs"),
}
TRITON_TOLERANCE = 1e-4  # fp32 roundoff, times two blocks of a few roundings a step, through products and gates


def compiled(name: str, backend: str) -> Compiled:
    """The file as the compiler makes it."""
    return compile_spec(ROOT / FOLDERS[name] / f"{name}.seq", Options(backend))


def run_triton(name: str) -> None:
    """Compare the Triton part, whose kernels run in the interpreter."""
    import torch

    from seqc.driver.load_emitted import load_emitted
    from tests.harness import compare, draw

    made = compiled(name, "triton")
    module = load_emitted(made.text, name)
    module._load_triton()
    for steps in (1, made.blocks["triton"].rows + 2):
        drawn = draw(made.program, steps, {"D": 6, "M": 5})
        compare(drawn, module._forward_triton, module._backward_triton, TRITON_TOLERANCE, torch.float32)


if __name__ == "__main__":
    interpreter.choose()
    for name in sys.argv[1:]:
        run_triton(name)
