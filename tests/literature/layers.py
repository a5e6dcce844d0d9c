"""One step of layers of deep learning that differ in what they keep: caches, mixtures, tensors, chunks, slots, weights.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` of a state counts steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import elu, gelu, layer_norm, logsigmoid, one_hot, relu, softplus

from tests.literature.descents import own, slopes
from tests.literature.memories import Given, Made, sum_of


def outer(x: Tensor, y: Tensor) -> Tensor:
    """The outer products of the last axes."""
    return x[..., None] * y[..., None, :]


def normed(x: Tensor) -> Tensor:
    """Layer norm without gain and bias."""
    return layer_norm(x, x.shape[-1:], eps=1e-5)


def fox(x: Given, p: Given, s: Given) -> Made:
    here = one_hot(x["pos"], s["bias"].shape[-1]).bool()
    keys, vals = (torch.where(here[..., None], x[n][:, None], s[m]) for n, m in (("k", "keys"), ("v", "vals")))
    bias = torch.where(here, 0.0, s["bias"] + logsigmoid(x["f"])[:, None])
    share = torch.softmax(sum_of("bk,bnk->bn", x["q"], keys) / math.sqrt(x["q"].shape[-1]) + bias, -1)
    return {"o": sum_of("bn,bnv->bv", share, vals)}, {"keys": keys, "vals": vals, "bias": bias}


def infini(x: Given, p: Given, s: Given) -> Made:
    begun = torch.where(s["n"] == 5, 0.0, s["n"])
    at = int(begun[0])
    keys, vals = (torch.cat([s[m][:, :at], x[n][:, None], s[m][:, at + 1 :]], 1) for n, m in (("k", "keys"), ("v", "vals")))
    live = torch.softmax(sum_of("bk,bwk->bw", x["q"], keys[:, : at + 1]) / math.sqrt(keys.shape[-1]), -1)
    fq, fk, memory, z = elu(x["q"]) + 1, elu(keys) + 1, s["M"], s["z"]
    far = sum_of("bk,bkv->bv", fq, memory) / ((fq * z).sum(-1, keepdim=True) + 0.01)
    if at == 4:
        old = sum_of("bwk,bkv->bwv", fk, memory) / (sum_of("bwk,bk->bw", fk, z) + 0.01)[..., None]
        memory, z = memory + sum_of("bwk,bwv->bkv", fk, vals - old), z + fk.sum(1)
    gate = sigmoid(p["gate"])
    out = gate * far + (1 - gate) * sum_of("bw,bwv->bv", live, vals[:, : at + 1])
    return {"o": out}, {"keys": keys, "vals": vals, "n": begun + 1, "M": memory, "z": z}


def mom(x: Given, p: Given, s: Given) -> Made:
    def delta(state: Tensor, g: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept = g.exp()[..., None, None] * state
        return kept + outer(beta[..., None] * k, v - (k[..., None] * kept).sum(-2))

    share = torch.softmax(x["r"], -1)
    taken = torch.zeros_like(share).scatter(-1, share.topk(2, -1).indices, 1.0)
    new = delta(s["S"], x["g"], x["beta"], x["k"], x["v"])
    state = torch.where(taken[..., None, None, None] > 0, new, s["S"])
    shared = delta(s["S0"], x["gs"], x["betas"], x["ks"], x["vs"])
    weight = share * taken / (share * taken).sum(-1, keepdim=True)
    out = sum_of("bm,bhk,bmhkv->bhv", weight, x["q"], state) + sum_of("bhk,bhkv->bhv", x["q"], shared)
    return {"o": out}, {"S": state, "S0": shared}


def hla(x: Given, p: Given, s: Given) -> Made:
    k, q, g = x["k"], x["q"], x["g"].exp()[..., None, None]
    second = g * s["S"] + outer(k, k)
    masked = g * (s["G"] + outer(k, sum_of("bhk,bhkv->bhv", k, s["C"])))
    first = g * s["C"] + outer(q, x["v"])
    out = sum_of("bhk,bhkj,bhjv->bhv", q, second, first) - sum_of("bhk,bhkv->bhv", q, masked)
    return {"o": out}, {"S": second, "C": first, "G": masked}


def kla(x: Given, p: Given, s: Given) -> Made:
    a, k, seen = x["a"][..., None], x["k"][..., None], softplus(x["r"])[..., None, :]
    ahead = 1 / (a**2 / s["lam"] + softplus(x["noise"])[..., None])
    lam = ahead + k**2 * seen
    eta = ahead * a / s["lam"] * s["eta"] + k * seen * x["v"][..., None, :]
    return {"o": sum_of("bhk,bhkv->bhv", x["q"], eta / lam)}, {"lam": lam, "eta": eta}


def m2rnn(x: Given, p: Given, s: Given) -> Made:
    gate = sigmoid(x["f"])[..., None, None]
    state = gate * s["S"] + (1 - gate) * tanh(s["S"] @ p["W"] + outer(x["k"], x["v"]))
    return {"o": sum_of("bhk,bhkv->bhv", x["q"], state) + p["D"][:, None] * x["v"]}, {"S": state}


def srwm(x: Given, p: Given, s: Given) -> Made:
    def by(name: str, z: Tensor) -> Tensor:
        return sum_of("boi,bi->bo", s[name], z)

    f = torch.softmax(x["x"], -1)
    q, k, b = torch.softmax(by("Wq", f), -1), torch.softmax(by("Wk", f), -1), sigmoid(by("Wb", f))
    names = ("Wy", "Wq", "Wk", "Wb")
    new = {n: s[n] + b[:, i, None, None] * outer(by(n, q) - by(n, k), k) for i, n in enumerate(names)}
    return {"y": by("Wy", f)}, new


def pd_ssm(x: Given, p: Given, s: Given) -> Made:
    soft = torch.softmax(sum_of("bm,mij->bij", torch.softmax(x["sel"], -1), p["P"]), 1)
    hard = one_hot(soft.argmax(1), soft.shape[-1]).to(soft.dtype).mT
    turned = sigmoid(x["r"]) * torch.exp(1j * x["th"]) * torch.complex(s["x_re"], s["x_im"])
    z = sum_of("bij,bj->bi", (hard + soft - soft.detach()).to(turned.dtype), turned) + x["u"] @ p["Bm"].T
    return {"y": (z @ torch.complex(p["Cm_re"], p["Cm_im"]).T).real}, {"x_re": z.real, "x_im": z.imag}


def rum(x: Given, p: Given, s: Given) -> Made:
    a, b = x["x"] @ p["We"].T, x["x"] @ p["Wt"].T + s["h"] @ p["Rt"].T
    u = sigmoid(x["x"] @ p["Wu"].T + s["h"] @ p["Ru"].T)
    e1 = a / a.norm(dim=-1, keepdim=True)
    along = (e1 * b).sum(-1, keepdim=True)
    c, w = along / b.norm(dim=-1, keepdim=True), b - along * e1
    plane = torch.stack([e1, w / w.norm(dim=-1, keepdim=True)], -1)
    sine = torch.sqrt((1 - c**2).clamp(min=1e-6))
    turn = torch.cat([c, -sine, sine, c], -1).unflatten(-1, (2, 2)) - torch.eye(2, dtype=a.dtype)
    memory = s["M"] @ (torch.eye(a.shape[-1], dtype=a.dtype) + plane @ turn @ plane.mT)
    h = u * s["h"] + (1 - u) * relu(a + sum_of("bij,bj->bi", memory, s["h"]))
    return {"h": h}, {"h": h, "M": memory}


def slot_attention(x: Given, p: Given, s: Given) -> Made:
    k, v, y = normed(x["x"]) @ p["K"].T, normed(x["x"]) @ p["V"].T, s["s"]
    for _ in range(2):
        share = torch.softmax(sum_of("bpd,bsd->bps", k, normed(y) @ p["Q"].T) / math.sqrt(y.shape[-1]), -1) + 1e-8
        u = sum_of("bps,bpd->bsd", share / share.sum(1, keepdim=True), v)
        z, r = (sigmoid(u @ p[f"W{n}"].T + y @ p[f"U{n}"].T) for n in "zr")
        y = z * y + (1 - z) * tanh(u @ p["Wh"].T + (r * y) @ p["Uh"].T)
    return {"s": y}, {"s": y}


def mocha(x: Given, p: Given, s: Given) -> Made:
    h, places = tanh(x["x"] + s["h"] @ p["R"].T), range(s["a"].shape[-1])
    stop = sigmoid(sum_of("bd,dm,bnm->bn", h, p["Wm"], p["enc"])).clamp(1e-5, 1 - 1e-5)
    rest, passed, made = torch.ones_like(stop[:, 0]), torch.zeros_like(stop[:, 0]), []
    for j in places:
        passed = passed + s["a"][:, j] / rest
        made.append(stop[:, j] * rest * passed)
        rest = rest * (1 - stop[:, j])
    a, u = torch.stack(made, 1), torch.exp(sum_of("bd,dm,bnm->bn", h, p["Wc"], p["enc"]))
    shares = [sum(a[:, j] * u[:, i] / u[:, max(0, j - 2) : j + 1].sum(1) for j in places[i : i + 3]) for i in places]
    return {"c": sum_of("nb,bnm->bm", torch.stack(shares), p["enc"])}, {"h": h, "a": a}


def associative_lstm(x: Given, p: Given, s: Given) -> Made:
    def pair(of: Given, name: str) -> Tensor:
        return torch.complex(of[f"{name}_re"], of[f"{name}_im"])

    def bounded(z: Tensor) -> Tensor:
        return z / z.abs().clamp(min=1)

    h = pair(s, "h")
    f, i, o = (sigmoid(x[f"x{n}"] + h.real @ p[f"R{n}"].T) for n in "fio")
    k, u, q = (bounded(pair(x, f"x{n}") + h @ pair(p, f"R{n}").T) for n in "kuq")
    k, q = (sum_of("sij,bj->bsi", p["perm"].to(z.dtype), z) for z in (k, q))
    c = f[:, None] * pair(s, "c") + k * (i * u)[:, None]
    h = o * bounded((q.conj() * c).mean(1))
    return {"y": h.real, "z": h.imag}, {"c_re": c.real, "c_im": c.imag, "h_re": h.real, "h_im": h.imag}


def evolve_gcn(x: Given, p: Given, s: Given) -> Made:
    old = s["W"]
    z = sigmoid(p["Wz"] @ old + p["Uz"] @ old + p["Bz"])
    r = sigmoid(p["Wr"] @ old + p["Ur"] @ old)
    new = (1 - z) * old + z * tanh(p["Wh"] @ old + p["Uh"] @ (r * old))
    return {"y": relu(x["A"] @ x["x"] @ new)}, {"W": new}


def hnet(x: Given, p: Given, s: Given) -> Made:
    q, k, n = x["x"] @ p["Wq"].T, x["x"] @ p["Wk"].T, s["n"] + 1
    like = torch.cosine_similarity(q, s["k.lag1"], -1, 1e-6)
    border = torch.where(n == 1, 1.0, ((1 - like) / 2).clamp(1e-4, 1 - 1e-4))
    b = border >= 0.5
    h = torch.where(b[:, None], border[:, None] * x["z"] + (1 - border[:, None]) * s["h"], s["h"])
    sure = torch.where(b, border, 1 - border)
    c = s["c"] + b.to(h.dtype)
    return {"y": (sure + (1 - sure).detach())[:, None] * h, "chunk": c}, {"h": h, "n": n, "c": c, "k.lag1": k}


def inner_outer(x: Given, p: Given, s: Given) -> Made:
    w = own(s["W"])

    def loss(weights: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 0.5 * ((tanh(sum_of("bvk,bk->bv", weights, k)) - v) ** 2).sum(-1)

    (inner,) = slopes(loss(w, x["k"], x["v"]).sum(), [w])
    outer_loss = loss(w - p["eta"] * p["rho"] * inner, x["k2"], x["v2"])
    return {"loss": outer_loss}, {"W": w - 0.1 * slopes(outer_loss.sum(), [w])[0]}


def cms(x: Given, p: Given, s: Given) -> Made:
    a1, a2, b1, b2 = weights = [own(s[n]) for n in ("A1", "A2", "B1", "B2")]
    h = x["x"] + sum_of("bij,bj->bi", a2, gelu(sum_of("bij,bj->bi", a1, x["x"])))
    z = h + sum_of("bij,bj->bi", b2, gelu(sum_of("bij,bj->bi", b1, h)))
    eta, ends = x["eta"][:, None, None], int(s["down.4"][0]) == 3
    found = slopes(0.5 * ((z - x["y"]) ** 2).sum(), weights)
    states = {"A1": a1 - eta * found[0], "A2": a2 - eta * found[1], "down.4": (s["down.4"] + 1) % 4}
    for i, name in ((2, "b1"), (3, "b2")):
        last = [found[i], *(s[f"g{name}.lag{lag}"] for lag in (1, 2, 3))]
        states[name.upper()] = weights[i] - 0.1 * sum(last) if ends else weights[i]
        states |= {f"g{name}.lag{lag}": last[lag - 1] for lag in (1, 2, 3)}
    return {"z": z}, states


LAYERS = (fox, infini, mom, hla, kla, m2rnn, srwm, pd_ssm, rum, slot_attention, mocha, associative_lstm, evolve_gcn, hnet,
          inner_outer, cms)
