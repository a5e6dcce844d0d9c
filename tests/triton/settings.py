"""The process that runs one recurrence with its states saved and computed again, in Triton's interpreter.

In: one JSON object a line on standard input: a spec's path, rows, steps, lengths of a pack (or null), whether reversed. Out:
one JSON object each: by setting, the number of states that forward keeps, and by gradient the largest difference from those of
the setting that keeps every block's state, over the largest element. Settings: `saved` (every block's state), `every` (one in
three blocks), `call` (as a call says: none), `spans` (as a call says, where more programs are wanted than a walk has).
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.triton import interpreter, lockstep

SPANS = {"saved": (1, 1), "every": (3, 1), "call": (None, 1), "spans": (None, 8)}  # blocks of a span, programs that are enough


def main() -> None:
    """Answer every case."""
    interpreter.choose()
    lockstep.choose()
    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.backends.triton_gpu.tuning.pace import Pacing
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from tests.harness import draw, tensors
    from tests.triton.interpret import functions

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # what no kernel wrote is NaN
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            told = json.loads(line)
            program = load(Path(told["path"]))
            sizes = {d: 1 if d == "H" else 16 for d in program.dims}
            lengths = {"lengths": told["lengths"], "reverse": told["reverse"]} if told["lengths"] else {}
            case = draw(program, sum(told["lengths"] or [told["steps"]]), sizes, seed=1, **lengths)
            args = tensors(case, torch.float32)
            cots = [torch.tensor(case.cotangents[name], dtype=torch.float32) for name in case.results]
            how = {"cu_seqlens": torch.tensor(case.bounds), "reverse": told["reverse"]} if case.bounds else {}
            found: dict[str, Any] = {}
            first: list[torch.Tensor] = []
            for setting, (blocks, enough) in SPANS.items():
                every = blocks and blocks * told["rows"]
                asked = replace(program, wishes=replace(program.wishes, checkpoint=every))
                text = triton_kernels(lower(asked, "chunkwise", told["rows"]), pacing=Pacing(enough=enough)).alone
                made = functions(text, Path(folder), f"{setting}_{number}")
                with torch.no_grad():
                    *got, kept = made["_forward_triton"](*args, **how)
                    gradients = made["_backward_triton"](*args, *got[len(cots) :], kept, *cots, **how)
                first = first or gradients
                off = [float((x - y).abs().max() / y.abs().max().clamp(min=1)) for x, y in zip(gradients, first, strict=True)]
                found[setting] = {"kept": kept.shape[0], "off": dict(zip(case.moved, off, strict=True))}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
