"""Derivatives of every order where a branch that is not chosen is infinite: it has none, on every backend.

The judge is torch's autograd over a loop written here, with Python's `if` for each number: what is not chosen is not computed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted

PICKS = """spec picks
dim D
input x[D], y[D], m[D]
param w[D], c[D]
state h[D] = 0
a = w * h[t-1] + x
p = where(a > 0, sqrt(a), 0.3 * a)                                # at 0 its slope is infinite
q = where(x > 0, where(x > 1, log(x - 1), w * x), 1 / (x - 1))    # infinite at 0 and 1, NaN between
e = where(a < 30, log(1 + exp(a)), a)                             # overflows
s = where(m > 0, c * log(y) + w / y, w)                 # of params, which have no batch
h = 0.5 * h[t-1] + 0.01 * (p + q + e + s)
output h
"""
BACKENDS = ("torch", "cpu", "triton")


@cache
def module(backend: str) -> Any:
    return load_emitted(compile_spec(PICKS, Options(backend)).text, "picks")


def one(x: Tensor, y: Tensor, m: Tensor, w: Tensor, c: Tensor, h: Tensor, d: int) -> Tensor:
    """The new state at one place."""
    a = w[d] * h[d] + x[d]
    p = torch.sqrt(a) if a > 0 else 0.3 * a
    q = (torch.log(x[d] - 1) if x[d] > 1 else w[d] * x[d]) if x[d] > 0 else 1 / (x[d] - 1)
    e = torch.log(1 + torch.exp(a)) if a < 30 else a
    s = c[d] * torch.log(y[d]) + w[d] / y[d] if m[d] > 0 else w[d]
    return 0.5 * h[d] + 0.01 * (p + q + e + s)


def loop(x: Tensor, y: Tensor, m: Tensor, w: Tensor, c: Tensor, h: Tensor) -> Tensor:
    rows = []
    for b in range(x.shape[0]):
        state = h[b]
        for t in range(x.shape[1]):
            state = torch.stack([one(x[b, t], y[b, t], m[b, t], w, c, state, d) for d in range(2)])
            rows.append(state)
    return torch.stack(rows).view(x.shape)


def drawn() -> tuple[Tensor, ...]:
    f = {"dtype": torch.float64}
    x = torch.tensor([[[0.0, 1.0], [900.0, -1.0], [0.5, 0.0]], [[-2.0, 0.0], [1.5, 0.25], [0.0, 800.0]]], **f)
    y = torch.tensor([[[0.0, 1.0], [2.0, 0.5], [1.5, 0.75]], [[0.3, 2.0], [0.0, 0.0], [0.0, 3.0]]], **f)
    m = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0], [0.0, -1.0]]], **f)
    return x, y, m, torch.tensor([0.5, -0.25], **f), torch.tensor([1.0, 0.5], **f), torch.zeros(2, 2, **f)


def derivatives(f: Any, given: tuple[Tensor, ...]) -> list[Tensor]:
    """First and second ones, and tangents."""
    own = [y.clone().requires_grad_() for y in given]
    out = f(*own)
    first = torch.autograd.grad((out * out).sum(), own, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum((d * torch.cos(d)).sum() for d in first), own, materialize_grads=True)
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(y, torch.cos(y)) for y in given]
        tangent = torch.autograd.forward_ad.unpack_dual(f(*duals)).tangent
    return [*first, *second, tangent]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_chosen_has_no_derivative(backend: str) -> None:
    x, y, m, w, c, h = drawn()
    picks = module(backend)
    calls = {
        "call": (lambda *a: picks.picks(*a[:5], h_0=a[5]).h, loop, (x, y, m, w, c, h)),
        "step": (lambda *a: picks.picks_step(*a[:5], h_0=a[5]).h, lambda *a: loop(*(z[:, None] for z in a[:3]), *a[3:])[:, 0],
                 (x[:, 0], y[:, 0], m[:, 0], w, c, h)),
    }  # fmt: skip
    for what, (mine, truth, given) in calls.items():
        for i, (a, b) in enumerate(zip(derivatives(mine, given), derivatives(truth, given), strict=True)):
            assert b.isfinite().all()
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda text, i=i, what=what: f"{what}, {i}: {text}")


SHARED = """spec shared
dim D
input x[D], m[D]
param w[D], R[D, D]
state h[D] = 0
a = log(x)
u = where(x > 0, a, w)                                       # a counts where x is above 0
s = where(x > 1, sqrt(a), x) + 0.5 * where(x > 1, x, u)      # here at fewer places: at 1 the root has an infinite slope
r = where(m > 0, log(u) + R @ where(x > 2, sqrt(log(x / 2)), u), s)
h = 0.5 * h[t-1] + 0.1 * r + where(x > 0, 0.1 * a, 0)
output h
"""


def shared_loop(x: Tensor, m: Tensor, w: Tensor, R: Tensor) -> Tensor:
    rows = []
    for b in range(2):
        h = torch.zeros(2, dtype=torch.float64)
        for t in range(3):
            one = x[b, t]
            a = [torch.log(y) if y > 0 else None for y in one]
            u = [w[d] if y is None else y for d, y in enumerate(a)]
            s = [torch.sqrt(u[d]) + 0.5 * one[d] if one[d] > 1 else one[d] + 0.5 * u[d] for d in range(2)]
            v = [torch.sqrt(torch.log(y / 2)) if y > 2 else u[d] for d, y in enumerate(one)]
            r = [torch.log(u[d]) + R[d] @ torch.stack(v) if m[b, t, d] > 0 else s[d] for d in range(2)]
            h = 0.5 * h + 0.1 * torch.stack(r) + 0.1 * torch.stack([w[0] * 0 if y is None else y for y in a])
            rows.append(h)
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_of_several_branches_counts_where_any_of_them_does(backend: str) -> None:
    f = {"dtype": torch.float64}
    x = torch.tensor([[[-1.0, 1.0], [2.0, 0.5], [0.0, 3.0]], [[2.5, 1.0], [1.5, -2.0], [2.0, 0.0]]], **f)
    m = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]], **f)
    w, R = torch.tensor([0.5, 0.25], **f), torch.tensor([[1.0, 0.5], [-0.5, 2.0]], **f)
    made = load_emitted(compile_spec(SHARED, Options(backend)).text, "shared")
    mine, wanted = (derivatives(call, (x, m, w, R)) for call in (lambda *a: made.shared(*a).h, shared_loop))
    for a, b in zip(mine, wanted, strict=True):
        assert b.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


ROWS = """spec rows
dim D
input x[D], y[D], m[D]
param R[D, D]
state h[D] = 0
h = 0.5 * h[t-1] + where(m > 0, x * sum[D](log(y)) + R @ (1 / y), R @ x)
output h
"""


def rows_loop(x: Tensor, y: Tensor, m: Tensor, R: Tensor) -> Tensor:
    rows = []
    for b in range(2):
        h = torch.zeros(2, dtype=torch.float64)
        for t in range(3):
            one, of = x[b, t], y[b, t]
            u = [one[d] * of.log().sum() + (R[d] / of).sum() if m[b, t, d] > 0 else R[d] @ one for d in range(2)]
            h = 0.5 * h + torch.stack(u)
            rows.append(h)
    return torch.stack(rows).view(x.shape)


def rows_drawn() -> tuple[Tensor, ...]:
    """Rows that are infinite where nothing of them is chosen."""
    x, y, m, *_ = drawn()
    y = torch.where((m > 0).any(-1, keepdim=True), y.abs() + 0.5, 0.0)
    return x / 100, y, m, torch.tensor([[1.0, 0.5], [-0.5, 2.0]], dtype=torch.float64)


def test_what_a_whole_row_tells_counts_where_any_of_the_row_is_chosen() -> None:
    """Two levels of torch.func: all of it is the plain form's."""
    x, y, m, R = rows_drawn()
    made = load_emitted(compile_spec(ROWS, Options("torch")).text, "rows")
    calls = (lambda x, y, R: made.rows(x, y, m, R).h.square().sum(), lambda x, y, R: rows_loop(x, y, m, R).square().sum())
    found = [torch.func.jacrev(torch.func.jacrev(f, (0, 1, 2)), (0, 1, 2))(x, y, R) for f in calls]
    for mine, wanted in zip(*found, strict=True):
        for a, b in zip(mine, wanted, strict=True):
            assert b.isfinite().all()
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_gradients_of_whole_rows(backend: str) -> None:
    """The derived backward pass: the sum over a row has no choice of its own, but one that holds where any place has one."""
    x, y, m, R = rows_drawn()
    made = load_emitted(compile_spec(ROWS, Options(backend)).text, "rows")
    dtype, tolerance = (torch.float32, 1e-5) if backend == "triton" else (torch.float64, 1e-10)
    found = []
    for call, kind in ((lambda *a: made.rows(*a).h, dtype), (rows_loop, torch.float64)):
        own = [z.to(dtype).to(kind).requires_grad_() for z in (x, y, m, R)]
        out = call(*own)
        found.append([out, *torch.autograd.grad((out * out).sum(), own, materialize_grads=True)])
    for a, b in zip(*found, strict=True):
        assert b.isfinite().all()
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("value", ["x", "exp(x)", "(1 / x)", "rmsnorm[E](x)"])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_product_under_a_mask_leaves_no_trace_of_masked_inputs(backend: str, value: str) -> None:
    """W @ x runs for all steps at once, without the mask that chooses it: what is masked is no number of its gradients."""
    text = "spec a\ndim D, E\ninput x[E], m\nparam W[D, E]\nstate h[D] = 0\n"
    text += f"h = where(m > 0, 0.5 * h[t-1] + W @ {value}, h[t-1])\noutput h"
    made = load_emitted(compile_spec(text, Options(backend)).text, "a")
    own = torch.Generator().manual_seed(0)
    x, m, W = (torch.randn(*shape, generator=own, dtype=torch.float64) for shape in ((2, 5, 3), (2, 5), (4, 3)))
    found = []
    for hidden in (torch.nan, 1.0):
        given = [torch.where(m[..., None] > 0, x, hidden).requires_grad_(), W.clone().requires_grad_()]
        out = made.a(given[0], m, given[1]).h
        found.append([out, *torch.autograd.grad((out * out).sum(), given)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b) and a.isfinite().all()


def test_a_step_without_such_branches_is_the_plain_forms_own() -> None:
    tame = "spec tame\ninput x\nstate h = 0\nh = where(x > 0, tanh(x), h[t-1]) + exp(x)\noutput h"
    assert "_differentiated_step" not in compile_spec(tame, Options("torch")).text
