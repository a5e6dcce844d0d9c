"""Specs with states that no output depends on, in Triton's interpreter: prints the largest error over what is allowed.

A process of its own, for the interpreter is chosen before Triton is first imported.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from tests.emit.ends_loops import SPECS, compared
from tests.triton import interpreter

ALLOWED = 2e-5  # in float32, of the largest element or of 1


def main() -> None:
    """See the file's docstring."""
    interpreter.choose()
    worst = 0.0
    for name, kept in SPECS.items():
        compiled = compile_program(load(kept.text), Options("triton", rows=16))
        module = load_emitted(compiled.text, compiled.signature.spec)
        vars(module)["_form"] = vars(module)["_form_alone"] = lambda *tensors, module=module: module._TRITON
        for what, mine, want in compared(kept, getattr(module, name), getattr(module, f"{name}_step"), torch.float32):
            error = float((mine.double() - want).abs().max() / max(1.0, float(want.abs().max())))
            if not error <= ALLOWED:
                print(name, what, error)
            worst = max(worst, error / ALLOWED)
    print(worst)


if __name__ == "__main__":
    main()
