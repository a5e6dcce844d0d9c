"""A process that runs Triton kernels which draw noise in Triton's interpreter, against the float64 reference.

Out: a line for each form: what is wrong with it, or nothing. A process of its own: the interpreter is chosen when Triton is
imported.
"""

from __future__ import annotations

from tests.triton import interpreter


def main() -> None:
    """Judge every form, over a whole sequence and over a pack."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from tests.hard.noise_cases import FORMS
    from tests.harness import compare, draw
    from tests.triton.interpret import functions

    for form, (text, rows) in FORMS.items():
        program = load(text)
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(lower(program, form, rows)).alone, Path(folder), f"noise_{form}")
        wrong = ""
        for lengths in (None, (3, 0, 17 if rows else 4)):
            case = draw(program, sum(lengths) if lengths else 18 if rows else 4, lengths=lengths)
            try:
                compare(case, made["_forward_triton"], made["_backward_triton"], 2e-5, torch.float32)
            except AssertionError as failure:
                wrong += f" {failure}".replace("\n", " ")
        print(wrong, flush=True)


if __name__ == "__main__":
    main()
