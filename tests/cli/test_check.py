"""Calls that are checked: broken promises are named with their element, and what is no finite number with its step."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqc

ROOT = Path(__file__).parents[2]
TEXT = """\
spec watched
dim D
input x[D], lambda[D] in [0, 1], k[D] unit[D]
param w[D] in [0.5, inf]
state h[D] = 0
a = log(w) * x
growth = exp(a)
h = lambda * h[t-1] + growth * k
output y = sqrt(h)
"""


@pytest.fixture(scope="module")
def watched() -> seqc.Recurrence:
    return seqc.compile(TEXT, backend="torch", check=True)


def given(steps: int = 6) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    x, rate, k = (torch.rand(2, steps, 3, generator=made) for _ in range(3))
    return {"x": x, "lambda_": rate, "k": k / k.norm(dim=-1, keepdim=True), "w": torch.ones(3)}


def test_what_keeps_its_promises_is_as_it_was(watched: seqc.Recurrence) -> None:
    plain = seqc.compile(TEXT, backend="torch", check=False)
    assert plain.module is not watched.module
    arguments = {key: x.requires_grad_() for key, x in given().items()}
    assert torch.equal(watched(**arguments).y, plain(**arguments).y)
    (gradient,) = torch.autograd.grad(watched(**arguments).y.sum(), arguments["x"])
    assert gradient.isfinite().all() and str(watched) == str(plain)
    assert torch.equal(watched(**arguments, axis=0, h_0=torch.zeros(6, 3)).h_T, plain(**arguments, axis=0).h_T)
    assert pickle.loads(pickle.dumps(watched)).module is watched.module


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("lambda_", (1, 4, 2), 1.5, r"watched: lambda\[1, 4, 2\] is 1.5, and the spec declares it in \[0, 1\]"),
        ("w", (1,), 0.25, r"watched: w\[1\] is 0.25, and the spec declares it in \[0.5, inf\]"),
        ("x", (0, 5, 0), math.nan, r"watched: x\[0, 5, 0\] is nan, which is no number"),
        ("x", (0, 0, 0), math.inf, r"watched: x\[0, 0, 0\] is inf, and the spec declares no range with it"),
        ("k", (0, 3, 1), 2.0, r"watched: the norm of k over D\[0, 3\] is 2.\d+, and the spec says 1"),
    ],
)
def test_broken_promises(watched: seqc.Recurrence, name: str, place: tuple[int, ...], value: float, words: str) -> None:
    arguments = given()
    arguments[name][place] = value
    with pytest.raises(ValueError, match=words):
        watched(**arguments)


def test_matrices_that_are_not_definite() -> None:
    """Of a param, an input and a state's start: one that is not symmetric, and one with an eigenvalue below 0."""
    text = """spec matrices
dim N
input Q[N, N'] definite
param R[N, N] definite
state P[N, N'] = eye[N] definite
P = P[t-1] + Q + R
output trace = sum[N, N'](eye[N] * P)
"""
    one = seqc.compile(text, backend="torch", check=True)
    eye = torch.eye(2)
    right = {"Q": eye.expand(1, 3, 2, 2), "R": one.Module(N=2).R.detach(), "P_0": eye[None]}
    assert torch.equal(right["R"], eye)
    assert one(**right).trace.tolist() == [[6.0, 10.0, 14.0]]
    for name, wrong, words in (
        ("R", torch.tensor([[1.0, 0.5], [0.0, 1.0]]), r"R, the difference from its transpose is 0.5, and the spec says"),
        ("Q", torch.tensor([[1.0, 2.0], [2.0, 1.0]]).expand(1, 3, 2, 2), r"Q, the least eigenvalue\[0, 0\] is -1"),
        ("P_0", torch.zeros(1, 2, 2), r"P_0, the least eigenvalue\[0\] is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            one(**{**right, name: wrong})


def test_the_first_that_is_no_finite_number(watched: seqc.Recurrence) -> None:
    """Its name, element and step: of a definition that overflows in float32, a root, a pack, the other direction, one step."""
    arguments = given()
    arguments["x"][1, 3, 2] = 200.0
    arguments["w"][2] = 2.0  # exp(200 log 2) = 2^200 is infinite in float32, and not in float64
    with pytest.raises(FloatingPointError, match=r"watched: not every .*: the first is growth\[1, 2\] at step 3, inf"):
        watched(**arguments)
    assert watched(**{key: x.double() for key, x in arguments.items()}).y.isfinite().all()
    arguments = given()
    arguments["k"][0, 2] *= -1
    arguments["lambda_"][:] = 0.0
    with pytest.raises(FloatingPointError, match=r"the first is y\[0, 0\] at step 2, nan"):
        watched(**arguments)
    arguments["k"][0, 4] *= -1
    with pytest.raises(FloatingPointError, match=r"the first is y\[0, 0\] at step 4, nan"):
        watched(**arguments, reverse=True)
    one = {key: x if key == "w" else x[:1] for key, x in arguments.items()}
    with pytest.raises(FloatingPointError, match=r"the first is y\[0, 0\] at step 2, nan"):
        watched(**one, cu_seqlens=[0, 2, 6])
    step = {key: x if key == "w" else x[:, 2] for key, x in arguments.items()}
    with pytest.raises(FloatingPointError, match=r"watched_step: not every result is a finite number: the first is y\[0, 0\]"):
        watched.step(**step)
    one["x"][:, 4:] = math.nan  # behind the last sequence: never read
    one["k"] = one["k"].abs()
    assert watched(**one, cu_seqlens=[0, 2, 4]).y.isfinite().all()
    layer = watched.Module(D=3)
    with torch.no_grad():
        layer.w.fill_(0.1)
    with pytest.raises(ValueError, match=r"w\[0\] is 0.1"):
        layer(*list(given().values())[:3])


def test_the_environment_asks_for_it() -> None:
    program = f"import seqc; print(seqc.compile({TEXT!r}, backend='torch')._checks)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEQC_CHECK": "1", "XDG_CACHE_HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
