"""One step of systems whose places read each other: graphs, queues, rods, pictures and factored covariances; plain torch.

In: the inputs of the step, the params, the states, by name. Out: outputs and states by name. `N` and `W` are places.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from tests.literature.memories import Given, Made, sum_of


def message(x: Given, p: Given, s: Given) -> Made:
    h = s["h"]
    near = p["near"].floor().clamp(0, h.shape[1] - 1).long()
    h = torch.tanh(x["x"] + h @ p["W"].T + h[:, near].mean(2) @ p["R"].T)
    return {"h": h}, {"h": h}


def viterbi_path(x: Given, p: Given, s: Given) -> Made:
    count = x["e"].shape[1]
    before = s["at"].floor().clamp(0, count - 1).long()[:, None]
    came = s["later"].gather(1, before)[:, 0].floor().clamp(0, count - 1).long()
    at = torch.where(s["begun"] > 0, came, x["e"].argmax(1))
    total = s["total"] + (one_hot(at, count) * x["e"]).sum(1)
    states = {"at": at.double(), "begun": torch.ones_like(s["begun"]), "later": x["back"].double(), "total": total}
    return {"at": states["at"], "total": total}, states


def bierman(x: Given, p: Given, s: Given) -> Made:
    f = sum_of("bij,bi->bj", s["U"], x["H"])
    g, a, gain = s["d"] * f, p["r"].expand(f.shape[0]), torch.zeros_like(f)
    columns, left = [], []
    for j in range(f.shape[1]):
        column, b = s["U"][:, :, j], a + f[:, j] * g[:, j]
        columns.append(column - gain * (f[:, j] / a)[:, None])
        left.append(s["d"][:, j] * a / b)
        gain, a = gain + g[:, j, None] * column, b
    upper, d = torch.stack(columns, 2), torch.stack(left, 1) + p["q"]
    mean = s["x"] + gain * ((x["z"] - (x["H"] * s["x"]).sum(1)) / a)[:, None]
    return {"x": mean, "P": upper @ torch.diag_embed(d) @ upper.mT}, {"x": mean, "U": upper, "d": d}


def thomas(x: Given, p: Given, s: Given) -> Made:
    between = x["c"][:, :-1]
    flows = torch.diag_embed(pad(between, (0, 1)) + pad(between, (1, 0)))
    flows = flows - torch.diag_embed(between, 1) - torch.diag_embed(between, -1)
    u = torch.linalg.solve(torch.eye(5, dtype=torch.float64) + flows, s["u"] + x["q"])
    return {"u": u}, {"u": u}


def robertson(x: Given, p: Given, s: Given) -> Made:
    z = s["y"]
    for _ in range(2):
        a, b, c = z.unbind(1)
        one, two, three = p["k1"] * a, p["k2"] * b * c, p["k3"] * b**2
        miss = z - s["y"] - x["dt"][:, None] * torch.stack([two - one, one - two - three, three], 1)
        first = torch.stack([-p["k1"] + 0 * a, p["k2"] * c, p["k2"] * b], 1)
        third = torch.stack([0 * a, 2 * p["k3"] * b, 0 * a], 1)
        slopes = torch.stack([first, -first - third, third], 1)
        z = z - torch.linalg.solve(torch.eye(3, dtype=torch.float64) - x["dt"][:, None, None] * slopes, miss)
    return {"y": z}, {"y": z}


def kiefer(x: Given, p: Given, s: Given) -> Made:
    busy = torch.cat([s["w"][:, :1] + x["service"][:, None], s["w"][:, 1:]], 1)
    return {"waits": s["w"][:, 0]}, {"w": (busy - x["gap"][:, None]).relu().sort(1)[0]}


def dither(x: Given, p: Given, s: Given) -> Made:
    above, left, marks, errors = pad(s["e"], (1, 1)), torch.zeros_like(s["e"][:, 0]), list[Tensor](), list[Tensor]()
    for i in range(5):
        v = x["x"][:, i] + (5 * above[:, i + 1] + 3 * above[:, i + 2] + above[:, i] + 7 * left) / 16
        marks.append((v > 0).double())
        left = v - marks[-1]
        errors.append(left)
    return {"y": torch.stack(marks, 1)}, {"e": torch.stack(errors, 1)}


NEIGHBOURS = (message, viterbi_path, bierman, thomas, robertson, kiefer, dither)
