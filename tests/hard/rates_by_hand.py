"""Specs of `specs/` with several rates, or with a scan within a step, as loops in torch: see `by_hand`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.hard.by_hand import Given
from tests.hard.published_by_hand import mv, published, s
from tests.hard.systems_by_hand import ends, start, whole


def lstm(g: Given, mark: str, a: list[Tensor]) -> tuple[list[Tensor], Given]:
    """The hidden states of torch's LSTM cell, of what inputs bring to each step [.., gates, units], and the last states."""
    h, c, rows = g[f"h_{mark}_0"], g[f"c_{mark}_0"], []
    for x in a:
        i, f, z, o = (x + torch.einsum("gnm,...m->...gn", g[f"R_{mark}"], h) + g[f"b_{mark}"]).unbind(-2)
        c = s(f) * c + s(i) * torch.tanh(z)
        h = s(o) * torch.tanh(c)
        rows.append(h)
    return rows, {f"h_{mark}_T": h, f"c_{mark}_T": c}


def gates(W: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """W [gates, units, n] times each row [.., n]."""
    return [torch.einsum("gnm,...m->...gn", W, x) for x in rows]


@published(
    "fast_fullsubnet", Q=5, F=6, A=2, E=3, S=2, D=3, K=11,
    fit={"down_2_1_0": lambda x: 0 * x + 1, **dict.fromkeys(("seen_0", "seen_s_0", "total_0", "total_s_0"), lambda x: 0 * x),
         **dict.fromkeys(("m_lag1_0", "e_lag1_0"), lambda x: 0 * x), **dict.fromkeys(("x", "M"), torch.abs)},
)  # fmt: skip
def _(g: Given) -> Given:
    m, T, found, small = mv(g["M"], g["x"]), g["x"].shape[1], {}, 2.0**-23
    means = (g["total_0"][:, None] + m.mean(-1).cumsum(1)) / (g["seen_0"][:, None] + torch.arange(1, T + 1))
    h, found["1"] = lstm(g, "1", gates(g["W_1"], list((m / (means[..., None] + small)).unbind(1))))
    h, found["2"] = lstm(g, "2", gates(g["W_2"], h))
    e = [F.relu(mv(g["W_e"], x) + g["b_e"]) for x in h]
    near = F.pad(torch.cat([g["m_lag1_0"][:, None], m], 1), (5, 5), mode="reflect").unfold(-1, 11, 1)  # [B, T + 1, bands, 11]
    both = torch.cat([near, torch.stack([g["e_lag1_0"], *e], 1)[..., None]], -1)
    first = both[:, :2].sum(1) / (1 + g["seen_0"])[:, None, None]
    few = torch.stack([first, *(both[:, i : i + 2].mean(1) for i in range(2, T, 2))], 1)
    count = g["seen_s_0"][:, None, None] + torch.arange(1, few.shape[1] + 1)[:, None]
    level = (g["total_s_0"][:, None] + few.mean(-1).cumsum(1)) / count
    few = few / (level[..., None] + small)
    W = torch.cat([g["W_m"], g["w_m"][..., None]], -1)
    h, found["3"] = lstm(g, "3", gates(W, list(few.unbind(1))))
    h, found["4"] = lstm(g, "4", gates(g["W_4"], h))
    answers = torch.stack([F.relu((x * g["w_s"]).sum(-1) + g["b_s"]) for x in h], 1).repeat_interleave(2, 1)[:, :T]
    a = [x + y for x, y in zip(gates(g["W_5"], e), gates(g["V_5"], list(answers.unbind(1))), strict=True)]
    h, found["5"] = lstm(g, "5", a)
    h, found["6"] = lstm(g, "6", gates(g["W_6"], h))
    o = torch.stack([torch.einsum("cqd,bd->bcq", g["W_o"], x) + g["b_o"] for x in h], 1)
    return {"o": o, "s_T": answers[:, -1], **{x: y for one in found.values() for x, y in one.items()}}


def s4(g: Given, mark: str, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A step of S4 with both of each two conjugate modes and a solved system: (the new state, what is read of it)."""
    n = x.shape[-1]
    lam = torch.complex(-g[f"A_log{mark}"].exp(), g[f"A_imag{mark}"])
    p, b = whole(g, f"P{mark}"), whole(g, f"Bm{mark}")
    lam, p, b, x = (torch.cat([z, z.conj()], -1) for z in (lam, p, b, x))
    A = torch.diag_embed(lam) - p[..., :, None] * p.conj()[..., None, :]
    one, dt = torch.eye(2 * n, dtype=torch.complex128), g[f"log_dt{mark}"].exp()[:, None, None]
    forth = torch.einsum("hnm,bhm->bhn", one + dt / 2 * A, x) + dt[..., 0] * b * u[..., None]
    x = torch.linalg.solve(one - dt / 2 * A, forth[..., None])[..., 0][..., :n]
    return x, 2 * (whole(g, f"Cm{mark}") * x).sum(-1).real + g[f"skip{mark}"] * u


def block(g: Given, marks: tuple[str, ...], h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(the new state of its S4, S4 with a gate around x, then two layers around that)."""
    mark, o = marks
    h, y = s4(g, mark, h, F.layer_norm(x, x.shape[-1:], g[f"gain{mark}"], g[f"shift{mark}"]))
    y = torch.einsum("ide,be->bid", g[f"O{mark}"], F.gelu(y)) + g[o]
    r = x + y[:, 0] * s(y[:, 1])
    z = F.layer_norm(r, r.shape[-1:], g[f"g_ff{mark}"], g[f"s_ff{mark}"])
    return h, r + mv(g[f"V{mark}"], F.gelu(mv(g[f"W{mark}"], z) + g[f"b{mark}"])) + g[f"w{mark}"]


@published("sashimi", D=3, E=4, F=2, G=3, N=2, fit={"down_4_0": lambda x: 0 * x + 1})
def _(g: Given) -> Given:
    x, h, h_2, u, rows = g["x"], start(g, "h"), start(g, "h_2"), g["u_0"], []
    filled = torch.cat([torch.zeros_like(x[:, :1]), x], 1)  # a group had one step before the first one
    for t in range(x.shape[1]):
        y = x[:, t] + u[:, (t + 1) % 4]
        if t % 4 == 2:
            d = torch.einsum("esd,bsd->be", g["K"], filled[:, t - 2 : t + 2]) + g["k"]
            h_2, c = block(g, ("_2", "o_2"), h_2, d)
            u = torch.einsum("sde,be->bsd", g["U"], c + d) + g["v"]
        h, r = block(g, ("", "o_b"), h, y)
        rows.append(F.layer_norm(y + r, y.shape[-1:], g["g_out"], g["s_out"]))
    return {"o": torch.stack(rows, 1), "u_T": u, **ends("h", h), **ends("h_2", h_2)}


def scanned(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A selective scan along the second axis of u [B, n, D], and the last state."""
    rows = []
    for i in range(u.shape[1]):
        now = dt[:, i] * u[:, i]
        h = torch.exp(-dt[:, i, :, None] * A.exp()) * h + now[..., None] * mv(B, u[:, i])[:, None]
        rows.append((h * mv(C, u[:, i])[:, None]).sum(-1) + skip * u[:, i])
    return torch.stack(rows, 1), h


@published("mamba_mixer", D=2, N=2)
def _(g: Given) -> Given:
    x, c = g["x"], g["c"]
    past = torch.stack([g[f"s_lag{i}_0"] for i in (3, 2, 1)], 1)
    source = g["a"] * x + g["b"] * c
    rows = torch.cat([past, source], 1)
    T, V = x.shape[1], x.shape[2]
    u = F.silu(sum(g["conv"][i] * rows[:, 3 - i : 3 - i + T] for i in range(4)) + g["bias"])
    dt, weights = F.softplus(g["w"] * u + g["dt_0"]), (g["A_log"], g["W_B"], g["W_C"], g["skip"])
    pairs = [scanned(u[:, :, v], dt[:, :, v], *weights, g["h_0"][:, v]) for v in range(V)]
    y = torch.stack([one for one, _ in pairs], 2) * F.silu(mv(g["W_z"], source))
    m, steps = g["p"] * x + g["q"] * c + g["r"] * y, []
    for t in range(T):
        total = 0
        for way in (0, 1):
            z = m[:, t].flip(1) if way else m[:, t]
            wide = F.pad(z, (0, 0, 3, 0))
            k = F.silu(sum(g["conv_c"][way, i] * wide[:, 3 - i : 3 - i + V] for i in range(4)) + g["bias_c"][way])
            zero = torch.zeros(len(x), *g["A_c"].shape[1:], dtype=x.dtype)
            dt = F.softplus(g["w_c"][way] * k + g["dt_c"][way])
            o, _ = scanned(k, dt, g["A_c"][way], g["B_c"][way], g["C_c"][way], g["skip_c"][way], zero)
            total = total + (o.flip(1) if way else o)
        steps.append(total * F.silu(mv(g["Z_c"], m[:, t])))
    return {"y": y, "o": torch.stack(steps, 1), "h_T": torch.stack([h for _, h in pairs], 1)}
