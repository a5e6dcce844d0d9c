"""One step of memories, attention with a state, and state spaces, as their papers state it: plain torch, batch first.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` of a state counts steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu, softplus

Given = dict[str, Tensor]
Made = tuple[Given, Given]
sum_of = torch.einsum


def unit(x: Tensor) -> Tensor:
    """x over its length along the last axis."""
    return x / (x.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt()


def comba(x: Given, p: Given, s: Given) -> Made:
    kept = sum_of("bhk,bhkv->bhv", x["k"] * p["b"].sigmoid()[:, None], s["S"])
    new = (x["beta"][..., None] * x["k"])[..., None] * (x["v"] - kept)[..., None, :]
    state = x["g"].exp()[..., None, None] * s["S"] + new
    return {"o": sum_of("bhk,bhkv->bhv", x["q"] - p["d"][:, None] * x["k"], state)}, {"S": state}


def kda_short(x: Given, p: Given, s: Given) -> Made:
    lags = {n: [x[n], s[f"{n}.lag1"], s[f"{n}.lag2"]] for n in "kv"}
    k, v = (silu(sum(p[f"c{n}"][i] * lags[n][i] for i in range(3))) for n in "kv")
    k, kept = unit(k), x["g"].exp()[..., None] * s["S"]
    new = v - sum_of("bhk,bhkv->bhv", k, kept)
    state = kept + (x["beta"][..., None] * k)[..., None] * new[..., None, :]
    states = {f"{n}.lag{i}": lags[n][i - 1] for n in "kv" for i in (1, 2)}
    return {"o": sum_of("bhk,bhkv->bhv", x["q"], state)}, states | {"S": state}


def mesanet(x: Given, p: Given, s: Given) -> Made:
    k, g = x["beta"][..., None] * x["k"], x["g"].exp()[..., None, None]
    a = g * s["A"] + k[..., None] * x["k"][..., None, :]
    c = g * s["C"] + k[..., None] * x["v"][..., None, :]
    query = torch.linalg.solve(a + torch.diag_embed(softplus(p["lam"]) + 0.25), x["q"])
    return {"o": sum_of("bhk,bhkv->bhv", query, c)}, {"A": a, "C": c}


def log_linear_attention(x: Given, p: Given, s: Given) -> Made:
    levels, step = list((x["g"].exp()[:, None, None, None] * s["S"]).unbind(1)), int(s["n"][0])
    if step:
        full = (step & -step).bit_length() - 1  # levels 0 to this one go up by one
        merged = torch.stack(levels[: full + 2]).sum(0)
        levels = [torch.zeros_like(x) if i <= full else merged if i == full + 1 else x for i, x in enumerate(levels)]
    levels[0] = x["k"][:, :, None] * x["v"][:, None]
    state = torch.stack(levels, 1)
    return {"o": sum_of("bl,bk,blkv->bv", x["lam"], x["q"], state)}, {"S": state, "n": s["n"] + 1}


def titans(x: Given, p: Given, s: Given) -> Made:
    seen, size = sum_of("bk,bkv->bv", x["k"], s["F"]), x["k"].shape[-1]
    deviation = (seen.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    centred = (seen - seen.mean(-1, keepdim=True)) / deviation
    slope = p["w"] * (p["w"] * centred + p["b"] - (x["v"] - x["k"]))
    total, along = slope.sum(-1, keepdim=True), (slope * centred).sum(-1, keepdim=True)
    new = (size * slope - total - centred * along) / (deviation * size)
    theta, alpha, eta = (x[n][:, None, None] for n in ("theta", "alpha", "eta"))
    momentum = eta * s["S"] - 2 * theta * x["k"][:, :, None] * new[:, None]
    memory, count = (1 - alpha) * s["M"] + momentum, int(s["every.4"][0]) + 1
    states = {"M": memory, "S": momentum, "F": memory if count == 4 else s["F"], "every.4": (s["every.4"] + 1) % 4}
    return {"o": sum_of("bk,bkv->bv", x["q"], memory)}, states


def ttt_mlp(x: Given, p: Given, s: Given) -> Made:
    inner = sum_of("bkf,bk->bf", s["W1"], x["k"])
    hidden = gelu(inner)
    second = 2 * (sum_of("bfk,bf->bk", s["W2"], hidden) - x["v"])
    slope = 0.5 * (1 + torch.erf(inner / math.sqrt(2))) + inner * torch.exp(-inner**2 / 2) / math.sqrt(2 * math.pi)
    first, eta = sum_of("bfk,bk->bf", s["W2"], second) * slope, x["eta"][:, None, None]
    w1, w2 = s["W1"] - eta * x["k"][:, :, None] * first[:, None], s["W2"] - eta * hidden[:, :, None] * second[:, None]
    return {"o": sum_of("bfk,bf->bk", w2, gelu(sum_of("bkf,bk->bf", w1, x["q"])))}, {"W1": w1, "W2": w2}


def hgrn_bit(x: Given, p: Given, s: Given) -> Made:
    def ternary(w: Tensor) -> Tensor:
        scale = w.abs().mean().clamp(min=1e-5)
        return w + (torch.round(w / scale).clamp(-1, 1) * scale - w).detach()

    seen = x["x"] / (x["x"].pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    scale = 127 / seen.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    seen = seen + (torch.round(seen * scale).clamp(-128, 127) / scale - seen).detach()
    forget = (seen @ ternary(p["Wf"]).T).sigmoid()
    h = forget * s["h"] + silu(seen @ ternary(p["Wi"]).T) * (1 - forget)
    return {"h": h}, {"h": h}


def mamba3(x: Given, p: Given, s: Given) -> Made:
    b, c, state, before = (torch.complex(of[f"{n}_re"], of[f"{n}_im"]) for of, n in ((x, "Bm"), (x, "Cm"), (s, "S"), (s, "u")))
    dt, mix = softplus(x["dt_"])[..., None, None], x["lam"].sigmoid()[..., None, None]
    turn = torch.exp(dt * (-p["A"].exp()[:, None, None] + 1j * x["turn"][..., None]))
    now = b[..., None] * x["x"][..., None, :]
    state = turn * state + (1 - mix) * dt * turn * before + mix * dt * now
    made = {"S_re": state.real, "S_im": state.imag, "u_re": now.real, "u_im": now.imag}
    return {"y": (c[..., None] * state).sum(-2).real}, made


def hippo_legs(x: Given, p: Given, s: Given) -> Made:
    i, n = torch.arange(4, dtype=torch.float64), s["n"] + 1
    root, same = torch.sqrt((2 * i[:, None] + 1) * (2 * i + 1)), torch.eye(4, dtype=torch.float64)
    a = torch.tril(root, -1) + torch.diag(i + 1)
    half = a / (2 * n[:, None, None])
    right = sum_of("bij,bj->bi", same - half, s["c"]) + torch.sqrt(2 * i + 1) / n[:, None] * x["x"][:, None]
    c = torch.linalg.solve(same + half, right)
    return {"c": c}, {"c": c, "n": n}


def lmu(x: Given, p: Given, s: Given) -> Made:
    i = torch.arange(5, dtype=torch.float64)
    scale = (2 * i + 1) / 8
    a = torch.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1)) * scale[:, None]
    u = x["x"] @ p["ex"] + s["h"] @ p["eh"] + s["m"] @ p["em"]
    m = s["m"] + s["m"] @ a.T + (-1.0) ** i * scale * u[:, None]
    h = torch.tanh(x["x"] @ p["Wx"].T + s["h"] @ p["Wh"].T + m @ p["Wm"].T)
    return {"h": h}, {"h": h, "m": m}


def nru(x: Given, p: Given, s: Given) -> Made:
    h = torch.relu(x["x"] + s["h"] @ p["Wh"].T + s["m"] @ p["Wm"].T)
    add, erase = torch.relu(h @ p["Wa"].T + p["ba"]), torch.relu(h @ p["Wb"].T + p["bb"])
    to, of = unit(sum_of("pnd,bd->bpn", p["Va"], h)), unit(sum_of("pnd,bd->bpn", p["Vb"], h))
    m = s["m"] + (add[..., None] * to - erase[..., None] * of).mean(1)
    return {"h": h}, {"h": h, "m": m}


def ntm(x: Given, p: Given, s: Given) -> Made:
    like = sum_of("bw,bnw->bn", unit(x["x"] @ p["Wk"].T), unit(s["Mem"]))
    content = torch.softmax(softplus(x["beta"])[:, None] * like, -1)
    gate, turn = x["g"].sigmoid()[:, None], torch.softmax(x["s_"], -1)
    gated = gate * content + (1 - gate) * s["w"]
    turned = turn[:, :1] * gated.roll(1, -1) + turn[:, 1:2] * gated + turn[:, 2:] * gated.roll(-1, -1)
    sharp = (turned + 1e-6) ** (1 + softplus(x["gamma"]))[:, None]
    w = sharp / sharp.sum(-1, keepdim=True)
    memory = s["Mem"] * (1 - w[..., None] * x["e"].sigmoid()[:, None]) + w[..., None] * x["a"][:, None]
    return {"r": sum_of("bn,bnw->bw", w, memory)}, {"Mem": memory, "w": w}


def dnc(x: Given, p: Given, s: Given) -> Made:
    def looked_up(key: Tensor, memory: Tensor) -> Tensor:
        lengths = key.norm(dim=-1)[:, None] * memory.norm(dim=-1) + 1e-6
        return torch.softmax(sum_of("bw,bnw->bn", key, memory) / lengths, -1)

    usage = (s["u"] + s["ww"] - s["u"] * s["ww"]) * (1 - x["fr"].sigmoid()[:, None] * s["wr"])
    ordered, places = torch.sort(usage, dim=-1, stable=True)
    before = torch.cat([torch.ones_like(ordered[:, :1]), ordered.cumprod(-1)[:, :-1]], 1)
    free = torch.zeros_like(usage).scatter(-1, places, (1 - ordered) * before)
    gate, kind = x["gw"].sigmoid()[:, None], x["ga"].sigmoid()[:, None]
    write = gate * (kind * free + (1 - kind) * looked_up(x["kw"], s["M"]))
    memory = s["M"] * (1 - write[..., None] * x["e"].sigmoid()[:, None]) + write[..., None] * x["v"][:, None]
    last = (1 - write.sum(-1, keepdim=True)) * s["p"] + write
    links = (1 - write[:, :, None] - write[:, None]) * s["L"] + write[:, :, None] * s["p"][:, None]
    links = links * (1 - torch.eye(links.shape[-1], dtype=torch.float64))
    back, on = sum_of("bji,bj->bi", links, s["wr"]), sum_of("bij,bj->bi", links, s["wr"])
    mode = torch.softmax(x["m"], -1)
    read = mode[:, :1] * back + mode[:, 1:2] * looked_up(x["kr"], memory) + mode[:, 2:] * on
    states = {"M": memory, "u": usage, "ww": write, "wr": read, "p": last, "L": links}
    return {"r": sum_of("bn,bnw->bw", read, memory)}, states


def stack_rnn(x: Given, p: Given, s: Given) -> Made:
    push, pop, stay = torch.softmax(s["h"] @ p["Ra"].T, -1).split(1, -1)
    top, below = (s["h"] @ p["d"]).sigmoid()[:, None], torch.full_like(s["k"][:, :1], -1)
    k = push * torch.cat([top, s["k"][:, :-1]], 1) + pop * torch.cat([s["k"][:, 1:], below], 1) + stay * s["k"]
    h = torch.sigmoid(x["x"] + s["h"] @ p["R"].T + p["P"] * k[:, :1] + p["P2"] * k[:, 1:2])
    return {"h": h}, {"h": h, "k": k}


def neural_queue(x: Given, p: Given, s: Given) -> Made:
    before = s["q"].cumsum(-1) - s["q"]
    left = torch.relu(s["q"] - torch.relu(x["u"].sigmoid()[:, None] - before))
    q = torch.cat([left[:, 1:], x["d"].sigmoid()[:, None]], 1)
    values = torch.cat([s["V"][:, 1:], x["v"][:, None]], 1)
    share = torch.minimum(q, torch.relu(1 - (q.cumsum(-1) - q)))
    return {"r": sum_of("bn,bnw->bw", share, values)}, {"V": values, "q": q}


def ctc_forward(x: Given, p: Given, s: Given) -> Made:
    never = torch.full_like(s["a"][:, :2], -1e30)
    one = torch.cat([never[:, :1], s["a"][:, :-1]], 1)
    two = torch.where(x["skip"] > 0, torch.cat([never, s["a"][:, :-2]], 1), -1e30)
    a = torch.logsumexp(torch.stack([s["a"], one, two]), 0) + x["x"]
    return {"a": a}, {"a": a}




MEMORIES = (comba, kda_short, mesanet, log_linear_attention, titans, ttt_mlp, hgrn_bit, mamba3, hippo_legs, lmu, nru, ntm,
            dnc, stack_rnn, neural_queue, ctc_forward)
