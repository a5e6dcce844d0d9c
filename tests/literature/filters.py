"""One step of filters, estimators and point processes, as their textbooks state it: plain torch, batch first.

In: the inputs of the step, the params, the states, by name (a lag is a state of its own). Out: outputs and states by name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import one_hot, softplus

from tests.literature.memories import Given, Made, sum_of


def all_pole_lattice(x: Given, p: Given, s: Given) -> Made:
    k, f, later = tanh(p["c"]), x["x"], []
    for m in reversed(range(4)):
        f = f - k[m] * s["g"][:, m]
        later.append(k[m] * f + s["g"][:, m])
    return {"y": f, "last": later[0]}, {"g": torch.stack([f, *later[:0:-1]], 1)}


def bearings(x: Given, p: Given, s: Given) -> Made:
    same = torch.eye(4, dtype=torch.float64)
    move = same + 0.1 * torch.diag(torch.ones(2, dtype=torch.float64), 2)
    m, spread = s["x"] @ move.T, move @ s["P"] @ move.T + p["q"] ** 2 * same
    a, b, none = m[:, 0], m[:, 1], torch.zeros_like(m[:, :2])
    far, ratio = (a**2 + b**2 + 0.1).sqrt(), b / (2 + a**2)
    slope = torch.stack([-ratio * 2 * a, torch.ones_like(a)], 1) / ((1 + ratio**2) * (2 + a**2))[:, None]
    jacobian = torch.stack([torch.cat([m[:, :2] / far[:, None], none], 1), torch.cat([slope, none], 1)], 1)
    noise = p["r"] ** 2 * torch.eye(2, dtype=torch.float64)
    total = jacobian @ spread @ jacobian.mT + noise
    gain = spread @ jacobian.mT @ torch.linalg.inv(total).mT
    rest = same - gain @ jacobian
    m = m + sum_of("bnm,bm->bn", gain, x["z"] - torch.stack([far, ratio.atan()], 1))
    return {"x": m, "d": torch.linalg.slogdet(total)[1]}, {"x": m, "P": rest @ spread @ rest.mT + gain @ noise @ gain.mT}


def particle_filter(x: Given, p: Given, s: Given) -> Made:
    m = tanh(p["phi"]) * s["x"] + p["q"] * x["noise"]
    score = -((x["y"][:, None] - m) ** 2) / (2 * (0.5 + p["r"] ** 2))
    w, count = score.softmax(-1), m.shape[1]
    point = (torch.arange(count, dtype=torch.float64) + x["u"][:, None]) / count
    drawn = (w.cumsum(-1)[:, None] < point[..., None]).sum(-1).clamp(max=count - 1)
    return {"ll": score.logsumexp(-1) - math.log(count), "mean": (w * m).sum(-1)}, {"x": m.gather(1, drawn)}


def lbfgs(x: Given, p: Given, s: Given) -> Made:
    moves = torch.cat([x["s"][:, None], s["S"][:, :-1]], 1)
    changes = torch.cat([x["y"][:, None], s["Y"][:, :-1]], 1)
    rho, d, weights = 1 / (5 + (moves * changes).sum(-1) ** 2), x["g"], []
    for i in range(3):
        weights.append(rho[:, i] * (moves[:, i] * d).sum(-1))
        d = d - weights[i][:, None] * changes[:, i]
    d = p["scale"] * d
    for i in reversed(range(3)):
        d = d + moves[:, i] * (weights[i] - rho[:, i] * (changes[:, i] * d).sum(-1))[:, None]
    return {"d": d}, {"S": moves, "Y": changes}


def lindblad(x: Given, p: Given, s: Given) -> Made:
    lost, turn = sigmoid(p["loss"]), x["th"].sin() * torch.polar(torch.ones_like(x["ph"]), x["ph"])
    cos = x["th"].cos() + 0j
    u = torch.stack([torch.stack([cos, -turn.conj()], 1), torch.stack([turn, cos], 1)], 1)
    rho = u @ torch.complex(s["rho_re"], s["rho_im"]) @ u.mH
    kept = torch.stack([torch.stack([torch.ones_like(lost), (1 - lost).sqrt()]), torch.stack([(1 - lost).sqrt(), 1 - lost])])
    fed = torch.zeros_like(rho)
    fed[:, 0, 0] = lost * rho[:, 1, 1].real
    rho = kept * rho + fed
    return {"z": (rho[:, 0, 0] - rho[:, 1, 1]).real, "c": rho[:, 0, 1].abs()}, {"rho_re": rho.real, "rho_im": rho.imag}


def crf_entropy(x: Given, p: Given, s: Given) -> Made:
    score = p["A"].T + x["e"][:, :, None]
    way = s["l"][:, None] + score
    total = way.logsumexp(-1)
    r = ((way - total[..., None]).exp() * (s["r"][:, None] + score)).sum(-1)
    z = total.logsumexp(-1)
    return {"Z": z, "H": z - (total.softmax(-1) * r).sum(-1)}, {"l": total, "r": r}


def figarch(x: Given, p: Given, s: Given) -> Made:
    d, phi, beta = p["d"], p["phi"], p["beta"]
    delta, weights = [d], [phi - beta + d]
    for k in range(2, 6):
        delta.append(delta[-1] * (k - 1 - d) / k)
        weights.append(beta * weights[-1] + delta[-1] - phi * delta[-2])
    past = [s[f"e.lag{k}"] for k in range(1, 6)]
    variance: Tensor = p["omega"] / (1 - beta) + sum(w * e**2 for w, e in zip(weights, past, strict=True))
    return {"s2": variance}, {f"e.lag{k}": v for k, v in enumerate((x["e"], *past[:-1]), 1)}


def hawkes(x: Given, p: Given, s: Given) -> Made:
    rate, jumps, base = softplus(p["rate"]), softplus(p["A"]), softplus(p["mu"])
    left = (-rate * x["gap"][:, None]).exp() * s["R"]
    now = (base + left @ jumps.T).gather(1, x["kind"][:, None])[:, 0]
    total = s["total"] + base.sum() * x["gap"] + (jumps.sum(0) * (s["R"] - left) / rate).sum(-1)
    return {"ll": now.log() - total}, {"R": left + one_hot(x["kind"], left.shape[1]).double(), "total": total}


def student_changepoint(x: Given, p: Given, s: Given) -> Made:
    mu, kappa, alpha, beta = (s[n] for n in ("mu", "kappa", "alpha", "beta"))
    wide, apart = 2 * beta * (kappa + 1) / kappa, x["x"][:, None] - mu
    score = torch.lgamma(alpha + 0.5) - torch.lgamma(alpha) - 0.5 * (math.pi * wide).log()
    grown = s["l"] + score - (alpha + 0.5) * (apart**2 / wide).log1p()
    hazard = sigmoid(p["h"])
    joint = torch.cat([grown.logsumexp(1, keepdim=True) + hazard.log(), (grown + (1 - hazard).log())[:, :-1]], 1)

    def moved(new: Tensor, first: float) -> Tensor:
        return torch.cat([torch.full_like(new[:, :1], first), new[:, :-1]], 1)

    states = {"l": joint - joint.logsumexp(1, keepdim=True), "mu": moved(mu + apart / (kappa + 1), 0.0),
              "kappa": moved(kappa + 1, 1.0), "alpha": moved(alpha + 0.5, 1.0)}
    return {"l": states["l"]}, states | {"beta": moved(beta + kappa * apart**2 / (2 * (kappa + 1)), 1.0)}


FILTERS = (all_pole_lattice, bearings, particle_filter, lbfgs, lindblad, crf_entropy, figarch, hawkes,
           student_changepoint)
