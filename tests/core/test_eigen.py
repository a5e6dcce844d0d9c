"""Eigenvalue ranges against eigenvalues of sampled transition matrices, and claims proved or refused."""

from dataclasses import replace

import numpy as np
import pytest

from seqc.diagnostics import SpecError
from seqc.frontend.elaborate import load
from seqc.ir.graph import BATCH, leaves
from seqc.ir.intervals import INF, Interval
from seqc.passes.claims import check_claims, transitions
from seqc.passes.claims.spectra import Spectra
from seqc.passes.classify import classify
from seqc.passes.simplify.simplify import simplify
from seqc.semantics.evaluate import evaluate, to_order

HEAD = """spec demo
dim K, V
input q[K], v[V], k[K] unit[K], l[K] unit[K], u[K], beta in [0, 2], small in [0, 1], g[K] in [-inf, 0], gs in [-inf, 0]
input a[K] in [0, 1], w[K] in [0, 1], s[K] in [-1, 1], free
state S[K, V] = 0
"""
TAIL = "output o = sum[K](q * S)\n"
DELTA = "S = S[t-1] + beta * k * (v - sum[K](k * S[t-1]))\n"

# update, proved range, real
PROVED = {
    "decay": ("S = exp(g) * S[t-1] + k * v\n", (0, 1), True),
    "signed decay": ("S = s * S[t-1] + k * v\n", (-1, 1), True),
    "half and half": ("S = small * S[t-1] + (1 - small) * k * v\n", (0, 1), True),
    "no decay": ("S = S[t-1] + k * v\n", (1, 1), True),
    "delta": (DELTA, (-1, 1), True),
    "delta of an unnormed key": (DELTA.replace("k *", "l2norm[K](u) *"), (-1, 1), True),
    "gated delta": ("S = exp(gs) * (S[t-1] - small * k * sum[K](k * S[t-1])) + k * v\n", (0, 1), True),
    "decay, then delta": ("A = exp(g) * S[t-1]\nS = A + small * k * (v - sum[K](k * A))\n", (0, 1), True),
    "delta, then decay": ("S = exp(g) * (S[t-1] - beta * k * sum[K](k * S[t-1])) + k * v\n", (-1, 1), True),
    "written out": ("S = exp(g) * S[t-1] - small * k * sum[K](k * exp(g) * S[t-1]) + k * v\n", (0, 1), True),
    "keys weighted on one side": ("S = w * S[t-1] - k * sum[K](a * k * S[t-1]) + k * v\n", (-1, 1), True),
    "two deltas": ("A = S[t-1] - beta * k * sum[K](k * S[t-1])\nS = A - beta * l * sum[K](l * A) + k * v\n",
                   (-1, 1), False),
    "two at once": ("S = S[t-1] - small * k * sum[K](k * S[t-1]) - small * l * sum[K](l * S[t-1])\n", (-1, 1), True),
    "skew": ("S = small * S[t-1] - k * sum[K](l * S[t-1])\n", (-1, 2), True),
    "masked": ("A = exp(gs) * S[t-1]\nS = where(free > 0, A + small * k * (v - sum[K](k * A)), S[t-1])\n", (0, 1), True),
    "masked twice": ("A = where(u < 0, S[t-1], 0.5 * S[t-1])\nS = where(free > 0, A - small * k * sum[K](k * A), S[t-1])\n",
                     (0, 1), True),
    "one of two": ("S = where(free > 0, S[t-1] - beta * k * sum[K](k * S[t-1]), -small * S[t-1])\n", (-1, 1), True),
    "signed decay, then delta": ("A = s * S[t-1]\nS = A - beta * k * sum[K](k * A)\n", (-1, 1), False),
}


def spectra(text: str) -> Spectra:
    program = load(text)
    return Spectra(program, classify(program))


def unit(rng: np.random.Generator, x: np.ndarray, axis: int) -> np.ndarray:
    return x / np.sqrt((x * x).sum(axis, keepdims=True))


@pytest.mark.parametrize("name", PROVED)
def test_range_holds_sampled_eigenvalues(name: str) -> None:
    update, (lo, hi), real = PROVED[name]
    program = load(HEAD + update + TAIL)
    found = Spectra(program, classify(program)).of["S"]
    assert found.range is not None and found.real == real
    assert np.allclose((found.range.lo, found.range.hi), (lo, hi)), found
    sizes = {BATCH: 200, "K": 3, "V": 1}
    rng = np.random.default_rng(0)
    given = {}
    state = program.states["S"].leaf()
    for n in leaves([program.updates["S"]]):
        decl = program.declared(n)
        x = rng.standard_normal([sizes[d] for d in n.names("shape")]) * 2
        x = np.clip(x, decl.range.lo, decl.range.hi)
        given[n] = unit(rng, x, decl.axes.index("K")) if decl.unit else x
    columns = []
    for i in range(-1, 3):
        given[state] = np.zeros([200, 3, 1])
        if i >= 0:
            given[state][:, i] = 1.0
        new = evaluate({"S": program.updates["S"]}, given, sizes)["S"]
        columns.append(to_order(new, program.updates["S"].dims, state.names("shape"), sizes)[:, :, 0])
    matrix = np.stack([c - columns[0] for c in columns[1:]], axis=-1)
    eigenvalues = np.linalg.eigvals(matrix)
    size = found.range.magnitude
    assert np.all(np.abs(eigenvalues) <= size + 1e-7)
    if real:
        assert np.all(np.abs(eigenvalues.imag) < 1e-5)
        assert np.all(eigenvalues.real >= found.range.lo - 1e-7) and np.all(eigenvalues.real <= found.range.hi + 1e-7)


@pytest.mark.parametrize("name", PROVED)
def test_simplifying_first_proves_as_much(name: str) -> None:
    program = load(HEAD + PROVED[name][0] + TAIL)
    program = replace(program, updates=simplify(program.updates), outputs=simplify(program.outputs))
    found = Spectra(program, classify(program)).of["S"].range
    assert found is not None and np.allclose((found.lo, found.hi), PROVED[name][1])


def test_micro_steps_inside_a_token_multiply() -> None:
    found = spectra("""spec micro
dim K, V, J = 3
input q[K], k[J, K] unit[K], v[J, V], g in [-inf, 0], beta[J] in [0, 2]
state S[K, V] = 0
S = fold[J](exp(g) * S[t-1], P -> P + beta * k * (v - sum[K](k * P)))
output o = sum[K](q * S)
""").of["S"]
    assert found.range == Interval(-1.0, 1.0) and not found.real


def refusal(text: str) -> SpecError:
    program = load(text)
    with pytest.raises(SpecError) as caught:
        check_claims(program, classify(program))
    return caught.value


def test_a_true_claim_is_proved_with_its_eigenvalues() -> None:
    program = load(HEAD + DELTA + TAIL + "eigenvalues S in [-1, 1]\n")
    components = classify(program)
    reasons = {r.topic: r.text for r in (*check_claims(program, components), *transitions(program, components))}
    assert reasons["claim"] == "eigenvalues in [-1, 1]: proved"
    assert reasons["eigenvalues"].startswith("eigenvalues in [-1, 1]: `1` and `1 - beta`")


def test_a_false_claim_is_refused_with_the_values_that_break_it() -> None:
    text = (HEAD + DELTA + TAIL).replace("beta in [0, 2]", "beta in [0, 3]") + "eigenvalues S in [-1, 1]\n"
    (told,) = refusal(text).diagnostics
    assert told.code == "false-claim"
    assert told.labels[0].span.text == "eigenvalues S in [-1, 1]"
    assert told.labels[1].text == "`1 - beta` is -2 at beta = 3"
    assert told.help == "narrow the declared range of `beta`, or claim `eigenvalues S in [-2, 1]`"


def test_a_claim_about_a_key_of_unknown_length_asks_for_unit() -> None:
    text = (HEAD + DELTA + TAIL).replace("k[K] unit[K]", "k[K]") + "eigenvalues S in [-1, 1]\n"
    (told,) = refusal(text).diagnostics
    assert told.code == "unproved-claim" and told.help == "declare `k[K] unit[K]`"


def test_a_gate_without_a_range_is_a_counterexample() -> None:
    (told,) = refusal(HEAD + "S = free * S[t-1] + k * v\n" + TAIL + "eigenvalues S in [0, 1]\n").diagnostics
    assert told.code == "false-claim" and "`free` can be -2" in told.labels[1].text


def test_several_false_claims_are_told_at_once() -> None:
    text = ("spec two\ndim D\ninput x[D], a[D] in [0, 2]\nstate r[D] = 0, s[D] = 0\nr = a * r[t-1] + x\n"
            "s = -a * s[t-1] + x\noutput y = r + s\neigenvalues r in [0, 1]\neigenvalues s in [-1, 0]\n")
    assert [d.code for d in refusal(text).diagnostics] == ["false-claim", "false-claim"]


def test_other_kinds_of_component() -> None:
    found = spectra("""spec kinds
dim D
input x[D], b[D] in [0, 1], mu in [0, 0.5], R[D, D], nu, th
state tap[D] = 0, r[D] = 0, h[D] = 0, p[D] = 0, m[D] = 0, c[D] = 0, d[D] = 0
tap = x
r = b * tanh(r[t-1]) + tap[t-1]
h = tanh(R @ h[t-1] + x)
p = p[t-1] + mu * m[t-1]
m = mu * m[t-1] - mu * p[t-1] + x
e = exp(-exp(nu))
c = e * cos(th) * c[t-1] - e * sin(th) * d[t-1] + x
d = e * sin(th) * c[t-1] + e * cos(th) * d[t-1]
output y = r + h + p + c
""".replace(", R[D, D], nu, th", "").replace("state tap", "param R[D, D], nu, th\nstate tap"))
    assert found.of["tap"].range == Interval(0.0, 0.0)
    assert found.of["r"].range == Interval(0.0, 1.0)
    assert found.of["h"].range is None
    assert found.of["c"].range == Interval(-1.0, 1.0) and not found.of["c"].real
    p = found.of["p"].range
    assert p is not None and 1.0 <= p.hi <= 1.5 and not found.of["p"].real
    assert "not known" in found.words("h") and "modulus" in found.words("c")


def test_what_keeps_nothing_of_its_past_has_no_transition() -> None:
    program = load("spec f\ninput x\nstate h, n\nd = tanh(x)\nh = 0.5 * h[t-1] + d[t-2]\nn = n[t-1] + 1\noutput o = h * n\n"
                   "every 4: h = 0.5 * h\n")
    found = Spectra(program, classify(program))
    assert found.words("d.lag1") == found.words("d.lag2") == "none"
    assert found.words("every.4") == "none: a count has no derivative" and "eigenvalues in [0.5, 0.5]" in found.words("h")


def test_a_nonlinear_claim_is_refused_when_nothing_is_known() -> None:
    text = ("spec n\ndim D\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\nh = tanh(R @ h[t-1] + x)\noutput y = h\n"
            "eigenvalues h in [-1, 1]\n")
    (told,) = refusal(text).diagnostics
    assert told.code == "unproved-claim" and "no eigenvalue range is known" in told.cause


def test_nothing_finite_is_claimed_of_an_unbounded_key() -> None:
    found = spectra(HEAD + "S = S[t-1] - beta * u * sum[K](u * S[t-1])\n" + TAIL).of["S"]
    assert found.range is not None and found.range.lo == -INF


def test_a_running_phase_is_told_how_it_becomes_a_sum() -> None:
    head = "spec a\ndim D\ninput a[D]\nparam c[D]\nstate p[D] = 0\noutput y = sin(p)\n"
    sums = {"p = mod(p[t-1] + a, 2*pi)": "2*pi", "b = a + p[t-1]\np = b - floor(b)": "1", "p = mod(p[t-1] + a, c)": "c"}
    for line, size in sums.items():
        assert f"`every 64: p = mod(p, {size})`" in classify(load(head + line + "\n"))[0].why
    for line in ("p = mod(0.5 * p[t-1] + a, 1)", "p = mod(p[t-1] + a, a)", "p = tanh(p[t-1]) + a"):
        assert "every 64" not in classify(load(head + line + "\n"))[0].why
