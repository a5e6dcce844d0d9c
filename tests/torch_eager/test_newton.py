"""Nonlinear recurrences by Newton's method: results and all gradients are those of loops that are written by hand."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqc
from seqc.analysis.jacobian import jacobian
from seqc.analysis.newton import newton_of
from seqc.frontend.elaborate import load

Tensors = dict[str, torch.Tensor]

ELEMENTWISE = """spec elementwise
dim D
input x[D], z[D]
param u[D], w[D]
state h[D] = 0.5
g = sigmoid(z[t-1] + u * h[t-1])
h = (1 - g) * h[t-1] + g * tanh(x + w * h[t-1])
output h
output y[D] = h * z + x[t+1] * h[t-1]
schedule newton
"""

GATED = """spec gated
dim H = 2, D, M
input x[M]
param W[H, D, M], R_r[H, D, D], R_z[H, D, D], R_n[H, D, D], b[H, D]
state h[H, D] = 0
r = sigmoid(W @ x + R_r @ h[t-1])
z = sigmoid(R_z @ h[t-1] + b)
h = z * h[t-1] + (1 - z) * tanh(W @ x + r * (R_n @ h[t-1]))
output h
schedule newton
"""

MEMORY = """spec memory
dim D
input x_i[D], x_f[D], x_o[D]
param R[D, D], Q[D, D], P[D, D]
state h[D] = 0, c[D] = 0
i = tanh(x_i + R @ h[t-1])
f = sigmoid(x_f + Q @ h[t-1])
o = sigmoid(x_o + P @ h[t-1])
c = f * c[t-1] + (1 - f) * i
h = o * tanh(c)
output h
output s = max[D](c)
schedule newton
"""

LAGS = """spec lags
dim L = 3, D
input x[D]
param a[L, D], c
state y[D] lag 3 = 0
y = 0.5 * sin(sum[L](a * y[t - 1 - index[L]])) + x * c
output y
schedule newton
"""

NEIGHBOURS = """spec neighbours
dim D
input x[D]
param k
state v[D] = 0
v = 0.6 * tanh(shift[D](v[t-1], 1) - k * v[t-1]^2 + x) + 0.2 * mean[D](v[t-1]) + 0.1 * softmax[D](v[t-1])
output v
scan backward
schedule newton
"""


def elementwise(g: Tensors) -> list[torch.Tensor]:
    h, out, ys = g["h_0"], [], []
    zero = torch.zeros_like(g["x"][:, 0])
    for t in range(g["x"].shape[1]):
        gate = torch.sigmoid((g["z"][:, t - 1] if t else zero) + g["u"] * h)
        before = h
        h = (1 - gate) * h + gate * torch.tanh(g["x"][:, t] + g["w"] * h)
        out.append(h)
        ahead = g["x"][:, t + 1] if t + 1 < g["x"].shape[1] else zero
        ys.append(h * g["z"][:, t] + ahead * before)
    return [torch.stack(out, 1), torch.stack(ys, 1), h]


def gated(g: Tensors) -> list[torch.Tensor]:
    def times(matrix: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return (matrix @ h[..., None])[..., 0]

    h, out = g["h_0"], []
    for x in g["x"].unbind(1):
        given = times(g["W"], x[:, None])
        r = torch.sigmoid(given + times(g["R_r"], h))
        z = torch.sigmoid(times(g["R_z"], h) + g["b"])
        h = z * h + (1 - z) * torch.tanh(given + r * times(g["R_n"], h))
        out.append(h)
    return [torch.stack(out, 1), h]


def memory(g: Tensors) -> list[torch.Tensor]:
    h, c, out, sums = g["h_0"], g["c_0"], [], []
    for x_i, x_f, x_o in zip(*(g[f"x_{n}"].unbind(1) for n in "ifo"), strict=True):
        i, f, o = torch.tanh(x_i + h @ g["R"].T), torch.sigmoid(x_f + h @ g["Q"].T), torch.sigmoid(x_o + h @ g["P"].T)
        c = f * c + (1 - f) * i
        h = o * torch.tanh(c)
        out.append(h)
        sums.append(c.amax(-1))
    return [torch.stack(out, 1), torch.stack(sums, 1), h, c]


def lags(g: Tensors) -> list[torch.Tensor]:
    past = [g["y_lag3_0"], g["y_lag2_0"], g["y_0"]]
    for x in g["x"].unbind(1):
        past.append(0.5 * torch.sin(sum(g["a"][k] * past[-1 - k] for k in range(3))) + x * g["c"])
    return [torch.stack(past[3:], 1), past[-1], past[-2], past[-3]]


def neighbours(g: Tensors) -> list[torch.Tensor]:
    v, out = g["v_0"], []
    for x in g["x"].flip(1).unbind(1):
        moved = torch.cat([torch.zeros_like(v[:, :1]), v[:, :-1]], 1)
        v = 0.6 * torch.tanh(moved - g["k"] * v * v + x) + 0.2 * v.mean(-1, keepdim=True) + 0.1 * torch.softmax(v, -1)
        out.append(v)
    return [torch.stack(out, 1).flip(1), v]


SQUARE = """spec square
dim N
input x[N, N]
param F[N, N]
state P[N, N] = 0
P = 0.5 * tanh(F @ P[t-1] @ F[N -> N', N' -> N] + x)
output P
schedule newton
"""


def square(g: Tensors) -> list[torch.Tensor]:
    P, out = g["P_0"], []
    for x in g["x"].unbind(1):
        P = 0.5 * torch.tanh(g["F"] @ P @ g["F"].T + x)
        out.append(P)
    return [torch.stack(out, 1), P]


ATTENDING = """spec attending
dim N, D
input x[D]
param E[N, D] per batch, W[D, D]
state h[D] = 0
score = sum[D]((W @ E) * h[t-1])
h = 0.7 * tanh(x + sum[N](softmax[N](score) * E))
output h
schedule newton
"""


def attending(g: Tensors) -> list[torch.Tensor]:
    h, out = g["h_0"], []
    for x in g["x"].unbind(1):
        share = torch.softmax((g["E"] @ g["W"].T @ h[..., None])[..., 0], -1)
        h = 0.7 * torch.tanh(x + (share[..., None] * g["E"]).sum(1))
        out.append(h)
    return [torch.stack(out, 1), h]


SIZES = {"N": 2, "B": 2, "D": 3, "M": 4, "H": 2, "L": 3}
CASES: dict[str, tuple[str, Callable[[Tensors], list[torch.Tensor]]]] = {
    "elementwise": (ELEMENTWISE, elementwise), "gated": (GATED, gated), "memory": (MEMORY, memory), "lags": (LAGS, lags),
    "neighbours": (NEIGHBOURS, neighbours), "square": (SQUARE, square), "attending": (ATTENDING, attending),
}  # fmt: skip


def arguments(f: Any, steps: int, dtype: torch.dtype = torch.float64, **sizes: int) -> Tensors:
    make = torch.Generator().manual_seed(steps)
    sizes = {**SIZES, **sizes, "T": steps}
    shapes = {name: [sizes[d] for d in axes.split()] for name, axes in f.module._AXES.items()}
    return {name: torch.randn(shape, generator=make, dtype=dtype).mul(0.7).requires_grad_() for name, shape in shapes.items()}


def slopes(results: Any, given: Tensors) -> list[torch.Tensor]:
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in results]
    found = torch.autograd.grad(list(results), list(given.values()), weights, allow_unused=True)
    return [torch.zeros_like(x) if d is None else d for x, d in zip(given.values(), found, strict=True)]


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return {name: seqc.compile(text, "torch") for name, (text, _) in CASES.items()}


class Steps:
    """Counts the calls of a function of a file, and hands them on; or forbids them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, f: Any, name: str) -> None:
        self.count, self.call = 0, getattr(f.module, name)
        monkeypatch.setattr(f.module, name, self)

    def __call__(self, *given: Any, **how: Any) -> Any:
        self.count += 1
        return self.call(*given, **how)


@pytest.mark.parametrize("steps", [2, 13, 70, 131])
@pytest.mark.parametrize("name", CASES)
def test_newton_is_the_loop_by_hand(
    compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    f = compiled[name]
    apart = [Steps(monkeypatch, f, f"_sequential_{way}_torch") for way in ("forward", "backward")]
    given = arguments(f, steps)
    found, wanted = f(**given), CASES[name][1](given)
    torch.testing.assert_close(list(found), wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(slopes(found, given), slopes(wanted, given), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(list(f(**given)), wanted, rtol=1e-11, atol=1e-11)
    assert [one.count for one in apart] == [0, 0]


@pytest.mark.parametrize("name", ["elementwise", "memory"])
def test_float32_is_as_close_as_its_steps(compiled: dict[str, Any], name: str) -> None:
    f = compiled[name]
    given = arguments(f, 300, torch.float32)
    found, wanted = f(**given), CASES[name][1]({n: x.double() for n, x in given.items()})
    torch.testing.assert_close([x.double() for x in found], wanted, rtol=2e-5, atol=2e-5)


def test_iterations_are_few(compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    f = compiled["gated"]
    rounds = Steps(monkeypatch, f, "_newton_slopes")
    early = Steps(monkeypatch, f, "_newton_ahead")
    with torch.no_grad():
        f(**arguments(f, 400))
    assert rounds.count <= 12
    assert early.count == 1  # products of inputs are made once


CHAOS = """spec chaos
input x
param r
state h = 0.3
h = r * h[t-1] * (1 - h[t-1]) + x
output h
schedule newton
"""


def test_what_does_not_settle_runs_step_by_step_and_says_so() -> None:
    f = seqc.compile(CHAOS, "torch")
    given = {"x": torch.zeros(1, 200, dtype=torch.float64), "r": torch.tensor(3.99, dtype=torch.float64, requires_grad=True)}
    with pytest.warns(RuntimeWarning, match="did not settle"):
        found = f(**given).h
    h, out = torch.full((1,), 0.3, dtype=torch.float64), []
    for _ in range(200):
        h = 3.99 * h * (1 - h)
        out.append(h)
    assert torch.equal(found[:, :20], torch.stack(out, 1)[:, :20])
    assert found[:, -50:].std() > 0.1  # it wanders, as it should
    found.sum().backward()  # of an exploding orbit: whatever it is, it is the steps' own
    own = seqc.compile(CHAOS.replace("schedule newton", "schedule sequential"), "torch")
    again = given["r"].detach().clone().requires_grad_()
    own(given["x"], again).h.sum().backward()
    torch.testing.assert_close(given["r"].grad, again.grad, rtol=1e-6, atol=0.0)


def test_a_wide_jacobian_runs_step_by_step_and_says_so(compiled: dict[str, Any]) -> None:
    f = compiled["neighbours"]
    given = arguments(f, 9, D=40)
    with pytest.warns(RuntimeWarning, match="40 rows"):
        found = f(**given)
    torch.testing.assert_close(list(found), neighbours(given))
    torch.testing.assert_close(slopes(found, given), slopes(neighbours(given), given))


def test_what_is_no_number_runs_step_by_step(compiled: dict[str, Any]) -> None:
    f = compiled["elementwise"]
    given = {name: x.detach() for name, x in arguments(f, 20).items()}
    given["x"][0, 7, 1] = math.nan
    with pytest.warns(RuntimeWarning, match="did not settle"):
        found = f(**given).h
    assert found[0, 7:, 1].isnan().all()
    assert found.isnan().sum() == 13


def test_packs_are_their_sequences_and_turned_ones_too(compiled: dict[str, Any]) -> None:
    f = compiled["elementwise"]
    given = {name: x.detach() for name, x in arguments(f, 12).items()}
    row = {name: x[:1] if name in "xz" else x for name, x in given.items()}
    pack = f(**row, cu_seqlens=[0, 9, 12], reverse=True)
    for i, own in enumerate((slice(0, 9), slice(9, 12))):
        wanted = elementwise({n: x[:, own].flip(1) if n in "xz" else x[i : i + 1] if n == "h_0" else x for n, x in row.items()})
        torch.testing.assert_close(pack.y[:, own], wanted[1].flip(1))
        torch.testing.assert_close(pack.h_T[i : i + 1], wanted[2])


def test_both_ways_and_beside_a_linear_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is by Newton's method; a linear state that the cell feeds is a recurrence of its own, in blocks."""
    text = """spec beside
dim D, K = 4, V = 4
input x[D], q[K], k[K], v[V], g in [-1, 0]
param u[D]
state h[D] = 0, S[K, V] = 0
h = tanh(x + u * h[t-1])
S = exp(g) * S[t-1] + k * v * mean[D](h)
output h, o[V] = sum[K](q * S)
scan both
"""
    f, own = (seqc.compile(text + more, "torch") for more in ("schedule newton\n", ""))
    given = arguments(f, 40, K=4, V=4)
    given["g"] = (-given["g"].abs()).detach().requires_grad_()
    apart = Steps(monkeypatch, f, next(n for n in vars(f.module) if "sequential_forward_torch" in n))
    found, wanted = f(**given), own(**given)
    torch.testing.assert_close(list(found), list(wanted), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(slopes(found, given), slopes(wanted, given), rtol=1e-10, atol=1e-10)
    assert apart.count == 0


def test_steps_and_continued_runs(compiled: dict[str, Any]) -> None:
    f = compiled["memory"]
    given = {name: x.detach() for name, x in arguments(f, 30).items()}
    whole, timed = f(**given), ("x_i", "x_f", "x_o")
    first = f(**{n: x[:, :17] if n in timed else x for n, x in given.items()})
    rest = f(**{n: x[:, 17:29] if n in timed else x for n, x in given.items()} | {"h_0": first.h_T, "c_0": first.c_T})
    last = f.step(**{n: x[:, 29] if n in timed else x for n, x in given.items()} | {"h_0": rest.h_T, "c_0": rest.c_T})
    torch.testing.assert_close(last.h_T, whole.h_T, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(torch.cat([first.s, rest.s], 1), whole.s[:, :29], rtol=1e-11, atol=1e-11)


REFUSED = {
    "linear in its states": "spec a\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x\noutput h\nschedule newton\n",
    "log-sum-exp": "spec a\ndim N\ninput e[N]\nparam A[N, N]\nstate a[N] = 0\na = e + logsumexp[N'](A + a[t-1, N -> N'])\n"
    "output a\nschedule newton\n",
    "a derivative of the spec's own": "spec a\ninput x\nstate u = 0, z = 0\nu = 0.9 * u[t-1] * (1 - z[t-1]) + x\n"
    "z = withgrad(u > 1, 1 / (1 + u^2))\noutput z\nschedule newton\n",
    "48 rows": "spec a\ndim D {48}\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\nh = tanh(R @ h[t-1] + x)\noutput h\n"
    "schedule newton\n",
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_run_so_is_refused_with_the_reason(why: str) -> None:
    with pytest.raises(seqc.Unsupported) as refusal:
        seqc.compile(REFUSED[why], "torch")
    assert why in str(refusal.value)


def test_other_backends_refuse(compiled: dict[str, Any]) -> None:
    with pytest.raises(seqc.Unsupported, match="plain torch alone"):
        seqc.compile(ELEMENTWISE, "cpu")
    f = seqc.compile(ELEMENTWISE)
    assert "Newton's method runs in plain torch alone" in f.explain()


def test_explain_tells_what_contraction_is_known(compiled: dict[str, Any]) -> None:
    assert "no contraction is known" in compiled["gated"].explain()
    assert "a Jacobian with dense places (h by D)" in compiled["gated"].explain()
    text = "spec a\ninput x\nparam u in [-0.5, 0.5]\nstate h = 0\nh = tanh(x + u * h[t-1])\noutput h\nschedule newton\n"
    assert "shrinks to at most 0.5 of itself" in seqc.compile(text, "torch").explain()
    plain = seqc.compile(text.replace("schedule newton\n", ""), "torch")
    assert not hasattr(plain.module, "_newton")
    assert hasattr(seqc.compile(text.replace("schedule newton\n", ""), "torch", form="newton").module, "_newton")


def test_the_jacobian_has_the_structure_of_the_step() -> None:
    found = {key: (x.kept, x.rows) for key, x in jacobian(load(MEMORY)).items()}
    assert found == {("h", "h"): ((), ("D",)), ("h", "c"): (("D",), ()), ("c", "h"): ((), ("D",)), ("c", "c"): (("D",), ())}
    parts = newton_of(load(LAGS))
    assert not isinstance(parts, str)
    assert parts.links == ("y.of.y", "y.of.y.lag2", "y.of.y.lag3")  # what only moves a lag on is the same at every step


def test_no_warning_where_it_settles(compiled: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled["lags"](**arguments(compiled["lags"], 50))
