"""The process that runs emitted kernels on bf16 inputs in Triton's interpreter, and tells by how much gradients are off.

In: one JSON object a line on standard input: a spec's path, rows, steps. Out: one JSON object each: by output and gradient,
the root of the mean squared error over that of the float64 reference, which gets the rounded arguments; first where kernels
hand on states in bf16, then where they do in fp32. Or, where a step is given as "from": whether results and gradients of
extreme arguments are numbers, and whether outputs before that step stay the same to the bit where inputs from it on are none.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.triton import interpreter, lockstep


def errors(case: Any, made: dict[str, Any], exact: bool) -> dict[str, float]:
    """By name, the relative error of each output and gradient. exact: states stay in fp32."""
    import numpy as np
    import torch

    from tests.harness import tensors

    made["_pad"].__globals__["STATES_IN_FP32"] = exact
    inputs, outputs = len(case.program.inputs), len(case.program.outputs)
    half, whole = torch.bfloat16, torch.float32
    args = [x.to(half) if i < inputs else x for i, x in enumerate(tensors(case, whole))]
    given = (torch.tensor(case.cotangents[name]) for name in case.results)
    cots = [x.to(half if i < outputs else whole) for i, x in enumerate(given)]
    case.arrays.update((name, x.double().numpy()) for name, x in zip(case.arguments, args, strict=True))
    case.cotangents.update((name, x.double().numpy()) for name, x in zip(case.results, cots, strict=True))
    with torch.no_grad():
        got = made["_forward_triton"](*args)
        gradients = made["_backward_triton"](*args, *got[len(cots) :], *cots)
    want, slopes = case.truth(torch.float64)
    pairs = {name: (x, want[name]) for name, x in zip(case.results[:outputs], got, strict=False)}
    pairs |= {f"d_{name}": (case.kept(name, x), slopes[name]) for name, x in zip(case.moved, gradients, strict=True)}
    return {name: float(np.sqrt(((x.double().numpy() - y) ** 2).mean() / (y**2).mean())) for name, (x, y) in pairs.items()}


def extreme(case: Any, made: dict[str, Any], at: int) -> dict[str, bool]:
    """Whether all are numbers, and whether outputs before step `at` know nothing of what comes from it on."""
    import torch

    from tests.harness import tensors

    inputs, outputs = len(case.program.inputs), len(case.program.outputs)
    half, whole = torch.bfloat16, torch.float32
    args = [x.to(half) if i < inputs else x for i, x in enumerate(tensors(case, whole))]
    cots = [torch.tensor(case.cotangents[x]).to(half if i < outputs else whole) for i, x in enumerate(case.results)]
    later = [x.clone() for x in args]
    for x in later[:inputs]:
        x[:, at:] = float("nan")
    with torch.no_grad():
        got, spoilt = made["_forward_triton"](*args), made["_forward_triton"](*later)
        gradients = made["_backward_triton"](*args, *got[len(cots) :], *cots)
    same = all(torch.equal(x[:, :at], y[:, :at]) for x, y in zip(got[:outputs], spoilt, strict=False))
    return {"numbers": all(bool(x.isfinite().all()) for x in (*got[: len(cots)], *gradients)), "causal": same}


def main() -> None:
    """Answer every case."""
    interpreter.choose()
    lockstep.choose()
    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from seqc.ir.both_ways import one_run
    from tests import forms
    from tests.harness import draw
    from tests.triton.interpret import functions

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            told = json.loads(line)
            program = forms.for_kernels(one_run(load(Path(told["path"]))))
            text = triton_kernels(lower(program, "chunkwise", told["rows"])).alone
            made = functions(text, Path(folder), f"half_{number}")
            made["_pad"].__globals__["_way"] = lambda x, blocks, *ways: len(ways) - 1
            sizes = {d: 1 if d == "H" else 16 for d in program.dims}
            if "from" in told:
                case = draw(program, told["steps"], sizes, hard=True, seed=1)
                print(json.dumps(extreme(case, made, told["from"])), flush=True)
                continue
            found = [errors(draw(program, told["steps"], sizes, seed=1), made, exact) for exact in (False, True)]
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
