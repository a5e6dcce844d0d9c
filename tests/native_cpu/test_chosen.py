"""What runs where native code cannot be built: plain torch if the choice was left open, an error if it was not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

import seqc
from seqc.backends.native_cpu import loader

SPEC = "spec z\ndim D\ninput x[D]\nparam a[D]\nstate h[D] = 0\nh = sigmoid(a) * h[t-1] + x\noutput h\n"
SCRIPTS = {
    "fails to compile": 'case "$*" in *-c*) echo broken >&2; exit 1;; esac; exec c++ "$@"',
    "writes no library": 'case "$*" in *-shared*) for x; do :; done; echo nothing > "$x"; exit 0;; esac; exec c++ -O0 "$@"',
    "writes nothing": 'case "$*" in *--version*) exec c++ "$@";; esac',
    "answers nothing": "exit 3",
}

pytestmark = pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")


def run(f: seqc.Recurrence) -> list[torch.Tensor]:
    """Results, a gradient and a step."""
    torch.manual_seed(0)
    x, a = torch.randn(2, 5, 3), torch.randn(3, requires_grad=True)
    results = f(x, a)
    (d_a,) = torch.autograd.grad(results.h.square().sum(), a)
    return [*(r.detach() for r in results), d_a, *f.step(x[:, 0], a.detach())]


@pytest.mark.parametrize("fault", [*SCRIPTS, "is not there"])
def test_the_next_form_runs(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "compiler"
    if fault in SCRIPTS:
        compiler.write_text(f"#!/bin/sh\n{SCRIPTS[fault]}\n")
        compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    text = SPEC.replace("spec z", f"spec {re.sub(' ', '_', fault)}")  # a file of its own, which has said nothing yet
    open_choice, native = seqc.compile(text), seqc.compile(text, "cpu")
    with pytest.warns(UserWarning, match=r"no native kernels for D=3 in torch.float32: CPU tensors take") as told:
        found = run(open_choice)
        run(open_choice)
    assert len(told) == 1
    for x, y in zip(found, run(seqc.compile(SPEC, "torch")), strict=True):
        torch.testing.assert_close(x, y)
    with pytest.raises((RuntimeError, OSError)):
        run(native)
    assert not list(tmp_path.glob("seqc/build-*"))


def test_native_code_runs_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    f = seqc.compile(SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(f)
    assert f.module._form(torch.zeros(2, 5, 3), torch.zeros(3), torch.zeros(2, 3)) is f.module._CPU


@pytest.mark.parametrize("backend", ["auto", "cpu", "torch"])
def test_dims_without_elements(backend: str) -> None:
    """A dim of extent 0: nothing to compute in it, and a sum over it is 0."""
    text = "spec z\ndim D, E\ninput x[D], y[E]\nstate h[D] = 0, n = 0\nh = 0.5 * h[t-1] + x\noutput h\noutput o[E] = y + n\n"
    f = seqc.compile(text + "n = n[t-1] + sum[D](h) + sum[E](y)\n", backend)
    x, y = torch.zeros(2, 4, 0, requires_grad=True), torch.ones(2, 4, 3, requires_grad=True)
    h, o, h_T, n_T = f(x, y)
    assert h.shape == (2, 4, 0) and h_T.shape == (2, 0)
    torch.testing.assert_close(n_T, torch.full((2,), 12.0))
    d_x, d_y = torch.autograd.grad(o.sum() + h.sum(), [x, y])
    assert d_x.shape == x.shape and torch.equal(d_y, 1 + 3.0 * torch.arange(4, 0, -1.0)[None, :, None].expand(2, 4, 3))
