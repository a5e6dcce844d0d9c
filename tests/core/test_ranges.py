"""Ranges: what is proved of whole programs, and that no sampled value ever leaves its interval."""

import math

import numpy as np
import pytest

from seqc.analysis.ranges import interval_of, log_range
from seqc.frontend.elaborate import load
from seqc.ir.graph import BATCH, leaves, topological
from seqc.ir.intervals import INF, Interval
from seqc.semantics.evaluate import evaluate

LSTM = """spec cell
dim D
input xi[D], xf[D], xz[D], xo[D]
state h[D] = 0, c[D] = 0
i = sigmoid(xi + h[t-1])
f = sigmoid(xf + h[t-1])
c = f * c[t-1] + (1 - f) * tanh(xz + h[t-1])
h = sigmoid(xo) * tanh(c)
output y = h * i
"""
SOFTMAX = """spec softmax
dim H, V
input s[H], v[H, V] in [-3, 3]
state m[H] = -inf, n[H] = 0
m = max(m[t-1], s)
old = exp(m[t-1] - m)
new = exp(s - m)
n = old * n[t-1] + new
output o = new * v
output p = old
"""
UNIT = """spec unit
dim K, M
input k[K] unit[K], q[K] unit[K], beta in [0, 2], s[M], v[M] in [-2, 5], x[K], a[K] in [0, 1]
output dot = sum[K](q * k)
output scaled = sum[K](beta * q * k)
output own = sum[K](k * k)
output weighted = sum[K](k * a * k)
output normed = sum[K](l2norm[K](x) * k)
output mixed = sum[M](softmax[M](s) * v)
output gate = softmax[M](s)
output before = sum[K](k[t-1] * k)
"""
MIXES = """spec mixes
dim D
input f[D], a[D] in [-1, 2], b[D] in [0, 5], n[D], g[D] in [-inf, 0]
w = sigmoid(f)
output convex = w * a + (1 - w) * b
output lerp = a + w * (b - a)
output less = a - w * a
output var = w * (1 - w)
output smooth = silu(n)
output ratio = abs(n) / max(abs(n), 1)
output signed = n / max(abs(n), 1)
output below = n - softplus(n)
output decayed = exp(g) * a + (1 - exp(g)) * b
output chosen = where(n < a, n, a)
"""


def of(text: str, **kw: object) -> dict[str, Interval]:
    program = load(text)
    found = interval_of(program, **kw)  # type: ignore[arg-type]
    return {name: found[n] for name, n in program.outputs.items()}


def near(i: Interval, lo: float, hi: float) -> bool:
    return math.isclose(i.lo, lo, abs_tol=1e-9) and math.isclose(i.hi, hi, abs_tol=1e-9)


def test_an_unbounded_state_gives_bounded_gates() -> None:
    program = load(LSTM)
    found = interval_of(program)
    assert found[program.updates["h"]] == Interval(-1.0, 1.0)
    assert found[program.states["c"].leaf()] == Interval()


def test_own_start_gives_an_invariant() -> None:
    program = load(LSTM)
    found = interval_of(program, own_start=True)
    assert found[program.states["c"].leaf()] == Interval(-1.0, 1.0)
    top = math.tanh(1.0)
    assert near(found[program.states["h"].leaf()], -top, top)


def test_a_geometric_series_is_bounded_and_a_sum_is_not() -> None:
    text = ("spec s\ndim D\ninput x[D] in [-1, 1]\nstate a[D] = 0, b[D] = 0\n"
            "a = 0.5 * a[t-1] + x\nb = b[t-1] + x\noutput o = a + b\n")
    program = load(text)
    found = interval_of(program, own_start=True)
    a, b = (found[program.states[s].leaf()] for s in "ab")
    assert -2.1 < a.lo <= -2.0 and 2.0 <= a.hi < 2.1
    assert b == Interval()


def test_a_running_maximum_keeps_exponents_negative() -> None:
    found = of(SOFTMAX)
    assert found["o"] == Interval(-3.0, 3.0) and found["p"] == Interval(0.0, 1.0)


def test_unit_vectors() -> None:
    found = of(UNIT)
    assert near(found["dot"], -1, 1) and near(found["scaled"], -2, 2) and near(found["own"], 1, 1)
    assert near(found["weighted"], 0, 1) and near(found["normed"], -1, 1) and near(found["before"], -1, 1)
    assert near(found["mixed"], -2, 5) and near(found["gate"], 0, 1)


def test_convex_combinations_and_their_kin() -> None:
    found = of(MIXES)
    assert near(found["convex"], -1, 5) and near(found["lerp"], -1, 5) and near(found["decayed"], -1, 5)
    assert near(found["less"], -1, 2) and found["var"].hi == 0.25 and found["below"].hi == 0.0
    assert found["smooth"].lo > -0.279 and near(found["ratio"], 0, 1) and near(found["signed"], -1, 1)
    assert found["chosen"].hi == 2.0


def test_known_sizes_bound_sums_and_defaults_do_not() -> None:
    text = ("spec s\ndim K = 4, M in 2..3\ninput x[K] in [0, 1], y[M] in [-1, 1]\n"
            "output a = sum[K](x)\noutput b = sum[M](y)\n")
    assert of(text) == {"a": Interval(0.0, INF), "b": Interval(-3.0, 3.0)}
    assert of(text, sizes={"K": 4})["a"] == Interval(0.0, 4.0)


def test_what_is_read_outside_the_sequence_is_zero() -> None:
    text = "spec s\ndim D\ninput x[D] in [2, 3]\noutput a = x[t-1]\noutput b = x\n"
    assert of(text) == {"a": Interval(0.0, 3.0), "b": Interval(2.0, 3.0)}


@pytest.mark.parametrize(("formula", "log", "nonnegative"), [
    ("exp(g)", (-2000.0, 0.0), True),
    ("sigmoid(x)", (-INF, 0.0), True),
    ("sigmoid(x) ^ (1/16)", (-INF, 0.0), True),
    ("exp(g) * sigmoid(b)", (-2000.0 - math.log1p(math.e), -math.log1p(math.exp(-1.0))), True),
    ("1 - beta", (-INF, 0.0), False),
    ("exp(-softplus(x) * exp(x))", (-INF, 0.0), True),
    ("0.25 + 0.5 * sigmoid(x)", (math.log(0.25), math.log(0.75)), True),
])
def test_log_range_of_a_decay(formula: str, log: tuple[float, float], nonnegative: bool) -> None:
    program = load("spec s\ndim D\ninput x[D], g[D] in [-2000, 0], b[D] in [-1, 1], beta[D] in [0, 2]\n"
                   f"state S[D] = 0\nd = {formula}\nS = d * S[t-1] + x\noutput o = S + d\n")
    d = next(n for n, name in program.definitions.items() if name == "d")
    found = log_range(d, interval_of(program))
    assert math.isclose(found.log.lo, log[0]) and math.isclose(found.log.hi, log[1], abs_tol=1e-12), found
    assert found.nonnegative == nonnegative
    assert found.bounded == (log[0] > -INF)


@pytest.mark.parametrize("text", [LSTM, SOFTMAX, UNIT, MIXES])
def test_no_sample_leaves_its_interval(text: str) -> None:
    program = load(text)
    sizes = dict.fromkeys(program.dims, 3) | {BATCH: 40}
    found = interval_of(program, sizes)
    rng = np.random.default_rng(0)
    for spread in (0.3, 3.0, 30.0):
        given = {}
        for n in leaves(program.graph.values()):
            decl = program.declared(n)
            x = rng.standard_normal([sizes[d] for d in n.names("shape")]) * spread
            x = np.clip(x, decl.range.lo, decl.range.hi)
            if decl.unit:
                x = x / np.sqrt((x * x).sum(axis=tuple(decl.axes.index(d) for d in decl.unit), keepdims=True))
            given[n] = x
        order = topological(program.graph.values())
        values = evaluate({str(i): n for i, n in enumerate(order)}, given, sizes)
        for i, n in enumerate(order):
            got = np.asarray(values[str(i)], dtype=float)
            got = got[~np.isnan(got)]
            assert np.all(got >= found[n].lo - 1e-9) and np.all(got <= found[n].hi + 1e-9), (n, found[n])
