"""One step of memories of vectors, stacks and capsules, as their papers or their authors' code state it: plain torch.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` counts steps, or rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, tanh
from torch.nn.functional import layer_norm

from tests.literature.memories import Given, Made, sum_of


def cyfa(x: Given, p: Given, s: Given) -> Made:
    slots = torch.arange(6)
    cosine, pair, ring = slots % 2 == 0, slots // 2, 5
    mate = torch.where(cosine, slots + 1, slots - 1)
    lam = s["lam"] + x["delta"]
    whole = torch.floor(lam).detach()
    place = (whole.long() % ring)[..., None] * pair % ring + (lam - whole)[..., None] * pair
    phase = torch.where(place > ring / 2, place - ring, place) * (2 * math.pi / ring)
    c, sine = phase.cos(), phase.sin()

    def normed(y: Tensor, gain: Tensor) -> Tensor:
        return y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-5) * gain

    atom = torch.sqrt(torch.where(pair == 0, 1.0, 2.0).double() / ring) * torch.where(cosine, c, -sine)
    write, decay = x["beta"][..., None] * atom, x["g"].exp()[..., None, None]
    hk = decay * s["hk"] + normed(x["k"], p["wk"])[..., None] * write[:, :, None]
    hv = decay * s["hv"] + write[..., None] * x["v"][:, :, None]
    raw = sum_of("bhkm,bhk->bhm", hk, normed(x["q"], p["wq"])) / math.sqrt(x["q"].shape[-1])
    turned = torch.where(cosine, c * raw - sine * raw[..., mate], sine * raw[..., mate] + c * raw)
    share = torch.softmax(sum_of("hrm,bhm->bhr", p["table"], turned), -1)
    back = sum_of("hrm,bhr->bhm", p["table"], share)
    back = torch.where(cosine, c * back + sine * back[..., mate], c * back - sine * back[..., mate])
    return {"o": sum_of("bhm,bhmv->bhv", back, hv)}, {"hk": hk, "hv": hv, "lam": lam}


def deltaformer(x: Given, p: Given, s: Given) -> Made:
    n = int(s["n"][0])
    scores = [*(sum_of("bk,bk->b", x["w"], s["keys"][:, i]) for i in range(n)), sum_of("bk,bk->b", x["w"], x["k"])]
    share = torch.softmax(torch.stack(scores, 1), 1)[:, :n]
    u = x["v"] - x["beta"][:, None] * sum_of("bn,bnv->bv", share, s["U"][:, :n])
    now = {"keys": x["k"], "U": u}
    keys, rows = (torch.cat([s[name][:, :n], new[:, None], s[name][:, n + 1 :]], 1) for name, new in now.items())
    read = torch.softmax(sum_of("bk,bnk->bn", x["q"], keys[:, : n + 1]), 1)
    return {"o": sum_of("bn,bnv->bv", read, rows[:, : n + 1])}, {"keys": keys, "U": rows, "n": s["n"] + 1}


def spinn(x: Given, p: Given, s: Given) -> Made:
    tops, stacks, words = [], [], []
    for b in range(len(s["n"])):
        rows, n, h = list(s["S"][b]), s["n"][b], x["word"][b]
        if x["reduce"][b] > 0.5 and n >= 2:
            h = tanh(p["A"] @ rows[int(n) - 2] + p["E"] @ rows[int(n) - 1] + p["c"])
            n = n - 2
        rows[int(n)] = h
        tops.append(torch.minimum(n + 1, torch.full_like(n, 5)))
        stacks.append(torch.stack(rows))
        words.append(h)
    return {"h": torch.stack(words)}, {"S": torch.stack(stacks), "n": torch.stack(tops)}


def hrr(x: Given, p: Given, s: Given) -> Made:
    places = torch.arange(5)
    bound = torch.stack([sum(x["role"][:, j] * x["filler"][:, (i - j) % 5] for j in range(5)) for i in range(5)], 1)
    trace = x["keep"][:, None] * s["trace"] + bound
    return {"found": sum_of("bj,bij->bi", x["ask"], trace[:, (places[:, None] + places) % 5])}, {"trace": trace}


def capsules(x: Given, p: Given, s: Given) -> Made:
    votes = sum_of("iodc,bic->biod", p["W"], x["u"])

    def squashed(logits: Tensor) -> Tensor:
        total = (torch.softmax(logits, -1)[..., None] * votes).sum(1)
        n = (total * total).sum(-1, keepdim=True)
        return n / (1 + n) * total / torch.sqrt(n + 1e-5)

    logits = s["b"]
    for _ in range(3):
        logits = logits + (votes.detach() * squashed(logits)[:, None]).sum(-1)
    return {"v": squashed(logits)}, {"b": 0.9 * logits}


def energy_attention(x: Given, p: Given, s: Given) -> Made:
    g = layer_norm(s["s"] + x["x"], x["x"].shape[-1:])
    q, k = (sum_of("hkd,bnd->bhnk", p[name], g) for name in ("Wq", "Wk"))
    e = -torch.logsumexp(p["beta"] * q @ k.mT, -1).sum((1, 2)) / p["beta"]
    e = e - 0.5 * torch.relu(g @ p["memory"].T).square().sum((1, 2))
    moved = s["s"] - p["lr"] * torch.autograd.grad(e.sum(), g, create_graph=True)[0]
    return {"s": moved, "E": e}, {"s": moved}


TRACES = (cyfa, deltaformer, spinn, hrr, capsules, energy_attention)
