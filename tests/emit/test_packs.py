"""Packs of sequences and reversed calls: every backend, forward and all gradients, against the oracle and separate calls.

The specs differ in what a boundary between sequences or a direction could break: chunks (gla, delta_rule, gsa, mlstm),
scans (hgrn, mamba), steps and sums of outer products (lstm), lags and look-ahead (conv, fsmn_centred), longer lags
(lagged), parameters that belong to a sequence (sampled), products outside of the recurrence that read another step
(layer), a recurrence that is declared to run backwards, and two that run both ways (both_ways, bidirectional_gru).
"""

from __future__ import annotations

import json
import re
from types import ModuleType

import pytest
import torch

from tests.conftest import OPTIMISED_SPECS
from tests.emit import packed
from tests.emit.data import cell_data, decay_data
from tests.triton import processes

SPECS = ("gla", "delta_rule", "hgrn", "conv", "fsmn_centred", "lstm", "mamba", "mlstm", "gsa", "lagged", "sampled", "layer")
SPECS += ("both_ways", "bidirectional_gru")
SPECS += tuple(packed.BACKWARD + name for name in ("hgrn", "lstm", "conv", "layer"))
# in the interpreter, which is slow, one of each kind
INTERPRETED = ("delta_rule", "hgrn", "conv", "fsmn_centred", "lstm", "mlstm", "lagged", "sampled", "layer", "both_ways")
INTERPRETED += tuple(packed.BACKWARD + name for name in ("lstm", "conv"))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_pack_and_reverse(name: str, backend: str) -> None:
    assert not packed.failures(name, backend, "float64")
    # libraries of float32 are those that native_cpu/test_specs builds too
    single = "float64" if backend == "cpu" and name not in OPTIMISED_SPECS else "float32"
    assert not packed.failures(name, backend, single, hard=name not in ("mlstm", "gsa"))


QUICK = (("delta_rule", "hgrn"), ("both_ways", f"{packed.BACKWARD}conv"))
REST = tuple(name for name in INTERPRETED if not any(name in some for some in QUICK))


@pytest.mark.parametrize("mine", [*QUICK, pytest.param(REST, marks=pytest.mark.long)])
def test_pack_and_reverse_in_triton(mine: tuple[str, ...]) -> None:
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.emit.packed", *mine])
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(mine), done.stderr[-3000:]
    assert not {name: what for name, what in zip(mine, said, strict=True) if what}


def test_opcheck_of_a_pack(decay: ModuleType, cell: ModuleType) -> None:
    bounds = torch.tensor([0, 2, 2, 5])
    x, g, h_0 = (v.detach() for v in decay_data(5, torch.float32, B=3))
    arguments = [x[:1], g[:1], h_0]
    torch.library.opcheck(decay._OPS.run.default, (*(v.clone().requires_grad_() for v in arguments), bounds, False))
    torch.library.opcheck(decay._OPS.run.default, (*(v.clone().requires_grad_() for v in arguments), bounds.int(), True))
    x, R, f, s, h_0, c_0 = (v.detach() for v in cell_data(5, torch.float32))
    arguments = [x[:1], R, f, s, h_0, c_0]
    bounds = torch.tensor([0, 0, 5])
    torch.library.opcheck(cell._OPS.run.default, (*(v.clone().requires_grad_() for v in arguments), bounds, True))


def test_compiled_by_torch_without_a_break(cell: ModuleType) -> None:
    def run(bounds: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        y, h_T, c_T = cell.cell(args[0].sin(), *args[1:4], cu_seqlens=bounds, reverse=True)
        return y.square().sum() + h_T.sum() + c_T.cos().sum()

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in (127, 193):
        x, *rest = cell_data(steps, torch.float32)
        args = [x[:1].detach().requires_grad_(), *rest]
        bounds = torch.tensor([0, 50, steps], dtype=torch.int32)
        mine, truth = compiled(bounds, *args), run(bounds, *args)
        torch.testing.assert_close(mine, truth)
        torch.testing.assert_close(torch.autograd.grad(mine, args[:4]), torch.autograd.grad(truth, args[:4]))
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(torch.tensor([0, 3, steps], dtype=torch.int32), *args)


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        (torch.tensor([0.0, 5.0]), TypeError, r"cu_seqlens is torch.float32; it is torch.int32 or torch.int64"),
        (torch.tensor([[0, 5]]), ValueError, r"cu_seqlens has shape \[1, 2\]; for N sequences it is \[N \+ 1\]"),
        (torch.tensor([], dtype=torch.int64), ValueError, r"cu_seqlens has shape \[0\]"),
        (torch.tensor([0, 5], device="meta"), ValueError, r"cu_seqlens is on meta, the inputs are on cpu"),
        (torch.tensor([1, 5]), ValueError, r"begins with 0, never decreases, and ends with T = 5 or less"),
        (torch.tensor([0, 6]), ValueError, r"begins with 0, never decreases, and ends with T = 5 or less"),
        (torch.tensor([0, 4, 2, 5]), ValueError, r"begins with 0, never decreases, and ends with T = 5 or less"),
    ],
)
def test_wrong_bounds(decay: ModuleType, bounds: torch.Tensor, error: type[Exception], message: str) -> None:
    x, g, _ = decay_data(5, B=1)
    with pytest.raises(error, match=f"decay: .*{message}"):
        decay.decay(x, g, cu_seqlens=bounds)


def test_wrong_shapes_of_a_pack(decay: ModuleType, cell: ModuleType) -> None:
    x, g, h_0 = decay_data(5)
    with pytest.raises(ValueError, match=r"decay: the inputs have B = 2; with cu_seqlens .* in one row: \[1, T, ...\]"):
        decay.decay(x, g, cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"decay: h_0 has shape \[2, 3\] for \[B, D\]; B is 2 here and 3 in cu_seqlens"):
        decay.decay(x[:1], g[:1], h_0=h_0, cu_seqlens=torch.tensor([0, 1, 2, 5]))
    x, R, f, s, *_ = cell_data(5)
    with pytest.raises(ValueError, match=r"cell: s has shape \[2, 4\] for \[B, D\]; B is 2 here and 1 in cu_seqlens"):
        cell.cell(x[:1], R, f, s, cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(TypeError, match=r"decay_step\(\) got an unexpected keyword argument 'cu_seqlens'"):
        decay.decay_step(x[:, 0], x[:, 0], cu_seqlens=torch.tensor([0, 5]))


def test_nothing_in_a_pack(decay: ModuleType) -> None:
    """No step at all, and no sequence at all: states come back as they were, and so do their gradients."""
    for bounds in ([0, 0, 0], [0]):
        x, g, h_0 = decay_data(0, B=len(bounds) - 1)
        x, g = (v.detach()[:1].reshape(1, 0, 3).requires_grad_() for v in (x, g))
        y, h_T = decay.decay(x, g, h_0=h_0, cu_seqlens=torch.tensor(bounds))
        assert y.shape == (1, 0, 3) and torch.equal(h_T, h_0)
        (d_h,) = torch.autograd.grad(h_T.sum() + y.sum(), h_0)
        assert torch.equal(d_h, torch.ones_like(h_0))


def test_module_takes_packs(cell: ModuleType) -> None:
    torch.manual_seed(0)
    layer = cell.Cell(H=3, D=4)
    x, s, bounds = torch.randn(1, 7, 3, 4), torch.randn(3, 4), torch.tensor([0, 2, 2, 7])
    mine = layer(x, s, cu_seqlens=bounds, reverse=True)
    theirs = cell.cell(x, layer.R, layer.f, s, cu_seqlens=bounds, reverse=True)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("name", ["gla", "hgrn", "lstm", "conv", "layer"])
def test_nothing_of_a_pack_is_read_on_the_host(name: str) -> None:
    """The Triton part takes packs itself, and its launchers never bring a value from the device."""
    made = packed.compiled(name, "triton").text
    part = made.split("---------- the recurrence in Triton")[1].split("# ----------")[0]
    assert "_TRITON = _Form(\n    _prepare_triton,\n    _infer_triton" in made or "_Form(_prepare_triton, _infer_tri" in made
    dims = "|".join(packed.compiled(name, "triton").program.dims)
    part = re.sub(rf"\bint\(({dims})\)", "", part)  # the size of a dim: the host has it
    assert not [word for word in (".tolist(", ".item(", ".cpu(", ".numpy(", "bool(", "int(") if word in part]
