"""Small legal specs, each of which asks for something rare of a backend: they build, and give what the reference gives.

All native kernels of this file are one library, built without optimisation. float64; 1e-10 relative to the largest element of a
tensor: roundoff over 6 steps of a few operations, with room for what a division or a logarithm multiplies it by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest

from seqc.backends import torch_eager
from seqc.backends.native_cpu import loader, native_source
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.graph import Node, const, index, node, renamed, total
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import cumsum, expanded, shift, take
from seqc.ir.program import Program
from tests.harness import compare, compare_steps, draw
from tests.native_cpu import many, syntax
from tests.parts import loaded

SPECS = {
    # numbers where lanes are stored: gradients that are zero, results that are constant
    "mask": "dim D\ninput x[D], m[D]\nstate h[D] = 0\nh = where(m > 0, 0.5 * h[t-1] + x, h[t-1])\noutput h\n",
    "reset": "dim D\ninput x[D], done[D]\nstate h[D] = 0\nh = where(done > 0, 0, h[t-1]) + x\noutput h\n",
    "sign": "dim D\ninput x[D], m[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x * sign(m)\noutput h\n",
    "stopgrad": "dim D\ninput m[D], b[D]\noutput y = stopgrad(m) * b\n",
    "scalar state": "dim D\ninput x[D], y[D]\nstate S = 0\nS = sigmoid(min(sum[D](x), sum[D](S[t-1] * y)))\noutput S\n",
    "comparison": "dim H\ninput x[H]\nparam P[H]\noutput o[H] = x < P\n",
    "equal branches": "dim D\ninput x[D]\noutput o[D] = where(x > 0, 1, 1)\n",
    "constant": "dim D, E\ninput x[D]\nparam p[E]\nstate h[D] = 1\nh = 2\noutput q = 1\n"
                "output o[D, E] = 3 + 0 * p + 0 * index[D]\n",
    "constant state": "input x\nstate h = 0\nh = 2\noutput y = x\n",
    # sizes
    "choice between equals": "dim P\ninput x, y[P], m\nparam p[P]\nstate h = 0\nz = where(x < sum[P](y * p), x, x)\n"
                             "h = where(m > 0, 0.5 * h[t-1] + sin(where(h[t-1] >= z, h[t-1], h[t-1])), h[t-1])\n"
                             "output o = 2 * h\n",
    "bare dim": "dim D, J = 6\ninput x[D]\nstate h[D] = 0\nh = tanh(h[t-1] + x / J)\noutput h\n",
    "root of a dim": "dim D, J = 6\ninput x[D]\noutput y = x / sqrt(J)\n",
    "functions of a dim": "dim K\ninput x[K]\noutput o[K] = (softplus(K) + sigmoid(K - 3) + sign(K) + exp(-K) + K^0.3) * x\n",
    "unread input": "dim D, E\ninput x[D], u[E]\nparam R[D, D], Q[E, E]\nstate h[D] = 0\nh = tanh(x + R @ h[t-1])\noutput h\n",
    "dead definition": "dim D, X\ninput x[X], y[D]\nparam W[D, X]\nstate h[D] = 0\nz = W @ x\nh = 0.5 * h[t-1] + y\noutput h\n",
    # names beside generated ones, words of C++ and of the runtime
    "gradients' names": "dim D\ninput x[D], d_x[D], h_0x[D], x_m1[D]\nstate h[D] = 0\n"
                        "h = 0.5 * h[t-1] + x[t-1] * d_x + h_0x * x_m1\noutput d_h[D] = h\noutput h_kept[D] = h * x\n",
    "words": "dim real, W\ninput int[real], vec[W], seg_h[real]\nparam p_x[W, real], row[real], library[real], way\n"
             "state lanes[real] = 0, s_v[W] = 0\nlanes = row * lanes[t-1] + int * seg_h + sum[W](p_x * vec) * library\n"
             "s_v = way * s_v[t-1] + vec\noutput infinity = lanes\noutput load = s_v\n",
    "dims' names": "dim kept_0, out_h, NT\ninput x[out_h], g[kept_0], BT[NT]\nparam p[kept_0, out_h], R[kept_0, kept_0]\n"
                   "state h[kept_0] = 0\nh = tanh(g * h[t-1] + p @ x + R @ h[t-1])\noutput h\noutput y = sum[NT](BT)\n",
    # states
    "transposed": "dim K\ninput x[K], y[K]\nstate S[K, K'] = 0\n"
                  "S = 0.5 * S[t-1, K -> K', K' -> K] + x * y[K -> K']\noutput o = sum[K](x * S)\n",
    "transposed alone": "dim K\ninput x[K]\nstate S[K, K'] = 0\nS = S[t-1, K -> K', K' -> K]\noutput o = sum[K](x * S)\n",
    "exchanged": "dim D\ninput x[D]\nstate a[D] = 0, b[D] = 0\na = b[t-1]\nb = a[t-1] + x\noutput o = a * b\n",
    "read by nothing": "input b\nstate n = 0\nn = n[t-1] + 1\noutput y = b\n",
    "kept as it is": "dim D\ninput x[D]\nstate h[D] = 0\nh = h[t-1]\noutput y = x * h\n",
    "of params alone": "dim D\ninput x[D]\nparam p[D]\nstate h[D] = 0\nh = p * h[t-1] + p\noutput y = x\n"
                       "output z[D] = exp(p)\n",
    # constants
    "not a number": "dim D\ninput x[D]\noutput o[D] = log(-1) * x\n",
    "infinite": "dim D\ninput x[D]\noutput o[D] = max(x, log(0)) + exp(-inf) * x\noutput q[D] = where(x > 0, x, -inf)\n",
    "sign of a param": "dim D\ninput x[D]\nparam a\noutput o = sign(a) * x\n",
    "powers": "dim D\ninput x[D]\nparam a\nstate h = 0\nh = 0.5 * h[t-1] + sum[D](x)\n"
              "output o[D] = abs(x)^1.5 + max(x, 1)^2.5 * max(h, a, 2)^0.5 + min(x, a) + logaddexp(a, x) + 2^x\n",
}


def along() -> dict[str, Program]:
    """Programs that move values along a dim of the spec: delay lines, running sums, neighbours of a state."""
    line = load("spec z\ndim D, L = 4\ninput x[D]\nparam a[D]\nstate S[L, D] = 0\nS = S[t-1] + x\noutput o[D] = x\n")
    S, x, a = line.states["S"].leaf(), line.inputs["x"].leaf(), line.params["a"].leaf()
    y = node("tanh", x + take(S, "L", 3) * a)
    new = where(node("eq", index("L"), const(0.0)), y, shift(S, "L", 1))
    found = {"a delay line": _with(line, {"S": new}, {"o": take(new, "L", 2) + take(S, "L", -1) * y})}
    cell = load("spec z\ndim D\ninput x[D]\nparam R[D, D]\nstate S[D] = 0\nS = S[t-1] + x\noutput o[D] = x\n")
    S, x, R = cell.states["S"].leaf(), cell.inputs["x"].leaf(), cell.params["R"].leaf()
    new = node("tanh", total(R * renamed(S, "D", "D'"), ("D'",)) + shift(x, "D", 1) + shift(S, "D", -2))
    found["neighbours"] = _with(cell, {"S": new}, {"o": shift(new, "D", 1)})
    both = load("spec z\ndim D, L = 5\ninput x[D, L], q[L]\nparam W[L, D]\nstate S[D, L] = 0\nS = S[t-1] + x\n"
                "output o[D, L] = x\n")
    S, x, q, W = both.states["S"].leaf(), both.inputs["x"].leaf(), both.inputs["q"].leaf(), both.params["W"].leaf()
    for by, more, dim in ((1, 1, "L"), (-1, 2, "L"), (2, -1, "D"), (7, 1, "D"), (0, 1, "L")):
        new = 0.5 * shift(S, "L", by) + shift(shift(x, dim, more), "L", -by) * W + shift(expanded(q, ("D", "L")), "D", more)
        o = shift(node("exp", S * W), "D", more) * shift(index("L") * 1.0, "L", by) + cumsum(x * S, "D")
        o = (o + cumsum(x, "L", reverse=True, exclusive=True)) * take(shift(S, "L", by), "L", 1)
        found[f"moved by {by} and {more}"] = _with(both, {"S": new}, {"o": o + take(shift(S, "D", -more), "D", 0)})
    return found


def _with(program: Program, updates: Mapping[str, Node], outputs: Mapping[str, Node]) -> Program:
    return replace(program, updates=updates, outputs=outputs, definitions={}, spans={})


PROGRAMS = {**{name: load(f"spec z\n{text}") for name, text in SPECS.items()}, **along()}


@cache
def sizes(name: str) -> dict[str, int]:
    return dict(syntax.sizes_of(native_source(lower(PROGRAMS[name], "step"))))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    if loader._native_compiler() is None:
        pytest.skip("no C++ compiler")
    return dict(zip(PROGRAMS, many.modules([*PROGRAMS.values()], tmp_path_factory.mktemp("many")), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_against_the_reference(name: str, backend: str, native: dict[str, ModuleType]) -> None:
    program = PROGRAMS[name]
    if backend == "torch":
        made = loaded(torch_eager.emit(lower(program)).text, program, "plain")
        forward, backward, step = made._forward_torch, made._backward_torch, made._step_torch
    else:
        made = native[name]
        forward, backward, step = made._forward_cpu, made._backward_cpu, made._step_cpu
    case = draw(program, 6, sizes(name))
    with np.errstate(all="ignore"):
        compare(case, forward, backward, 1e-10)
        if not program.no_step:
            compare_steps(case, forward, lambda *arguments: step(*(x.contiguous() for x in arguments)), 1e-10)
        if backend == "native":
            case = draw(program, 6, sizes(name), lengths=(2, 0, 4), reverse=True, seed=1)
            compare(case, forward, backward, 1e-10, infer=made._infer_cpu)


@pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")
def test_float32_is_well_formed_too() -> None:
    words = dict(zip(SPECS, syntax.check_many(f"spec z\n{text}" for text in SPECS.values()), strict=True))
    assert not {name: said for name, said in words.items() if said}


@pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")
def test_a_renamed_truth_value_is_a_number() -> None:
    text = "spec z\ndim D\ninput x[D], y[D]\nparam R[D, D]\nstate h[D] = 0\nm = x > y\nh = 0.5 * h[t-1] + R @ m\n"
    assert syntax.check(text + "output o[D'] = m[D -> D']\noutput n = sum[D'](m[D -> D'])\n") == ""


def test_a_scan_along_a_dim_is_refused() -> None:
    """It is no bug of the compiler: the choice `auto` takes plain torch."""
    from seqc.diagnostics import Unsupported
    from seqc.ir.ops.structure import affine_scan

    program = load("spec z\ndim D\ninput x[D]\nparam a[D]\noutput o[D] = x * a\n")
    x, a = program.inputs["x"].leaf(), program.params["a"].leaf()
    program = _with(program, {}, {"o": affine_scan(a, x, const(0.0), "D")})
    with pytest.raises(Unsupported, match="affine_scan"):
        native_source(lower(program, "step"))
