"""One step of memories of 2025, and of cells over trees and algebras, as their papers state it: plain torch, batch first.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` of a state counts steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import gelu, layer_norm, one_hot, silu

from tests.literature.descents import own, slopes
from tests.literature.memories import Given, Made, sum_of, unit


def wide(x: Tensor, by: int) -> Tensor:
    """x with so many axes of size 1 behind its own."""
    return x[(..., *[None] * by)]


def rwkv7_mixing(x: Given, p: Given, s: Given) -> Made:
    u, d = x["x"], s["x.lag1"] - x["x"]
    r, k, v = (sum_of("hkc,bc->bhk", p[f"W{n}"], u + d * p[f"m{n}"]) for n in "rkv")
    w = tanh((u + d * p["mw"]) @ p["w1"].T) @ p["w2"].mT
    w = torch.exp(-math.exp(-0.5) * sigmoid(p["w0"] + w.transpose(0, 1)))
    a = sigmoid(p["a0"] + sum_of("hkr,rc,bc->bhk", p["a2"], p["a1"], u + d * p["ma"]))
    removed, added = unit(k * p["kk_"]), k * (1 + (a - 1) * p["ka"])
    lost = sum_of("bhvk,bhk->bhv", s["S"], removed)
    state = s["S"] * w[:, :, None] - lost[..., None] * (removed * a)[:, :, None] + v[..., None] * added[:, :, None]
    read = layer_norm(sum_of("bhvk,bhk->bhv", state, r), (3,)) * p["gain"]
    bonus = (r * added * p["rk"]).sum(-1, keepdim=True) * v
    return {"out": sum_of("chk,bhk->bc", p["Wo"], read + bonus)}, {"S": state, "x.lag1": u}


def omega_rule(x: Given, p: Given, s: Given) -> Made:
    past = {n: [x[n], s[f"{n}.lag1"], s[f"{n}.lag2"]] for n in "kvu"}
    momentum = wide(x["theta"], 2) * s["G"]
    for k, v, u in zip(*past.values(), strict=True):
        wrong = u[..., None] * (v - sum_of("bhk,bhkv->bhv", k, s["M"]))
        momentum = momentum + sum_of("bhk,bhv->bhkv", k, wrong)
    memory = wide(x["alpha"], 2) * s["M"] + wide(x["eta"], 2) * momentum
    lags = {f"{n}.lag{i}": past[n][i - 1] for n in past for i in (1, 2)}
    return {"o": sum_of("bhk,bhkv->bhv", x["q"], memory)}, {"M": memory, "G": momentum} | lags


def log_linear_delta(x: Given, p: Given, s: Given) -> Made:
    step, key = int(s["n"][0]), wide(x["beta"], 1) * x["k"]
    kept = s["S"] - key[:, :, None, :, None] * sum_of("bhk,bhlkv->bhlv", x["k"], s["S"])[..., None, :]
    levels = list((wide(x["g"].exp(), 3) * kept).unbind(2))
    full = min((step & -step).bit_length() - 1 if step else 9, len(levels) - 1)  # levels 0 to this one go up by one
    merged = torch.stack(levels[: full + 1]).sum(0)
    for i in range(full + 1):
        levels[i] = torch.zeros_like(levels[i])
    if full + 1 < len(levels):
        levels[full + 1] = levels[full + 1] + merged
    levels[0] = key[..., None] * x["v"][:, :, None]
    state = torch.stack(levels, 2)
    return {"o": sum_of("bhl,bhk,bhlkv->bhv", x["lam"], x["q"], state)}, {"S": state, "n": s["n"] + 1}


def kalmanet(x: Given, p: Given, s: Given) -> Made:
    seen = wide(x["g"].exp(), 2) * s["P"] + x["k"][..., None] * x["k"][..., None, :]
    memory = wide(x["g"].exp(), 2) * s["U"] + x["k"][..., None] * x["v"][..., None, :]
    size = (seen.pow(2).sum((-1, -2)) + 1e-6).sqrt()
    ridge = 0.05 + x["a"] * size
    middle, first = ridge + size / 2, size / (2 * ridge + size)
    y, rest, way, rho = torch.zeros_like(x["q"]), x["q"], x["q"] / middle[..., None], first
    for _ in range(4):
        rest = rest - sum_of("bhij,bhj->bhi", seen, way) - ridge[..., None] * way
        y, before = y + way, rho
        rho = 1 / (2 / first - rho)
        way = wide(rho * before, 1) * way + wide(2 * rho / (first * middle), 1) * rest
    return {"o": sum_of("bhk,bhkv->bhv", y, memory)}, {"P": seen, "U": memory}


def lact(x: Given, p: Given, s: Given) -> Made:
    weights = [own(s[f"W{i}"]) for i in (1, 2, 3)]

    def seen(key: Tensor) -> Tensor:
        hidden = silu(sum_of("bfk,bk->bf", weights[0], key)) * sum_of("bfk,bk->bf", weights[2], key)
        return sum_of("bkf,bf->bk", weights[1], hidden)

    found = slopes(-(x["v"] * seen(x["k"])).sum(-1), weights)
    kept = [s[f"G{i}"] + wide(x["lr"], 2) * d for i, d in zip((1, 2, 3), found, strict=True)]
    after, count = [s[f"W{i}"] for i in (1, 2, 3)], int(s["every.4"][0]) + 1
    if count == 4:
        after = [unit(w - g) for w, g in zip(after, kept, strict=True)]
        kept = [torch.zeros_like(g) for g in kept]
    states = {f"{n}{i + 1}": part[i] for n, part in (("W", after), ("G", kept)) for i in range(3)}
    return {"o": seen(x["q"])}, states | {"every.4": (s["every.4"] + 1) % 4}


def yaad(x: Given, p: Given, s: Given) -> Made:
    def seen(a: Tensor, b: Tensor, key: Tensor) -> Tensor:
        made = sum_of("bkf,bf->bk", b, gelu(sum_of("bfk,bk->bf", a, key)))
        return layer_norm(made, made.shape[-1:], p["gain"], p["bias"])

    a, b = own(s["W1"]), own(s["W2"])
    size = ((x["v"] - x["k"] - seen(a, b, x["k"])).pow(2).sum(-1) + 1e-6).sqrt()
    da, db = slopes(torch.where(size <= x["delta"], 0.5 * size**2, x["delta"] * (size - 0.5 * x["delta"])), (a, b))
    alpha, eta = wide(x["alpha"], 2), wide(x["eta"], 2)
    a, b = alpha * a - eta * da, alpha * b - eta * db
    return {"o": x["q"] + seen(a + p["W1_init"], b, x["q"])}, {"W1": a, "W2": b}


def hyper_connections(x: Given, p: Given, s: Given) -> Made:
    mix = torch.exp(wide(x["al"], 2) * x["A"] + p["base"])
    for _ in range(4):
        mix = mix / mix.sum(-1, keepdim=True)
        mix = mix / mix.sum(-2, keepdim=True)
    u = (wide(sigmoid(x["Am"]), 1) * s["h"]).sum(1)
    y = silu(sum_of("bij,bj->bi", x["W"], u / (u.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()))
    h = mix @ s["h"] + 2 * wide(sigmoid(x["Bm"]), 1) * y[:, None]
    return {"u": u}, {"h": h}


def tree_lstm(x: Given, p: Given, s: Given) -> Made:
    rows = torch.arange(len(x["x"]))
    (hl, cl), (hr, cr) = ((s["H"][rows, x[n]], s["C"][rows, x[n]]) for n in ("left", "right"))
    i, o, u = (x["x"] + (hl + hr) @ p[f"U{n}"].T for n in "iou")
    fl, fr = (sigmoid(x["x"] + h @ p["Uf"].T + p["bf"]) for h in (hl, hr))
    c = sigmoid(i) * tanh(u) + fl * cl + fr * cr
    h, here = sigmoid(o) * tanh(c), one_hot(x["own"], s["H"].shape[1]).bool()[..., None]
    return {"h": h}, {"H": torch.where(here, h[:, None], s["H"]), "C": torch.where(here, c[:, None], s["C"])}


def goom(x: Given, p: Given, s: Given) -> Made:
    def signs(y: Tensor) -> Tensor:
        return (y > 0) * 2.0 - 1.0

    kept = x["la"] + s["l"]
    top = torch.maximum(kept, x["lx"])
    total = signs(x["sa"]) * s["s_"] * torch.exp(kept - top) + signs(x["sx"]) * torch.exp(x["lx"] - top)
    size = top + total.abs().clamp(min=1e-6).log()
    return {"l": size, "e": total.sign() * size.clamp(max=3).exp()}, {"l": size, "s_": total.sign()}


def quaternion_rnn(x: Given, p: Given, s: Given) -> Made:
    (a, b, c, d), (w, i, j, k) = p["W"].mT, s["h"].unbind(1)
    rows = (w @ a - i @ b - j @ c - k @ d, i @ a + w @ b + k @ c - j @ d,
            j @ a - k @ b + w @ c + i @ d, k @ a + j @ b - i @ c + w @ d)
    h = tanh(torch.stack(rows, 1) + x["x"])
    return {"h": h}, {"h": h}


def h2o(x: Given, p: Given, s: Given) -> Made:
    here = one_hot(s["mass"].argmin(-1), s["mass"].shape[-1]).bool()
    keys, vals = (torch.where(here[..., None], x[n][:, None], s[m]) for n, m in (("k", "keys"), ("v", "vals")))
    old = torch.where(here, 0.0, s["mass"])
    score = sum_of("bk,bnk->bn", x["q"], keys) / math.sqrt(keys.shape[-1])
    share = torch.softmax(torch.where(old >= 0, score, -math.inf), -1)
    return {"o": sum_of("bn,bnv->bv", share, vals)}, {"keys": keys, "vals": vals, "mass": old + share * (old >= 0)}


def consolidation(x: Given, p: Given, s: Given) -> Made:
    wrong = x["v"] - sum_of("bhk,bhkv->bhv", x["k"], s["S"] + s["W"])
    fast = s["S"] + wide(wide(x["beta"], 1) * x["k"], 1) * wrong[:, :, None]
    slow = wide(sigmoid(p["keep"]), 2) * s["W"] + 0.5 * fast if int(s["down.3"][0]) == 2 else s["W"]
    left = 0.2 * fast if int(s["every.3"][0]) == 2 else fast
    counts = {n: (s[n] + 1) % 3 for n in ("down.3", "every.3")}
    return {"o": sum_of("bhk,bhkv->bhv", x["q"], fast + slow)}, {"S": left, "W": slow} | counts


def sparse_expansion(x: Given, p: Given, s: Given) -> Made:
    best = torch.zeros_like(x["e"]).scatter(-1, x["e"].topk(2, -1).indices, 1.0) > 0
    share = torch.softmax(torch.where(best, x["e"], -math.inf), -1)
    new = wide(sigmoid(x["f"]), 2) * s["S"] + sum_of("bn,bk,bv->bnkv", share, x["k"], x["v"])
    state = torch.where(wide(best, 2), new, s["S"])
    return {"o": sum_of("bn,bk,bnkv->bv", share, x["q"], state)}, {"S": state}


NEWER = (rwkv7_mixing, omega_rule, log_linear_delta, kalmanet, lact, yaad, hyper_connections, tree_lstm, goom, quaternion_rnn,
         h2o, consolidation, sparse_expansion)  # fmt: skip
