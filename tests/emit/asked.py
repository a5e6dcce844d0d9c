"""Gradients of some arguments alone: each by itself, and all but one, are those that all together give.

In: a module, its program, and sizes. Out: an AssertionError that names what differs. `python -m tests.emit.asked` does it for
Triton's kernels in Triton's interpreter, and prints how many products and kernels ran for each request.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType

import numpy as np
import torch

from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import safe_name
from seqc.frontend.elaborate import load
from seqc.ir.program import Program
from tests.harness import Case, draw

SPECS = {
    "layer": """
spec layer
dim D, M
input x[M], y[M]
param W[D, M], R[D, D], b[D], U[D, M], C[M, D]
state h[D] = 0
h = tanh(W @ x + R @ h[t-1] + b) * sigmoid(U @ y)
output o = C @ h
""",
    "attention": """
spec attention
dim K, V
input q[K], k[K], v[V], g[K] in [-inf, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
""",
    "lagged": """
spec lagged
dim K, V
input q[K], k[K], v[V], g[K] in [-inf, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + (k + 0.5 * k[t-1]) * v
output o = sum[K](q * S)
""",
    "both": """
spec both
dim D
scan both
input x[D]
param W[D, D], R[D, D]
state h[D] = 0
h = tanh(W @ x + R @ h[t-1])
output h
""",
    "table": """
spec table
dim N = 5, D
input w index N, x[D]
param W[D, D]
state M[N, D] = 0, s[D] = 0
s = 0.5 * s[t-1] + M[t-1, w]
M[w] = tanh(W @ x + M[t-1, w])
output o = s
""",
    "series": """
spec series
dim D
input x[D]
param a, b, c[D]
state y[D] lag 2 = 0
y = 0.5 * tanh(a) * y[t-1] - 0.2 * sigmoid(b) * y[t-2] + c * x
output y
""",
    "stack": """
spec stack
dim D
input x[D]
param first_in[D, D], first_out[D, D], first_gate[D, D], first_gain[D], then_in[D, D], then_out[D, D], then_gate[D, D]
state h[D] = 0, c[D] = 0
h = sigmoid(first_gate @ x) * h[t-1] + first_in @ x
y = x + first_out @ relu(first_gain * h)
c = sigmoid(then_gate @ y) * c[t-1] + then_in @ y
output o = y + then_out @ relu(c)
""",
    "plane": """
spec plane
axis t, u
dim D
input x[D]
param a[D], b[D]
state h[D] = 0
h = tanh(a * h[t-1] + b * h[u-1] + x)
output h
""",
}


def in_phases(x: object, blocks: object, one: object, *ways: object) -> int:
    """The last way that a file has, whatever it costs."""
    return len(ways)


def made(name: str, backend: str, rows: int | None = None) -> tuple[ModuleType, Program]:
    """The emitted module of one of the specs."""
    compiled = compile_program(load(SPECS[name]), Options(backend, rows=rows))
    return load_emitted(compiled.text, compiled.signature.spec), compiled.program


def gradients(module: ModuleType, case: Case, asked: Iterable[str], dtype: torch.dtype) -> dict[str, torch.Tensor | None]:
    """The gradients of a loss that is linear in all results; only `asked` require one."""
    given = {x: torch.as_tensor(np.asarray(case.arrays[x])) for x in case.arguments}
    given = {x: (v.to(dtype) if v.is_floating_point() else v).clone() for x, v in given.items()}
    moved = {x: given[x].requires_grad_() for x in asked}
    bounds = None if case.bounds is None else torch.tensor(case.bounds)
    arguments = {safe_name(x): v for x, v in given.items()}
    arguments |= {} if case.program.plane is not None else {"cu_seqlens": bounds, "reverse": case.reverse}
    results = getattr(module, case.program.name)(**arguments)
    weights = [torch.as_tensor(np.resize(case.cotangents[x], y.shape)) for x, y in zip(case.results, results, strict=True)]
    loss = sum((w.to(y.dtype) * y).sum() for w, y in zip(weights, results, strict=True))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    return {x: v.grad for x, v in moved.items()}


def compare(module: ModuleType, case: Case, dtype: torch.dtype, bound: float, requests: Sequence[Sequence[str]] = ()) -> None:
    """Each request's gradients against the oracle's; of two runs or axes against those of all together."""
    if case.program.direction == "both" or case.program.plane is not None:
        truth = {x: d.numpy() for x, d in gradients(module, case, case.moved, dtype).items() if d is not None}
    else:
        _, truth = case.truth()
    alone = [[x] for x in case.moved]
    for asked in requests or [*alone, *([x for x in case.moved if x != y] for y in case.moved)]:
        for name, found in gradients(module, case, asked, dtype).items():
            assert found is not None, (name, asked)
            error = np.abs(found.double().numpy() - truth[name]).max(initial=0.0)
            assert error <= bound * (1 + np.abs(truth[name]).max(initial=0.0)), (name, asked, error)


def main() -> None:
    """See the file's docstring: runs of three specs, of `lagged` in phases, and what each request launches of `attention`."""
    import os

    os.environ["TRITON_INTERPRET"] = "1"
    from tests.triton import interpreter

    interpreter.choose()
    for name in ("layer", "attention", "lagged"):
        module, program = made(name, "triton", 16)
        vars(module)["_form"] = vars(module)["_form_alone"] = lambda *tensors, module=module: module._TRITON
        if name == "lagged":
            vars(module)["_way"] = in_phases
        case = draw(program, 19, {"B": 1, "K": 3, "V": 3, "D": 4, "M": 3})
        compare(module, case, torch.float32, 1e-4, [[x] for x in case.moved])
        if name == "attention":
            print(json.dumps({x: sorted(launched(module, case, x)) for x in "qkv"}))


def launched(module: ModuleType, case: Case, asked: str) -> set[str]:
    """The kernels of a backward pass in phases for one gradient."""
    seen: set[str] = set()
    kernels = {x: v for x, v in vars(module).items() if x.endswith("_kernel")}
    vars(module)["_way"] = in_phases
    for x, kernel in kernels.items():
        def launch(grid: object, x: str = x, kernel: object = kernel) -> object:
            seen.add(x)
            return kernel[grid]  # type: ignore[index]

        vars(module)[x] = type("Kernel", (), {"__getitem__": lambda _, grid, launch=launch: launch(grid)})()
    gradients(module, case, [asked], torch.float32)
    vars(module).update(kernels)
    return {x for x in seen if "gradients" in x}


if __name__ == "__main__":
    main()
    sys.exit(0)
