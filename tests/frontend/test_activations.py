"""The functions of cells: values and derivatives against torch's, at corners and far arguments too."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqc.analysis.ranges import interval_of
from seqc.driver.pipeline import check
from seqc.frontend.activations import ACTIVATIONS
from seqc.frontend.elaborate import load
from seqc.semantics.reference import gradients

CORNERS = [0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 2.5, -2.5, 1e-9, -1e-9, 30.0, -30.0]
X = np.concatenate([np.random.default_rng(0).normal(size=40) * 3, CORNERS])
Plain = Callable[[Any], Any]

class BoundedSqrt(torch.autograd.Function):
    """The square root whose derivative is cut."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, most: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.most = most
        return x.sqrt()

    @staticmethod
    def backward(ctx, d: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return d * (0.5 / x.sqrt()).clamp(max=ctx.most), None


class Digamma(torch.autograd.Function):
    """Of mpmath: torch has ten digits of its derivative."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return torch.tensor([float(mpmath.psi(0, v)) for v in x.tolist()], dtype=x.dtype)

    @staticmethod
    def backward(ctx, d: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return d * torch.tensor([float(mpmath.psi(1, v)) for v in x.tolist()], dtype=x.dtype)


CASES: dict[str, Plain] = {
    "clamp(x, 0-1, 2.5)": lambda x: torch.clamp(x, -1, 2.5),
    "clamp(x, 2, 1)": lambda x: torch.clamp(x, 2, 1) + 0 * x,
    "hardtanh(x)": F.hardtanh,
    "hardtanh(x, 0-3, 6)": lambda x: F.hardtanh(x, -3, 6),
    "hardsigmoid(x)": F.hardsigmoid,
    "hardswish(x)": lambda x: x * F.hardsigmoid(x),
    "relu(x)": F.relu,
    "relu6(x)": F.relu6,
    "silu(x)": F.silu,
    "gelu(x)": F.gelu,
    "elu(x)": F.elu,
    "elu(x, 0.5)": lambda x: F.elu(x, 0.5),
    "celu(x, 2)": lambda x: F.celu(x, 2.0),
    "selu(x)": F.selu,
    "leaky_relu(x)": F.leaky_relu,
    "leaky_relu(x, 0.2)": lambda x: F.leaky_relu(x, 0.2),
    "softsign(x)": F.softsign,
    "mish(x)": F.mish,
    "rsqrt(1 + x * x)": lambda x: torch.rsqrt(1 + x * x),
    "safe_sqrt(x * x)": lambda x: BoundedSqrt.apply(x * x, 1000.0),
    "safe_sqrt(x * x, 0.25)": lambda x: BoundedSqrt.apply(x * x, 0.25),
    "lgamma(x * x + 0.01)": lambda x: torch.lgamma(x * x + 0.01),
    "digamma(x * x + 0.01)": lambda x: Digamma.apply(x * x + 0.01),
    "exp2(x)": torch.exp2,
    "log2(x * x + 1) + log10(x * x + 1)": lambda x: torch.log2(x * x + 1) + torch.log10(x * x + 1),
    "tan(x) + atan(x)": lambda x: torch.tan(x) + torch.atan(x),
    "sinh(x)": torch.sinh,
    "cosh(x)": torch.cosh,
    "floor(x) + x": lambda x: torch.floor(x) + x,
    "ceil(x) + x": lambda x: torch.ceil(x) + x,
    "round(x) + x": lambda x: torch.round(x) + x,
    "trunc(x) + x": lambda x: torch.trunc(x) + x,
    "mod(x, 0.7)": lambda x: torch.remainder(x, 0.7),
    "mod(x, 0-2)": lambda x: torch.remainder(x, -2.0),
    "var[D](x) * x": lambda x: x.var(correction=0) * x,
    "std[D](x) * x": lambda x: x.std(correction=0) * x,
}


@pytest.mark.parametrize("text", CASES)
def test_value_and_derivative(text: str) -> None:
    program = load(f"spec a\ndim D\ninput x[D]\noutput y = {text}\n")
    found, slopes = gradients(program, {"x": X[None, None]}, {"y": np.ones((1, 1, len(X)))})
    x = torch.tensor(X, requires_grad=True)
    y = CASES[text](x)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    want, slope = y.detach().numpy(), x.grad.numpy()
    np.testing.assert_allclose(found["y"][0, 0], want, rtol=1e-13, atol=1e-13)
    inexact = 1e-7 if "hards" in text else 1e-12  # torch's derivative of hardsigmoid is 1/6 in float32
    np.testing.assert_allclose(slopes["x"][0, 0], slope, rtol=inexact, atol=inexact)


def test_every_function_is_compared() -> None:
    assert all(any(f"{name}(" in text for text in CASES) for name in ACTIVATIONS)


def test_a_spread_of_equal_values_has_derivative_0() -> None:
    program = load("spec a\ndim D\ninput x[D]\noutput y = std[D](x)\n")
    _, slopes = gradients(program, {"x": np.full((1, 1, 4), 3.0)}, {"y": np.ones((1, 1))})
    np.testing.assert_array_equal(slopes["x"], 0.0)


def test_ranges_of_cut_values() -> None:
    text = "spec a\ninput x, y in [-9, 9]\nstate h = 0\nh = clamp(x, -0.5, 0.5) * h[t-1] + {}\noutput h\n"
    text += "eigenvalues h in [-0.5, 0.5]\n"
    ranges = {"hardsigmoid(y)": (0, 1), "relu6(y)": (0, 6), "round(y)": (-9, 9), "floor(y / 2)": (-5, 4)}
    for term, (low, high) in ranges.items():
        program = load(text.format(term))
        check(program)  # the claim is proved
        (write,) = (a for a in program.updates["h"].args if program.states["h"].leaf() not in a.args)
        found = interval_of(program)[write]
        assert (found.lo, found.hi) == (low, high), term
