"""One step of what learns or settles within it; derivatives inside of the step are those of torch's autograd. Batch first.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import gelu, layer_norm, silu, softplus

from tests.literature.memories import Given, Made, sum_of


def slopes(loss: Tensor, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of the sum of a loss, which have derivatives of their own."""
    return torch.autograd.grad(loss.sum(), by, create_graph=True)


def own(x: Tensor) -> Tensor:
    """A value of its own, by which a derivative is taken."""
    return x + 0 if x.requires_grad else x.clone().requires_grad_()


def ttt_norm(x: Given, p: Given, s: Given) -> Made:
    def seen(w1: Tensor, b1: Tensor, w2: Tensor, key: Tensor) -> Tensor:
        z = sum_of("bfk,bf->bk", w2, gelu(sum_of("bkf,bk->bf", w1, key) + b1))
        return layer_norm(z, z.shape[-1:], p["gain"], p["bias"])

    w1, b1, w2 = (own(s[n]) for n in ("W1", "b1", "W2"))
    d1, d2, d3 = slopes((seen(w1, b1, w2, x["k"]) + x["k"] - x["v"]) ** 2, (w1, b1, w2))
    eta = x["eta"][:, None]
    w1, b1, w2 = w1 - eta[..., None] * d1, b1 - eta * d2, w2 - eta[..., None] * d3
    return {"o": x["q"] + seen(w1, b1, w2, x["q"])}, {"W1": w1, "b1": b1, "W2": w2}


def deep_memory(x: Given, p: Given, s: Given) -> Made:
    def seen(a: Tensor, b: Tensor, key: Tensor) -> Tensor:
        return sum_of("bvf,bf->bv", b, silu(sum_of("bfk,bk->bf", a, key)))

    a, b = own(s["W1"]), own(s["W2"])
    da, db = slopes((seen(a, b, x["k"]) - x["v"]) ** 2, (a, b))
    theta, eta, alpha = (x[n][:, None, None] for n in ("theta", "eta", "alpha"))
    ma, mb = eta * s["M1"] - theta * da, eta * s["M2"] - theta * db
    a, b = (1 - alpha) * a + ma, (1 - alpha) * b + mb
    return {"o": seen(a, b, x["q"])}, {"W1": a, "W2": b, "M1": ma, "M2": mb}


def predictive_coding(x: Given, p: Given, s: Given) -> Made:
    prior = tanh(own(s["mu"])) @ p["V"].T
    mu = prior
    for _ in range(3):
        m = own(mu)
        wrong, away = x["x"] - tanh(m) @ p["W"].T, (m - prior) ** 2 * (1 + prior * m)
        mu = mu - p["lr"] * slopes(0.5 * (wrong**2).sum(-1) + 0.5 * away.sum(-1), (m,))[0]
    return {"e": x["x"] - tanh(mu) @ p["W"].T}, {"mu": mu}


def hamiltonian(x: Given, p: Given, s: Given) -> Made:
    def energy(q: Tensor, m: Tensor) -> Tensor:
        return tanh(q @ p["W"].T + m @ p["Wp"].T + p["b"]) @ p["a"] + 0.5 * (m * m).sum(-1)

    q, m = own(s["q"]), s["p"]
    first = energy(q, m)
    m = m - 0.1 * (slopes(first, (q,))[0] - x["u"])
    moved = own(m)
    q = q + 0.1 * slopes(energy(q, moved), (moved,))[0]
    return {"q": q, "H": first}, {"q": q, "p": m}


def newton_step(x: Given, p: Given, s: Given) -> Made:
    w = own(0.5 * s["z"])
    energy = 0.25 * w**4 + softplus(p["a"]) * w**2 - x["x"] * w + 0.1 * torch.sin(p["b"] * w)
    (first,) = slopes(energy, (w,))
    (second,) = slopes(first, (w,))
    z = w - first / (second.abs() + 1)
    return {"z": z}, {"z": z}


def fast_copy(x: Given, p: Given, s: Given) -> Made:
    weight, bias = (own(p[n].expand(len(x["x"]), *p[n].shape)) for n in ("W", "b"))
    loss = (tanh(sum_of("bvd,bd->bv", weight + s["d"], x["x"]) + bias) - x["y"]) ** 2
    by_weight, by_bias = slopes(loss, (weight, bias))
    d = 0.9 * s["d"] - x["eta"][:, None, None] * by_weight
    o = tanh(sum_of("bvd,bd->bv", p["W"] + d, x["x"]) + p["b"])
    return {"o": o, "gb": by_bias}, {"d": d}


def equilibrium_propagation(x: Given, p: Given, s: Given) -> Made:
    def settled(z: Tensor, beta: Tensor | float) -> Tensor:
        for _ in range(3):
            w = own(z)
            drive = x["x"] @ p["W"].T + tanh(w) @ p["R"].T
            energy = 0.5 * w**2 - tanh(w) * drive + 0.5 * beta * (w - x["y"]) ** 2
            z = z - 0.2 * slopes(energy, (w,))[0]
        return z

    free = settled(s["s"], 0.0)
    nudged = settled(free, p["beta"])
    return {"c": (tanh(nudged) - tanh(free)) / p["beta"]}, {"s": nudged}


def score_memory(x: Given, p: Given, s: Given) -> Made:
    z = own(x["x"])
    far = (z[:, :, None] - p["mu"]).pow(2).sum(-1) / (2 * x["s"][:, None, None])
    (up,) = slopes(torch.logsumexp(-far, -1), (z,))
    e = 0.8 * s["e"] + z + x["s"][:, None, None] * up
    return {"e": e}, {"e": e}


def backpropamine(x: Given, p: Given, s: Given) -> Made:
    a = tanh(x["x"] + sum_of("bij,bj->bi", p["w"] + p["alpha"] * s["pw"], s["h"]))
    dopamine, change = tanh(a @ p["h2DA"] + p["bDA"]), a[:, :, None] * s["h"][:, None]
    told = (s["pw"] + dopamine[:, None, None] * s["et"]).clamp(-1, 1)
    hebb = (s["hebb"] + p["eta"] * change).clamp(-1, 1)
    trace = (1 - p["etaet"]) * s["et"] + p["etaet"] * change
    states = {"h": a, "hebb": hebb, "et": trace, "pw": torch.cat((hebb[:, :2], told[:, 2:]), 1)}
    return {"h": a, "DA": dopamine}, states


def eprop(x: Given, p: Given, s: Given) -> Made:
    u = p["alpha"] * s["v"] + x["x"] + s["z"] @ p["R"].T
    psi = (0.3 * torch.relu(1 - (u - 0.6).abs())).detach()
    z = (u > 0.6).double() + psi * (u - u.detach())
    eps = p["alpha"] * s["eps"] + s["z"]
    trace = p["kappa"] * s["tr"] + psi[..., None] * eps[:, None]
    change = s["dW"] + (x["err"] @ p["Bf"].T)[..., None] * trace
    return {"z": z}, {"v": u - 0.6 * z, "z": z, "eps": eps, "tr": trace, "dW": change}


def muon_memory(x: Given, p: Given, s: Given) -> Made:
    wrong = sum_of("bvk,bk->bv", s["W"], x["k"]) - x["v"]
    m = x["mu"][:, None, None] * s["M"] + wrong[..., None] * x["k"][:, None]
    o = m / (m.pow(2).sum((1, 2), keepdim=True).sqrt() + 0.01)
    for _ in range(2):
        a = o @ o.mT
        o = 3.4445 * o + (-4.7750 * a + 2.0315 * a @ a) @ o
    w = s["W"] - x["eta"][:, None, None] * o
    return {"o": sum_of("bvk,bk->bv", w, x["q"])}, {"W": w, "M": m}


def path_attention(x: Given, p: Given, s: Given) -> Made:
    w, n = x["w"], s["n"] + 1
    turned = s["keys"] - x["beta"][:, None, None] * w[:, None] * sum_of("bk,bwk->bw", w, s["keys"])[..., None]
    keys = torch.cat((x["k"][:, None], turned[:, :-1]), 1)
    vals = torch.cat((x["v"][:, None], s["vals"][:, :-1]), 1)
    score = sum_of("bk,bwk->bw", x["q"], keys) / w.shape[-1] ** 0.5
    score = score.masked_fill(torch.arange(score.shape[-1]) >= n[:, None], -torch.inf)
    return {"o": sum_of("bw,bwv->bv", torch.softmax(score, -1), vals)}, {"keys": keys, "vals": vals, "n": n}


def act(x: Given, p: Given, s: Given) -> Made:
    h, spent = s["h"], torch.zeros_like(s["h"][:, 0])
    out, cost = torch.zeros_like(h), spent
    for j in range(4):
        h = tanh(x["x"] + (p["f"] if j == 0 else 0) + h @ p["R"].T)
        share, runs = sigmoid(h @ p["w"] + p["b"]), spent < 0.99
        stops = runs & ((spent + share >= 0.99) | torch.tensor(j == 3))
        out = out + torch.where(stops, 1 - spent, torch.where(runs, share, 0.0))[:, None] * h
        cost = cost + torch.where(stops, 2 + j - spent, 0.0)
        spent = spent + share
    return {"h": out, "cost": cost}, {"h": out}


DESCENTS = (ttt_norm, deep_memory, predictive_coding, hamiltonian, newton_step, fast_copy, equilibrium_propagation,
            score_memory, backpropamine, eprop, muon_memory, path_attention, act)
