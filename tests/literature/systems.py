"""One step of filters, averages, optimisers and mechanics, as their papers or their authors' code state it: plain torch.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `n` of a state counts steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, tanh
from torch.nn.functional import softplus

from tests.literature.memories import Given, Made, sum_of


def jma(x: Given, p: Given, s: Given) -> Made:
    price, n = x["price"], torch.clamp(s["n"] + 1, max=12)
    above, below = price - s["up"], price - s["low"]
    swing = torch.where(above.abs() != below.abs(), torch.maximum(above.abs(), below.abs()), 0.0)
    old = [s[f"swing.lag{i}"] for i in range(1, 11)]
    total = s["total"] + (swing - old[9]) / 10
    usual = (total + s["total"] + s["total.lags"].sum(-1)) / n
    ratio = torch.where(usual == 0, 0.0, swing / torch.where(usual == 0, 1.0, usual))
    r = torch.clamp(ratio, 1.0, 2.7925 ** (1 / 0.7925)) ** 0.7925
    width = 0.8286 ** torch.sqrt(r)
    up, low = torch.where(above > 0, price, price - width * above), torch.where(below < 0, price, price - width * below)
    alpha = 0.5745**r
    ma = (1 - alpha) * price + alpha * s["ma"]
    det = (price - ma) * (1 - 0.5745) + 0.5745 * s["det"]
    turn = (ma + 1.5 * det - s["jma"]) * (1 - alpha) ** 2 + alpha**2 * s["turn"]
    new = {f"swing.lag{i}": v for i, v in enumerate((swing, *old[:9]), 1)}
    new["total.lags"] = torch.cat([s["total.lags"][:, 1:], s["total"][:, None]], 1)
    made = {"up": up, "low": low, "total": total, "ma": ma, "det": det, "turn": turn, "jma": s["jma"] + turn, "n": n}
    return {"jma": made["jma"]}, made | new


def supertrend(x: Given, p: Given, s: Given) -> Made:
    rows, given = [], (x["close"], x["high_band"], x["low_band"], s["side"], s["high"], s["low"])
    for close, high, low, side, old_high, old_low in zip(*given, strict=True):
        if close > old_high:
            side = torch.ones_like(side)
        elif close < old_low:
            side = -torch.ones_like(side)
        else:
            low = old_low if side > 0 and low < old_low else low
            high = old_high if side < 0 and high > old_high else high
        rows.append((low if side > 0 else high, side, high, low))
    trend, side, high, low = (torch.stack(column) for column in zip(*rows, strict=True))
    return {"trend": trend}, {"side": side, "high": high, "low": low}


def srukf(x: Given, p: Given, s: Given) -> Made:
    factor: list[list[Tensor]] = []  # row by row, from the lower triangle of P
    for i in range(3):
        row: list[Tensor] = []
        for j in range(i + 1):
            above = factor[j] if j < i else row
            rest = s["P"][:, i, j] - sum((a * b for a, b in zip(row, above, strict=False)), torch.zeros(()))
            row.append(torch.sqrt(rest) if i == j else rest / factor[j][j])
        factor.append(row)
    zero = torch.zeros_like(s["m"][:, 0])
    lower = torch.stack([torch.stack([*row, *[zero] * (2 - i)], -1) for i, row in enumerate(factor)], 1)
    ways = [tanh((s["m"][:, None] + sign * math.sqrt(3) * lower.mT) @ p["F"].T) for sign in (1, -1)]
    points = torch.cat(ways, 1)
    mean = points.mean(1)
    spread = points - mean[:, None]
    ahead = spread.mT @ spread / 6 + p["q"] * torch.eye(3, dtype=mean.dtype)
    total = ahead[:, 0, 0] + p["r"]
    gain = ahead[:, :, 0] / total[:, None]
    m = mean + gain * (x["z"] - mean[:, 0])[:, None]
    return {"m": m}, {"m": m, "P": ahead - total[:, None, None] * gain[:, :, None] * gain[:, None]}


def potter(x: Given, p: Given, s: Given) -> Made:
    m, root = s["x"] @ p["F"].T, p["F"] @ s["W"]
    for i in range(2):
        v = p["H"][i] @ root
        total = (v * v).sum(-1) + p["r"][i]
        gain = sum_of("bij,bj->bi", root, v) / total[:, None]
        m = m + gain * (x["y"][:, i] - m @ p["H"][i])[:, None]
        root = root - gain[:, :, None] * v[:, None] / (1 + torch.sqrt(p["r"][i] / total))[:, None, None]
    return {"o": m}, {"x": m, "W": root + 0.1 * torch.eye(root.shape[-1], dtype=root.dtype)}


def dcc(x: Given, p: Given, s: Given) -> Made:
    h = p["omega"] + p["alpha"] * s["last"] ** 2 + p["beta"] * s["h"]
    z = x["r"] / torch.sqrt(h)
    drift = (1 - p["a"] - p["b"]) * p["S"] + p["a"] * s["z"][:, :, None] * s["z"][:, None] + p["b"] * s["P"]
    d = torch.sqrt(torch.diagonal(drift, dim1=1, dim2=2))
    r = drift / (d[:, :, None] * d[:, None])
    ll = -0.5 * (torch.log(h).sum(-1) + torch.logdet(r) + (z * torch.linalg.solve(r, z)).sum(-1))
    return {"ll": ll}, {"h": h, "z": z, "last": x["r"], "P": drift}


def adafactor(x: Given, p: Given, s: Given) -> Made:
    n, square = s["n"] + 1, x["g"] ** 2 + 1e-4
    keep = (1 - n**-0.8)[:, None]
    rows, columns = keep * s["R"] + (1 - keep) * square.mean(2), keep * s["C"] + (1 - keep) * square.mean(1)
    second = rows[:, :, None] * columns[:, None] / rows.mean(1)[:, None, None]
    u = x["g"] / torch.sqrt(second)

    def size(y: Tensor, least: float) -> Tensor:
        return torch.clamp(torch.sqrt((y * y).mean((1, 2), keepdim=True)), min=least)

    w = s["W"] - p["lr"] * size(s["W"], 0.001) * u / size(u, 1.0)
    return {"W": w}, {"W": w, "R": rows, "C": columns, "n": n}


def lnn(x: Given, p: Given, s: Given) -> Made:
    q, v = s["q"] + 0, s["v"] + 0
    lagrangian = (v * v).sum(-1) + (p["w"] * softplus(q @ p["A"].T + v @ p["E"].T + p["c"])).sum(-1)
    by_v, by_q = torch.autograd.grad(lagrangian.sum(), (v, q), create_graph=True)
    rows = [torch.autograd.grad(by_v[:, i].sum(), (v, q), create_graph=True) for i in range(2)]
    mass, turning = (torch.stack(part, 1) for part in zip(*rows, strict=True))
    a = torch.linalg.solve(mass, by_q - sum_of("bij,bj->bi", turning, v) + x["force"])
    v = s["v"] + 0.1 * a
    return {"q": s["q"] + 0.1 * v}, {"q": s["q"] + 0.1 * v, "v": v}


def hodgkin_huxley(x: Given, p: Given, s: Given) -> Made:
    v, m, h, k = s["V"], s["m"], s["h"], s["k"]

    def gate(y: Tensor, opens: Tensor, closes: Tensor) -> Tensor:
        left = torch.exp(-0.025 * (opens + closes))
        return left * y + (1 - left) * opens / (opens + closes)

    for _ in range(4):
        current = p["sodium"] * m**3 * h * (v - 50) + p["potassium"] * k**4 * (v + 77) + p["leak"] * (v + 54.387)
        rates = {
            "m": (0.1 * (v + 40) / (1 - torch.exp(-(v + 40) / 10)), 4 * torch.exp(-(v + 65) / 18)),
            "h": (0.07 * torch.exp(-(v + 65) / 20), torch.sigmoid((v + 35) / 10)),
            "k": (0.01 * (v + 55) / (1 - torch.exp(-(v + 55) / 10)), 0.125 * torch.exp(-(v + 65) / 80)),
        }
        v = v + 0.025 * (x["input_"] - current)
        m, h, k = gate(m, *rates["m"]), gate(h, *rates["h"]), gate(k, *rates["k"])
    return {"V": v}, {"V": v, "m": m, "h": h, "k": k}


SYSTEMS = (jma, supertrend, srukf, potter, dcc, adafactor, lnn, hodgkin_huxley)
