"""What `seqc verify` counts as a disagreement, where it looks, and that it finds a wrong gradient on any backend."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from seqc.check.emitted_case import nudged, relative, tolerance, undefined
from seqc.check.sampling import domains, sample, sample_sizes, state_domains
from seqc.check.verify_emitted import Case, against_differences, check
from seqc.check.verify_emitted import _direction as direction
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.ir.intervals import Interval

VARIANCE = """spec scaled
dim D
input x[D], a in [0, 1], k[D] unit[D]
state v[D] = 0, m[D] in [0, 4] = 1, w[D] = -inf
v = a * v[t-1] + x^2
m = 0.5 * m[t-1]
w = max(w[t-1], x)
output o = x / (1 + sqrt(v)) + sum[D](k * m) + exp(-w^2)
"""
NAN, INF = float("nan"), float("inf")


def test_what_is_undefined_on_both_sides_agrees() -> None:
    both = np.array([1.0, NAN, INF, -INF])
    assert relative(both, both) == 0.0
    assert relative(both + 1e-3, both) == pytest.approx(1e-3)
    for other in ([1.0, 0.0, INF, -INF], [1.0, NAN, 2.0, -INF], [1.0, NAN, INF, INF], [NAN, NAN, INF, -INF]):
        assert relative(np.array(other), both) == INF == relative(both, np.array(other))
    assert undefined(both, both) == "NaN on both sides: 1 of 4"
    assert undefined(np.array([NAN, 0.0]), np.array([0.0, NAN])) == (
        "NaN in the emitted code alone: 1 of 2, NaN in the oracle alone: 1 of 2")
    assert undefined(np.zeros(2), np.zeros(2)) == ""
    assert tolerance("float64", 1, INF) == tolerance("float64", 1), "a sensitivity that is no number allows nothing"


def test_arguments_lie_in_their_domains() -> None:
    program = compile_spec(VARIANCE, Options("torch")).program
    allowed = state_domains(program)
    assert allowed["v"] == Interval(0.0, INF), "a sum of squares is not negative"
    assert allowed["m"] == Interval(0.0, 4.0)
    assert allowed["w"] == Interval(), "a maximum that begins at -inf may be anything"
    for seed in range(3):
        arrays, _ = sample(program, sample_sizes(program), 4, hard=bool(seed), seed=seed)
        moves = direction(program, arrays, 0.25)
        near = nudged(arrays, domains(program))
        for name, x in arrays.items():
            where = domains(program)[name]
            for values in (x, near[name], x + 0.25 * moves[name], x - 0.25 * moves[name]):
                assert (values >= where.lo).all() and (values <= where.hi).all(), name
        assert np.abs((arrays["k"] * moves["k"]).sum(-1)).max() < 1e-12, "a unit vector moves along the sphere"
        assert all(np.abs(move).max() > 0.1 for name, move in moves.items()), "something moves in every argument"


def test_every_comparison_holds_inside_the_domains() -> None:
    findings = list(check(compile_spec(VARIANCE, Options("torch", form="step"))))
    assert findings and all(f.ok for f in findings), [f for f in findings if not f.ok]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_differences_find_a_wrong_gradient(dtype: str) -> None:
    compiled = compile_spec(VARIANCE, Options("torch", form="step"))
    assert compiled.text.count("* 0.5 / ") == 1, "the derivative of the square root"

    def finding(text: str) -> object:
        module: ModuleType = load_emitted(text, "scaled")
        case = Case(compiled.program, module, sample_sizes(compiled.program), 5, dtype, False)
        return next(iter(against_differences(case)))

    assert finding(compiled.text).ok  # type: ignore[attr-defined]
    assert not finding(compiled.text.replace("* 0.5 / ", "* 0.9 / ")).ok  # type: ignore[attr-defined]


def test_triton_is_compared_with_its_own_differences() -> None:
    from seqc.check.verify_emitted import INTERPRETER, _plan

    text = "spec held\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n"
    plans = list(_plan(compile_spec(text, Options("triton", rows=16)), INTERPRETER))
    assert [plan[2] for plan in plans if plan[0] is against_differences] == ["float32"]
