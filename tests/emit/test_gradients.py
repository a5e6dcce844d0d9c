"""The gradients that pass through the boundary: all of them, some of them, none, and second ones."""

import math
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from tests.emit.data import cell_data, cell_reference, decay_data, decay_reference

ROUNDING = 1e-12  # float64, a few dozen operations deep


def loss(results: tuple[Tensor, ...]) -> Tensor:
    """Linear, with fixed random weights: every cotangent is dense and none is special."""
    made = torch.Generator().manual_seed(7)
    return sum((r * torch.randn(r.shape, generator=made, dtype=r.dtype)).sum() for r in results)  # type: ignore[return-value]


def gradients(results: tuple[Tensor, ...], args: list[Tensor]) -> tuple[Tensor, ...]:
    """Of the loss; zeros for an argument that the results do not depend on."""
    return torch.autograd.grad(loss(results), args, materialize_grads=True)


def close(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("T", [0, 1, 2, 7])
def test_forward_and_every_gradient(decay: ModuleType, cell: ModuleType, T: int) -> None:
    x, g, h_0 = args = decay_data(T)
    mine, truth = decay.decay(x, g, h_0=h_0), decay_reference(*args)
    close(mine, truth)
    close(gradients(mine, args), gradients(truth, args))
    args = cell_data(T)
    mine, truth = cell.cell(*args[:4], h_0=args[4], c_0=args[5]), cell_reference(*args)
    close(mine, truth)
    close(gradients(mine, args), gradients(truth, args))


def test_no_batch(decay: ModuleType) -> None:
    x, g, h_0 = args = decay_data(3, B=0)
    y, h_T = decay.decay(x, g, h_0=h_0)
    assert y.shape == (0, 3, 3) and h_T.shape == (0, 3)
    assert [d.shape for d in torch.autograd.grad(y.sum(), args)] == [v.shape for v in args]


def test_finite_differences(cell: ModuleType) -> None:
    assert torch.autograd.gradcheck(lambda *a: cell.cell(*a[:4], h_0=a[4], c_0=a[5]), cell_data(3))


def test_default_state_passes_its_gradient_to_the_parameter(cell: ModuleType) -> None:
    x, R, f, s, *_ = cell_data(4)
    start = torch.full((2, 3, 4), -0.25, dtype=torch.float64), torch.sin(f).expand(2, 3, 4)
    (mine,) = torch.autograd.grad(loss(cell.cell(x, R, f, s)), f)
    (truth,) = torch.autograd.grad(loss(cell_reference(x, R, f, s, *start)), f)
    close((mine,), (truth,))


@pytest.mark.parametrize("wanted", range(6))
def test_one_argument_alone_requires_grad(cell: ModuleType, wanted: int) -> None:
    args = cell_data(4, grad=False)
    args[wanted].requires_grad_()
    (mine,) = torch.autograd.grad(loss(cell.cell(*args[:4], h_0=args[4], c_0=args[5])), args[wanted])
    (truth,) = torch.autograd.grad(loss(cell_reference(*args)), args[wanted])
    close((mine,), (truth,))


@pytest.mark.parametrize("used", range(3))
def test_one_result_alone_is_used(cell: ModuleType, used: int) -> None:
    args = cell_data(4)
    mine = cell.cell(*args[:4], h_0=args[4], c_0=args[5])[used : used + 1]
    close(gradients(mine, args), gradients(cell_reference(*args)[used : used + 1], args))


def test_zero_stride_cotangent(decay: ModuleType) -> None:
    args = decay_data(6)
    decay.decay(*args[:2], h_0=args[2]).y.sum().backward()
    truth = torch.autograd.grad(decay_reference(*args)[0].sum(), args)
    close(tuple(v.grad for v in args if v.grad is not None), truth)


def test_non_contiguous_inputs(decay: ModuleType) -> None:
    x, g, h_0 = (v.detach() for v in decay_data(6))
    x = x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    g = g[:, :, :1].expand(2, 6, 3).requires_grad_()
    h_0 = h_0.t().contiguous().t().requires_grad_()
    assert not any(v.is_contiguous() for v in (x, g, h_0))
    mine, truth = decay.decay(x, g, h_0=h_0), decay_reference(x, g, h_0)
    close(mine, truth)
    close(gradients(mine, [x, g, h_0]), gradients(truth, [x, g, h_0]))


def test_second_derivatives(decay: ModuleType, cell: ModuleType) -> None:
    """Those of the plain form, of every argument and of the cotangents; third ones are refused."""
    for T in (0, 3):
        x, g, h_0 = args = decay_data(T)
        seconds = []
        for results in (decay.decay(x, g, h_0=h_0), decay_reference(*args)):
            first = torch.autograd.grad(loss(tuple(r.square() for r in results)), args, create_graph=True)
            seconds.append(torch.autograd.grad(loss(tuple(d.sin() for d in first)), args, materialize_grads=True))
        close(*seconds)
    args = cell_data(3)
    made = cell.cell(*args[:4], h_0=args[4], c_0=args[5])
    (d_x,) = torch.autograd.grad(loss(tuple(r.square() for r in made)), args[0], create_graph=True)
    (truth,) = torch.autograd.grad(loss(tuple(r.square() for r in cell_reference(*args))), args[0], create_graph=True)
    mine, wanted = (torch.autograd.grad(d.sin().sum(), args, create_graph=True) for d in (d_x, truth))
    close(mine, wanted)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        mine[0].sum().backward()


def test_no_state_and_one_result(square: ModuleType) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    result = square.square(x)
    assert result._fields == ("y",)
    close((result.y,), (x * x,))
    close(torch.autograd.grad(result.y.sum(), x), (2 * x,))
    with torch.no_grad():
        assert not square.square(x).y.requires_grad


def test_no_gradient_without_need(decay: ModuleType) -> None:
    args = decay_data(3)
    with torch.no_grad():
        assert not decay.decay(*args[:2]).y.requires_grad
    with torch.inference_mode():
        assert decay.decay(*args[:2]).y.is_inference()
    assert decay.decay(*args[:2]).y.requires_grad
    assert not decay.decay(*decay_data(3, grad=False)[:2]).y.requires_grad


GPU = torch.device("cuda")


@dataclass(frozen=True)
class _OnGpu:
    """What is asked of a gradient on a GPU, where this machine has none."""

    values: Tensor
    device: torch.device = GPU

    def isfinite(self) -> Tensor:
        return self.values.isfinite()


def test_gradients_beside_an_unused_result_are_looked_at_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "spec s\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x\noutput a = h\noutput b = log(h)\n"
    module, one = load_emitted(compile_spec(text, Options("torch")).text, "s"), torch.ones(1)
    for bad, b, recorded, spoilt in (
        (1.0, None, False, False), (math.nan, None, False, True), (math.inf, None, False, True),
        (math.nan, one, False, False), (math.nan, None, True, False),
    ):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda recorded=recorded: recorded)
        found = [_OnGpu(torch.ones(3)), _OnGpu(torch.tensor([0.0, bad]))]
        assert module._spoilt(found, (one, b, None)) is spoilt
