"""States times matrices from either side, and results whose dims take the name of one that the state is summed over.

`h[t-1] @ R` leaves the column D'; `a[D' -> D]` calls it D, which is also what the sum runs over: neither may capture the other.
By hand as a loop in torch with autograd, values and every gradient in float64 to 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import seqc
from seqc.frontend import elaborate
from tests.triton.test_kernels import interpret

B, T, D, H = 2, 6, 4, 2
HEAD = "dim D\ninput y[D]\nparam R[D, D]\nstate h[D] = 0\n"
HEADS = "dim H, D\ninput y[H, D]\nparam R[H, D, D]\nstate h[H, D] = 0\n"
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
CASES: dict[str, tuple[str, Step]] = {  # body -> the new state of (state, input, R)
    "right": (HEAD + "a = h[t-1] @ R\nh = tanh(a[D' -> D] + y)\noutput h\n", lambda h, y, R: torch.tanh(h @ R + y)),
    "right_linear": (HEAD + "a = h[t-1] @ R\nh = 0.3 * a[D' -> D] + y\noutput h\n", lambda h, y, R: 0.3 * h @ R + y),
    "summed": (HEAD + "a = sum[D](h[t-1] * R)\nh = 0.3 * a[D' -> D] + y\noutput h\n", lambda h, y, R: 0.3 * h @ R + y),
    "left": (HEAD + "h = tanh(R @ h[t-1] + y)\noutput h\n", lambda h, y, R: torch.tanh(h @ R.T + y)),
    "both": (HEAD + "a = h[t-1] @ R\nh = tanh(R @ a[D' -> D] + y)\noutput h\n", lambda h, y, R: torch.tanh(h @ R @ R.T + y)),
    "twice": (
        HEAD + "a = h[t-1] @ R\nb = a[D' -> D]\nc = b @ R\nh = 0.3 * c[D' -> D] + y\noutput h\n",
        lambda h, y, R: 0.3 * h @ R @ R + y,
    ),
    "two_primes": (
        HEAD + "a = h[t-1] * R[D' -> D'']\nb = sum[D](a)\nh = 0.3 * b[D'' -> D] + y\noutput h\n",
        lambda h, y, R: 0.3 * h @ R + y,
    ),
    "outer": (  # a term of rank one whose outer factor is renamed: the state stays summed over D
        HEAD + "a = y[D -> D'] * sum[D](y * h[t-1])\nh = 0.5 * h[t-1] - 0.1 * a[D' -> D] + y\noutput o = sum[D](h * y)\n",
        lambda h, y, R: 0.5 * h - 0.1 * y * (y * h).sum(-1, keepdim=True) + y,
    ),
    "outer_away": (
        HEAD + "a = y * sum[D](y * h[t-1])\nb = a[D -> D']\nh = h[t-1] / 2 - b[D' -> D] / 10 + y\noutput o = sum[D](h * y)\n",
        lambda h, y, R: 0.5 * h - 0.1 * y * (y * h).sum(-1, keepdim=True) + y,
    ),
    "folded": (
        HEAD.replace("dim D", "dim D, J = 2")
        + "a = fold[J](h[t-1], p -> 0.5 * p + sum[D](p * R)[D' -> D])\nh = tanh(a + y)\noutput h\n",
        lambda h, y, R: torch.tanh((0.5 * (0.5 * h + h @ R) + (0.5 * h + h @ R) @ R) + y),
    ),
    "heads": (
        HEADS + "a = h[t-1] @ R\nh = tanh(a[D' -> D] + y)\noutput h\n",
        lambda h, y, R: torch.tanh(torch.einsum("bhd,hde->bhe", h, R) + y),
    ),
    "heads_linear": (
        HEADS + "a = sum[D](R * h[t-1])\nh = 0.3 * a[D' -> D] + y\noutput h\n",
        lambda h, y, R: 0.3 * torch.einsum("bhd,hde->bhe", h, R) + y,
    ),
}
ALSO_NATIVE = ("right", "two_primes", "heads")


def text(name: str) -> str:
    body = CASES[name][0]
    if name == "folded":  # an expression is renamed by its name
        body = body.replace("sum[D](p * R)[D' -> D]", "sum[D'](p[D -> D'] * R[D -> D', D' -> D])")
    return f"spec {name}\n{body}"


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "torch") for name in CASES), *((name, "cpu") for name in ALSO_NATIVE)]
)
def test_equals_the_loop(name: str, backend: str) -> None:
    draw = torch.Generator().manual_seed(1)
    dims = (H, D) if name.startswith("heads") else (D,)
    y = torch.randn(B, T, *dims, dtype=torch.float64, generator=draw, requires_grad=True)
    R = (torch.randn(*dims, D, dtype=torch.float64, generator=draw) * 0.4).requires_grad_()
    h_0 = torch.randn(B, *dims, dtype=torch.float64, generator=draw, requires_grad=True)
    h, rows = h_0, []
    for now in y.unbind(1):
        h = CASES[name][1](h, now, R)
        rows.append((h * now).sum(-1) if name.startswith("outer") else h)
    want = torch.stack(rows, 1), h
    got = seqc.compile(text(name), backend=backend)(y, R, h_0=h_0)
    weights = [torch.randn(x.shape, dtype=x.dtype, generator=draw) for x in want]
    slopes = [torch.autograd.grad(x, (y, R, h_0), weights, allow_unused=True) for x in (want, tuple(got))]
    for a, b in (*zip(got, want, strict=True), *zip(slopes[1], slopes[0], strict=True)):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=0, atol=1e-12)


def test_a_renamed_outer_factor_keeps_the_rank() -> None:
    """What is summed over D inside is no reason to run step by step."""
    from seqc.passes.classify import classify

    for name in ("outer", "outer_away"):
        assert [c.kind for c in classify(elaborate.load(text(name)))] == ["low rank"]
    assert [c.kind for c in classify(elaborate.load(text("right_linear")))] == ["dense"]


def test_triton(tmp_path: Path) -> None:
    names = ("right", "heads")
    for name in names:
        (tmp_path / f"{name}.seq").write_text(text(name))
    interpret([(str(tmp_path / f"{name}.seq"), "step") for name in names], [(3, False, {"D": D, "H": H})], steps=2)
