"""Sums over many lags of an input: results and gradients against loops in float64, in every backend, packed and backwards."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch

import seqc
from seqc.driver.compile import Options, compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from tests.emit.taps import CASES, arguments, differences
from tests.triton import processes


@cache
def made(name: str, backend: str, more: str = "") -> tuple[ModuleType, Any]:
    """The module of a case, and its compiled file."""
    compiled = compile_program(load(CASES[name].text(name) + more), Options(backend))
    return load_emitted(compiled.text, compiled.signature.spec), compiled


@pytest.mark.parametrize("bounds", [None, (0, 3, 3, 60, 61, 75)], ids=["batch", "pack"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_taps(name: str, backend: str, reverse: bool, bounds: tuple[int, ...] | None) -> None:
    if name == "both" and reverse:
        pytest.skip("the two runs are exchanged: `test_two_runs`")
    module, compiled = made(name, backend)
    dtype = torch.float64 if backend == "torch" else torch.float32
    for what, value, truth in differences(name, module, compiled.signature, dtype, bounds, reverse):
        error = (value.to(torch.float64) - truth).abs().max() / truth.abs().max().clamp(min=1.0)
        assert error < (1e-12 if backend == "torch" else 1e-5), what


@pytest.mark.parametrize("name", CASES)
def test_stages(name: str) -> None:
    """A sum of products is one convolution; kernels see no lag but those of what is none."""
    _, compiled = made(name, "cpu")
    assert sum(stage.walk == "taps" for stage in compiled.plan.every()) == CASES[name].stages


@pytest.mark.parametrize("steps", [1, 2, 41])
def test_few_steps(steps: int) -> None:
    """Fewer steps than taps."""
    for name in ("fir", "dilated", "rising"):
        module, compiled = made(name, "torch")
        for what, value, truth in differences(name, module, compiled.signature, torch.float64, None, False, steps):
            assert torch.allclose(value, truth, rtol=1e-11, atol=1e-12), what


@pytest.mark.parametrize("bounds", [None, (0, 3, 3, 60, 61, 75)], ids=["batch", "pack"])
@pytest.mark.parametrize("name", ["cell", "dilated", "rising", "gated"])
def test_fft(name: str, bounds: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By FFT where the spec allows it: the same up to rounding."""
    module, compiled = made(name, "cpu", "schedule convolution\n")
    asked: list[bool] = []
    monkeypatch.setitem(vars(module), "_tap_fft_pays", lambda *_: not asked.append(True))
    for what, value, truth in differences(name, module, compiled.signature, torch.float32, bounds, False):
        error = (value.to(torch.float64) - truth).abs().max() / truth.abs().max().clamp(min=1.0)
        assert error < 1e-5, what
    assert asked
    assert "fft=True" not in made(name, "cpu")[1].text


def test_causal_to_the_bit() -> None:
    """What comes later has no effect on a sum of taps."""
    for name in ("fir", "cell"):
        for backend in ("torch", "cpu"):
            module, compiled = made(name, backend)
            values = {k: v.float() for k, v in arguments(name, compiled.signature, 2, 70).items()}
            changed = {**values, "x": torch.cat([values["x"][:, :33], torch.randn(2, 37, 3)], 1)}
            run = getattr(module, compiled.signature.spec)
            for one, other in zip(run(**values)[:1], run(**changed)[:1], strict=True):
                assert torch.equal(one[:, :33], other[:, :33])
                assert not torch.equal(one[:, 33:], other[:, 33:])


def test_second_derivatives() -> None:
    """Of the plain form, whose single steps read all lags at once."""
    for name in ("cell", "rising"):
        module, compiled = made(name, "torch")
        values = [x[:1, :9] if k == "x" else x for k, x in arguments(name, compiled.signature, 1, 9).items()]
        given = [x.requires_grad_() for x in values]
        assert torch.autograd.gradgradcheck(lambda *x, m=module, s=compiled.signature.spec: getattr(m, s)(*x)[0], given)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", ["remembered", "defined"])
def test_parts_and_steps(name: str, backend: str) -> None:
    """A run that goes on where another ended, at last by single steps, gives what one run gives, with all gradients."""
    module, compiled = made(name, backend)
    dtype = torch.float64 if backend == "torch" else torch.float32
    run, step = (getattr(module, f"{compiled.signature.spec}{x}") for x in ("", "_step"))
    found = []
    for cuts in ([70], [1, 33, 30, 1, 1, 1, 1, 1, 1]):
        given = {k: v.to(dtype).requires_grad_() for k, v in arguments(name, compiled.signature, 2, 70).items()}
        params, rows, ends = {k: v for k, v in given.items() if k != "x"}, [], {}
        for part in given["x"].split(cuts, 1):
            one = part.shape[1] == 1
            result = step(part[:, 0], **params, **ends) if one else run(part, **params, **ends)
            ends = {x: getattr(result, f"{x[:-2]}_T") for x in compiled.signature.initial}
            rows.append(result.o[:, None] if one else result.o)
        whole = torch.cat(rows, 1)
        torch.manual_seed(0)
        loss = (whole * torch.randn(whole.shape, dtype=dtype)).sum() + sum((x * x).sum() for x in ends.values())
        found.append((whole, *ends.values(), *torch.autograd.grad(loss, list(given.values()))))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-11 if backend == "torch" else 2e-4)


def test_streams() -> None:
    """Portions of a sequence, and the steps before them that taps reach."""
    for name in ("cell", "rising"):
        compiled = made(name, "cpu")[1]
        values = arguments(name, compiled.signature, 2, 90)
        right = CASES[name].truth(values)
        params = {k: v.float() for k, v in values.items() if k != "x"}
        stream = seqc.compile(CASES[name].text(name)).stream(**params)
        rows = [stream.push(part.float())[0] for part in values["x"].split([1, 50, 7, 32], 1)] + [stream.flush()[0]]
        assert torch.allclose(torch.cat(rows, 1).double(), next(iter(right.values())), atol=1e-5)


def test_in_the_interpreter() -> None:
    """Triton's kernels, in a process of their own."""
    done = processes.run(["-m", "tests.emit.taps_interpreted"])
    assert done.returncode == 0, done.stdout + done.stderr
