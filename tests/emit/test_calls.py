"""What a person meets: shapes refused by name, results by name, steps equal to runs, the Module."""

from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.emit.data import cell_data, decay_data


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (2, 4)}, r"decay: x has shape \[2, 4\]; its axes are \[B, T, D\]"),
        ({"g": (2, 5, 4)}, r"decay: g has shape \[2, 5, 4\] for \[B, T, D\]; D is 4 here and 3 in x"),
        ({"g": (2, 5)}, r"decay: g has shape \[2, 5\]; its axes are \[B, T, D\]"),
        ({"h_0": (1, 3)}, r"decay: h_0 has shape \[1, 3\] for \[B, D\]; B is 1 here and 2 in x"),
    ],
)
def test_wrong_shapes(decay: ModuleType, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    args = {name: torch.zeros(shapes.get(name, (2, 5, 3))) for name in ("x", "g")}
    args |= {"h_0": torch.zeros(shapes.get("h_0", (2, 3)))}
    with pytest.raises(ValueError, match=message):
        decay.decay(**args)


def test_wrong_shapes_of_a_step_and_wrong_sizes(decay: ModuleType, cell: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"decay: x has shape \[2, 5, 3\]; its axes are \[B, D\]"):
        decay.decay_step(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"cell: R has shape \[3, 4, 5\] for \[H, D, D\]; D is 5 here and 4 in x"):
        cell.cell(torch.zeros(2, 5, 3, 4), torch.zeros(3, 4, 5), torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"cell: dim H is 4; it may be 2, 3"):
        cell.cell(torch.zeros(2, 5, 4, 4), torch.zeros(4, 4, 4), torch.zeros(4, 4), torch.zeros(2, 4))


def test_steps_equal_a_run_and_a_split_run(cell: ModuleType) -> None:
    x, R, f, s, h_0, c_0 = cell_data(6)
    whole = cell.cell(x, R, f, s, h_0=h_0, c_0=c_0)
    first = cell.cell(x[:, :2], R, f, s, h_0=h_0, c_0=c_0)
    rest = cell.cell(x[:, 2:], R, f, s, h_0=first.h_T, c_0=first.c_T)
    torch.testing.assert_close(torch.cat([first.y, rest.y], 1), whole.y)
    h, c = h_0, c_0
    for t in range(6):
        y, h, c = cell.cell_step(x[:, t], R, f, s, h_0=h, c_0=c)
        torch.testing.assert_close(y, whole.y[:, t])
    torch.testing.assert_close((h, c), whole[1:])
    y.sum().backward()
    assert R.grad is not None


def test_module_owns_and_initialises_the_parameters(cell: ModuleType) -> None:
    torch.manual_seed(0)
    layer = cell.Cell(H=3, D=64)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"R": (3, 64, 64), "f": (3, 64)}
    assert abs(layer.R.std().item() - 64**-0.5) < 0.01
    assert torch.equal(layer.f, (0.5 + 0.1 * torch.arange(3)[:, None]).expand(3, 64))
    assert repr(layer) == "Cell(H=3, D=64)"
    x, s = torch.randn(2, 5, 3, 64), torch.randn(2, 64)
    result = layer(x, s)
    assert type(result).__name__ == "CellResult" and result._fields == ("y", "h_T", "c_T")
    result.y.sum().backward()
    assert layer.R.grad is not None and layer.f.grad is not None
    step = layer.step(x[:, 0], s, h_0=result.h_T, c_0=result.c_T)
    assert step.y.shape == (2, 3, 64)
    assert cell.Cell(H=2, D=4, device="meta", dtype=torch.bfloat16).R.dtype == torch.bfloat16


def test_module_without_parameters(decay: ModuleType) -> None:
    layer = decay.Decay(D=3)
    assert not list(layer.parameters())
    x, g, h_0 = decay_data(4)
    assert torch.equal(layer(x, g, h_0=h_0).y, decay.decay(x, g, h_0=h_0).y)


class Seen(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


class Own(torch.Tensor):
    """A tensor of a class of the caller's."""


def test_a_call_past_the_dispatcher_is_the_operators(cell: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; whoever watches operators sees them, and what is no ordinary tensor is given to them."""
    given = cell_data(5)
    weight = torch.cos(torch.arange(given[0].numel(), dtype=torch.float64)).view(given[0].shape)

    def both(watched: Any, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, R, f, s, h_0, c_0 = arguments
        with watched:
            y = cell.cell(x, R, f, s, h_0=h_0, c_0=c_0).y
            return y, *torch.autograd.grad(y, given, weight)

    def bent(*_: Any) -> None:
        raise AssertionError("an operator was called")

    seen = Seen()
    wanted = both(seen, *given)
    assert "forward.default" in seen.names and "backward.default" in seen.names
    with monkeypatch.context() as patch:
        patch.setattr(cell, "_call", bent)
        patch.setattr(cell, "_backward_below", bent)
        found = both(nullcontext(), *given)
        for watched in (torch.profiler.profile(), torch.overrides.BaseTorchFunctionMode()):
            with pytest.raises(AssertionError, match="an operator was called"):
                both(watched, *given)
    assert all(map(torch.equal, found, wanted))
    negative = torch._neg_view(-given[0])
    assert negative.is_neg() and all(map(torch.equal, both(nullcontext(), negative, *given[1:]), wanted))
    own = both(nullcontext(), given[0].as_subclass(Own), *given[1:])
    assert type(own[0]) is Own and all(map(torch.equal, own, wanted))


@pytest.mark.parametrize("turned", [lambda d: torch._neg_view(-d), lambda d: d.as_subclass(Own)])
def test_a_cotangent_is_no_ordinary_tensor(decay: ModuleType, turned: Any) -> None:
    x, g, h_0 = decay_data(4)
    weight = torch.cos(torch.arange(x.numel(), dtype=torch.float64)).view(x.shape)
    found = [torch.autograd.grad(decay.decay(x, g, h_0=h_0).y, (x, g, h_0), d) for d in (weight, turned(weight))]
    assert all(map(torch.equal, *found))
