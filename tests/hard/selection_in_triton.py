"""A process that judges emitted Triton kernels, in Triton's interpreter, where specs drop what is not finite.

In: KIND:NAME:FORM, several. Out: a line each, what is wrong with it, or nothing. A process of its own: the interpreter is
chosen when Triton is imported.
"""

from __future__ import annotations

import sys

from tests.triton import interpreter


def main() -> None:
    """Judge every case."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from tests.hard.selection_cases import MASKED, RESET, ROWS, judged, load
    from tests.triton.interpret import functions

    for number, word in enumerate(sys.argv[1:]):
        kind, name, form = word.split(":")
        program = load(MASKED if kind == "mask" else RESET, name)[0]
        block = lower(program, form, None if form == "step" else ROWS)
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(block).alone, Path(folder), f"case_{number}")
            both = made["_forward_triton"], made["_backward_triton"]
            print(judged(kind, name, both, torch.float32, 2e-5), flush=True)


if __name__ == "__main__":
    main()
