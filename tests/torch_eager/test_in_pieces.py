"""Linear recurrences in pieces of time: results and all gradients are those of loops that are written by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqc

Tensors = dict[str, torch.Tensor]

OSCILLATORS = """spec oscillators
dim D
input u[D], w[D], dt[D]
state x[D] = 0.5, v[D] = 0
v = (v[t-1] - dt * w * x[t-1] + dt * u) / (1 + dt^2 * w)
x = x[t-1] + dt * v
output y[D] = x * u
"""

FILTER = """spec filter
input x
param b[C], a[L]
dim C = 3, L = 3
state y lag 3 = 0
y = sum[C](b * x[t - index[C]]) + sum[L](a * y[t - 1 - index[L]]) + 0.1 * x[t+1]
output y
"""

DENSE = """spec dense
dim N, D
input u[D]
param A[N, N], W[N, D]
state h[N] = 0, c[N] = 0
h = A @ h[t-1] + 0.3 * c[t-1] + W @ u
c = 0.9 * c[t-1] + h[t-1]
output h
output s = sum[N](c)
"""

MASKED = """spec masked
dim D
input x[D], m, g[D], f[D]
state h[D] = 0, c[D] = 0
h = where(m > 0, g * h[t-1] + 0.5 * c[t-1] + x, h[t-1])
c = where(m < 0, 0, f * c[t-1] + h[t-1])
output h, e[D] = c
"""

FEEDING = """spec feeding
dim H, K, V
input k[H, K], v[H, V], q[H, K], r[H, K]
state S[H, K, V] = 0, z[H, K] = 0
z = z[t-1] - k * sum[K](k * z[t-1]) + r
S = S[t-1] - k * sum[K](r * S[t-1]) + z[t-1] * v
output o = sum[K](q * S)
"""

TURNING = """spec turning
dim N
input u, dt[N]
param A[N] complex
state x[N] complex = 0
x = bilinear(A, dt) * x[t-1] + dt * u
output y = sum[N](re(x))
"""

HIDDEN_MARKOV = """spec hidden_markov
dim N
input e[N]
param A[N, N]
state alpha[N] = 0
alpha = e + logsumexp[N'](A + alpha[t-1, N -> N'])
output alpha
"""

BEST_PATH = """spec best_path
dim N
input e[N]
param A[N, N]
state v[N] = 0
v = e[t-1] + max[N'](A + v[t-1, N -> N'])
output v
"""

ALIGNMENT = """spec alignment
dim D
input e[D], skip[D]
state a[D] = 0, blank[D] = -inf
a = e + logaddexp(logaddexp(a[t-1], shift[D](blank[t-1], 1, -inf)), skip + shift[D](a[t-1], 1, -inf))
blank = logaddexp(blank[t-1], a[t-1])
output a
output z = logsumexp[D](blank)
"""

CHOSEN = """spec chosen
dim N
input u[N], score[N, N]
state x[N] = 0
x = where(index[N] == argmax[N](score), 0.8, 0) @ x[t-1] + u
output x
"""


def oscillators(g: Tensors) -> list[torch.Tensor]:
    x, v, out = g["x_0"], g["v_0"], []
    for u, w, dt in zip(g["u"].unbind(1), g["w"].unbind(1), g["dt"].unbind(1), strict=True):
        v = (v - dt * w * x + dt * u) / (1 + dt * dt * w)
        x = x + dt * v
        out.append(x * u)
    return [torch.stack(out, 1), x, v]


def filtered(g: Tensors) -> list[torch.Tensor]:
    x, steps = g["x"], g["x"].shape[1]
    past, out = [g["y_lag3_0"], g["y_lag2_0"], g["y_0"]], []
    zero = torch.zeros_like(x[:, 0])
    for t in range(steps):
        fir = sum(g["b"][i] * (x[:, t - i] if t >= i else zero) for i in range(3))
        ahead = x[:, t + 1] if t + 1 < steps else zero
        past.append(fir + sum(g["a"][i] * past[-1 - i] for i in range(3)) + 0.1 * ahead)
        out.append(past[-1])
    return [torch.stack(out, 1), past[-1], past[-2], past[-3]]


def dense(g: Tensors) -> list[torch.Tensor]:
    h, c, hs, ss = g["h_0"], g["c_0"], [], []
    for u in g["u"].unbind(1):
        h, c = h @ g["A"].T + 0.3 * c + u @ g["W"].T, 0.9 * c + h
        hs.append(h)
        ss.append(c.sum(-1))
    return [torch.stack(hs, 1), torch.stack(ss, 1), h, c]


def masked(g: Tensors) -> list[torch.Tensor]:
    h, c, hs, cs = g["h_0"], g["c_0"], [], []
    for x, m, a, f in zip(*(g[n].unbind(1) for n in ("x", "m", "g", "f")), strict=True):
        m = m[:, None]
        h, c = torch.where(m > 0, a * h + 0.5 * c + x, h), torch.where(m < 0, torch.zeros_like(c), f * c + h)
        hs.append(h)
        cs.append(c)
    return [torch.stack(hs, 1), torch.stack(cs, 1), h, c]


def feeding(g: Tensors) -> list[torch.Tensor]:
    S, z, out = g["S_0"], g["z_0"], []
    for k, v, q, r in zip(*(g[n].unbind(1) for n in "kvqr"), strict=True):
        before = z
        z = z - k * (k * z).sum(-1, keepdim=True) + r
        S = S - k[..., None] * (r[..., None] * S).sum(-2, keepdim=True) + before[..., None] * v[..., None, :]
        out.append((q[..., None] * S).sum(-2))
    return [torch.stack(out, 1), S, z]


def turning(g: Tensors) -> list[torch.Tensor]:
    A, x, out = torch.complex(g["A_re"], g["A_im"]), torch.complex(g["x_re_0"], g["x_im_0"]), []
    for u, dt in zip(g["u"].unbind(1), g["dt"].unbind(1), strict=True):
        x = (1 + dt * A / 2) / (1 - dt * A / 2) * x + dt * u[:, None]
        out.append(x.real.sum(-1))
    return [torch.stack(out, 1), x.real, x.imag]


def hidden_markov(g: Tensors) -> list[torch.Tensor]:
    alpha, out = g["alpha_0"], []
    for e in g["e"].unbind(1):
        alpha = e + torch.logsumexp(g["A"] + alpha[:, None, :], -1)
        out.append(alpha)
    return [torch.stack(out, 1), alpha]


def best_path(g: Tensors) -> list[torch.Tensor]:
    v, out = g["v_0"], []
    for e in torch.cat([torch.zeros_like(g["e"][:, :1]), g["e"][:, :-1]], 1).unbind(1):
        v = e + (g["A"] + v[:, None, :]).amax(-1)
        out.append(v)
    return [torch.stack(out, 1), v]


def alignment(g: Tensors) -> list[torch.Tensor]:
    def later(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x[:, :1], -torch.inf), x[:, :-1]], 1)

    a, blank, out, zs = g["a_0"], g["blank_0"], [], []
    for e, skip in zip(g["e"].unbind(1), g["skip"].unbind(1), strict=True):
        a, blank = e + torch.logaddexp(torch.logaddexp(a, later(blank)), skip + later(a)), torch.logaddexp(blank, a)
        out.append(a)
        zs.append(torch.logsumexp(blank, -1))
    return [torch.stack(out, 1), torch.stack(zs, 1), a, blank]


def chosen(g: Tensors) -> list[torch.Tensor]:
    x, out = g["x_0"], []
    for u, score in zip(g["u"].unbind(1), g["score"].unbind(1), strict=True):
        x = 0.8 * torch.stack([((score.argmax(1) == i) * x).sum(-1) for i in range(x.shape[-1])], -1) + u
        out.append(x)
    return [torch.stack(out, 1), x]


SIZES = {"B": 2, "D": 3, "N": 3, "H": 2, "K": 3, "V": 2, "C": 3, "L": 3}
CASES: dict[str, tuple[str, Callable[[Tensors], list[torch.Tensor]]]] = {
    "oscillators": (OSCILLATORS, oscillators), "filter": (FILTER, filtered), "dense": (DENSE, dense),
    "masked": (MASKED, masked), "feeding": (FEEDING, feeding), "turning": (TURNING, turning),
    "hidden_markov": (HIDDEN_MARKOV, hidden_markov), "best_path": (BEST_PATH, best_path), "alignment": (ALIGNMENT, alignment),
    "chosen": (CHOSEN, chosen),
}  # fmt: skip


def arguments(f: Any, steps: int, dtype: torch.dtype = torch.float64) -> Tensors:
    make = torch.Generator().manual_seed(steps)
    given = {}
    for name, axes in f.module._AXES.items():
        shape = [steps if d == "T" else SIZES[d] for d in axes.split()]
        x = torch.rand(shape, generator=make, dtype=dtype) - (0.5 if name not in ("w", "dt", "g", "f") else 0.0)
        given[name] = (0.6 * x).requires_grad_()
    return given


def slopes(results: Any, given: Tensors) -> list[torch.Tensor]:
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in results]
    found = torch.autograd.grad(list(results), list(given.values()), weights, allow_unused=True)
    return [torch.zeros_like(x) if d is None else d for x, d in zip(given.values(), found, strict=True)]


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return {name: seqc.compile(text, "torch") for name, (text, _) in CASES.items()}


@pytest.mark.parametrize("cut", [(3, 0), (2, 3), (7, 1), (11, 0)])
@pytest.mark.parametrize("name", CASES)
def test_pieces_are_loops_by_hand(
    compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, cut: tuple[int, int]
) -> None:
    f, (count, head) = compiled[name], cut
    given = arguments(f, count * 4 + head if count < 11 else 11)
    monkeypatch.setattr(f.module, "_pieces", lambda *_: cut)
    found, wanted = f(**given), CASES[name][1](given)
    torch.testing.assert_close(list(found), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes(found, given), slopes(wanted, given), rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(list(f(**given)), wanted, rtol=1e-12, atol=1e-12)


def test_nothing_is_the_zero_of_a_semiring(compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    f = compiled["alignment"]
    monkeypatch.setattr(f.module, "_pieces", lambda *_: (4, 1))
    given = {name: x.detach() for name, x in arguments(f, 13).items()}
    given["a_0"][:, 1:] = given["blank_0"][:] = -torch.inf  # begun at the first place: others are reached one a step
    given["skip"][:, :, 1] = -torch.inf
    given = {name: x.requires_grad_() for name, x in given.items()}
    found = f(**given)
    monkeypatch.setattr(f.module, "_pieces", lambda *_: (1, 0))
    wanted = f(**given)
    torch.testing.assert_close(list(found), alignment(given), rtol=1e-12, atol=1e-12)
    pair = (torch.autograd.grad([r.z[:, 2:].sum(), r.a_T[:, 0].sum()], list(given.values())) for r in (found, wanted))
    slopes_of_both = [*pair]
    assert not any(x.isnan().any() for x in slopes_of_both[0])
    torch.testing.assert_close(*slopes_of_both, rtol=1e-12, atol=1e-12)


def test_a_call_decides_by_its_sizes(compiled: dict[str, Any]) -> None:
    choose = compiled["oscillators"].module._pieces
    count, head = choose(torch.empty(1, 2048, 8), 48, 96)
    assert count > 20
    assert (2048 - head) % count == 0
    assert choose(torch.empty(1, 12, 8), 48, 96) == (1, 0)
    assert choose(torch.empty(512, 2048, 64), 384, 768) == (1, 0)  # as many sequences as fill the processor without


def test_a_long_call_is_cut_and_goes_on(compiled: dict[str, Any]) -> None:
    f = compiled["filter"]
    given = {name: x.detach() for name, x in arguments(f, 700).items()}
    assert f.module._pieces(given["x"], 3, 3)[0] > 1
    torch.testing.assert_close(list(f(**given)), filtered(given), rtol=1e-11, atol=1e-11)


def test_what_stands_later_reaches_nothing_before(compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    f = compiled["masked"]
    monkeypatch.setattr(f.module, "_pieces", lambda *_: (4, 0))
    given = {name: x.detach() for name, x in arguments(f, 16).items()}
    given["m"].fill_(0.5)
    plain = f(**given)
    given["x"][:, 6] = torch.nan
    given["m"][:, 7] = -0.5  # c is dropped at the step after
    spoilt = f(**given)
    assert torch.equal(spoilt.h[:, :6], plain.h[:, :6])
    assert spoilt.h[:, 6:].isnan().all()
    given["m"][:, 6] = 0.0  # the step is masked: what stands there leaves no trace
    assert not f(**given).h.isnan().any()
    given = {name: x.detach() for name, x in arguments(f, 16).items()}
    given["h_0"] = torch.full_like(given["h_0"], torch.inf)
    wanted = masked(given)
    torch.testing.assert_close(list(f(**given)), wanted, equal_nan=True)


def test_packs_are_their_sequences_and_turned_ones_too(compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    f = compiled["oscillators"]
    monkeypatch.setattr(f.module, "_pieces", lambda x, *_: (2, x.shape[1] % 2) if x.shape[1] > 3 else (1, 0))
    given = {name: x.detach() for name, x in arguments(f, 12).items()}
    row = {name: x[:1] if name in ("u", "w", "dt") else x for name, x in given.items()}
    pack = f(**row, cu_seqlens=[0, 9, 12], reverse=True)
    for i, own in enumerate((slice(0, 9), slice(9, 12))):
        turned = {name: x[:, own].flip(1) if name in ("u", "w", "dt") else x[i : i + 1] for name, x in row.items()}
        wanted = oscillators(turned)
        torch.testing.assert_close(pack.y[:, own], wanted[0].flip(1))
        torch.testing.assert_close(pack.x_T[i : i + 1], wanted[1])
    first = {name: x[:, :9] if name in ("u", "w", "dt") else x[:1] for name, x in row.items()}
    assert torch.equal(pack.y[:, :9], f(**first, reverse=True).y)


def test_a_second_recurrence_of_a_file_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DENSE.replace("state h[N] = 0, c[N] = 0", "input x, g in [-inf, 0]\nstate h[N] = 0, c[N] = 0, r = 0")
    f = seqc.compile(text + "r = exp(g) * r[t-1] + x\noutput r\n", "torch")
    (choice,) = (name for name in vars(f.module) if name.startswith("_pieces"))
    assert choice != "_pieces"
    given = arguments(f, 13)
    given["g"] = (-given["g"].abs()).detach().requires_grad_()
    found = []
    for cut in ((1, 0), (4, 1)):
        monkeypatch.setattr(f.module, choice, lambda *_, cut=cut: cut)
        r = f(**given)
        torch.testing.assert_close([r.h, r.s, r.h_T, r.c_T], dense(given), rtol=1e-12, atol=1e-12)
        found.append(slopes(r, given))
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_explain_tells(compiled: dict[str, Any]) -> None:
    assert "in pieces of time side by side, with 4 numbers a place" in compiled["oscillators"].explain()
    assert not hasattr(seqc.compile(OSCILLATORS + "schedule sequential\n", "torch").module, "_pieces")
