"""One step of systems whose places read each other: graphs, queues, rods, fields, pictures, stores; plain torch.

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


def tgn(x: Given, p: Given, s: Given) -> Made:
    who, last = x["who"], s["last"]
    rows = who[..., None].expand(-1, -1, s["S"].shape[2])
    own = s["S"].gather(1, rows)
    age = torch.cos(p["rate"] * (x["at"][:, None] - last.gather(1, who))[..., None])
    z = torch.sigmoid(own @ p["Z"].T + age)
    new = own + z * (torch.tanh(own @ p["W"].T + own.flip(1) @ p["R"].T + (x["e"] @ p["V"].T)[:, None]) - own)
    memory, times = list(s["S"].unbind(1)), list(last.unbind(1))
    for k in range(who.shape[1]):  # of several rows for one node the last stays
        for i in range(len(memory)):
            here = who[:, k] == i
            memory[i] = torch.where(here[:, None], new[:, k], memory[i])
            times[i] = torch.where(here, x["at"], times[i])
    return {"score": (own[:, 0] * own[:, 1]).sum(1)}, {"S": torch.stack(memory, 1), "last": torch.stack(times, 1)}


def kbest(x: Given, p: Given, s: Given) -> Made:
    ways = (s["a"][:, :, None] + p["A"][None, :, :, None]).transpose(1, 2).flatten(2)
    a = x["e"][..., None] + ways.topk(2, -1)[0]
    return {"a": a}, {"a": a}


def fdtd(x: Given, p: Given, s: Given) -> Made:
    h = s["H"] + 0.5 * (pad(s["E"][:, 1:], (0, 1)) - s["E"])
    inner = s["E"] + 0.5 / p["eps"] * (h - pad(h[:, :-1], (1, 0))) + pad(x["src"][:, None], (2, 3))
    ends = [s["E"][:, a] - (inner[:, a] - s["E"][:, b]) / 3 for a, b in ((1, 0), (-2, -1))]
    e = torch.cat([ends[0][:, None], inner[:, 1:-1], ends[1][:, None]], 1)
    return {"E": e}, {"E": e, "H": h}


def gr4j(x: Given, p: Given, s: Given) -> Made:
    wet, dry = (x["P"] - x["E"]).relu(), (x["E"] - x["P"]).relu()
    share, rain, sun = s["S"] / p["x1"], torch.tanh(wet / p["x1"]), torch.tanh(dry / p["x1"])
    kept = p["x1"] * (1 - share**2) * rain / (1 + share * rain)
    full = s["S"] + kept - s["S"] * (2 - share) * sun / (1 + (1 - share) * sun)
    seeps = full * (1 - (1 + (4 / 9 * full / p["x1"]) ** 4) ** -0.25)
    on_the_way = pad(s["H"][:, 1:], (0, 1)) + p["uh"] * (seeps + wet - kept)[:, None]
    held = (s["R"] + on_the_way[:, 0] + p["x2"] * (s["R"] / p["x3"]) ** 3.5).relu()
    flow = held * (1 - (1 + (held / p["x3"]) ** 4) ** -0.25)
    return {"Q": flow}, {"S": full - seeps, "H": on_the_way, "R": held - flow}


NEIGHBOURS = (message, viterbi_path, bierman, thomas, robertson, kiefer, dither, tgn, kbest, fdtd, gr4j)
