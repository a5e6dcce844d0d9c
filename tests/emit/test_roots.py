"""Gradients through values that lack the batch or the rows of what they are stored to, and of parameters per batch.

The judge is torch's autograd over a loop (`tests.autograd_loop`): the compiler's own oracle takes its gradients from the same
rules. B = T is among the sizes, and B != T: axes that are mixed up show in one as a wrong number, in the other as an error.
"""

import json

import numpy as np
import pytest
import torch

from seqc.diagnostics import Unsupported
from seqc.frontend.elaborate import load
from seqc.semantics import reference
from tests import autograd_loop
from tests.emit.judged import ROOTS, check, module
from tests.harness import draw
from tests.triton import processes

INTERPRETED = ("value_out", "chunk_out", "own_matrix")


@pytest.mark.parametrize("name", ROOTS)
def test_in_plain_torch_in_every_form(name: str) -> None:
    forms: list[tuple[str | None, int | None]] = [(None, None), ("scan", 8), ("chunkwise", 16)]
    for form, rows in forms:
        try:
            found = module(name, "torch", form, rows)
        except Unsupported:
            assert form  # a recurrence need not have every form
            continue
        check(*found, 5, 5)
        check(*found, 17, 3, reverse=True)
        check(*found, 9, 3, (0, 4, 5, 9))


@pytest.mark.parametrize("name", ["state_of_params", "own_low_rank"])
def test_in_native_code(name: str) -> None:
    found = module(name, "cpu")
    check(*found, 5, 5)
    check(*found, 7, 3, reverse=True)
    check(*found, 9, 3, (0, 4, 5, 9))


def test_in_triton() -> None:
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.emit.judged", *INTERPRETED])
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert dict(zip(INTERPRETED, said, strict=True)) == dict.fromkeys(INTERPRETED)


@pytest.mark.parametrize("name", [name for name in ROOTS if "both" not in name])
def test_of_the_oracle(name: str) -> None:
    program = load(f"spec {name}\n{ROOTS[name]}")
    case = draw(program, 5, {"B": 3})
    given = {n: torch.tensor(case.arrays[n], requires_grad=True) for n in case.arguments}
    results = autograd_loop.run(program, given)
    loss = sum((results[n] * torch.tensor(case.cotangents[n])).sum() for n in case.results)
    assert isinstance(loss, torch.Tensor)
    truth = torch.autograd.grad(loss, list(given.values()), materialize_grads=True, allow_unused=True)
    _, slopes = reference.gradients(program, case.arrays, case.cotangents)
    for n, want in zip(case.arguments, truth, strict=True):
        np.testing.assert_allclose(slopes[n], want.numpy(), rtol=0, atol=1e-11 * max(1.0, float(want.abs().max())))
