"""A library holds the kernels that a call needs: of forward, of backward or of one step, which take 4 rows of the batch at a
time, 3, 2 or 1. Others are built when they are called."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import cast

import pytest
import torch
from torch import Tensor

import seqc
from seqc.backends.native_cpu import loader

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")
SPEC = "spec cell\ndim D = 3\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\nh = tanh(x + R @ h[t-1])\noutput h\n"


@pytest.fixture(scope="module")
def cell() -> ModuleType:
    module = seqc.compile(SPEC, backend="cpu").module
    module._NATIVE_ALL = False  # type: ignore[attr-defined]
    return module


def by_hand(x: Tensor, R: Tensor) -> Tensor:
    h, steps = torch.zeros_like(x[:, 0]), []
    for now in x.unbind(1):
        h = torch.tanh(now + h @ R.T)
        steps.append(h)
    return torch.stack(steps, 1)


Built = list[tuple[str, int]]


@pytest.fixture
def built(cell: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Built:
    """The libraries that are built or loaded, in their order: the kernels, and the rows of the batch as bits."""
    usual, found = cell._native_library, Built()

    def library(text: str, defines: dict[str, str]) -> ctypes.CDLL:
        found.append((defines["SEQC_KERNELS"], int(defines["SEQC_ROWS"])))
        return cast(ctypes.CDLL, usual(text, defines))

    monkeypatch.setattr(cell, "_native_library", library)
    cell._native_kernel.cache_clear()
    return found


def test_each_batch_has_its_kernels(cell: ModuleType, built: Built) -> None:
    torch.manual_seed(0)
    R = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    known = Built()
    for batch, bits in ((2, 2), (9, 5), (2, 2), (13, 5), (7, 7), (11, 7), (3, 3)):
        x = torch.randn(batch, 5, 3, dtype=torch.float64, requires_grad=True)
        known += [(kernels, bits) for kernels in ("FORWARD", "BACKWARD") if (kernels, bits) not in known]
        got, want = cell.cell(x, R), by_hand(x, R)
        torch.testing.assert_close(got.h, want)
        weights = torch.randn_like(want)
        for one, other in zip(*(torch.autograd.grad((weights * h).sum(), (x, R)) for h in (got.h, want)), strict=True):
            torch.testing.assert_close(one, other)
        assert built == known
    with torch.no_grad():
        R = R.detach()
        x = torch.randn(1, 9, 3, dtype=torch.float64)  # sequences of a pack take one row each
        pack = cell.cell(x, R, cu_seqlens=torch.tensor([0, 4, 9])).h
        torch.testing.assert_close(pack, torch.cat([by_hand(part, R) for part in x.split([4, 5], 1)], 1))
    assert built == [*known, ("FORWARD", 1)]


def test_steps_have_libraries_of_their_own(cell: ModuleType, built: Built) -> None:
    R = torch.randn(3, 3, dtype=torch.float64)
    before = len(cell._NATIVE_STEPS)
    for batch in (1, 2, 9, 7, 3, 1):
        x = torch.randn(batch, 1, 3, dtype=torch.float64)
        torch.testing.assert_close(cell.cell_step(x[:, 0], R).h, by_hand(x, R)[:, 0])
    assert built == [("STEP", bits) for bits in (1, 2, 5, 7, 3)]
    assert len(cell._NATIVE_STEPS) in (before, before + 5)  # as many functions, where torch can describe tensors to libraries


def test_one_library_of_all(cell: ModuleType, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "_NATIVE_ALL", True)
    R = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    for batch in (2, 5):
        x = torch.randn(batch, 4, 3, dtype=torch.float64)
        torch.testing.assert_close(cell.cell(x, R).h, by_hand(x, R))
        cell.cell(x, R).h.sum().backward()
        torch.testing.assert_close(cell.cell_step(x[:, 0], R.detach()).h, by_hand(x, R.detach())[:, 0])
    assert built == [("ALL", 8)]


def test_a_row_is_what_it_is_in_any_batch(cell: ModuleType) -> None:
    torch.manual_seed(1)
    x, R = torch.randn(11, 6, 3), torch.randn(3, 3)
    whole = cell.cell(x, R).h
    for batch in range(1, 11):
        assert torch.equal(cell.cell(x[:batch], R).h, whole[:batch])


def test_a_batch_that_a_trace_leaves_open_builds_nothing(cell: ModuleType) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        x = mode.from_tensor(torch.randn(3, 4, 3), static_shapes=False)
        assert cell._native_rows(x.shape[0]) is x.shape[0]
        assert cell.cell(x, torch.randn(3, 3)).h.shape == x.shape


def test_dims_with_the_names_of_the_builds_own_macros() -> None:
    spec = "spec cell\ndim ROWS, REAL, L1\ninput x[ROWS, REAL, L1]\nstate h[ROWS, REAL, L1] = 0\nh = h[t-1] / 2 + x\noutput h\n"
    x = torch.randn(2, 4, 2, 3, 5, dtype=torch.float64)
    h, steps = torch.zeros_like(x[:, 0]), []
    for now in x.unbind(1):
        h = h / 2 + now
        steps.append(h)
    torch.testing.assert_close(seqc.compile(spec, backend="cpu")(x).h, torch.stack(steps, 1))
