"""A process that runs the Triton kernels of closed loops in Triton's interpreter, against the float64 reference.

Out: a line for each spec: what is wrong with it, or nothing. A process of its own: the interpreter is chosen when Triton is
imported.
"""

from __future__ import annotations

from tests.triton import interpreter


def main() -> None:
    """Judge an AR process and a cell."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from tests.hard.loop_cases import AR, CELL
    from tests.harness import compare, draw
    from tests.triton.interpret import functions

    for number, text in enumerate((AR, CELL)):
        loop = load(text).loop
        assert loop is not None
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(lower(loop.program)).text, Path(folder), f"loop_{number}")
        case = draw(loop.program, 5)
        try:
            compare(case, made["_forward_triton"], made["_backward_triton"], 2e-5, torch.float32)
        except AssertionError as failure:
            print(f"{failure}".replace("\n", " "), flush=True)
        else:
            print(flush=True)


if __name__ == "__main__":
    main()
