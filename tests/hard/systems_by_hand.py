"""State spaces, filters, memories and dynamic programs of `specs/` as loops in torch: see `by_hand`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.hard.by_hand import Given
from tests.hard.published_by_hand import mv, published, s, steps


def whole(g: Given, name: str) -> Tensor:
    """A complex argument of two parts."""
    return torch.complex(g[f"{name}_re"], g[f"{name}_im"])


def start(g: Given, name: str) -> Tensor:
    """A complex state before the first step."""
    return torch.complex(g[f"{name}_re_0"], g[f"{name}_im_0"])


def ends(name: str, x: Tensor) -> Given:
    """A complex state after the last step."""
    return {f"{name}_re_T": x.real, f"{name}_im_T": x.imag}


def at(x: Tensor, t: int) -> Tensor:
    """A step of a sequence [B, T, ..], 0 outside."""
    return x[:, t] if 0 <= t < x.shape[1] else torch.zeros_like(x[:, 0])


def taps(a: Tensor, x: Tensor, places: list[int]) -> Tensor:
    """The sum of taps a[i] at the i-th place."""
    return sum((a[i] * at(x, place) for i, place in enumerate(places)), torch.zeros_like(x[:, 0]))


def with_past(g: Given, name: str, count: int, x: Tensor) -> Tensor:
    """A definition [B, T, ..] behind its values of so many steps before the first, which are states."""
    return torch.cat([torch.stack([g[f"{name}_lag{i}_0"] for i in range(count, 0, -1)], 1), x], 1)


@published("lssl", M=2, H=3, N=4)
def _(g: Given) -> Given:
    one = torch.eye(4, dtype=torch.float64)
    half = g["log_dt"].exp()[:, None, None] / 2 * g["A"]
    step = torch.linalg.solve(one - half, one + half)
    given = torch.linalg.solve(one - half, g["log_dt"].exp()[:, None] * g["Bm"])
    x, rows = g["x_0"], []
    for (u,) in steps(g, "u"):
        x = torch.einsum("hnk,bhk->bhn", step, x) + given * u[..., None]
        rows.append(torch.einsum("mhn,bhn->bmh", g["Cm"], x) + g["skip"] * u[:, None])
    return {"y": torch.stack(rows, 1), "x_T": x}


@published("dss", fit={"L": lambda x: 0 * x + 20}, H=3, N=2)
def _(g: Given) -> Given:
    a, dt, x, rows = whole(g, "a"), g["log_dt"].exp()[:, None], start(g, "x"), []
    share = 1 / torch.exp(a * dt * torch.arange(20.0).double()[:, None, None]).sum(0)  # of the first step, of a softmax over 20
    for (u,) in steps(g, "u"):
        x = torch.exp(a * dt) * x + u[..., None]
        rows.append((whole(g, "W") / a * share * x).sum(-1).real + g["skip"] * u)
    return {"y": torch.stack(rows, 1), **ends("x", x)}


@published("gss", E=3, F=2, G=4, N=2)
def _(g: Given) -> Given:
    h, rows = start(g, "h"), []
    for (x,) in steps(g, "x"):
        u, v = F.gelu(mv(g["W"], x)), F.gelu(mv(g["V"], x))
        h = torch.exp(torch.complex(-g["rate"].exp(), g["turn"])) * h + u[..., None]
        y = 2 * (whole(g, "C") * h).sum(-1).real + g["d"] * u
        rows.append(mv(g["O"], v * mv(g["P"], y)))
    return {"o": torch.stack(rows, 1), **ends("h", h)}


@published("liquid_s4", H=3, N=2)
def _(g: Given) -> Given:
    dt, x, rows = g["log_dt"].exp()[:, None], start(g, "x"), []
    fixed = torch.exp(dt * torch.complex(-g["A_log"].exp(), g["A_imag"]))
    for (u,) in steps(g, "u"):
        driven = dt * whole(g, "Bm") * u[..., None]
        x = (fixed + driven) * x + driven
        rows.append(2 * (whole(g, "Cm") * x).sum(-1).real + g["skip"] * u)
    return {"y": torch.stack(rows, 1), **ends("x", x)}


@published("hyena", D=2, F=3)
def _(g: Given) -> Given:
    l = torch.arange(16.0).double()  # noqa: E741
    hidden = torch.sin(g["f"] * (l[:, None] / 16 * g["W_1"] + g["b_1"]))
    h = (hidden @ g["W_2"].T + g["b_2"]) * torch.exp(-g["decay"] * l[:, None])
    z = with_past(g, "z", 15, g["g"] * g["v"])
    rows = [q * (taps(h, z, list(range(t + 15, t - 1, -1))) + g["d"] * z[:, t + 15]) for t, (q,) in enumerate(steps(g, "q"))]
    return {"o": torch.stack(rows, 1)}


@published("mh_ssm", H=2, P=3, N=2)
def _(g: Given) -> Given:
    a = torch.exp(g["log_dt"].exp()[..., None] * torch.complex(-g["A_log"].exp(), g["A_imag"]))
    x, rows = start(g, "x"), []
    for t, (u,) in enumerate(steps(g, "u")):
        x = a[:, :, None] * x + u[..., None]
        y = 2 * (whole(g, "Cm") * x).sum(-1).real + g["skip"] * u + taps(g["c"], g["u"], [t + 1, t + 2])
        rows.append(y[:, 0] * F.gelu(y[:, 1]))
    return {"o": torch.stack(rows, 1), **ends("x", x)}


@published("mamba3", H=2, P=3, N=2)
def _(g: Given) -> Given:
    """With the turn moved to B and C, as the authors write it: by all angles so far."""
    Bt, Ct = whole(g, "Bt"), whole(g, "Ct")
    x, B_before = torch.zeros_like(g["x"][:, 0]), torch.zeros_like(Bt[:, 0])[:, None]
    turned, angle, rows = start(g, "h"), torch.zeros_like(g["theta"][:, 0]), []
    for t in range(g["x"].shape[1]):
        dt, lam = F.softplus(g["delta"][:, t] + g["bias"]), g["lam"][:, t]
        decay = torch.exp(-dt * g["A_log"].exp())
        angle = angle + dt[..., None] * g["theta"][:, t]
        back = torch.exp(-1j * angle)
        beta, gamma = (1 - lam) * dt * decay, lam * dt
        B_now = Bt[:, t, None] * back
        turned = decay[..., None, None] * turned + (beta[..., None] * x)[..., None] * B_before[..., None, :]
        x = g["x"][:, t]
        turned = turned + (gamma[..., None] * x)[..., None] * B_now[..., None, :]
        y = (turned * (Ct[:, t, None] * back).conj()[..., None, :]).sum(-1).real
        rows.append(y + g["skip"][:, None] * x)
        B_before = B_now
    return {"y": torch.stack(rows, 1), **ends("h", turned * torch.exp(1j * angle)[..., None, :])}


def selective(g: Given, u: Tensor, dt: Tensor, mark: str = "", back: bool = False) -> tuple[Tensor, Tensor]:
    """The scan of a sequence u [B, T, D] with its own B and C, and the last state."""
    h, rows = g[f"h{mark}_0"], {}
    A = -g[f"A_log{mark}"].exp()
    for t in range(u.shape[1])[:: -1 if back else 1]:
        B, C = mv(g[f"W_B{mark}"], u[:, t]), mv(g[f"W_C{mark}"], u[:, t])
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, None]
        rows[t] = (h * C[:, None]).sum(-1) + g[f"skip{mark}"] * u[:, t]
    return torch.stack([rows[t] for t in range(u.shape[1])], 1), h


@published("mamba_block", E=3, D=4, R=2, N=2)
def _(g: Given) -> Given:
    x = with_past(g, "x", 3, mv(g["W_x"], g["e"]))
    u = F.silu(torch.stack([taps(g["conv"], x, list(range(t, t - 4, -1))) for t in range(3, x.shape[1])], 1) + g["c"])
    dt = F.softplus(mv(g["W_up"], mv(g["W_low"], u)) + g["bias"])
    y, h = selective(g, u, dt)
    return {"o": mv(g["W_o"], y * F.silu(mv(g["W_z"], g["e"]))), "h_T": h}


@published("bidirectional_mamba", D=3, N=2)
def _(g: Given) -> Given:
    x, total, found = g["x"], 0, {}
    for mark, way in (("", -1), ("_reverse", 1)):
        u = torch.stack([taps(g[f"conv{mark}"], x, [t + way * i for i in range(4)]) for t in range(x.shape[1])], 1)
        u = F.silu(u + g[f"c{mark}"])
        y, found[f"h{mark}_T"] = selective(g, u, F.softplus(g[f"w{mark}"] * u + g[f"bias{mark}"]), mark, way == 1)
        total = total + y * F.silu(g["z"])
    return {"o": total, **found}


@published("graph_mamba", V=5, D=3, N=2)
def _(g: Given) -> Given:
    u = torch.stack([g["X"][b][g["w"][b]] for b in range(len(g["w"]))])
    y, h = selective(g, u, F.softplus(mv(g["W_dt"], u) + g["bias"]))
    return {"y": y, "h_T": h}


@published("mossformer_memory", D=3)
def _(g: Given) -> Given:
    T, p = g["x"].shape[1], g["p"]
    u = torch.stack([taps(g["a"], p, [t + 2 - i for i in range(5)]) for t in range(T)], 1)
    o = with_past(g, "o", 4, torch.where(u > 0, u, g["slope"] * u))
    rows = []
    for t in range(T):
        w = taps(g["c"], p, [t + 4 - 2 * i for i in range(5)]) + taps(g["d"], o, [t + 8 - 2 * i for i in range(5)])
        rows.append(g["x"][:, t] + torch.where(w > 0, w, g["slope_2"] * w))
    return {"y": torch.stack(rows, 1)}


@published("regenn", W=4, S=3)
def _(g: Given) -> Given:
    x, found, total = g["x"], {}, 0
    for mark, way in (("", 1), ("_reverse", -1)):
        h, rows = g[f"h{mark}_0"], {}
        for t in range(x.shape[1])[::way]:
            r, z = (s(mv(g[f"W_{k}{mark}"], x[:, t]) + mv(g[f"R_{k}{mark}"], h) + g[f"b_{k}{mark}"]) for k in "rz")
            n = torch.tanh(mv(g[f"W_n{mark}"], x[:, t]) + g[f"b_n{mark}"] + r * mv(g[f"R_n{mark}"], h))
            h = (1 - z) * n + z * h
            rows[t] = h + mv(g[f"A{mark}"], x[:, t])
        total = total + torch.stack([rows[t] for t in range(x.shape[1])], 1)
        found[f"h{mark}_T"] = h
    return {"y": total, **found}


@published(
    "ets", fit={"y": lambda x: 1 + 0.2 * x.tanh(), "l_0": lambda x: 1 + 0.1 * x.tanh(), "b_0": lambda x: 0.05 * x.tanh()}, D=2
)
def _(g: Given) -> Given:
    level, b, rows, wrong = g["l_0"], g["b_0"], [], []
    for (y,) in steps(g, "y"):
        rows.append(level + g["phi"] * b)
        wrong.append(y / rows[-1] - 1)
        level, b = rows[-1] * (1 + g["alpha"] * wrong[-1]), g["phi"] * b + g["beta"] * rows[-1] * wrong[-1]
    return {"foretold": torch.stack(rows, 1), "wrong": torch.stack(wrong, 1), "l_T": level, "b_T": b}


@published("mesa_net", H=2, K=3, V=2)
def _(g: Given) -> Given:
    G, S, rows = g["G_0"] * 0 + g["G_0"], g["S_0"], []
    for q, k, v, decay, beta in steps(g, "q", "k", "v", "g", "beta"):
        scale = decay.exp()[..., None, None]
        G = scale * G + beta[..., None, None] * k[..., :, None] * k[..., None, :]
        S = scale * S + beta[..., None, None] * k[..., :, None] * v[..., None, :]
        read = torch.linalg.solve(G + torch.diag_embed(g["ridge"]), q)
        rows.append((S * read[..., None]).sum(-2))
    return {"o": torch.stack(rows, 1), "G_T": G, "S_T": S}


@published("frcrn_memory", D=2, M=3)
def _(g: Given) -> Given:
    def memory(which: int, part: int) -> Tensor:
        x = g["x"][:, :, part]
        p = mv(g["P"][which], F.relu(mv(g["W"][which], x) + g["b"][which]))
        past = with_past({name: y[:, which, :, part] for name, y in g.items() if "_lag" in name}, "p", 19, p)
        return x + p + torch.stack([taps(g["a"][which], past, list(range(t + 19, t - 1, -1))) for t in range(x.shape[1])], 1)

    return {"re_y": memory(0, 0) - memory(1, 1), "im_y": memory(0, 1) + memory(1, 0)}


@published("conformer_cache", E=2, D=3)
def _(g: Given) -> Given:
    u = with_past(g, "u", 4, mv(g["W"], g["x"]) * s(mv(g["V"], g["x"])))
    c = torch.stack([taps(g["a"], u, [t + 6 - i for i in range(7)]) for t in range(u.shape[1] - 4)], 1)
    return {"o": mv(g["P"], F.silu(F.layer_norm(c, (3,), g["gain"], g["shift"], 1e-5)))}


@published("tpgn", M=2, D=3)
def _(g: Given) -> Given:
    rows = []
    for t, (x,) in enumerate(steps(g, "x")):
        H = g["b"] + sum(mv(g["W"][i], at(g["x"], t - 1 - i)) for i in range(8))
        gate = s(mv(g["S"], x) + mv(g["R"], H))
        rows.append(gate * H + (1 - gate) * torch.tanh(mv(g["U"], x) + mv(g["Q"], H)))
    return {"o": torch.stack(rows, 1)}


@published("log_linear_attention", fit={"n_0": lambda x: x * 0 + 5}, H=2, K=3, V=2)
def _(g: Given) -> Given:
    """The levels as a list, after five steps."""
    S, rows, n = list(g["S_0"].unbind(1)), [], 5
    for q, k, v, decay, lam in steps(g, "q", "k", "v", "g", "lam"):
        n += 1
        low = (n & -n).bit_length() - 1  # the lowest digit that is 1
        scale = decay.exp()[..., None, None]
        merged = sum(S[: low + 1], torch.zeros_like(S[0]))
        S = [k[..., :, None] * v[..., None, :]] + [
            scale * (merged if i == low + 1 else S[i] if i > low else torch.zeros_like(S[0])) for i in range(1, 8)
        ]
        rows.append(sum(lam[..., i, None] * (q[..., None] * S[i]).sum(-2) for i in range(8)))
    return {"o": torch.stack(rows, 1), "S_T": torch.stack(S, 1), "n_T": g["n_0"] + g["q"].shape[1]}


@published("crf", fit={"steps_0": lambda x: x * 0}, N=3)
def _(g: Given) -> Given:
    """Every way written out."""
    y, A, rows = g["y"], g["A"], []
    ways, scores, total, before = [], [], g["s_0"], None
    for t, (one,) in enumerate(steps(g, "e")):
        if t == 0:
            ways = [one[:, j] + g["first"][j] for j in range(3)]
            total = total + (y[:, 0] * (one + g["first"])).sum(-1)
        else:
            ways = [way + A[i % 3, j] + one[:, j] for i, way in enumerate(ways) for j in range(3)]
            total = total + (y[:, t] * (one + before @ A)).sum(-1)
        before = y[:, t]
        rows.append(torch.logsumexp(torch.stack([way + g["last"][i % 3] for i, way in enumerate(ways)], -1), -1))
        scores.append(total + (before * g["last"]).sum(-1))
    ends = torch.stack([torch.logsumexp(torch.stack(ways[j::3], -1), -1) for j in range(3)], -1)
    return {"Z": torch.stack(rows, 1), "score": torch.stack(scores, 1), "a_T": ends, "s_T": total}


@published("titans", fit={"every_16_0": lambda x: 0 * x + 12}, H=2, K=3, V=2)
def _(g: Given) -> Given:
    M, S, F_, rows = g["M_0"], g["S_0"], g["F_0"], []
    for t, (q, k, v, eta, theta, alpha) in enumerate(steps(g, "q", "k", "v", "eta", "theta", "alpha")):
        wrong = torch.einsum("bhkv,bhk->bhv", F_, k) - v
        S = eta[..., None, None] * S - theta[..., None, None] * k[..., None] * wrong[..., None, :]
        M = (1 - alpha)[..., None, None] * M + S
        F_ = M if t == 3 else F_  # the sixteenth step since the last boundary
        rows.append(torch.einsum("bhkv,bhk->bhv", M, q))
    return {"o": torch.stack(rows, 1), "M_T": M, "S_T": S, "F_T": F_}
