"""The derivatives of single steps, and those in forward mode and of second order: what the spec says of derivatives holds.

The judge is torch's autograd over the step (`tests.autograd_loop`), in float64. The specs differ in what a step's gradient
could lose: `withgrad` (lif, spiking), `stopgrad`, complex states, low rank, several micro-steps, a param per batch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from tests import autograd_loop
from tests.emit import packed
from tests.emit.judged import close, slopes
from tests.harness import Case, draw

SPIKING = """spec spiking
dim D
input x[D]
param w[D] init 1
state v[D] = stopgrad(w), n[D] = 0
v = 0.5 * stopgrad(v[t-1]) + w * x + 0.1 * stopgrad(x) * n[t-1]
n = where(v > 0, withgrad(v > 0.5, exp(-v * v)), 0.5 * n[t-1])
output z = withgrad(v > 0.5, 1)
output v
"""
SPECS = ("spiking", "lif", "lru", "delta_rule", "delta_product", "mlstm", "sampled")


@cache
def compiled(name: str, backend: str) -> tuple[Compiled, Any]:
    if name != "spiking":
        return packed.compiled(name, backend), packed.module(name, backend)
    made = compile_spec(SPIKING, Options(backend))
    return made, load_emitted(made.text, "spiking")


def drawn(made: Compiled, steps: int) -> tuple[Case, list[Tensor]]:
    case = draw(made.program, steps)
    return case, [torch.tensor(case.arrays[name]) for name in case.arguments]


def call(made: Compiled, module: Any, what: str, tensors: list[Tensor]) -> list[Tensor]:
    """The results of a call or a step."""
    return list(getattr(module, made.signature.spec + what)(**dict(zip(made.signature.arguments, tensors, strict=True))))


def truth(case: Case, tensors: list[Tensor]) -> list[Tensor]:
    found = autograd_loop.run(case.program, dict(zip(case.arguments, tensors, strict=True)))
    return [found[name] for name in case.results]


def weights(results: list[Tensor]) -> list[Tensor]:
    made = torch.Generator().manual_seed(3)
    return [torch.randn(r.shape, generator=made, dtype=torch.float64) for r in results]


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "torch") for name in SPECS), *((name, "cpu") for name in ("spiking", "lru", "delta_rule"))]
)
def test_a_step_has_the_gradient_of_a_run_of_one(name: str, backend: str) -> None:
    made, module = compiled(name, backend)
    case, tensors = drawn(made, 1)
    p = made.program
    given = [x.clone().requires_grad_() for x in tensors]
    own = [x.clone().requires_grad_() for x in tensors]
    one = [x[:, 0] if i < len(p.inputs) else x for i, x in enumerate(own)]
    want, got = truth(case, given), call(made, module, "_step", one)
    want = [x[:, 0] if i < len(p.outputs) else x for i, x in enumerate(want)]
    for argument, a, b in zip(case.arguments, slopes(got, weights(want), own), slopes(want, weights(want), given), strict=True):
        close(a, b, 1e-11, f"gradient of {argument} of a step of {name}")
    for result, a, b in zip(case.results, got, want, strict=True):
        close(a.detach(), b.detach(), 1e-11, f"{result} of a step of {name}")


@pytest.mark.parametrize("name", ["spiking", "lru", "delta_rule", "sampled"])
def test_forward_mode(name: str) -> None:
    """Tangents of a call, of a packed and reversed one, and of a step; with and without torch.func."""
    made, module = compiled(name, "torch")
    p = made.program
    case, tensors = drawn(made, 5)
    made_tangents = torch.Generator().manual_seed(5)
    tangents = [torch.randn(x.shape, generator=made_tangents, dtype=torch.float64) for x in tensors]
    _, want = torch.func.jvp(lambda *x: truth(case, list(x)), tuple(tensors), tuple(tangents))
    _, got = torch.func.jvp(lambda *x: call(made, module, "", list(x)), tuple(tensors), tuple(tangents))
    for result, a, b in zip(case.results, got, want, strict=True):
        close(a, b, 1e-11, f"tangent of {result} of {name}")
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(x, d) for x, d in zip(tensors, tangents, strict=True)]
        first = [x[:, 0] if i < len(p.inputs) else x for i, x in enumerate(dual)]
        found = [torch.autograd.forward_ad.unpack_dual(x).tangent for x in call(made, module, "_step", first)]
    cut = [x[:, :1] if i < len(p.inputs) else x for i, x in enumerate(tensors)]
    moved = [x[:, :1] if i < len(p.inputs) else x for i, x in enumerate(tangents)]
    _, want = torch.func.jvp(lambda *x: truth(case, list(x)), tuple(cut), tuple(moved))
    for i, (result, a, b) in enumerate(zip(case.results, found, want, strict=True)):
        flat = b[:, 0] if i < len(p.outputs) else b
        close(torch.zeros_like(flat) if a is None else a, flat, 1e-11, f"tangent of {result} of a step of {name}")


def test_forward_mode_and_second_derivatives_without_a_step() -> None:
    made, module = compiled("both_ways", "torch")
    _, tensors = drawn(made, 5)
    call(made, module, "", tensors)
    for derivative in (lambda f, x: torch.func.jvp(f, (x,), (x,)), lambda f, x: torch.func.hessian(f)(x)):
        with pytest.raises(NotImplementedError, match=r"both_ways: second .* of single steps, which both_ways has not"):
            derivative(lambda x: call(made, module, "", [x, *tensors[1:]])[0].sum(), tensors[0])


def test_of_a_default_state_what_the_spec_says_of_derivatives_holds() -> None:
    for backend in ("torch", "cpu"):
        _, module = compiled("spiking", backend)
        x, w = torch.randn(2, 1, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64, requires_grad=True)
        (d_w,) = torch.autograd.grad(module.spiking(x, w).v.sum(), w)
        close(d_w, x.sum((0, 1)), 1e-12, "gradient of w, which the state begins at")
