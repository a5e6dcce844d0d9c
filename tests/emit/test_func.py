"""torch.func, batched gradients, results that no loss uses, the meta device, dtypes, and more arguments than a schema may have.

Each transform is compared with a loop of plain calls, or with torch's autograd over the hand-written reference.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap

import seqc
from tests.emit import packed
from tests.emit.data import cell_data, cell_reference, decay_data, decay_reference


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def cell_loss(call: Any, *args: Tensor) -> Tensor:
    """A number of all results of the cell: inputs, params, states."""
    results = call(*args[:4], h_0=args[4], c_0=args[5]) if call is not cell_reference else call(*args)
    return sum(r.sin().sum() for r in results)  # type: ignore[return-value]


def members(data: Any, count: int) -> list[Tensor]:
    """Arguments with a new first axis, each member different."""
    return [torch.stack([x * (1 - 0.1 * i) for i in range(count)]) for x in data(4, grad=False)]


@pytest.mark.parametrize("batched", [(0,), (0, 4, 5), (1,), (2, 3), (0, 1, 2, 3, 4, 5)])
def test_vmap_of_values_and_gradients(cell: ModuleType, batched: tuple[int, ...]) -> None:
    """Of inputs and states, which take the new axis into the batch; of params, shared and per batch, which run in turn."""
    many, one = members(cell_data, 3), cell_data(4, grad=False)
    args = [m if i in batched else x for i, (m, x) in enumerate(zip(many, one, strict=True))]
    dims = tuple(0 if i in batched else None for i in range(6))
    each = [[m[k] if i in batched else m for i, m in enumerate(args)] for k in range(3)]

    def call(*a: Tensor) -> tuple[Tensor, ...]:
        return tuple(cell.cell(*a[:4], h_0=a[4], c_0=a[5]))

    close(vmap(call, dims)(*args), tuple(map(torch.stack, zip(*(call(*a) for a in each), strict=True))))
    every = tuple(range(6))
    mine = vmap(grad(lambda *a: cell_loss(cell.cell, *a), every), dims)(*args)
    truth = []
    for a in each:
        leaves = [x.clone().requires_grad_() for x in a]
        truth.append(torch.autograd.grad(cell_loss(cell_reference, *leaves), leaves))
    close(mine, tuple(map(torch.stack, zip(*truth, strict=True))))


def test_vmap_within_vmap_and_over_another_axis(decay: ModuleType) -> None:
    x, g, h_0 = (torch.stack([torch.stack([y * (i + j + 1) for i in range(2)], 1) for j in range(3)])
                 for y in decay_data(4, grad=False))  # fmt: skip

    def loss(x: Tensor, g: Tensor, h_0: Tensor) -> Tensor:
        return decay.decay(x, g, h_0=h_0).y.square().sum()

    mine = vmap(vmap(grad(loss, (0, 1, 2)), 1), 0)(x, g, h_0)
    assert mine[0].shape == (3, 2, 2, 4, 3)
    for j in range(3):
        for i in range(2):
            leaves = [y[j, :, i].clone().requires_grad_() for y in (x, g, h_0)]
            truth = torch.autograd.grad(decay_reference(*leaves)[0].square().sum(), leaves)
            close(tuple(d[j, i] for d in mine), truth)


def test_jacobians_and_second_derivatives(decay: ModuleType) -> None:
    x, g, h_0 = decay_data(3, grad=False, B=1)

    def mine(x: Tensor) -> Tensor:
        return decay.decay(x.square(), g, h_0=h_0).y.sin()

    def truth(x: Tensor) -> Tensor:
        return decay_reference(x.square(), g, h_0)[0].sin()

    for derivative in (jacrev, jacfwd, lambda f: hessian(lambda y: f(y).sum()), lambda f: jacrev(jacrev(lambda y: f(y).sum()))):
        close(derivative(mine)(x), derivative(truth)(x))


def test_gradient_of_torch_func_inside_of_autograd(cell: ModuleType) -> None:
    """A loss that is made of values and of gradients of torch.func, differentiated by autograd."""
    found = []
    for call in (cell.cell, cell_reference):
        args = cell_data(3)
        own = torch.func.grad_and_value(lambda R, call=call, args=args: cell_loss(call, args[0], R, *args[2:]))
        inner, value = own(args[1])
        found.append(torch.autograd.grad(inner.sin().sum() + value, args))
    close(*found)


def test_batched_gradients(cell: ModuleType) -> None:
    args = cell_data(4)
    y = cell.cell(*args[:4], h_0=args[4], c_0=args[5]).y
    weights = torch.randn(3, *y.shape, dtype=torch.float64)
    mine = torch.autograd.grad(y, args, weights, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, args, w, retain_graph=True) for w in weights]
    close(mine, tuple(map(torch.stack, zip(*each, strict=True))))


def test_per_sample_gradients_of_a_layer_and_of_steps(cell: ModuleType) -> None:
    layer = cell.Cell(H=3, D=4, dtype=torch.float64)
    params = {name: p.detach() for name, p in layer.named_parameters()}
    x, s = torch.randn(3, 5, 3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def loss(params: dict[str, Tensor], x: Tensor, s: Tensor) -> Tensor:
        return functional_call(layer, params, (x[None], s[None])).y.square().sum()

    def step_loss(params: dict[str, Tensor], x: Tensor, s: Tensor) -> Tensor:
        return cell.cell_step(x[None], params["R"], params["f"], s[None]).y.square().sum()

    for what, given in ((loss, x), (step_loss, x[:, 0])):
        mine = vmap(grad(what), (None, 0, 0))(params, given, s)
        truth = [grad(what)(params, given[i], s[i]) for i in range(3)]
        close(mine, {name: torch.stack([t[name] for t in truth]) for name in params})
    close(vmap(lambda a, b: cell.cell_step(a[None], params["R"], params["f"], b[None]).y)(x[:, 0], s),
          cell.cell_step(x[:, 0], params["R"], params["f"], s).y[:, None])  # fmt: skip


def test_a_pack_under_vmap(decay: ModuleType) -> None:
    x, g, h_0 = (y.detach() for y in decay_data(5, B=3))
    bounds, scales = torch.tensor([0, 2, 2, 5]), torch.tensor([1.0, 0.5], dtype=torch.float64)

    def loss(scale: Tensor) -> Tensor:
        return decay.decay(x[:1] * scale, g[:1], h_0=h_0, cu_seqlens=bounds, reverse=True).y.square().sum()

    close(vmap(grad(loss))(scales), torch.stack([grad(loss)(one) for one in scales]))
    close(jacfwd(loss)(scales[0]), grad(loss)(scales[0]))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_of_a_compiled_spec(backend: str) -> None:
    module = packed.module("hgrn", backend)
    sizes = (3, 5, *(packed.usual_sizes(packed.compiled("hgrn", backend).program)[d] for d in ("H", "D")[-1:]))
    x, g = torch.randn(sizes, dtype=torch.float64), -torch.rand(sizes, dtype=torch.float64)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return module.hgrn(a[None], b[None])[0].square().sum()

    close(vmap(grad(loss))(x, g), torch.stack([grad(loss)(x[i], g[i]) for i in range(3)]))


# ---- results that no loss uses ----

OVERFLOW = """spec overflow
dim D
input x[D]
param w[D]
state h[D] = 0, n[D] = 1
h = 0.9 * h[t-1] + w * x
n = exp(n[t-1] * n[t-1] + h)
output h
output n
output r[D] = sqrt(h - h)
"""


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_what_the_loss_does_not_use_does_not_spoil_the_gradient(backend: str) -> None:
    f = seqc.compile(OVERFLOW, backend=backend)
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).reshape(1, 4, 1)
    for used in (("h",), ("h_T",), ("h", "h_T")):
        found = []
        for packing in ({}, {"cu_seqlens": torch.tensor([0, 4])}):
            x, w = values.clone().requires_grad_(), torch.ones(1, dtype=torch.float64, requires_grad=True)
            results = f(x, w, **packing)
            assert results.n.isinf().any() and (results.r == 0).all()
            found.append(torch.autograd.grad(sum(getattr(results, name).sum() for name in used), (x, w)))
        x, w, h, total = values.clone().requires_grad_(), torch.ones(1, dtype=torch.float64, requires_grad=True), 0.0, 0.0
        for t in range(4):
            h = 0.9 * h + w * x[:, t]
            total = total + h.sum() * ("h" in used) + h.sum() * ("h_T" in used and t == 3)  # type: ignore[attr-defined]
        for mine in found:
            close(mine, torch.autograd.grad(total, (x, w), retain_graph=True))  # type: ignore[arg-type]


def test_a_last_state_that_nothing_reads_does_not_spoil_the_gradient() -> None:
    """The last update overflows, and no output of its step reads it."""
    text = "spec late\ndim D\ninput x[D]\nstate n[D] = 1\noutput o = n[t-1] * x\nn = exp(n[t-1] * n[t-1] + x)\n"
    f = seqc.compile(text, backend="torch")
    x = torch.full((1, 3, 2), 0.5, dtype=torch.float64, requires_grad=True)
    result = f(x)
    assert result.n_T.isinf().all() and result.o.isfinite().all()
    n, total = torch.ones(1, 2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for v in x.unbind(1):
        total = total + (n * v).sum()
        n = torch.exp(n * n + v)
    close(torch.autograd.grad(result.o.sum(), x), torch.autograd.grad(total, x))


# ---- devices and dtypes ----


def test_meta_device(cell: ModuleType, decay: ModuleType) -> None:
    layer = cell.Cell(H=3, D=4, device="meta")
    x, s = torch.empty(2, 5, 3, 4, device="meta"), torch.empty(2, 4, device="meta")
    result = layer(x, s)
    result.y.sum().backward()
    assert result.y.device.type == "meta" and result.y.shape == x.shape and result.h_T.shape == (2, 3, 4)
    assert layer.R.grad is not None and layer.R.grad.shape == layer.R.shape
    with torch.no_grad():
        assert layer.step(x[:, 0], s).y.shape == (2, 3, 4) and layer(x, s).c_T.shape == (2, 3, 4)
    with FakeTensorMode():
        x = torch.empty(2, 5, 3, requires_grad=True)
        y = decay.decay(x, torch.empty(2, 5, 3)).y
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_dtypes_that_are_refused(cell: ModuleType, dtype: torch.dtype) -> None:
    help = {torch.complex64: "real and imaginary parts", torch.float8_e4m3fn: "bfloat16"}.get(dtype, "float32")
    kinds = {"x": "inputs", "R": "parameters", "s": "parameters", "c_0": "initial states"}
    for at, name in ((0, "x"), (1, "R"), (3, "s"), (5, "c_0")):
        args = [a.detach() for a in cell_data(4, torch.float32)]
        args[at] = args[at].abs().to(dtype)
        for what in (cell.cell, cell.cell_step):
            given = [a[:, 0] if what is cell.cell_step and i == 0 else a for i, a in enumerate(args)]
            with pytest.raises(TypeError, match=rf"cell: {name} is {dtype}; {kinds[name]} are .*{help}"):
                what(*given[:4], h_0=given[4], c_0=given[5])
            with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=rf"cell: {name} is {dtype}"):
                what(*given[:4], h_0=given[4], c_0=given[5])


# ---- more arguments than a schema may have ----

MANY = "spec many\ndim D\ninput x[D]\n" + "".join(f"param w{i}\n" for i in range(70)) + "state h[D] = 0\n"
MANY += "h = 0.5 * h[t-1] + x * (" + " + ".join(f"{i + 1} * w{i}" for i in range(70)) + ")\noutput o = h\n"
WIDE = "spec wide\ndim D\ninput x[D]\nparam w\n" + "".join(f"output o{i}[D] = x * w * {i + 1}\n" for i in range(66))


def test_more_arguments_than_a_schema_may_have() -> None:
    f = seqc.compile(MANY, backend="torch")
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    w = [torch.randn((), dtype=torch.float64, requires_grad=True) for _ in range(70)]

    def loop(x: Tensor, *w: Tensor) -> Tensor:
        total, h, rows = sum((i + 1) * v for i, v in enumerate(w)), torch.zeros_like(x[:, 0]), []
        for v in x.unbind(1):
            h = 0.5 * h + v * total
            rows.append(h)
        return torch.stack(rows, 1)

    (want, got) = (torch.autograd.grad(c(x, *w).sin().sum(), [x, *w]) for c in (loop, lambda *a: f(*a).o))
    close(got, want)
    close(grad(lambda y: f(y, *w).o.sin().sum())(x.detach()), want[0])
    samples = x.detach().unsqueeze(1)
    close(vmap(grad(lambda y: f(y, *w).o.sin().sum()))(samples), want[0].unsqueeze(1))
    close(f.step(x[:, 0], *w).o, f(x[:, :1], *w).o[:, 0])
    tensors = [y.detach().requires_grad_() for y in (x, *w, torch.zeros(2, 2, dtype=torch.float64))]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # what the compiled call below does not check
    torch.library.opcheck(f.module._OPS.operators.run.default, (tensors, None, False), test_utils=checks)
    compiled = torch.compile(lambda *a: f(*a).o.sin().sum(), fullgraph=True, backend="aot_eager")
    close(torch.autograd.grad(compiled(x, *w), [x, *w]), want)


def test_more_results_than_a_schema_may_have() -> None:
    f = seqc.compile(WIDE, backend="torch")
    x, w = torch.randn(2, 3, 2, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    close(torch.autograd.grad(f(x, w).o65.sum(), w)[0], 66 * x.sum())
