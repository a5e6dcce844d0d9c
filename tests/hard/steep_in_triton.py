"""A process that runs a spec's emitted Triton kernels, in Triton's interpreter, at a log decay of -10: prints errors by name.

In: a spec's path and a form. Out: one JSON object. A process of its own: the interpreter is chosen when Triton is imported.
"""

from __future__ import annotations

import sys

from tests.triton import interpreter


def main() -> None:
    """Print the errors of results and gradients."""
    interpreter.choose()
    import json
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend import elaborate
    from tests.hard.cases import drawn, errors
    from tests.triton.interpret import functions

    program = elaborate.load(Path(sys.argv[1]))
    block = lower(program, sys.argv[2], 16)
    with tempfile.TemporaryDirectory() as folder:
        made = functions(triton_kernels(block).alone, Path(folder), "steep")
        case = drawn(program, 20, -10.0)
        found = errors(case, made["_forward_triton"], made["_backward_triton"], torch.float32)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
