"""Corners of the language in emitted torch: directions, lags, streams, shared values, names that clash, dtypes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from seqc.backends.torch_eager import emit
from seqc.backends.torch_eager.runtime import TEXTS
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.program import Program
from tests.harness import check_causality, compare, compare_split, compare_steps, draw

ROWS = 8
TOLERANCE = 1e-10

CASES = {
    "backward_chunk": """spec c
dim H, K, V
scan backward
input q[H, K], k[H, K], v[H, V], g[H, K] in [-inf, 0]
state S[H, K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
""",
    "backward_cell": """spec c
dim D
scan backward
input x[D]
param R[D, D]
state h[D] = 0
output h = tanh(x[t-1] + R @ h[t-1])
""",
    "taps": """spec c
dim D
input x[D], a[D] in [0, 1]
param w[D]
state h[D] = 0
h = a * h[t-1] + x[t-2] * w + x[t+1]
output y = h + x[t-11]
""",
    "maximum": """spec c
dim D, K
input k[D, K], f[D] in [-inf, 0]
state m[D] = -inf, n[D] = 0
m = max(m[t-1] + f, sum[K](k * k))
n = exp(m[t-1] + f - m) * n[t-1] + 1
output n
""",
    "stream": """spec c
dim D
input x[D]
state h[D] = 0, old[D] = 1
h = tanh(x * old[t-1] + h[t-1])
old = x * x
output y = h * old[t-1]
""",
    "shared": """spec c
dim D
input x[D], y[D]
param p[D], unused[D]
state a[D] = 0, b[D] = 0
a = 0.1 * a[t-1] * b[t-1] + x + y
b = 0.1 * a[t-1] * b[t-1] + x + y
output same = x
output also = x
output only = p
""",
    "names": """spec c
dim BT, N, n
input row[N, n], valid[BT], x[BT, n], p[N] in [0, 1]
param S[BT, N]
state h[BT, n] = 0, T_all[N] = 0
h = sum[N](p * row) * h[t-1] * 0.1 + x * valid
T_all = p * T_all[t-1] + sum[BT](S * valid)
output o = h + sum[N](row * T_all)
""",
    "chain": """spec c
dim D
input x[D], g[D] in [-inf, 0]
state a[D] = 0, b[D] = 1, m[D] = -inf
m = max(m[t-1], x)
a = exp(g) * a[t-1] + x
b = sigmoid(a) * b[t-1] + exp(x - m)
output y = a * b + m
""",
    "one_source": """spec c
dim D, N
input x[D], k[N], g[D] in [-inf, 0]
state a[D, N] = 0, b[D, N] = 1
a = exp(g) * a[t-1] + k * x
b = sigmoid(sum[N](k * a)) * b[t-1] + k * x
output y = sum[N](k * b)
""",
}


def compiled(text: str, form: str | None) -> tuple[Program, dict[str, Any], str]:
    program = elaborate.load(text)
    block = lower(program, form, ROWS if form not in (None, "step") else None)
    source = emit(block).text
    namespace: dict[str, Any] = {}
    exec(compile("import math\nimport torch\n" + source, "<emitted>", "exec"), namespace)
    return program, namespace, source


FORMS = {"backward_chunk": ("step", "chunkwise"), "taps": ("step", "scan"), "chain": ("step", "scan"), "one_source": ("scan",)}


@pytest.mark.parametrize(("name", "form"), [(n, f) for n in CASES for f in FORMS.get(n, ("step",))])
def test_corner(name: str, form: str) -> None:
    program, made, _ = compiled(CASES[name], form)
    for steps in (0, 1, ROWS, 2 * ROWS + 3):
        case = draw(program, steps, {"BT": 3, "n": 2}, hard=True)
        compare(case, made["_forward_torch"], made["_backward_torch"], TOLERANCE)
    case = draw(program, 19, {"BT": 3, "n": 2}, seed=3)
    if name == "taps" or "x[t-1]" in CASES[name]:
        with pytest.raises(NotImplementedError, match="reads other steps of x"):
            made["_step_torch"](*[None] * len(case.arguments))
    else:
        compare_split(case, made["_forward_torch"], 7, TOLERANCE)
        compare_steps(case, made["_forward_torch"], made["_step_torch"], TOLERANCE)
    if name != "taps":
        check_causality(case, made["_forward_torch"])


@pytest.mark.parametrize("name", list(CASES))
def test_results_own_their_memory(name: str) -> None:
    program, made, _ = compiled(CASES[name], None)
    case = draw(program, 16, {"B": 1, "BT": 3, "n": 2})
    args = [torch.tensor(case.arrays[a]) for a in case.arguments]
    cots = [torch.tensor(case.cotangents[a]) for a in case.results]
    got = made["_forward_torch"](*args)
    gradients = made["_backward_torch"](*args, *got[len(cots):], *cots)
    for results, given in ((got, args), (gradients, [*args, *got, *cots])):
        dense = [x.contiguous() for x in results]
        places = [x.untyped_storage().data_ptr() for x in dense if x.numel()]
        assert len(set(places)) == len(places), "two results share memory"
        assert not set(places) & {x.untyped_storage().data_ptr() for x in given}, "a result is an argument"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4)])
@pytest.mark.parametrize("spec", ["gla", "delta_rule", "mamba", "lstm", "gru"])
def test_single_precision(spec: str, dtype: torch.dtype, tolerance: float) -> None:
    """2e-4: fp32 roundoff 6e-8 times the length of the path (130 steps) times the growth of gradients in it."""
    program, made, _ = compiled(f"specs/{spec}.seq", None)
    compare(draw(program, 130, seed=4), made["_forward_torch"], made["_backward_torch"], tolerance, dtype)


def test_a_gradient_of_a_recurrent_matrix_is_one_product() -> None:
    _, _, source = compiled("specs/lstm.seq", "step")
    backward = source[source.index("def _backward_torch"):source.index("def _step_torch")]
    loop = backward[backward.index("for "):backward.index("torch.stack")]
    assert "einsum" not in loop
    assert loop.count("@") == 1, loop
    assert backward.count('torch.einsum("nbh') == 5


def test_levels_are_computed_on_their_rows() -> None:
    _, _, source = compiled("specs/gla.seq", "chunkwise")
    forward = source[source.index("def _forward_torch"):source.index("def _backward_torch")]
    assert "_pairs(A, 4).add_(A_4)" in forward
    assert "row_4" not in forward


def test_text_does_not_depend_on_hashes() -> None:
    code = (
        "from seqc.backends.torch_eager import emit\n"
        "from seqc.driver.pipeline import lower\n"
        "from seqc.frontend.elaborate import load\n"
        "for s in ('gla', 'delta_rule', 'mamba', 'lstm'): print(emit(lower(load(f'specs/{s}.seq'))).text)"
    )
    texts = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                       capture_output=True, text=True).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert max(map(len, texts[0].splitlines())) <= 120


def test_large_products_of_whole_sequences_are_those_of_einsum() -> None:
    """oneDNN takes them in float32 on a CPU, in whatever order their axes lie; autograd never meets it."""
    made: dict[str, object] = {"torch": torch, "math": math}
    exec(TEXTS["_product"], made)
    product = made["_product"]
    assert callable(product)
    torch.manual_seed(0)
    u, W = torch.randn(4, 130, 65), torch.randn(3, 40, 65)
    g = torch.randn(4, 130, 3, 40)
    cases = (("bti,hdi->bthd", u, W), ("hdi,bti->bthd", W, u), ("bthd,hdi->bti", g, W), ("bthd,bti->hdi", g, u),
             ("bti,hdi->bhdt", u, W), ("bti,hdi->tbhd", u.mT.contiguous().mT, W),
             ("bti,hdi->bthd", u[:, ::2], W[:, ::2]), ("bti,hdi->bthd", u[..., 1:], W[..., 1:]),
             ("bti,hdi->bthd", u, W[:1, :1].expand(3, 40, 65)))
    for word, x, y in cases:
        want = torch.einsum(word, x.double(), y.double())
        got = product(word, x, y)
        assert got.dtype == torch.float32 and got.shape == want.shape
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(product(word, x.double(), y.double()), want)
    u.requires_grad_()
    (slope,) = torch.autograd.grad(product("bti,hdi->bthd", u, W).sum(), u)
    torch.testing.assert_close(slope, W.sum((0, 1)).expand_as(u), rtol=1e-4, atol=1e-4)
