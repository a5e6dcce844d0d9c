"""One step of cells, neurons, filters and learning rules, as their papers state it: plain torch, batch first.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` of a state counts steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import conv1d, one_hot, softplus

from tests.literature.memories import Given, Made, sum_of


def spike(x: Tensor, slope: Tensor) -> Tensor:
    """1 where x >= 0, else 0, with a slope."""
    return (x >= 0).double() + slope.detach() * (x - x.detach())


def mogrifier(x: Given, p: Given, s: Given) -> Made:
    u, h = x["x"], s["h"]
    u = 2 * sigmoid(h @ p["Q1"].T) * u
    h = 2 * sigmoid(u @ p["R2"].T) * h
    u = 2 * sigmoid(h @ p["Q3"].T) * u
    f, i, o, g = (u @ p[f"W{n}"].T + h @ p[f"U{n}"].T + p[f"b{n}"] for n in "fiog")
    c = sigmoid(f) * s["c"] + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return {"h": h}, {"h": h, "c": c}


def on_lstm(x: Given, p: Given, s: Given) -> Made:
    mf, mi, f, i, o, g = (x[f"x{n}"] + s["h"] @ p[f"U{n}"].T for n in ("mf", "mi", "f", "i", "o", "g"))
    forget, take = torch.softmax(mf, -1).cumsum(-1), 1 - torch.softmax(mi, -1).cumsum(-1)
    both = forget * take
    c = (sigmoid(f) * both + forget - both) * s["c"] + (sigmoid(i) * both + take - both) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return {"h": h}, {"h": h, "c": c}


def nested_lstm(x: Given, p: Given, s: Given) -> Made:
    f, i, o, g = (x[f"x{n}"] + s["h"] @ p[f"U{n}"].T for n in "fiog")
    old, new = sigmoid(f) * s["c"], sigmoid(i) * tanh(g)
    f, i, out, g = (new @ p[f"A{n}"].T + old @ p[f"B{n}"].T for n in "fiog")
    e = sigmoid(f) * s["e"] + sigmoid(i) * tanh(g)
    c = sigmoid(out) * tanh(e)
    h = sigmoid(o) * tanh(c)
    return {"h": h}, {"h": h, "c": c, "e": e}


def lem(x: Given, p: Given, s: Given) -> Made:
    one, two = (sigmoid(s["y"] @ p[f"W{n}"].T + x[f"x{n}"]) for n in "12")
    z = (1 - one) * s["z"] + one * tanh(s["y"] @ p["Wz"].T + x["xz"])
    y = (1 - two) * s["y"] + two * tanh(z @ p["Wy"].T + x["xy"])
    return {"y": y}, {"y": y, "z": z}


def clockwork(x: Given, p: Given, s: Given) -> Made:
    groups, step = s["h"].shape[1], int(s["n"][0])
    upper = torch.triu(torch.ones(groups, groups, dtype=torch.float64))
    new = tanh(sum_of("gpcq,gc,bcq->bgp", p["W"], upper, s["h"]) + x["x"])
    moves = torch.tensor([step % 2**g == 0 for g in range(groups)])
    h = torch.where(moves[:, None], new, s["h"])
    return {"h": h}, {"h": h, "n": s["n"] + 1}


def antisymmetric_rnn(x: Given, p: Given, s: Given) -> Made:
    a = p["W"] - p["W"].T - 0.1 * torch.eye(len(p["W"]), dtype=torch.float64)
    seen = s["h"] @ a.T
    h = s["h"] + 0.05 * sigmoid(seen + x["xz"]) * tanh(seen + x["x"])
    return {"h": h}, {"h": h}


def goru(x: Given, p: Given, s: Given) -> Made:
    same, skew = torch.eye(len(p["A"]), dtype=torch.float64), p["A"] - p["A"].T
    turn = torch.linalg.solve(same + skew, same - skew)
    r, z = (sigmoid(x[f"x{n}"] + s["h"] @ p[f"U{n}"].T) for n in "rz")
    h = z * s["h"] + (1 - z) * tanh(x["x"] + r * (s["h"] @ turn.T))
    return {"h": h}, {"h": h}


def ltc(x: Given, p: Given, s: Given) -> Made:
    v = s["v"]
    for _ in range(4):
        f = sigmoid(v @ p["R"].T + x["x"])
        v = (v + 0.25 * f * p["A"]) / (1 + 0.25 * (1 / softplus(p["tau"]) + f))
    return {"v": v}, {"v": v}


def skip_rnn(x: Given, p: Given, s: Given) -> Made:
    u = s["u"]
    b = u + (torch.round(u) - u).detach()
    h = b[:, None] * tanh(x["x"] + s["h"] @ p["R"].T) + (1 - b[:, None]) * s["h"]
    more = sigmoid(h @ p["w"] + p["c"])
    return {"h": h}, {"h": h, "u": b * more + (1 - b) * (u + torch.minimum(more, 1 - u))}


def conv_lstm(x: Given, p: Given, s: Given) -> Made:
    f, i, o, g = (conv1d(x["x"], p[f"W{n}"], padding=1) + conv1d(s["h"], p[f"U{n}"], padding=1) for n in "fiog")
    c = sigmoid(f) * s["c"] + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return {"h": h}, {"h": h, "c": c}


def dcgru(x: Given, p: Given, s: Given) -> Made:
    def gate(n: str, h: Tensor) -> Tensor:
        total, walk = p[f"b{n}"], torch.eye(p["P"].shape[-1], dtype=h.dtype)
        for by_x, by_h in ("WU", "XV", "ZQ"):
            total = total + walk @ x["x"] @ p[by_x + n].T + walk @ h @ p[by_h + n].T
            walk = walk @ p["P"]
        return total

    r, u = sigmoid(gate("r", s["h"])), sigmoid(gate("u", s["h"]))
    h = u * s["h"] + (1 - u) * tanh(gate("c", r * s["h"]))
    return {"h": h}, {"h": h}


def rims(x: Given, p: Given, s: Given) -> Made:
    score = (p["q"] * s["h"]).sum(-1) + x["g"]
    moves = score >= score.topk(2, -1).values[:, -1:]
    h = torch.where(moves[..., None], tanh(sum_of("nij,bnj->bni", p["R"], s["h"]) + x["x"][:, None]), s["h"])
    return {"h": h}, {"h": h}


def hard_experts(x: Given, p: Given, s: Given) -> Made:
    gate = torch.softmax(s["h"] @ p["G"].T + x["g"], -1)
    share, chosen = gate.max(-1, keepdim=True)
    new = tanh(sum_of("bij,bj->bi", p["W"][chosen[:, 0]], s["h"]) + x["x"])
    h = share * new + (1 - share) * s["h"]
    return {"h": h}, {"h": h}


def vq_rnn(x: Given, p: Given, s: Given) -> Made:
    z = tanh(x["x"] + s["h"] @ p["R"].T)
    code = p["E"][((z[:, None] - p["E"]) ** 2).sum(-1).argmin(-1)]
    h = z + (code - z).detach()
    return {"h": h, "loss": ((z.detach() - code) ** 2 + 0.25 * (z - code.detach()) ** 2).sum(-1)}, {"h": h}


def izhikevich(x: Given, p: Given, s: Given) -> Made:
    w = s["v"] + 0.5 * (0.04 * s["v"] ** 2 + 5 * s["v"] + 140 - s["u"] + 10 * x["x"])
    soft = sigmoid((w - 30) / 10)
    z = spike(w - 30, soft * (1 - soft))
    u = s["u"] + 0.5 * p["a"] * (p["b"] * s["v"] - s["u"]) + 8 * z
    return {"z": z}, {"v": torch.where(z > 0, -65.0, w), "u": u}


def resonate_and_fire(x: Given, p: Given, s: Given) -> Made:
    u = torch.exp(0.05 * torch.complex(-softplus(p["d"]), 10 * p["w"])) * torch.complex(s["z_re"], s["z_im"]) + x["x"]
    f = spike(u.imag - 1, 1 / (1 + (math.pi * (u.imag - 1)) ** 2))
    kept = 1 - f.detach()
    return {"f": f}, {"z_re": u.real * kept, "z_im": u.imag * kept + f.detach()}


def clif(x: Given, p: Given, s: Given) -> Made:
    u = 0.5 * s["v"] + 2 * x["x"]
    z = spike(u - 1, ((u - 1).abs() <= 0.5).double())
    m = s["m"] * sigmoid(0.5 * u) + z
    return {"z": z}, {"v": u - z * (1 + sigmoid(m)), "m": m}


def rls(x: Given, p: Given, s: Given) -> Made:
    seen = sum_of("bij,bj->bi", s["P"], x["x"])
    gain = seen / (0.98 + (x["x"] * seen).sum(-1, keepdim=True))
    e = x["d"] - (s["w"] * x["x"]).sum(-1)
    return {"e": e}, {"w": s["w"] + gain * e[:, None], "P": (s["P"] - gain[:, :, None] * seen[:, None]) / 0.98}


def hsmm(x: Given, p: Given, s: Given) -> Made:
    begins = torch.logsumexp(s["a"][:, :, :1] + torch.log_softmax(p["A"], 1), 1)
    stays = torch.cat([s["a"][:, :, 1:], torch.full_like(s["a"][:, :, :1], -1e30)], 2)
    a = torch.logaddexp(stays, begins[:, :, None] + torch.log_softmax(p["d"], 1)) + x["x"][:, :, None]
    return {"l": torch.logsumexp(a, (1, 2))}, {"a": a}


def imm_filter(x: Given, p: Given, s: Given) -> Made:
    switch = torch.softmax(p["A"], 1)
    ahead = s["mu"] @ switch
    mix = s["mu"][:, :, None] * switch / ahead[:, None]
    mean = (mix * s["x"][:, :, None]).sum(1)
    spread = (mix * (s["P"][:, :, None] + (s["x"][:, :, None] - mean[:, None]) ** 2)).sum(1)
    variance = p["a"] ** 2 * spread + softplus(p["q"])
    total, e = variance + 0.5, x["y"][:, None] - p["a"] * mean
    like = ahead * torch.exp(-0.5 * e**2 / total) / torch.sqrt(2 * math.pi * total)
    mu, found = like / like.sum(-1, keepdim=True), p["a"] * mean + variance / total * e
    return {"est": (mu * found).sum(-1)}, {"x": found, "P": (1 - variance / total) * variance, "mu": mu}


def true_online_td(x: Given, p: Given, s: Given) -> Made:
    v, ahead = ((s["w"] * x[n]).sum(-1) for n in ("phi", "nxt"))
    d = x["r"] + 0.9 * ahead - v
    e = 0.72 * s["e"] + (1 - 0.072 * (s["e"] * x["phi"]).sum(-1, keepdim=True)) * x["phi"]
    w = s["w"] + 0.1 * (d + v - s["old"])[:, None] * e - 0.1 * (v - s["old"])[:, None] * x["phi"]
    return {"d": d}, {"w": w, "e": e, "old": ahead}


def q_learning(x: Given, p: Given, s: Given) -> Made:
    rows, place = torch.arange(len(s["Q"])), (x["s_"], x["a"])
    d = x["r"] + 0.9 * s["Q"][rows, x["n"]].amax(-1) - s["Q"][rows, *place]
    there = one_hot(place[0], 5)[:, :, None] * one_hot(place[1], 3)[:, None]
    return {"d": d}, {"Q": s["Q"] + sigmoid(p["rate"]) * d[:, None, None] * there}


def sos(x: Given, p: Given, s: Given) -> Made:
    u, one, two = x["x"], [], []
    for j in range(3):
        y = p["b0"][j] * u + s["z1"][:, j]
        one.append(p["b1"][j] * u - 0.5 * tanh(p["a1"][j]) * y + s["z2"][:, j])
        two.append(p["b2"][j] * u - 0.3 * tanh(p["a2"][j]) * y)
        u = y
    return {"o": u}, {"z1": torch.stack(one, 1), "z2": torch.stack(two, 1)}


def changepoint(x: Given, p: Given, s: Given) -> Made:
    total, e = 1 + s["v"], x["x"][:, None] - s["mu"]
    grown = s["l"] - 0.5 * (e**2 / total + torch.log(total))
    hazard = sigmoid(p["h"])
    change = torch.logsumexp(grown, -1, keepdim=True) + torch.log(hazard)
    lengths = torch.cat([change, grown[:, :-1] + torch.log(1 - hazard)], 1).log_softmax(-1)
    mu, v = s["mu"] + s["v"] / total * e, s["v"] / total
    first = torch.zeros_like(mu[:, :1])
    return {"l": lengths}, {"l": lengths, "mu": torch.cat([first, mu[:, :-1]], 1), "v": torch.cat([first + 1, v[:, :-1]], 1)}


CELLS = (mogrifier, on_lstm, nested_lstm, lem, clockwork, antisymmetric_rnn, goru, ltc, skip_rnn, conv_lstm, dcgru, rims,
         hard_experts, vq_rnn, izhikevich, resonate_and_fire, clif, rls, hsmm, imm_filter, true_online_td, q_learning, sos,
         changepoint)
