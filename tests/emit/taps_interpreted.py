"""Specs that sum many lags of an input in Triton's interpreter, against loops in float64: fails with the first difference.

A process of its own, for the interpreter is chosen before Triton is first imported.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from tests.emit.taps import CASES, differences
from tests.triton import interpreter


def main() -> None:
    """See the file's docstring."""
    interpreter.choose()
    for name in ("fir", "cell", "dilated", "decays", "gated", "both", "remembered", "defined"):
        compiled = compile_program(load(CASES[name].text(name)), Options("triton"))
        module = load_emitted(compiled.text, compiled.signature.spec)
        vars(module)["_form"] = vars(module)["_form_alone"] = lambda *tensors, module=module: module._TRITON
        for bounds, reverse in ((None, False), ((0, 3, 3, 44, 45), name != "both")):
            for what, value, truth in differences(name, module, compiled.signature, torch.float32, bounds, reverse, 45):
                error = (value.to(torch.float64) - truth).abs().max() / truth.abs().max().clamp(min=1.0)
                assert error < 1e-5, (name, bounds, reverse, what, error.item())


if __name__ == "__main__":
    main()
