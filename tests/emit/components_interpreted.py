"""Specs of several recurrences in Triton's interpreter against the oracle: prints the largest error over what is allowed.

A process of its own, for the interpreter is chosen before Triton is first imported. Each spec is run as a batch, as a pack, and
backwards. A counter that begins far from 0 is told apart in half precision too.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from seqc.check.emitted_case import Case
from seqc.check.sampling import sample_sizes
from seqc.check.verify_emitted import against_oracle
from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from tests.emit.test_components import SPECS
from tests.triton import interpreter

BOUNDS = (0, 5, 5, 18)


def main() -> None:
    """See the file's docstring."""
    interpreter.choose()
    worst = 0.0
    for name, text in SPECS.items():
        compiled = compile_program(load(text), Options("triton", rows=16))
        module = load_emitted(compiled.text, compiled.signature.spec)
        vars(module)["_form"] = vars(module)["_form_alone"] = lambda *tensors, module=module: module._TRITON
        sizes = sample_sizes(compiled.program)
        runs = ((17, None, False), (18, BOUNDS, False)) if name != "chained" else ((18, BOUNDS, True),)
        for steps, bounds, reverse in runs:
            case = Case(compiled.program, module, sizes, steps, "float32", False, "cpu", bounds, reverse)
            with np.errstate(all="ignore"):
                worst = max(worst, *(one.error / one.allowed for one in against_oracle(case)))
        if name == "counted":
            given = {x: torch.ones(1, 3, 2, 2, dtype=torch.float16) for x in "qkv"} | {"p_0": torch.tensor([3000.0])}
            made = module.counted(**given, g=torch.zeros(1, 3, 2, 2, dtype=torch.float16))
            want = 2 * torch.cumsum(torch.cos(0.1 * torch.tensor([3001.0, 3002.0, 3003.0])), 0)  # of 3001, fp16 would make 3000
            worst = max(worst, float((made.o[0, :, 0, 0].float() - want).abs().max()) / 0.01)
    print(worst)


if __name__ == "__main__":
    main()
