"""`gradclip` against torch with a function whose gradient is clamped; what is not served of it says so."""

from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.diagnostics import SpecError
from seqc.driver.pipeline import check
from seqc.frontend.elaborate import load
from seqc.semantics.reference import gradients

CELL = """spec cell
dim D
input x[D]
param R[D, D]
state h[D] = 0
h = tanh(R @ gradclip(h[t-1], 0.25) + gradclip(x, 0.1))
output h
"""


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bound: float) -> torch.Tensor:
        ctx.bound = bound
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *d: torch.Tensor) -> Any:
        return d[0].clamp(-ctx.bound, ctx.bound), None


def test_against_torch() -> None:
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(2, 6, 3)), "R": rng.normal(size=(3, 3)), "h_0": rng.normal(size=(2, 3))}
    weights = rng.normal(size=(2, 6, 3))
    _, slopes = gradients(load(CELL), given, {"h": weights})
    x, R, h = tensors = [torch.tensor(v, requires_grad=True) for v in given.values()]
    loss = torch.zeros((), dtype=torch.float64)
    for t in range(6):
        h = torch.tanh(Cut.apply(h, 0.25) @ R.T + Cut.apply(x[:, t], 0.1))  # type: ignore[no-untyped-call]
        loss = loss + (h * torch.tensor(weights[:, t])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, leaf in zip(given, tensors, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(slopes[name], leaf.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)
    assert abs(slopes["x"]).max() == 0.1


def test_a_step_has_the_gradient_of_a_run_and_other_derivatives_are_refused() -> None:
    cell = seqc.compile(CELL, backend="torch")
    x, R, h = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3), (3, 3), (2, 3)))
    one = torch.autograd.grad((5 * cell.step(x, R, h_0=h)[0]).sum(), (x, R, h))
    run = torch.autograd.grad((5 * cell(x[:, None], R, h_0=h)[0]).sum(), (x, R, h))
    for a, b in zip(one, run, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        cell.step(x, R, h_0=h)
    (slope,) = torch.autograd.grad(cell(x[:, None], R, h_0=h)[0].pow(2).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradclip"):
        torch.autograd.grad(slope.sum(), x)
    with pytest.raises(NotImplementedError, match="gradclip"):
        torch.func.jvp(lambda x: cell(x, R)[0], (x.detach()[:, None],), (x.detach()[:, None],))


@pytest.mark.parametrize("value", ["gradclip(R, 1)", "gradclip(x, 0)", "gradclip(x, 0 - 1)", "gradclip(sum[D](x), x)"])
def test_misuse(value: str) -> None:
    with pytest.raises(SpecError, match="gradclip"):
        load(CELL + f"output y = {value}\n")


def test_no_eigenvalue_is_read_off_a_cut_gradient() -> None:
    text = "spec a\ninput x\nstate h = 0\nh = gradclip(2 * h[t-1], 0.5) + x\noutput h\neigenvalues h in [-1, 1]\n"
    with pytest.raises(SpecError, match="claim"):
        check(load(text))
