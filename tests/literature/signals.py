"""One step of oscillators, orthogonal matrices, filters and segments, as their papers state it: plain torch, batch first.

In: the inputs of the step, the params, the states, by name (a lag is a state of its own). Out: outputs and states by name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, relu, sigmoid, tanh
from torch.nn.functional import softplus

from tests.literature.memories import Given, Made, sum_of


def paired(given: Given, name: str) -> Tensor:
    """The complex value of two parts."""
    return torch.complex(given[f"{name}_re"], given[f"{name}_im"])


def turned(angle: Tensor) -> Tensor:
    """exp(i angle)"""
    return torch.polar(torch.ones_like(angle), angle)


def parts(**values: Tensor) -> Given:
    """The two parts of each value, by name."""
    return {f"{name}_{word}": getattr(x, at) for name, x in values.items() for word, at in (("re", "real"), ("im", "imag"))}


def cornn(x: Given, p: Given, s: Given) -> Made:
    drive = tanh(x["x"] @ p["V"].T + s["z"] @ p["Wz"].T + s["y"] @ p["W"].T + p["b"])
    z = s["z"] + p["dt"] * (drive - p["gamma"] * s["y"] - p["eps"] * s["z"])
    y = s["y"] + p["dt"] * z
    return {"y": y}, {"y": y, "z": z}


def hm_lstm(x: Given, p: Given, s: Given) -> Made:
    f, i, o = (sigmoid(s["h"] @ p[f"U{n}"].T + x["below"] @ p[f"W{n}"].T) for n in "fio")
    g = tanh(s["h"] @ p["Ug"].T + x["below"] @ p["Wg"].T)
    flush, update = (s["z"] > 0.5)[:, None], (x["zb"] > 0.5)[:, None]
    c = torch.where(flush, i * g, torch.where(update, f * s["c"] + i * g, s["c"]))
    h = torch.where(flush | update, o * tanh(c), s["h"])
    bound = (s["h"] @ p["u"] / 6 + 0.5).clamp(0, 1)
    return {"h": h}, {"h": h, "c": c, "z": (bound > 0.5).double() + bound - bound.detach()}


def scornn(x: Given, p: Given, s: Given) -> Made:
    same, skew = torch.eye(len(p["A"]), dtype=torch.float64), p["A"] - p["A"].T
    z = x["x"] + s["h"] @ torch.linalg.solve(same + skew, (same - skew) * p["sign"].detach()).T
    h = torch.sign(z) * relu(z.abs() + p["b"])
    return {"h": h}, {"h": h}


def urnn(x: Given, p: Given, s: Given) -> Made:
    def reflected(v: Tensor, by: Tensor) -> Tensor:
        return v - 2 * by * (by.conj() * v).sum(-1, keepdim=True) / by.abs().pow(2).sum()

    at = torch.arange(4, dtype=torch.float64)
    fourier = turned(-2 * math.pi * at[:, None] * at / 4) / 2
    v = reflected((turned(p["d1"]) * paired(s, "h")) @ fourier.T, paired(p, "r1"))
    v = reflected((turned(p["d2"]) * v.flip(-1)) @ fourier.conj().T, paired(p, "r2"))
    z = turned(p["d3"]) * v + (x["x"] + 0j) @ paired(p, "V").T
    size = z.abs() + p["b"]
    h = torch.where(size > 0, size * z / (z.abs() + 1e-8), 0)
    return {"o": h.real, "p": h.imag}, parts(h=h)


def synapses(x: Given, p: Given, s: Given) -> Made:
    from_inputs = softplus(p["sw"]) * sigmoid(p["ssig"] * (x["x"][..., None] - p["smu"]))
    capacity, leak, v = softplus(p["cm"]) * 6, softplus(p["gleak"]), s["v"]
    for _ in range(6):
        open_ = softplus(p["w"]) * sigmoid(p["sigma"] * (v[..., None] - p["mu"])) * p["mask"].detach()
        drive = (open_ * p["erev"]).sum(1) + (from_inputs * p["serev"]).sum(1)
        v = (capacity * v + leak * p["vleak"] + drive) / (capacity + leak + open_.sum(1) + from_inputs.sum(1) + 1e-8)
    return {"v": v}, {"v": v}


def d_linoss(x: Given, p: Given, s: Given) -> Made:
    h, g = sigmoid(p["dt"]), relu(p["G"])
    low, high = ((2 + h * g + sign * 2 * (1 + h * g).sqrt()) / (h**2).clamp(min=1e-6) for sign in (-1, 1))
    a, by = low + relu(p["A"] - low) - relu(p["A"] - high), 1 + h * g
    drive, z, y = (x["u"] + 0j) @ paired(p, "B").T, paired(s, "z"), paired(s, "x")
    z, y = z / by - h / by * a * y + h / by * drive, h / by * z + (1 - h**2 / by * a) * y + h**2 / by * drive
    return {"y": (y @ paired(p, "C").T).real + p["D"] * x["u"]}, parts(z=z, x=y)


def mamba3_mimo(x: Given, p: Given, s: Given) -> Made:
    angle, decay = s["ang"] + x["th"], (x["dt"] * x["A"]).exp()
    now = sum_of("brn,bhrp->bhnp", x["B"] * turned(-angle)[:, None], p["Wx"] * x["x"][:, :, None] + 0j)
    before = torch.complex(s["now_re.lag1"], s["now_im.lag1"]).transpose(1, 2)
    first, second = (1 - x["lam"]) * x["dt"] * decay, x["lam"] * x["dt"]
    state = sum(c[..., None, None] * v for c, v in ((decay, paired(s, "S")), (first, before), (second, now)))
    y = sum_of("brn,bhnp->bhrp", x["C"] * turned(angle)[:, None], state).real
    states = parts(S=state) | {f"{n}.lag1": v.transpose(1, 2) for n, v in parts(now=now).items()}
    return {"y": (p["Wo"] * y).sum(2)}, states | {"ang": angle}


def moog(x: Given, p: Given, s: Given) -> Made:
    v, ys = x["x"] - 4 * p["res"] * s["fb"], []
    for k in range(4):
        v = s["y"][:, k] + x["g"] * (tanh(v) - s["w"][:, k])
        ys.append(v)
    y = torch.stack(ys, 1)
    return {"o": v}, {"y": y, "w": tanh(y), "fb": 0.5 * (v + s["y"][:, 3])}


def egarch(x: Given, p: Given, s: Given) -> Made:
    shock = p["alpha"] * (s["e"].abs() - math.sqrt(2 / math.pi)) + p["gamma"] * s["e"]
    raw = (p["omega"] + torch.where(s["begun"] > 0, shock, 0.0) + p["beta"] * s["l"]).clamp(max=709)
    free = raw.exp()
    bent = torch.where(free > x["hi"], x["hi"] + raw - x["hi"].log(), free)
    held = torch.where(free < x["lo"], x["lo"], bent)
    level = torch.where((free < x["lo"]) | (free > x["hi"]), held.log(), raw)
    return {"sigma2": held}, {"l": level, "e": x["r"] / held.sqrt(), "begun": torch.ones_like(s["begun"])}


def semi_crf(x: Given, p: Given, s: Given) -> Made:
    f = ((s["a"][:, :, None] + p["A"]).logsumexp(-1) + x["seg"]).logsumexp(1)
    return {"f": f, "Z": f.logsumexp(-1)}, {"a": torch.cat((f[:, None], s["a"][:, :-1]), 1)}


def information_filter(x: Given, p: Given, s: Given) -> Made:
    ahead, precise = sum_of("bij,bj->bi", x["F"], s["m"]), (-p["lr"]).exp()
    spread = x["F"] @ s["P"] @ x["F"].mT + torch.diag(p["lq"].exp())
    after = torch.linalg.inv(torch.linalg.inv(spread) + x["H"].mT @ (precise[:, None] * x["H"]))
    wrong = precise * (x["y"] - sum_of("bmi,bi->bm", x["H"], ahead))
    m = ahead + sum_of("bij,bj->bi", after, sum_of("bmi,bm->bi", x["H"], wrong))
    return {"m": m, "d": torch.linalg.slogdet(after)[1]}, {"m": m, "P": after}


def delay_network(x: Given, p: Given, s: Given) -> Made:
    lines = {f"l{i}": [s[f"l{i}"], *(s[f"l{i}.lag{j}"] for j in range(2, i + 4))] for i in range(3)}
    heard = torch.stack([line[-1] for line in lines.values()], -1)
    new = p["b"] * x["x"][:, None] + tanh(p["g"]) * (heard - 2 / 3 * heard.sum(-1, keepdim=True))
    states = {}
    for i, (name, line) in enumerate(lines.items()):
        kept = [new[:, i], *line[:-1]]
        states |= {name if j == 0 else f"{name}.lag{j + 1}": v for j, v in enumerate(kept)}
    return {"y": heard @ p["c"]}, states


def adpcm(x: Given, p: Given, s: Given) -> Made:
    size = (0.4 * s["at"].detach().floor().clamp(0, 7)).exp()
    coded = s["pred"] + p["gain"] * size * (x["code"] - 3.5) / 4
    at = (s["at"].detach() + torch.where(x["code"] < 4, -1, x["code"] - 2)).clamp(0, 7).floor()
    return {"pred": coded.clamp(-5, 5), "at": at}, {"pred": coded.clamp(-5, 5), "at": at}


def lorenz96(x: Given, p: Given, s: Given) -> Made:
    def slope(v: Tensor) -> Tensor:
        return (v.roll(-1, -1) - v.roll(2, -1)) * v.roll(1, -1) - v + x["force"]

    v, h = s["x"], p["h"]
    first = slope(v)
    second = slope(v + h / 2 * first)
    third = slope(v + h / 2 * second)
    v = v + h / 6 * (first + 2 * second + 2 * third + slope(v + h * third))
    return {"x": v}, {"x": v}


def boolean_net(x: Given, p: Given, s: Given) -> Made:
    on = (s["x"] > 0.5).double()
    place = torch.floor(2 * (on @ p["A"].T).abs() + (on @ p["C"].T).abs()) % 4
    rule = p["table"].expand(len(on), -1, -1).gather(2, place.long()[..., None])[..., 0]
    state = torch.where(x["noise"] > 1, 1 - sigmoid(rule), sigmoid(rule))
    return {"x": state}, {"x": state}


SIGNALS = (cornn, hm_lstm, scornn, urnn, synapses, d_linoss, mamba3_mimo, moog, egarch, semi_crf, information_filter,
           delay_network, adpcm, lorenz96, boolean_net)
