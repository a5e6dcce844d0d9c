"""Published specs (`specs/`) as loops in torch: see `by_hand`. Noise of a spec is an input here, so that a loop has the same.

`kalman` has numbers of other code (`tests/peers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import networkx
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.hard.by_hand import Given, Loop, between, by_hand, stacked

SPECS = Path(__file__).parents[2] / "specs"
s = torch.sigmoid


def published(
    name: str, noise: dict[str, str] | None = None, fit: dict[str, Callable[[Tensor], Tensor]] | None = None, **sizes: int
) -> Callable[[Loop], None]:
    """Registers the loop of a published spec. noise: a draw, and the declaration of the input that stands in its place."""
    text = (SPECS / f"{name}.seq").read_text(encoding="utf-8")
    for draw, declared in (noise or {}).items():
        assert draw in text
        text = text.replace(draw, declared.split("[")[0].split()[0]) + f"\ninput {declared}\n"
    return by_hand(text, fit, **sizes)


def steps(g: Given, *names: str) -> list[tuple[Tensor, ...]]:
    """The inputs of each step."""
    return list(zip(*(g[name].unbind(1) for name in names), strict=True))


def mv(m: Tensor, x: Tensor) -> Tensor:
    """The matrix m times each vector of a batch."""
    return x @ m.T


@published("jordan", H=3, D=2)
def _(g: Given) -> Given:
    y, rows = g["y_0"], []
    for (x,) in steps(g, "x"):
        y = s(mv(g["C"], s(x + mv(g["R"], y) + g["b_h"])) + g["b_y"])
        rows.append(y)
    return {"y": torch.stack(rows, 1), "y_T": y}


@published("peephole_lstm", D=3)
def _(g: Given) -> Given:
    h, c, rows = g["h_0"], g["c_0"], []
    for x_i, x_f, x_z, x_o in steps(g, "x_i", "x_f", "x_z", "x_o"):
        i = s(x_i + mv(g["R_i"], h) + g["p_i"] * c)
        f = s(x_f + mv(g["R_f"], h) + g["p_f"] * c)
        c = f * c + i * torch.tanh(x_z + mv(g["R_z"], h))
        h = s(x_o + mv(g["R_o"], h) + g["p_o"] * c) * torch.tanh(c)
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h, "c_T": c}


@published("projected_lstm", D=4, P=2)
def _(g: Given) -> Given:
    """By torch's own layer."""
    layer = torch.nn.LSTM(16, 4, proj_size=2, batch_first=True, bias=False, dtype=torch.float64)
    x = torch.cat([g[f"x_{gate}"] for gate in "ifzo"], -1)
    weights = {
        "weight_ih_l0": torch.eye(16, dtype=torch.float64), "weight_hh_l0": torch.cat([g[f"R_{gate}"] for gate in "ifzo"]),
        "weight_hr_l0": g["W_h"],
    }  # fmt: skip
    h, (h_T, c_T) = torch.func.functional_call(layer, weights, (x, (g["h_0"][None], g["c_0"][None])))
    return {"h": h, "h_T": h_T[0], "c_T": c_T[0]}


@published("layer_norm_gru", D=3)
def _(g: Given) -> Given:
    def normed(x: Tensor, gain: str, over: int) -> Tensor:
        return F.layer_norm(x, x.shape[-over:]) * g[f"gain_{gain}"] + g[f"bias_{gain}"]

    h, rows = g["h_0"], []
    for x, x_n in steps(g, "x", "x_n"):
        a = normed(torch.stack([mv(R, h) for R in g["R"]], 1), "h", 2) + normed(x, "x", 2)
        n = torch.tanh(normed(x_n, "n", 1) + s(a[:, 1]) * normed(mv(g["R_n"], h), "u", 1))
        h = (1 - s(a[:, 0])) * h + s(a[:, 0]) * n
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h}


@published("sparse_gru", D=4)
def _(g: Given) -> Given:
    R = {gate: g[f"R_{gate}"] * (g[f"R_{gate}_mask"] != 0) for gate in "rzn"}
    h, rows = g["h_0"], []
    for x_r, x_z, x_n in steps(g, "x_r", "x_z", "x_n"):
        r, z = s(x_r + mv(R["r"], h) + g["b_r"]), s(x_z + mv(R["z"], h) + g["b_z"])
        n = torch.tanh(x_n + r * (mv(R["n"], h) + g["b_n"]))
        h = (1 - z) * n + z * h
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h}


@published("random_graph_rnn")
def _(g: Given) -> Given:
    whole = torch.tensor(networkx.to_numpy_array(networkx.barabasi_albert_graph(36, 5, seed=1)) != 0)
    layers = {"f": slice(0, 16), "g": slice(16, 28), "h": slice(28, 36)}
    w = {name: g[name] * whole[layers[i], layers[j]] for name, i, j in (("W_g", "g", "f"), ("W_h", "h", "g"), ("S", "h", "f"))}
    f, b, h, k, rows = g["f_0"], g["g_0"], g["h_0"], g["k_0"], []
    for (x,) in steps(g, "x"):
        f = torch.tanh(x + mv(g["R_f"], f))
        b = torch.tanh(mv(w["W_g"], f) + mv(g["R_g"], b) + g["b_g"])
        h = torch.tanh(mv(w["W_h"], b) + mv(g["R_h"], h) + g["b_h"])
        k = torch.tanh(mv(w["S"], f) + mv(g["R_k"], k) + g["b_k"])
        rows.append(h + k)
    return {"y": torch.stack(rows, 1), "f_T": f, "g_T": b, "h_T": h, "k_T": k}


@published("pv_rnn", {"normal[Z]()": "eps[Z]", "normal[Y]()": "eta[Y]"}, {"begun_0": lambda x: 0 * x}, D=3, E=2, Z=2, Y=2)
def _(g: Given) -> Given:
    """The divergence is torch's own, of two normal distributions."""
    Normal = torch.distributions.Normal
    u, v, d, e = (g[f"{name}_0"] for name in "uvde")
    rows = []
    for t, (a_m, a_s, c_m, c_s, eps, eta) in enumerate(steps(g, "a_m", "a_s", "c_m", "c_s", "eps", "eta")):
        z, y, kl = eps, eta, []
        for m, w, at, free, free_s in ((g["M_d"], g["S_d"], d, a_m, a_s), (g["M_e"], g["S_e"], e, c_m, c_s)):
            post = Normal(torch.tanh(mv(m, at) + free), torch.exp(mv(w, at) + free_s))
            zero = torch.zeros_like(free)
            prior = Normal(torch.tanh(mv(m, at)), torch.exp(mv(w, at))) if t else Normal(zero, zero + 1)
            kl.append(torch.distributions.kl_divergence(post, prior).sum(-1))
            z, y = (post.mean + post.stddev * eps, y) if len(kl) == 1 else (z, post.mean + post.stddev * eta)
        into_u = mv(g["W_d"], d) + mv(g["V_d"], z) + mv(g["T_d"], e) + g["b_d"]
        into_v = mv(g["W_e"], e) + mv(g["V_e"], y) + mv(g["B_e"], d) + g["b_e"]
        u = u + (into_u - u) / g["tau_d"]
        v = v + (into_v - v) / g["tau_e"]
        d, e = torch.tanh(u), torch.tanh(v)
        rows.append((d, *kl))
    out = stacked(rows)
    return {"d": out[0], "kl_d": out[1], "kl_e": out[2], "u_T": u, "v_T": v, "e_T": e}


class Spike(torch.autograd.Function):
    """1 above 0, with a slope that is given."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(slope)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, d: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (slope,) = ctx.saved_tensors
        return d * slope, None


@published("lif_delays", D=2, J=3)
def _(g: Given) -> Given:
    """Synapses by torch's convolution, whose kernel is turned around in time."""
    n = torch.arange(10, dtype=torch.float64)
    bump = torch.exp(-((n - g["p"][..., None]) ** 2) / (2 * g["sigma"] ** 2))
    K = g["w"][..., None] * bump / bump.sum(-1, keepdim=True)
    current = F.conv1d(F.pad(g["s"].mT, (9, 0)), K.flip(-1)).mT
    v, rows = g["v_0"], []
    for x in current.unbind(1):
        u = g["decay"] * v + x
        z = Spike.apply(u - 1, 2.5 / (1 + (2.5 * math.pi * (u.detach() - 1)) ** 2))
        v = (1 - z.detach()) * u
        rows.append(z)
    return {"z": torch.stack(rows, 1), "v_T": v}


@published("lif_alif", fit={"a_0": between(0.1, 0.5), "beta": between(1, 2)}, D=3)
def _(g: Given) -> Given:
    u, a, z, A, rows = g["u_0"], g["a_0"], g["z_0"], g["A_0"], []
    R = g["R"] * (1 - torch.eye(3, dtype=torch.float64))
    for (x,) in steps(g, "x"):
        old, A = A, 0.01 + g["beta"] * a
        u = g["alpha"] * u + (1 - g["alpha"]) * (x + mv(R, z)) - old * z
        v = (u - A) / A
        z = Spike.apply(v, 0.3 * F.relu(1 - v.detach().abs()))
        a = g["rho"] * a + (1 - g["rho"]) * z
        rows.append(z)
    return {"z": torch.stack(rows, 1), "u_T": u, "a_T": a, "A_T": A}


@published("memory_gru", fit={"dt": lambda x: 0.5 + x.abs()}, M=2, D=3)
def _(g: Given) -> Given:
    nodes = [{i: (g["s_0"][b, i], g["d_0"][b, i]) for i in range(64)} for b in range(2)]
    rows: list[list[Tensor]] = [[], []]
    for b, t in ((b, t) for b in range(2) for t in range(g["w"].shape[1])):
        at, x, dt = int(g["w"][b, t]), g["x"][b, t], g["dt"][b, t]
        old, trend = nodes[b][at]
        r = s(g["W_r"] @ x + g["R_r"] @ old + g["b_r"])
        z = s(g["W_z"] @ x + g["R_z"] @ old + g["b_z"])
        n = torch.tanh(g["W_n"] @ x + g["b_n"] + r * (g["R_n"] @ old))
        new = g["g"] * (old + dt * trend) + (1 - g["g"]) * (n + z * (old - n))
        nodes[b][at] = new, trend + g["rate"] * (((new - old) / dt).detach() - trend)
        rows[b].append(new)
    tables = [torch.stack([torch.stack([nodes[b][i][k] for i in range(64)]) for b in range(2)]) for k in range(2)]
    return {"o": torch.stack([torch.stack(row) for row in rows]), "s_T": tables[0], "d_T": tables[1]}


@published("recoding_lstm", D=3, V=4)
def _(g: Given) -> Given:
    """The corrections are autograd's own gradients of the surprisal."""
    h, c, rows = g["h_0"], g["c_0"], []
    for x_i, x_f, x_z, x_o, y in steps(g, "x_i", "x_f", "x_z", "x_o", "y"):
        i, f, o = s(x_i + mv(g["R_i"], h)), s(x_f + mv(g["R_f"], h)), s(x_o + mv(g["R_o"], h))
        cell = f * c + i * torch.tanh(x_z + mv(g["R_z"], h))
        coded = o * torch.tanh(cell)
        own = cell.detach().requires_grad_()
        free = (o.detach() * torch.tanh(own)).requires_grad_()
        logits = mv(g["C"].detach(), free) + g["b"].detach()
        # of a y that is no distribution too: softmax - y is the slope of logsumexp - y . logits
        surprisal = (torch.logsumexp(logits, -1) - (y.detach() * logits).sum(-1)).sum()
        dh, dc = torch.autograd.grad(surprisal, [free, own])
        h, c = coded - g["eta"] * dh, cell - g["eta"] * dc
        rows.append(mv(g["C"], h) + g["b"])
    return {"logits": torch.stack(rows, 1), "h_T": h, "c_T": c}


def gated(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(h, c) of an LSTM, from its gates i, f, z, o in the second axis."""
    c = s(a[:, 1]) * c + s(a[:, 0]) * torch.tanh(a[:, 2])
    return s(a[:, 3]) * torch.tanh(c), c


def gates(m: Tensor, x: Tensor) -> Tensor:
    """A matrix for each gate, times the vectors of a batch, or vectors for each gate."""
    return torch.einsum("gdm,bm->bgd" if x.dim() == 2 else "gdm,bgm->bgd", m, x)


@published("hyper_rnn", E=2, S=3, D=3, P=4)
def _(g: Given) -> Given:
    h, c, rows = g["h_0"], g["c_0"], []
    for (x,) in steps(g, "x"):
        h, c = gated(gates(g["W"], x) + gates(g["U"], g["s"]) + gates(g["R"], h) + g["b"], c)
        rows.append(mv(g["Q"], h))
    return {"theta": torch.stack(rows, 1), "h_T": h, "c_T": c}


@published("variational_lstm", {"bernoulli[G, M](0.75, once)": "p[G, M]", "bernoulli[G, D](0.75, once)": "q[G, D]"}, D=3, M=2)
def _(g: Given) -> Given:
    h, c, rows = g["h_0"], g["c_0"], []
    for x, p, q in steps(g, "x", "p", "q"):
        h, c = gated(gates(g["W"], p / 0.75 * x[:, None]) + gates(g["R"], q / 0.75 * h[:, None]) + g["b"], c)
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h, "c_T": c}


@published("forward_local_rnn", D=3, M=2)
def _(g: Given) -> Given:
    h, rows = g["h_0"], []
    for x, y in steps(g, "x", "y"):
        h = torch.tanh(x + mv(g["R"], h.detach()) + g["b"])
        rows.append((h, ((mv(g["P"], y) - h) ** 2).sum(-1)))
    out, loss = stacked(rows)
    return {"h": out, "loss": loss, "h_T": h}


@published("ar_net")
def _(g: Given) -> Given:
    """By torch's convolution of what came before."""
    past = F.pad(g["x"], (20, 0))[:, :-1]
    return {"y": g["c"] + F.conv1d(past[:, None], g["theta"].flip(0)[None, None])[:, 0]}


@published("gru_d", fit={"m": lambda x: (x > 0.5).double()}, D=3, M=2)
def _(g: Given) -> Given:
    h, last, rows = g["h_0"], g["last_0"], []
    for x, m, dt in steps(g, "x", "m", "dt"):
        p = torch.exp(-F.relu(g["w_x"] * dt + g["v_x"]))
        seen = torch.where(m > 0, x, p * last + (1 - p) * g["mean"])
        last = torch.where(m > 0, x, last)
        k = torch.exp(-F.relu(mv(g["W_h"], dt) + g["v_h"])) * h
        r, z = (s(mv(g[f"W_{a}"], seen) + mv(g[f"R_{a}"], k) + mv(g[f"V_{a}"], m) + g[f"b_{a}"]) for a in "rz")
        n = torch.tanh(mv(g["W_n"], seen) + mv(g["R_n"], r * k) + mv(g["V_n"], m) + g["b_n"])
        h = (1 - z) * k + z * n
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h, "last_T": last}


@published("ct_lstm", fit={"dt": between(0, 1), "d_0": between(0.5, 1)}, D=3)
def _(g: Given) -> Given:
    c, cb, d, o, rows = g["c_0"], g["cb_0"], g["d_0"], g["o_0"], []
    names = "x_i", "x_f", "x_z", "x_o", "x_ib", "x_fb", "x_d"
    for *x, dt in steps(g, *names, "dt"):
        now = cb + (c - cb) * torch.exp(-d * dt[:, None])
        h = o * (2 * s(2 * now) - 1)
        a = {name[2:]: own + mv(g[f"R_{name[2:]}"], h) for name, own in zip(names, x, strict=True)}
        z, o = 2 * s(a["z"]) - 1, s(a["o"])
        c = s(a["f"]) * now + s(a["i"]) * z
        cb = s(a["fb"]) * cb + s(a["ib"]) * z
        d = F.softplus(a["d"])
        rows.append(h)
    return {"h": torch.stack(rows, 1), "c_T": c, "cb_T": cb, "d_T": d}


@published("phased_lstm", fit={"tau": between(2, 5), "r": between(0.3, 0.6)}, D=3)
def _(g: Given) -> Given:
    h, c, rows = g["h_0"], g["c_0"], []
    for time, x_i, x_f, x_z, x_o in steps(g, "time", "x_i", "x_f", "x_z", "x_o"):
        phi = torch.remainder(time[:, None] - g["s"], g["tau"]) / g["tau"]
        up, down = 2 * phi / g["r"], 2 - 2 * phi / g["r"]
        k = torch.where(phi < g["r"] / 2, up, torch.where(phi < g["r"], down, g["alpha"] * phi))
        fresh = s(x_f + mv(g["R_f"], h)) * c + s(x_i + mv(g["R_i"], h)) * torch.tanh(x_z + mv(g["R_z"], h))
        h = k * s(x_o + mv(g["R_o"], h)) * torch.tanh(fresh) + (1 - k) * h
        c = k * fresh + (1 - k) * c
        rows.append(h)
    return {"h": torch.stack(rows, 1), "h_T": h, "c_T": c}


@published("caption_lstm", N=4, E=2, P=3, D=3)
def _(g: Given) -> Given:
    h, c, k, level, rows = g["h_0"], g["c_0"], g["k_0"], g["l_0"], []
    for (w,) in steps(g, "w"):
        h, c = gated(gates(g["W"], g["e"][w]) + gates(g["R"], h) + g["b"], c)
        k, level = gated(gates(g["V"], h) + gates(g["U"], g["picture"]) + gates(g["Q"], k) + g["d"], level)
        logits = mv(g["C"], k) + g["q"]
        rows.append((logits, logits.argmax(-1).double()))
    logits, word = stacked(rows)
    return {"logits": logits, "word": word, "h_T": h, "c_T": c, "k_T": k, "l_T": level}


@published("hmm", N=4)
def _(g: Given) -> Given:
    moves, a, rows = torch.log_softmax(g["A"], 1), g["a_0"], []
    for (e,) in steps(g, "e"):
        a = e + torch.logsumexp(a[:, :, None] + moves, 1)
        rows.append(torch.logsumexp(a, 1))
    return {"ll": torch.stack(rows, 1), "a_T": a}


@published("viterbi", N=4)
def _(g: Given) -> Given:
    a, rows = g["a_0"], []
    for (e,) in steps(g, "e"):
        a = e + (a[:, :, None] + g["A"]).amax(1)
        rows.append(a.amax(1))
    return {"best": torch.stack(rows, 1), "a_T": a}


@published("gae", fit={"done": lambda x: (x > 0.5).to(x.dtype)})
def _(g: Given) -> Given:
    A, after, rows = g["A_0"], g["after_0"], []
    for r, v, done in reversed(steps(g, "r", "v", "done")):
        A = r + g["gamma"] * after * (1 - done) - v + g["gamma"] * g["lambda"] * (1 - done) * A
        after = v
        rows.append((A, A + v))
    A_all, returns = stacked(rows[::-1])
    return {"A": A_all, "returns": returns, "A_T": A, "after_T": after}


@published("vtrace", fit={"rho_most": between(0.5, 1.5), "c_most": between(0.5, 1.5)})
def _(g: Given) -> Given:
    vs, after, rows = g["gain_0"] + g["after_0"], g["after_0"], []
    for r, v, log_w, gamma in reversed(steps(g, "r", "v", "log_w", "gamma")):
        rho, c = (torch.minimum(g[most], log_w.exp()) for most in ("rho_most", "c_most"))
        vs, after = v + rho * (r + gamma * after - v) + gamma * c * (vs - after), v
        rows.append(vs)
    return {"vs": torch.stack(rows[::-1], 1), "gain_T": vs - after, "after_T": after}


@published("garch", D=3)
def _(g: Given) -> Given:
    variance, last, rows = g["s_0"], g["last_0"], []
    for (r,) in steps(g, "r"):
        variance = g["omega"] + g["alpha"] * last + g["beta"] * variance
        last = r**2
        rows.append((variance, -(math.log(2 * math.pi) + variance.log() + r**2 / variance) / 2))
    variances, ll = stacked(rows)
    return {"s": variances, "ll": ll, "s_T": variance, "last_T": last}


@published("holt_winters", D=2)
def _(g: Given) -> Given:
    level, b, season, rows = g["l_0"], g["b_0"], [g["s_0"], g["s_lag2_0"], g["s_lag3_0"], g["s_lag4_0"]], []
    for (y,) in steps(g, "y"):
        foretold = level + b + season[3]
        rows.append((foretold, y - foretold))
        new = g["alpha"] * (y - season[3]) + (1 - g["alpha"]) * (level + b)
        season = [g["gamma"] * (y - level - b) + (1 - g["gamma"]) * season[3], *season[:3]]
        level, b = new, g["beta"] * (new - level) + (1 - g["beta"]) * b
    foretold_all, wrong = stacked(rows)
    return {"foretold": foretold_all, "wrong": wrong, "l_T": level, "b_T": b, "s_T": season[0], "s_lag4_T": season[3]}


@published("lfilter", D=2, L=3, N=2)
def _(g: Given) -> Given:
    x, ys = g["x"], [g["y_lag2_0"], g["y_0"]]
    for t in range(x.shape[1]):
        fed = sum(g["b"][i] * x[:, t - i] for i in range(3) if t >= i)
        ys.append(fed - sum(g["a"][i] * ys[-1 - i] for i in range(2)))
    return {"y": torch.stack(ys[2:], 1), "y_T": ys[-1], "y_lag2_T": ys[-2]}


@published("h3", D=2, N=3, L=4)
def _(g: Given) -> Given:
    w, C = (torch.complex(g[f"{name}_re"], g[f"{name}_im"]) for name in "wC")
    h, rows = torch.complex(g["h_re_0"], g["h_im_0"]), []
    for t, (q, _, v) in enumerate(steps(g, "q", "k", "v")):
        u = v * sum(g["c"][i] * g["k"][:, t - i] for i in range(4) if t >= i)
        h = w * h + u[..., None]
        rows.append(q * (2 * (C * h).sum(-1).real + g["d"] * u))
    return {"o": torch.stack(rows, 1), "h_re_T": h.real, "h_im_T": h.imag}
