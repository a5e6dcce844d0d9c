"""The builder: what specs mean, checked by running the step graph against the same equations written in numpy."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.diagnostics import SpecError
from seqc.frontend.elaborate import load
from seqc.frontend.format import format_text
from seqc.ir.graph import leaves, topological
from seqc.ir.intervals import Interval
from seqc.ir.program import Program
from seqc.semantics.evaluate import evaluate
from seqc.semantics.reference import gradients, run

FOLDER = Path(__file__).parent / "specs"
SERVED = sorted(path for path in FOLDER.glob("*.seq") if path.stem != "syntax_only")
B, T = 2, 5


def arrays(program: Program, seed: int = 0) -> dict[str, Any]:
    """Random inputs and params; a dim without a default has its position in the alphabet of small sizes."""
    rng = np.random.default_rng(seed)
    sizes = {name: dim.default or 2 + i for i, (name, dim) in enumerate(program.dims.items())}
    shapes = {d.name: [B, T, *(sizes[x] for x in d.dims)] for d in program.inputs.values()}
    for d in program.params.values():
        shapes[d.name] = ([B] if d.per_batch else []) + [sizes[x.rstrip("'")] for x in d.dims]
    found = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return found | {d.name: rng.integers(0, sizes[d.places], shapes[d.name]) for d in program.inputs.values() if d.places}


def value_of(text: str, **given: Any) -> Any:
    """The output `y` of a spec without recurrence, for inputs of one batch element and one step."""
    program = load(text)
    return run(program, {name: np.asarray(x, dtype=float)[None, None] for name, x in given.items()})["y"][0, 0]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_every_spec_runs_and_reads_states_at_one_lag(path: Path) -> None:
    program = load(path)
    results, _ = gradients(program, arrays(program), {})
    assert all(np.isfinite(x).all() for x in results.values())
    assert all(n.number("offset") == 0 for n in leaves(program.graph.values(), "state"))
    assert set(program.updates) == set(program.states)
    for node in program.graph.values():
        assert node in program.spans or node in set(program.updates.values())


def test_gla_program() -> None:
    program = load(FOLDER / "gla.seq")
    assert (program.name, list(program.dims)) == ("gla", ["H", "K", "V"])
    assert program.doc.startswith("Gated linear attention.\n\nS_t")
    assert program.inputs["g"].range == Interval(-np.inf, 0.0)
    assert program.claims[0].range == Interval(0.0, 1.0)
    assert program.wishes.chunks == (32, 64, 128)
    assert program.output_decls["o"].dims == ("H", "V")
    assert program.definitions[program.updates["S"]] == "S"
    x = arrays(program)
    state, out = np.zeros((B, 2, 3, 4)), []
    for t in range(T):
        state = np.exp(x["g"][:, t])[..., None] * state + x["k"][:, t][..., None] * x["v"][:, t][:, :, None]
        out.append(np.einsum("bhk,bhkv->bhv", x["q"][:, t], state) / np.sqrt(3))
    np.testing.assert_allclose(run(program, x)["o"], np.stack(out, 1), rtol=1e-13)


def test_lstm_reads_new_and_old_states() -> None:
    program = load(FOLDER / "lstm.seq")
    x = arrays(program)
    h = c = np.zeros((B, 2, 3))
    for t in range(T):
        pre = {g: x[f"x_{g}"][:, t] + np.einsum("hij,bhj->bhi", x[f"R_{g}"], h) for g in "ifzo"}
        c = sigmoid(pre["f"]) * c + sigmoid(pre["i"]) * np.tanh(pre["z"])
        h = sigmoid(pre["o"]) * np.tanh(c)
    results = run(program, x)
    np.testing.assert_allclose(results["h"][:, -1], h, rtol=1e-12)
    np.testing.assert_allclose(results["c_T"], c, rtol=1e-12)


def test_taps_reach_into_the_past_and_the_future() -> None:
    program = load(FOLDER / "taps.seq")
    x = arrays(program)
    h = np.pad(x["h"], ((0, 0), (4, 4), (0, 0)))
    expected = [
        h[:, 4 + t]
        + sum(x["a"][j] * h[:, 4 + t - 2 * j] for j in range(3))
        + sum(x["c"][j] * h[:, 4 + t + 2 * j + 2] for j in range(2))
        for t in range(T)
    ]
    np.testing.assert_allclose(run(program, x)["p"], np.stack(expected, 1), rtol=1e-12)
    assert program.dims["L"].choices == (3,)


def test_a_tap_outside_of_a_sum_is_a_dim() -> None:
    program = load("spec a\ndim D, L = 3\ninput x[D]\noutput y[L, D] = x[t - index[L]]\n")
    x = arrays(program)
    padded = np.pad(x["x"], ((0, 0), (2, 0), (0, 0)))
    expected = np.stack([np.stack([padded[:, 2 + t - j] for j in range(3)], 1) for t in range(T)], 1)
    np.testing.assert_array_equal(run(program, x)["y"], expected)


def test_longer_lags_become_hidden_states() -> None:
    program = load(FOLDER / "lags.seq")
    assert {name: d.hidden for name, d in program.states.items()} == {
        "y": False,
        "y.lag2": True,
        "d.lag1": True,
        "d.lag2": True,
    }
    x = arrays(program)
    y, u = [np.ones((B, 2))] * 2, np.pad(x["x"], ((0, 0), (1, 0), (0, 0)))
    for t in range(T):
        y.append(0.5 * y[-1] - 0.2 * y[-2] + u[:, t + 1] + u[:, t])
    d = [np.zeros((B, 2))] * 2 + [2 * now for now in y[2:]]
    expected = np.stack([d[t + 2] + d[t] for t in range(T)], 1)
    np.testing.assert_allclose(run(program, x)["o"], expected, rtol=1e-12)


def test_a_renamed_dim_makes_an_outer_product_of_a_value_with_itself() -> None:
    text = """spec a
dim K
input k[K]
state S[K, K'] = 0
S = 0.5 * S[t-1, K -> K', K' -> K] + k[t-1] * k[K -> K']
output y[K] = S @ k
output z[K'] = k @ S
"""
    program = load(text)
    assert program.states["S"].dims == ("K", "K'")
    x = arrays(program)
    k = x["k"]
    S, y, z = np.zeros((B, 2, 2)), [], []
    for t in range(T):
        old = k[:, t - 1] if t else np.zeros((B, 2))
        S = 0.5 * S.transpose(0, 2, 1) + old[:, :, None] * k[:, t][:, None, :]
        y.append(np.einsum("bij,bj->bi", S, k[:, t]))
        z.append(np.einsum("bij,bi->bj", S, k[:, t]))
    results = run(program, x)
    np.testing.assert_allclose(results["y"], np.stack(y, 1), rtol=1e-12)
    np.testing.assert_allclose(results["z"], np.stack(z, 1), rtol=1e-12)
    np.testing.assert_allclose(results["S_T"], S, rtol=1e-12)


def test_brackets_behind_an_expression_and_positions_of_a_dim() -> None:
    text = """spec a
dim K, G = 3
input k[K], a[K, G]
state S[K, K'] = 0
S = 0.5 * S[t-1] + (k * k[t-1])[K -> K'] * a[t-1, G = G - 1]
output W[K, K] = S
output f = (a > 0 and not a > 1)[G = 1] + sum[K](a)[G = 0] + (a * a)[G = -2] + S[t-1, K = -1, K' -> K]
"""
    program = load(text)
    assert (program.output_decls["W"].dims, program.output_decls["f"].dims) == (("K", "K'"), ("K",))
    x = arrays(program)
    k, a = x["k"], x["a"]
    S = np.zeros((B, 2, 2))
    W, f = [], []
    for t in range(T):
        old, k1, a1 = S, k[:, t - 1] if t else 0 * k[:, 0], a[:, t - 1] if t else 0 * a[:, 0]
        S = 0.5 * S + (k[:, t] * k1)[:, None, :] * a1[:, :, 2][:, :, None]
        W.append(S)
        now = a[:, t]
        within = ((now > 0) & ~(now > 1))[:, :, 1]
        f.append(1.0 * within + now.sum(1)[:, :1] + (now**2)[:, :, 1] + old[:, -1])
    results = run(program, x)
    np.testing.assert_allclose(results["W"], np.stack(W, 1), rtol=1e-12)
    np.testing.assert_allclose(results["f"], np.stack(f, 1), rtol=1e-12)


TAPS = """spec a
dim D, C = 2, L = 20
input x[C, D]
param a[L, D]
F = sum[L](a * x[t - index[L]])
output y[D] = F[C = 0] - 2 * F[C = 1]
"""


def test_a_long_value_that_is_read_at_every_position_is_computed_once() -> None:
    program = load(TAPS)
    products = [n for n in topological(program.graph.values()) if n.op == "mul" and n.dims]
    assert sum("C" in n.dims for n in products) == 20 and len(products) < 25
    alone = load(TAPS.replace("- 2 * F[C = 1]", "* 2"))  # one of two: nothing is computed of the other
    assert not any("C" in n.dims for n in topological(alone.graph.values()) if n.op == "mul")
    x = arrays(program)
    sums = np.zeros((B, T, 2, 2))
    for lag in range(T):
        sums[:, lag:] += x["a"][lag][None, None, None] * x["x"][:, : T - lag]
    np.testing.assert_allclose(run(program, x)["y"], sums[:, :, 0] - 2 * sums[:, :, 1], rtol=1e-12)


def test_constants_spread_to_the_dims_that_are_written() -> None:
    text = """spec a
dim D, K = 3
input x[D]
const c[D] = index[D]
state h[D] = 1, n[K] = 0
h = 0
n = K
d[D, K] = c
output o[K] = 1
output y = d * x
output z = sum[K](n) + h
"""
    program = load(text)
    x = arrays(program)
    results = run(program, x)
    np.testing.assert_array_equal(results["o"], np.ones((B, T, 3)))
    np.testing.assert_array_equal(results["y"], (x["x"] * [0, 1])[..., None] * np.ones(3))
    np.testing.assert_array_equal(results["z"], np.full((B, T, 2), 9.0))
    np.testing.assert_array_equal(results["h_T"], np.zeros((B, 2)))


def test_boundaries_replace_a_state_after_it_was_read() -> None:
    text = """spec a
dim D
input x[D]
state h[D] = 0, g[D] = 1
h = 0.5 * h[t-1] + x
g = g[t-1] + h
output y = h + g + h[t-2]
every 3: h = h * x - g
every 2: g = 0
"""
    program = load(text)
    assert [n for n, d in program.states.items() if d.hidden] == ["h.lag2", "every.3", "every.2"]
    x = arrays(program)
    h, g, before, y = np.zeros((B, 2)), np.ones((B, 2)), np.zeros((B, 2)), []
    for t in range(T):
        old, h = h, 0.5 * h + x["x"][:, t]
        g = g + h
        y.append(h + g + before)
        before = old
        h, g = h * x["x"][:, t] - g if t % 3 == 2 else h, 0 * g if t % 2 else g
    results = run(program, x)
    np.testing.assert_allclose(results["y"], np.stack(y, 1), rtol=1e-12)
    np.testing.assert_allclose(results["h_T"], h, rtol=1e-12)
    np.testing.assert_array_equal(results["every.3_T"], [T % 3] * B)


def test_a_boundary_may_stop_gradients() -> None:
    """Truncated backpropagation, against torch with the states detached at each boundary."""
    import torch

    text = """spec a
dim D
input x[D]
param R[D, D], a[D]
state h[D] = 0, c[D] = 0
h = tanh(R @ h[t-1] + x)
c = a * c[t-1] + h
output y = c
every 3: h = stopgrad(h)
every 3: c = stopgrad(c)
"""
    rng = np.random.default_rng(0)
    shapes = {"x": (B, 8, 2), "R": (2, 2), "a": (2,), "h_0": (B, 2), "c_0": (B, 2)}
    given = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    weights = {"y": rng.normal(size=(B, 8, 2)), "h_T": rng.normal(size=(B, 2))}
    _, slopes = gradients(load(text), {**given, "every.3_0": np.zeros(B)}, weights)
    x, R, a, h, c = leaves = [torch.tensor(v, requires_grad=True) for v in given.values()]
    loss = torch.zeros((), dtype=torch.float64)
    for t in range(8):
        h = torch.tanh(h @ R.T + x[:, t])
        c = a * c + h
        loss = loss + (c * torch.tensor(weights["y"][:, t])).sum()
        h, c = (h.detach(), c.detach()) if t % 3 == 2 else (h, c)
    (loss + (h * torch.tensor(weights["h_T"])).sum()).backward()  # type: ignore[no-untyped-call]
    for name, leaf in zip(given, leaves, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(slopes[name], leaf.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)


def test_complex_values_are_pairs_of_real_ones() -> None:
    text = """spec a
dim N, L = 3
input u[N], z[N] complex
param A[N] complex init 1 + 2i, M[N, N] complex, dt[N]
state s[N] complex = 1i, h[N] complex = 0
w = (zoh(A, z, dt) + conj(z)^2 / A) * abs(z) - 1i
s = exp(1i * dt) * s[t-1] + M @ w + s[t-2] * u
h = bilinear(A, dt) * h[t-1] + sum[L](z[t - index[L]]) + 0.5 * w[t-1]
output y = sum[N](s) * z
output r = im(where(u > 0, h, 2 * s)) + norm[N](z) + re(1i * 1i) * u
"""
    program = load(text)
    assert list(program.states) == ["s_re", "s_im", "h_re", "h_im", "s_re.lag2", "s_im.lag2", "w_re.lag1", "w_im.lag1"]
    assert list(program.output_decls) == ["y_re", "y_im", "r"]
    x = arrays(program)
    A, M, zs = (x[f"{n}_re"] + 1j * x[f"{n}_im"] for n in ("A", "M", "z"))
    dt, u = x["dt"], x["u"]
    s = before = np.full((B, 2), 1j)
    h, old, y, r = np.zeros((B, 2)), np.zeros((B, 2)), [], []
    for t in range(T):
        z = zs[:, t]
        w = ((np.exp(dt * A) - 1) / A * z + z.conj() ** 2 / A) * abs(z) - 1j
        s, before = np.exp(1j * dt) * s + np.einsum("ij,bj->bi", M, w) + before * u[:, t], s
        taps = sum(zs[:, t - j] for j in range(3) if t >= j)
        h = (1 + dt * A / 2) / (1 - dt * A / 2) * h + taps + 0.5 * old
        old = w
        y.append(s.sum(-1, keepdims=True) * z)
        size = np.sqrt((abs(z) ** 2).sum(-1, keepdims=True))
        r.append(np.where(u[:, t] > 0, h, 2 * s).imag + size - u[:, t])
    results = run(program, x)
    np.testing.assert_allclose(results["y_re"] + 1j * results["y_im"], np.stack(y, 1), rtol=1e-11)
    np.testing.assert_allclose(results["r"], np.stack(r, 1), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(results["s_im_T"], s.imag, rtol=1e-11)


@pytest.mark.parametrize("x", [1e-12 + 1e-9j, 1e-3j, -2 + 3j, -40 + 0.1j])
def test_a_complex_step_keeps_its_digits(x: complex) -> None:
    """(exp(x) - 1) / x near 0 as well, against a sum of its series in whole digits."""
    from fractions import Fraction

    program = load("spec a\ninput a complex, b\noutput y = zoh(a, 1, 1) * b\n")
    given = {n: np.full((1, 1), v) for n, v in (("a_re", x.real), ("a_im", x.imag), ("b", 1.0))}
    term, want, re, im = (Fraction(1), Fraction(0)), [Fraction(0), Fraction(0)], Fraction(x.real), Fraction(x.imag)
    for k in range(1, 200):  # sum of x^(k-1) / k!
        term = (term[0] / k, term[1] / k)
        want = [want[0] + term[0], want[1] + term[1]]
        term = (term[0] * re - term[1] * im, term[0] * im + term[1] * re)
        term = tuple(round(part * 10**60) * Fraction(1, 10**60) for part in term)  # type: ignore[assignment]
    results = run(program, given)
    found = complex(results["y_re"][0, 0], results["y_im"][0, 0])
    assert abs(found - complex(float(want[0]), float(want[1]))) < 1e-15 * max(1, abs(found))


def test_a_transposed_matrix_meets_its_column() -> None:
    head = "spec a\ndim D\ninput x[D]\nparam R[D, D]\n"
    program = load(head + "output y = R[D -> D', D' -> D] @ x\noutput z = (x[D -> D'] * R) @ x\n")
    given = arrays(program)
    found, r, x = run(program, given), given["R"], given["x"]
    np.testing.assert_allclose(found["y"], x @ r, rtol=1e-12)
    np.testing.assert_allclose(found["z"], np.einsum("ij,btj,btj->bti", r, x, x), rtol=1e-12)


def test_fold_makes_its_steps_in_order() -> None:
    program = load(FOLDER / "product.seq")
    x = arrays(program)
    state = np.zeros((B, 2, 3, 4))
    for t in range(T):
        state = np.exp(x["g"][:, t])[..., None, None] * state
        for j in range(2):
            k, v, beta = x["k"][:, t, :, j], x["v"][:, t, :, j], x["beta"][:, t, :, j]
            error = v - np.einsum("bhk,bhkv->bhv", k, state)
            state = state + beta[..., None, None] * k[..., None] * error[:, :, None]
    np.testing.assert_allclose(run(program, x)["S_T"], state, rtol=1e-12)


def test_a_call_within_a_step_ranges_over_the_dims_that_its_brackets_name() -> None:
    program = load(
        "spec a\ndim N = 4\ninput p[N], a[N], u[N]\n"
        "output q = scan[N](0, q -> (1 - shift[N](p, 1)) * q + a)\n"
        "output s = fold[N](0, s -> s * 0.5 + a * softmax[N](u) - sum[N](p))\n"
    )
    given = arrays(program)
    p, a, found = given["p"], given["a"], run(program, given)
    weights = np.exp(given["u"]) / np.exp(given["u"]).sum(-1, keepdims=True)
    q = s = np.zeros((B, T))
    for n in range(4):
        q = (1 - (p[..., n - 1] if n else 0)) * q + a[..., n]
        s = s * 0.5 + a[..., n] * weights[..., n] - p.sum(-1)
        np.testing.assert_allclose(found["q"][..., n], q, rtol=1e-12)
    np.testing.assert_allclose(found["s"], s, rtol=1e-12)


def test_surrogate_derivative_and_its_sign() -> None:
    text = "spec a\ninput u, w\noutput y = withgrad(u {} w, 3)\n"
    ones = {"y": np.ones((1, 1))}
    for sign, slope in ((">", 3.0), (">=", 3.0), ("<", -3.0), ("<=", -3.0)):
        x = {"u": np.full((1, 1), 2.0), "w": np.full((1, 1), 1.0)}
        out, grads = gradients(load(text.format(sign)), x, ones)
        assert out["y"] == (1.0 if ">" in sign else 0.0)
        assert (grads["u"], grads["w"]) == (slope, -slope)


def test_matrix_products_keep_rows_and_columns() -> None:
    head = "spec a\ndim M = 2, N = 3\ninput x[N], z[M, N]\nparam W[M, N], A[N, N], E[N, N]\noutput y = "
    rng = np.random.default_rng(0)
    W, A, E, x, z = (rng.normal(size=s) for s in ((2, 3), (3, 3), (3, 3), (3,), (2, 3)))
    given = {"W": W, "A": A, "E": E, "x": x[None, None], "z": z[None, None]}
    cases = {
        "W @ x": W @ x,
        "A @ x": A @ x,
        "A @ (E @ x)": A @ E @ x,
        "A @ E @ x": A @ E @ x,
        "(A * E) @ x": (A * E) @ x,
        "eye[N] @ x": x,
        "W @ z": (W * z).sum(1),
        "A @ z": (A @ z.T).T,
        "exp(A) @ tanh(x)": np.exp(A) @ np.tanh(x),
    }
    for text, expected in cases.items():
        np.testing.assert_allclose(run(load(head + text + "\n"), given)["y"][0, 0], expected, rtol=1e-12, err_msg=text)


def test_functions() -> None:
    x = np.array([-2.0, 0.0, 0.5, 3.0])
    erf = np.vectorize(__import__("math").erf)
    wide = np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
    cases = {
        "softmax[D](1000 * x)": np.array([0, 0, 0, 1.0]),
        "logsumexp[D](1000 * x) + 0 * x": np.full(4, 3000.0),
        "layernorm[D](x, 2, 1)": 2 * (x - x.mean()) / wide + 1,
        "rmsnorm[D](x)": x / np.sqrt((x**2).mean() + 1e-5),
        "l2norm[D](x)": x / np.sqrt((x**2).sum() + 1e-6),
        "norm[D](x) * x": x * np.sqrt((x**2).sum()),
        "mean[D](x) + min[D](x) + max[D](x) + 0 * x": np.full(4, x.mean() + 1.0),
        "max(x, 0, 1) + min(x, 0)": np.maximum(x, 1) + np.minimum(x, 0),
        "relu(x) + silu(x)": np.maximum(x, 0) + x * sigmoid(x),
        "gelu(x)": 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "x^2 + x^3 - (1 + x^2)^-1": x**2 + x**3 - 1 / (1 + x**2),
        "2^x + (1 + x^2)^0.5 + (4 + x)^x": 2**x + np.sqrt(1 + x**2) + (4 + x) ** x,
        "where(x > 0, x, -x) + (x > 0) * 2": np.abs(x) + 2.0 * (x > 0),
        "zoh(x, 0.5) + bilinear(x, 0.5)": np.exp(0.5 * x) + (1 + 0.25 * x) / (1 - 0.25 * x),
        "zoh(x, 2, 0.5)": np.array([2 * np.expm1(0.5 * a) / a if a else 1.0 for a in x]),
        "bilinear(x, 2, 0.5)": 1 / (1 - 0.25 * x),
        "index[D] / D + pi * x": np.arange(4) / 4 + np.pi * x,
    }
    for text, expected in cases.items():
        got = value_of(f"spec a\ndim D\ninput x[D]\noutput y[D] = {text}\n", x=x)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg=text)


def test_derivatives_at_the_corners_are_finite() -> None:
    text = "spec a\ndim D\ninput x[D]\noutput y = relu(x) + norm[D](x) + zoh(x, 1, 1)\n"
    _, grads = gradients(load(text), {"x": np.zeros((1, 1, 3))}, {"y": np.ones((1, 1, 3))})
    np.testing.assert_allclose(grads["x"], 0.5, rtol=1e-12)


def test_constants_and_initial_values() -> None:
    program = load(FOLDER / "retention.seq")
    claimed = load(FOLDER / "mamba.seq").params["A_log"]
    assert claimed.init is not None
    start = evaluate({"v": claimed.init}, {}, {"N": 3})["v"]
    np.testing.assert_allclose(start, np.log([1, 2, 3]))
    x = {"q": np.ones((1, 2, 3, 1)), "k": np.ones((1, 2, 3, 1)), "v": np.ones((1, 2, 3, 1))}
    gamma = 1 - 2.0 ** (-5 - np.arange(3))
    np.testing.assert_allclose(run(program, x)["o"][0, 1, :, 0], 1 + gamma, rtol=1e-13)


def test_outputs_take_the_order_of_their_declaration() -> None:
    head = "spec a\ndim A, C\ninput x[C, A]\n"
    assert load(head + "output y[A, C] = 2 * x\n").output_decls["y"].dims == ("A", "C")
    assert load(head + "state x2[C, A]\noutput x2 = x2[t-1] + x\n").output_decls["x2"].dims == ("C", "A")


def test_outputs_without_dims_take_the_order_of_their_value() -> None:
    head = "spec a\ndim A, C, E\ninput x[C, A], y[A, C], e[E], a[A], c[C]\nparam W[E, C], R[A, A]\n"
    head += "state s[E, C] = 0\ns = s[t-1] + c\n"
    orders = {
        "2 * x": ("C", "A"),
        "a * x": ("C", "A"),
        "sum[E](e * x)": ("C", "A"),
        "sum[A](x * e * s)": ("E", "C"),
        "s[t-2] + 0 * c": ("E", "C"),
        "softmax[C](x)": ("C", "A"),
        "R @ x": ("C", "A"),  # as torch.nn.functional.linear: the last dim is exchanged
        "R @ a": ("A",),
        "d": ("A", "C"),
        "x[A -> A']": ("C", "A'"),
        "(e * x)[E = 0]": ("C", "A"),
    }
    for text, dims in orders.items():
        program = load(f"{head}d[A, C] = a * c\noutput o = {text}\n")
        said = [d.code for d in program.warnings if d.code == "output-order"]
        assert (program.output_decls["o"].dims, said) == (dims, []), text
    for text, dims in {"c * a": ("A", "C"), "x - y": ("A", "C"), "W @ x": ("A", "E")}.items():
        program = load(f"{head}output o = {text}\n")
        said = [d.code for d in program.warnings if d.code == "output-order"]
        assert (program.output_decls["o"].dims, said) == (dims, ["output-order"]), text


def test_order_of_statements_does_not_matter() -> None:
    lines = (FOLDER / "lstm.seq").read_text(encoding="utf-8").splitlines()
    turned = "\n".join([lines[0], *reversed(lines[1:])])
    one, other = load(FOLDER / "lstm.seq"), load(turned)
    assert one.graph == other.graph


def test_unbatched_and_per_batch_params() -> None:
    program = load("spec a\ndim D\ninput x[D]\nparam a[D], b[D] per batch\noutput y = a * x + b\n")
    assert program.params["a"].axes == ("D",)
    assert program.params["b"].axes == ("B", "D")


def test_the_examples_of_the_reference_are_specs() -> None:
    page = Path(__file__).parents[2] / "docs" / "language.md"
    examples = re.findall(r"```seq\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) > 11
    for text in examples:
        program = load(text)
        assert all(np.isfinite(x).all() for x in run(program, arrays(program)).values())
        assert format_text(text) == text


def test_one_choice_of_a_size_is_the_size() -> None:
    program = load("spec bank\ndim N {5}\ninput x\nstate m[N] = 0\nm = 0.5 * m[t-1] + x\noutput o = sum[N](m)\n")
    assert program.dims["N"].default == 5


def test_sizes_that_are_given_beside_the_text() -> None:
    text = "spec a\ndim N, J {}\ninput x\nstate h[N] = 0\noutput h = fold[J](h[t-1], h -> 0.5 * h + x)\n"
    written, given = load(text.format("= 2"), {"N": 3, "J": 4}), load(text.format(""), {"N": 3, "J": 2})
    assert str(given.outputs["h"]) == str(written.outputs["h"])
    with pytest.raises(SpecError, match="nothing tells the size of the dim `N`"):
        load(text.format("= 2"), {"J": 2})
