"""A process that runs the Triton kernels of closed loops in Triton's interpreter, against the float64 reference.

Out: a line for each spec: what is wrong with it, or nothing. A process of its own: the interpreter is chosen when Triton is
imported.
"""

from __future__ import annotations

from tests.triton import interpreter


def main() -> None:
    """Judge an AR process, a cell and a model of words."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from seqc.passes.plan.chosen_rows import chosen_rows
    from seqc.passes.plan.products_outside import split_parallel
    from tests.hard.loop_cases import AR, CELL, WORDS
    from tests.harness import compare, draw
    from tests.triton.interpret import functions

    for number, text in enumerate((AR, CELL, WORDS)):
        loop = load(text).loop
        assert loop is not None
        core = chosen_rows(split_parallel(loop.program).core)
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(lower(core)).text, Path(folder), f"loop_{number}")
        case = draw(core, 5)
        try:
            compare(case, made["_forward_triton"], made["_backward_triton"], 2e-5, torch.float32)
        except AssertionError as failure:
            print(f"{failure}".replace("\n", " "), flush=True)
        else:
            print(flush=True)


if __name__ == "__main__":
    main()
