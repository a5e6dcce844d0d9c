"""Emitted files against `tests.autograd_loop`: results and every gradient, for batches and packs, forwards and reversed.

In: the text of a spec, a backend, a form. Out: an AssertionError that names what differs. `python -m tests.emit.judged NAME...`
does it for specs of `ROOTS` with Triton's kernels in Triton's interpreter, and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqc.diagnostics import Unsupported
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from tests import autograd_loop
from tests.harness import draw

# Values that lack the batch or the rows of what they are stored to, and parameters that belong to a sequence.
ROOTS = {
    "param_out": """
input u
param w
output w2 = w
output y = w * u
""",
    "value_out": """
dim D
input u[D]
param w[D]
state h[D] = 0
z = tanh(w)
h = 0.5 * h[t-1] + z * u
output w2[D] = z
output y[D] = h
""",
    "state_of_params": """
dim K
input x[K]
param P[K]
state s[K] = 0, h[K] = P
s = P
h = tanh(h[t-1] + x * s[t-1])
output o[K] = h + s
""",
    "chunk_out": """
dim K, V
input q[K], k[K], v[V]
param w[K]
state S[K, V] = 0
z = exp(w)
S = S[t-1] + k * z * v
output o = sum[K](q * S)
output z[K]
""",
    "own_out": """
dim D
input x[D]
param P[D] per batch, R[D, D] per batch
state h[D] = 0
h = 0.5 * h[t-1] + x * P
output o = h
output p[D] = P
output r[D] = R @ P
""",
    "own_matrix": """
dim D
input x[D]
param R[D, D] per batch
state h[D] = 0
h = tanh(R @ h[t-1]) + x
output o = h
""",
    "own_matrices": """
dim H, D
input x[H, D], z[H, D]
param R[H, D, D] per batch, U[H, D, D], b[D] per batch
state h[H, D] = 0
r = sigmoid(U @ h[t-1] + z)
h = tanh(R @ (r * h[t-1]) + b * x)
output o = h
""",
    "own_low_rank": """
dim K, V
input k[K] unit[K], v[V], q[K], beta in [0, 1]
param M[K, K] per batch, g in [-inf, 0] per batch
state S[K, V] = 0
kk = M @ k
S = exp(g) * S[t-1] + beta * k * (v - sum[K](kk * S[t-1]))
output o = sum[K](q * S)
""",
    "own_transition": """
dim N
input x[N]
param A[N, N] per batch, C[N] per batch
state h[N] = 0
h = A @ h[t-1] + x
output y = sum[N](C * h)
""",
    "own_both_ways": """
scan both
dim D
input x[D]
param R[D, D] per batch
state h[D] = 0
h = tanh(R @ h[t-1]) + x
output o = h
""",
    "own_decay": """
dim D
input x[D], g[D] in [-inf, 0]
param a[D] in [-inf, 0] per batch, W[D, D] per batch
state h[D] = 0
h = exp(g + a) * h[t-1] + W @ x
output o[D] = W @ h
""",
    "lags": """
dim D
input x[D]
param w[D], c
state h[D] = w
h = 0.5 * h[t-1] + w * x + c * x[t-2] * x
output o = h * x[t-1]
""",
    "unread": """
dim D
input x[D]
param w[D], c
state h[D] = 0, n[D] = c
h = 0.5 * h[t-1] + x
n = w
output o = h
""",
    "constants": """
dim D
input x[D]
param c
state h[D] = 0
h = 0.5 * h[t-1] + c * x
output o = h
output k = c
output two = 2
""",
}


def check(made: Compiled, module: Any, steps: int, batch: int, bounds: tuple[int, ...] | None = None, reverse: bool = False,
          dtype: torch.dtype = torch.float64, tolerance: float = 1e-11) -> None:
    """One call: its results, and its gradients for cotangents on all of them, relative to the largest element."""
    program = made.program
    lengths = None if bounds is None else [b - a for a, b in pairwise(bounds)]
    case = draw(program, steps, {"B": batch}, lengths=lengths)
    given = {name: torch.tensor(case.arrays[name], requires_grad=True) for name in case.arguments}
    want = autograd_loop.run(program, given, bounds, reverse)
    mine = [torch.tensor(case.arrays[name], dtype=dtype, requires_grad=True) for name in case.arguments]
    packed = None if bounds is None else torch.tensor(bounds)
    call = getattr(module, made.signature.spec)
    got = call(**dict(zip(made.signature.arguments, mine, strict=True)), cu_seqlens=packed, reverse=reverse)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(want[name].shape, generator=generator, dtype=torch.float64) for name in case.results]
    what = f"{made.signature.spec}, T = {steps}, B = {batch}, {bounds}, reverse = {reverse}"
    for name, x in zip(case.results, got, strict=True):
        close(x, want[name], tolerance, f"{name} of {what}")
    truth = slopes([want[name] for name in case.results], weights, list(given.values()))
    for name, x, y in zip(case.arguments, slopes(list(got), weights, mine), truth, strict=True):
        close(x, y, tolerance, f"gradient of {name}, {what}")


def slopes(results: list[Tensor], weights: list[Tensor], wrt: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the weighted sum of the results."""
    loss = sum((x.double() * w).sum() for x, w in zip(results, weights, strict=True))
    return torch.autograd.grad(loss, wrt, materialize_grads=True, allow_unused=True)  # type: ignore[arg-type]


def close(x: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """x is `want`, in shape and value."""
    assert x.shape == want.shape, f"{what}: shape {list(x.shape)}, expected {list(want.shape)}"
    scale = max(float(want.detach().abs().max()), 1.0) if want.numel() else 1.0
    torch.testing.assert_close(x.double(), want, rtol=0, atol=tolerance * scale, msg=lambda m: f"{what}: {m}")


def module(name: str, backend: str, form: str | None = None, rows: int | None = None) -> tuple[Compiled, Any]:
    """A file of `ROOTS`, loaded; on Triton every call takes Triton's kernels."""
    text = f"spec {name}\n{ROOTS[name]}"
    made = compile_spec(text, Options(backend, form=form, rows=rows))
    found = load_emitted(made.text, made.signature.spec)
    if backend == "triton":
        vars(found)["_form"] = lambda *_: found._TRITON
    return made, found


def main() -> None:
    """Answer every spec on the command line."""
    import warnings

    from tests.triton import interpreter

    interpreter.choose()
    warnings.simplefilter("ignore")  # numpy's, of infinities that masks take out again
    for name in sys.argv[1:]:
        said = None
        try:
            found = module(name, "triton")
            check(*found, 5, 5, dtype=torch.float32, tolerance=1e-4)
            check(*found, 9, 3, (0, 4, 5, 9), reverse=True, dtype=torch.float32, tolerance=1e-4)
        except (AssertionError, Unsupported) as error:
            said = str(error)[:1000]
        print(json.dumps(said), flush=True)


__all__ = ["ROOTS", "check", "close", "module", "slopes"]

if __name__ == "__main__":
    main()
