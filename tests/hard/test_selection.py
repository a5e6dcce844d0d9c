"""Selection is selection: what `where`, a maximum, a mask or a reset drops has no effect, whatever it holds.

What a step leaves out changes no result, not in the last bit, and no gradient; what stands at a step reaches that step and
later ones only; a branch that is not chosen has derivative 0, also where its own is infinite. On plain torch in every form,
native code and Triton's interpreter. Tolerances of values: 1e-11 in float64, 2e-5 in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.analysis.affine import affine, parted, product
from seqc.analysis.derivative import vjp
from seqc.backends import native_cpu, torch_eager
from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.graph import const, leaf, node
from seqc.ir.ops.elementwise import where
from seqc.semantics import reference
from seqc.semantics.evaluate import evaluate
from tests.fuzz.trial import Subject, Wish
from tests.hard.selection_cases import BAD, MASKED, RESET, ROWS, called, judged, load
from tests.harness import draw
from tests.parts import loaded
from tests.triton import processes

ROOT = Path(__file__).parents[2]
EXACT, SINGLE = 1e-11, 2e-5
FORMS = ("step", "scan", "chunkwise")
Call = Callable[..., Any]
# which forms a spec can take: one that is lost is seen
STEPS_ONLY = {("mask", "complex"), ("mask", "maximum")}
ELEMENTS = {("mask", "element"), ("reset", "element"), ("reset", "masked too"), ("reset", "complex")}
FEEDBACK = {("mask", "delta"), ("mask", "kda"), ("mask", "micro-steps"), ("mask", "momentum"), ("reset", "delta")}
EVERY = [("mask", name) for name in MASKED] + [("reset", name) for name in RESET]


def forms_of(case: tuple[str, str]) -> tuple[str, ...]:
    """The forms that a spec can take."""
    if case in STEPS_ONLY:
        return ("step",)
    return ("step", "scan") if case in ELEMENTS else ("step", "chunkwise") if case in FEEDBACK else FORMS


def in_torch(program: Any, form: str) -> tuple[Call, Call]:
    """Forward and backward in plain torch."""
    block = lower(program, form, None if form == "step" else ROWS)
    made = loaded(torch_eager.emit(block).text, program, "s")
    return made._forward_torch, made._backward_torch


def in_native_code(program: Any) -> tuple[Call, Call]:
    """Forward and backward in C++."""
    made = loaded(native_cpu.emit(lower(program, "step")).alone, program, "s")
    return made._forward_cpu, made._backward_cpu


@pytest.mark.parametrize("case", EVERY, ids=lambda case: "-".join(case))
def test_what_is_dropped_leaves_no_trace_in_torch(case: tuple[str, str]) -> None:
    kind, name = case
    program = load(MASKED if kind == "mask" else RESET, name)[0]
    for form in FORMS:
        try:
            both = in_torch(program, form)
        except Unsupported:
            assert form not in forms_of(case), f"{name} has lost its {form} form"
            continue
        assert form in forms_of(case), f"{name} has a {form} form now"
        assert judged(kind, name, both, torch.float64, EXACT) == "", form


@pytest.mark.parametrize("case", [("mask", "kda"), ("reset", "delta")], ids=lambda case: "-".join(case))
def test_what_is_dropped_leaves_no_trace_in_native_code(case: tuple[str, str]) -> None:
    kind, name = case
    both = in_native_code(load(MASKED if kind == "mask" else RESET, name)[0])
    assert judged(kind, name, both, torch.float64, EXACT) == ""


def test_what_is_dropped_leaves_no_trace_in_triton() -> None:
    pytest.importorskip("triton")
    words = ["mask:element:scan", "mask:maximum:step", "mask:delta:chunkwise", "reset:element:scan", "reset:delta:chunkwise"]
    done = processes.run(["-m", "tests.hard.selection_in_triton", *words])
    assert done.returncode == 0, done.stderr[-3000:]
    assert dict(zip(words, done.stdout.splitlines(), strict=True)) == dict.fromkeys(words, "")


LATER = ["specs/gla", "specs/delta_rule", "specs/mamba2", "specs/rwkv7", "tests/recurrences/vdecay",
         "tests/recurrences/momentum_pair", "tests/recurrences/hooked_delta"]


@pytest.mark.parametrize("path", LATER)
def test_what_stands_at_a_step_reaches_no_earlier_one(path: str) -> None:
    program = elaborate.load(ROOT / f"{path}.seq")
    both, case, at = in_torch(program, "chunkwise"), draw(program, 37), 21
    plain = called(program, case, case.arrays, both, torch.float64)
    for name, bad in [(name, bad) for name in program.inputs for bad in BAD]:
        arrays = {**case.arrays, name: case.arrays[name].copy()}
        arrays[name][(slice(None), at, *(0 for _ in arrays[name].shape[2:]))] = bad
        got = called(program, case, arrays, both, torch.float64)
        with np.errstate(all="ignore"):
            want = reference.run(program, arrays)
        for key in case.results:
            if key in program.outputs:
                assert np.array_equal(got[key][:, :at], plain[key][:, :at]), f"{bad} in {name} reaches back in {key}"
            assert np.array_equal(np.isfinite(got[key]), np.isfinite(want[key])), f"{bad} in {name}: {key}"
            kept = np.isfinite(want[key])
            assert np.allclose(got[key][kept], want[key][kept], 1e-9, 1e-9), f"{bad} in {name}: {key}"


BRANCHES = {  # an output of x, values of x, and the derivative there
    "where(x < 5, exp(exp(x)), x)": ((1000.0, 0.0), (1.0, math.e)),
    "where(x > 0, where(x > 1, sqrt(x - 1), log(x)), x)": ((0.0, -1.0, 2.0, 0.5), (1.0, 1.0, 0.5, 2.0)),
    "where(x == 0, 1, expm1(x) / x)": ((0.0, 1.0), (0.0, 1.0)),
    "where(x > 0, x^0.3, 0) + where(x > 0.5, x^1.7, x)": ((0.0, 1.0, -2.0), (1.0, 2.0, 1.0)),
    "where(x > 1, log(x), 0) + where(x > 2, log(x) * log(x), 0)": ((0.0, 1.5, 4.0), (0.0, 1 / 1.5, (1 + 4 * math.log(2)) / 4)),
    "max(x, log(x)) + min(2 - x, 1 / x)": ((0.0, 0.5), (0.0, 0.0)),
    "sqrt(x) * 2 + sqrt(sqrt(x))": ((0.0, 1.0), (0.0, 1.25)),
    "where(x > 0, sum[D](where(x > 0, sqrt(x), 0)), 0)": ((0.0, 4.0), (0.0, 0.25)),
}


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_branch_that_is_not_chosen_has_no_derivative(backend: str) -> None:
    longest = max(len(values) for values, _ in BRANCHES.values())
    names = {text: f"x{i}" for i, text in enumerate(BRANCHES)}
    outputs = "".join(f"output y{i} = {re.sub('(?<![a-z])x(?![a-z])', f'x{i}', text)}\n" for i, text in enumerate(BRANCHES))
    inputs = "".join(f"input {name}[D]\n" for name in names.values())
    call = seqc.compile(f"spec s\ndim D\n{inputs}{outputs}", backend=backend)
    given = {
        names[text]: torch.tensor([[values + values[-1:] * (longest - len(values))]], dtype=torch.float64, requires_grad=True)
        for text, (values, _) in BRANCHES.items()
    }
    found = torch.autograd.grad(sum(y.sum() for y in call(**given)), list(given.values()))
    for (text, (values, slopes)), got in zip(BRANCHES.items(), found, strict=True):
        assert "sum[" in text or got[0, 0, : len(values)].tolist() == pytest.approx(slopes, abs=1e-12), text
        assert got.isfinite().all(), text


def test_the_oracle_has_no_derivative_of_a_branch_that_is_not_chosen() -> None:
    program = elaborate.load("spec s\ndim D\ninput x[D]\noutput y = where(x > 0, log(x), x)\n")
    _, slopes = reference.gradients(program, {"x": np.array([[[0.0, 2.0]]])}, {"y": np.ones((1, 1, 2))})
    assert slopes["x"].tolist() == [[[1.0, 0.5]]]


PARAM = """spec param
dim D
input x[D], m[D]
param w[D]
state h[D] = 0
h = 0.5 * h[t-1] + where(m > 0, x * log(w) + h[t-1] / w, 0)
output h, total = sum[D](where(m > 0, w^1.5 * log(w) * h, 0))
"""


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_a_param_that_no_step_chooses_has_no_derivative(backend: str) -> None:
    subject, dtype = Subject(PARAM, Wish(backend)), torch.float32 if backend == "triton" else torch.float64
    rng = np.random.default_rng(0)
    x, h = (torch.as_tensor(rng.standard_normal(shape)).to(dtype) for shape in ((2, 5, 3), (2, 3)))
    m = torch.as_tensor(rng.standard_normal((2, 5, 3)) + 0.3).to(dtype)
    m[..., 0] = -1.0
    found = []
    for first in (1.0, 0.0):  # what it is makes no difference
        w = torch.tensor([first, 0.5, 2.0], dtype=dtype, requires_grad=True)
        with np.errstate(all="ignore"):
            results = subject.function(x=x, m=m, w=w, h_0=h)
            loss = (results.h * x).sum() + results.total.sum()
            found.append((loss.detach(), *torch.autograd.grad(loss, [w])))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1][0] == 0.0
    assert torch.equal(found[0][1], found[1][1])
    total, past = torch.zeros((), dtype=torch.float64), h.double()
    w = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    for t in range(5):
        now, on = x[:, t].double(), m[:, t] > 0
        past = 0.5 * past + torch.where(on, now * w.log() + past / w, 0.0)
        total = total + (past * now).sum() + torch.where(on, w**1.5 * w.log() * past, 0.0).sum()
    (want,) = torch.autograd.grad(total, [w])
    torch.testing.assert_close(found[1][1].double(), want, rtol=SINGLE if backend == "triton" else EXACT, atol=SINGLE)


IDIOM = """spec idiom
dim D
input s[D], v[D]
state m[D] = -inf, c[D] = 0, n[D] = 0
m = max(m[t-1], s)
gap = m[t-1] - m
c = exp(gap) * c[t-1] + exp(s - m) * v
n = exp(gap) * n[t-1] + exp(s - m)
output o = c / max(n, 1)
"""


@pytest.mark.parametrize(("spec", "gate"), [("mlstm", "i"), ("rwkv4", "k"), ("slstm", "x_i"), (IDIOM, "s")])
def test_a_running_maximum_of_nothing(spec: str, gate: str) -> None:
    program = elaborate.load(spec if "\n" in spec else ROOT / f"specs/{spec}.seq")
    case, pad = draw(program, 23), 5
    for name, d in program.states.items():  # from nothing
        case.arrays[f"{name}_0"][:] = -np.inf if d.range.lo == -np.inf and name == "m" else 0.0
    case.arrays[gate][:, :pad] = -np.inf
    for name in program.output_decls:
        case.cotangents[name][:, :pad] = 0.0
    short = {name: x[:, pad:] if name in program.inputs else x for name, x in case.arrays.items()}
    weights = {name: x[:, pad:] if name in program.output_decls else x for name, x in case.cotangents.items()}
    with np.errstate(all="ignore"):
        want, slopes = reference.gradients(program, short, weights)
    results = [reference.gradients(program, case.arrays, case.cotangents)]
    for form in FORMS:
        try:
            both = in_torch(program, form)
        except Unsupported:
            continue
        got = called(program, case, case.arrays, both, torch.float64)
        results.append((got, {name: got[f"d.{name}"] for name in slopes}))
    assert len(results) > 1
    for got, found in results:
        for name in want:
            x = got[name][:, pad:] if name in program.output_decls else got[name]
            np.testing.assert_allclose(x, want[name], 1e-9, 1e-11, err_msg=name)
        for name in (*program.inputs, *program.params):
            x = found[name][:, pad:] if name in program.inputs else found[name]
            np.testing.assert_allclose(x, slopes[name], 1e-9, 1e-11, err_msg=f"gradient of {name}")
            assert np.isfinite(found[name]).all(), f"gradient of {name}"


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_logsumexp_of_nothing(backend: str) -> None:
    text = "spec s\ndim K\ninput e[K]\nparam A[K, K]\nstate a[K] = 0\na = e + logsumexp[K'](A + a[t-1, K -> K'])\noutput a\n"
    e = torch.randn(1, 4, 3, dtype=torch.float64)
    A = torch.randn(3, 3, dtype=torch.float64)
    call, results, slopes = seqc.compile(text, backend=backend), [], []
    for nothing in (-math.inf, -1e4):  # leads to state 2; the other one all but
        given = torch.cat([A[:2], torch.full((1, 3), nothing, dtype=torch.float64)]).requires_grad_()
        results.append(call(e, given)[0])
        slopes.append(torch.autograd.grad(results[-1][..., :2].sum(), given)[0])
    assert (results[0][..., 2] == -math.inf).all() and torch.allclose(results[0][..., :2], results[1][..., :2], 1e-10, 1e-12)
    assert torch.allclose(*slopes, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_root_at_the_end_of_its_range(backend: str) -> None:
    call = seqc.compile(ROOT / "specs/rglru.seq", backend=backend)
    torch.manual_seed(0)
    given = [torch.randn(1, 6, 2) for _ in range(3)] + [torch.zeros(2)]
    given[1][0, 2, 0] = -120.0  # the decay is 1 in float32
    slopes = []
    for dtype in (torch.float32, torch.float64):
        args = [x.to(dtype).requires_grad_() for x in given]
        slopes.append(torch.autograd.grad(call(*args)[0].sum(), args))
    for single, double in zip(*slopes, strict=True):
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-5)


def test_explain_tells_of_the_root() -> None:
    block = lower(elaborate.load(ROOT / "specs/rglru.seq"))
    assert any("sqrt(" in r.subject and "unbounded" in r.text for r in block.reasons)
    assert not any("unbounded" in r.text for r in lower(elaborate.load(ROOT / "specs/gla.seq")).reasons)


def test_a_choice_is_a_coefficient() -> None:
    S, c, d, x = (leaf("state", "S", ("B", "K")), node("gt", leaf("input", "m", ("B",)), const(0.0)),
                  leaf("input", "d", ("B", "K")), leaf("input", "x", ("B", "K")))
    form = affine(where(c, d * S + x, S), [S])
    assert [t.outer for t in form.terms] == [(where(c, d, 1.0),)]
    assert parted(form.rest[0]) == (c, (x,)) and product(form.rest[0]) is where(c, x, 0.0)
    reset = affine(d * where(c, 0.0, S), [S])
    kept, others = parted(reset.terms[0].outer)
    assert kept is node("not", c) and others == (d,)


def test_a_selected_cotangent_is_no_factor() -> None:
    x, c = leaf("input", "x", ("B",)), node("gt", leaf("input", "m", ("B",)), const(0.0))
    found = vjp({"y": where(c, node("log", x), x)}, {"y": const(1.0)}, [x])[x]
    values = {x: np.array([0.0, 2.0]), leaf("input", "m", ("B",)): np.array([0.0, 1.0])}
    assert evaluate({"": found}, values, {"B": 2})[""].tolist() == [1.0, 0.5]
