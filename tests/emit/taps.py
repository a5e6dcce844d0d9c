"""Specs that sum many lags of an input, each with what it computes, written here once more in torch's float64 operators.

In: nothing. Out: `CASES`, and `differences`, which runs a module on one of them and compares results and gradients. `back` is
the one thing that these functions need: an input so many steps ago, by slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
D, E, L = 3, 2, 40


def back(x: Tensor, lag: int) -> Tensor:
    """x [B, T, ..] so many steps ago; 0 outside."""
    steps = x.shape[1]
    rows = [x[:, t - lag] if 0 <= t - lag < steps else torch.zeros_like(x[:, 0]) for t in range(steps)]
    return torch.stack(rows, 1)


def recurrent(u: Tensor, r: Tensor) -> Tensor:
    """h = tanh(r * h[t-1] + u)."""
    h, rows = torch.zeros_like(u[:, 0]), []
    for t in range(u.shape[1]):
        h = torch.tanh(r * h + u[:, t])
        rows.append(h)
    return torch.stack(rows, 1)


def fir(v: Values) -> dict[str, Tensor]:
    return {"o": sum(v["a"][j] * back(v["x"], j) for j in range(L))}


def softmaxed(v: Values) -> dict[str, Tensor]:
    """Weights that a softmax over the lags makes."""
    a = torch.softmax(v["a"], 0)
    return {"o": recurrent(sum(a[j] * back(v["x"], j) for j in range(L)), v["r"])}


def chained(v: Values) -> dict[str, Tensor]:
    """Taps of what taps make: of differences from the weights, and of a choice among the lags."""
    far = sum((v["a"][j] - back(v["x"], j)) * v["a"][j] * 0.1 for j in range(L)) * v["x"]
    near = sum(torch.relu(back(v["x"], j) - v["a"][j]) for j in range(L)) * v["x"]
    return {"o": recurrent(sum(v["b"][j] * (back(far, 1 + j) + back(near, 1 + j)) for j in range(L)), v["r"])}


def cell(v: Values) -> dict[str, Tensor]:
    u = sum(torch.einsum("ed,btd->bte", v["W"][j], back(v["x"], 1 + j)) for j in range(L))
    return {"h": recurrent(u, v["r"])}


def dilated(v: Values) -> dict[str, Tensor]:
    return {"o": recurrent(sum(v["a"][j] * back(v["x"], 3 * j - 50) for j in range(L)), v["r"])}


def rising(v: Values) -> dict[str, Tensor]:
    return {"o": sum(v["a"][j] * back(v["x"], 5 - j) for j in range(L)) * v["x"]}


def decays(v: Values) -> dict[str, Tensor]:
    return {"o": recurrent(sum(torch.exp(-j * v["r"] ** 2) / (1 + j) * back(v["x"], j) for j in range(L)), v["r"])}


def average(v: Values) -> dict[str, Tensor]:
    mean = sum(back(v["x"], j) for j in range(L)) / L
    return {"o": recurrent(mean, v["r"]), "total": sum(back(v["x"], 2 * j).sum(-1) for j in range(L))}


def gated(v: Values) -> dict[str, Tensor]:
    g = torch.sigmoid(v["g"])
    u = sum(g * v["a"][j] * back(v["x"], j) - back(v["g"], j) * v["b"] / 2 for j in range(L))
    return {"o": recurrent(u, v["r"])}


def summed(v: Values) -> dict[str, Tensor]:
    """Dims of the input alone, of the weights alone, summed and kept."""
    one = sum(torch.einsum("btd,de->bte", back(v["z"], j).sum(-1), v["A"][:, j].sum(-2)) for j in range(L))
    return {"o": recurrent(one, v["r"])}


def chosen(v: Values) -> dict[str, Tensor]:
    """No sum of products: a softmax over the lags."""
    x = torch.stack([back(v["x"], j) for j in range(L)])
    return {"o": recurrent((torch.softmax(x, 0) * v["a"][:, None, None, None] * x).sum(0), v["r"])}


def spinning(v: Values) -> dict[str, Tensor]:
    """Complex weights and inputs."""
    y = sum(v["a"][j] * back(v["x"], j) for j in range(L))
    return {"o": recurrent(y.real - y.imag, v["r"])}


def both(v: Values) -> dict[str, Tensor]:
    """Two runs: the params of the second have names of their own."""
    runs = []
    for turned, mark in ((False, ""), (True, "_reverse")):
        x = v["x"].flip(1) if turned else v["x"]
        o = recurrent(sum(v[f"a{mark}"][j] * back(x, j) for j in range(L)), v[f"r{mark}"])
        runs.append(o.flip(1) if turned else o)
    return {"o": torch.cat(runs, -1)}


def backward(v: Values) -> dict[str, Tensor]:
    o = recurrent(sum(v["a"][j] * back(v["x"].flip(1), j) for j in range(L)), v["r"])
    return {"o": o.flip(1)}


def ahead(v: Values) -> dict[str, Tensor]:
    """A definition of taps, two steps ahead."""
    e = sum(v["a"][j] * back(v["x"], j) for j in range(L))
    return {"o": recurrent(back(e, -2), v["r"])}


def remembered(v: Values) -> dict[str, Tensor]:
    """A history, and a single read of it; the sum of the last lags alone too."""
    u = sum(v["a"][j] * back(v["x"], j) - v["b"] * back(v["x"], 2 * j + 1) for j in range(L))
    return {"o": recurrent(u + back(v["x"], 85) + back(v["x"], 3) * v["b"], v["r"])}


def defined(v: Values) -> dict[str, Tensor]:
    """Taps of a definition, which is not 0 where its input is, and of taps."""
    e = torch.cos(v["x"] * v["b"])
    f = sum(v["a"][j] * back(e, j) for j in range(L)) * e
    return {"o": recurrent(sum(v["a"][j] * back(f, L - j) for j in range(L)) + back(e, 2), v["r"])}


def mixed(v: Values) -> dict[str, Tensor]:
    """A delay line whose values are read otherwise too: it stays in the recurrence."""
    e = torch.sin(v["x"])
    rows = torch.stack([back(e, j) for j in range(L)])
    return {"o": recurrent((rows * v["a"][:, None, None]).sum(0) + torch.softmax(rows, 0)[1], v["r"])}


def square(v: Values) -> dict[str, Tensor]:
    """Matrices that `@` takes, square and not, and one of several in a sum."""
    u = sum(torch.einsum("de,bte->btd", v["S"][j], back(v["x"], j)) for j in range(L))
    w = sum(torch.einsum("ed,btd->bte", v["W"][j], back(v["x"], j - 3) * 2.0) for j in range(L))
    return {"o": recurrent(u + w.sum(-1, keepdim=True), v["r"])}


def own(v: Values) -> dict[str, Tensor]:
    """Weights of each sequence."""
    return {"o": recurrent(sum(v["a"][:, None, j] * back(v["x"], j) for j in range(L)), v["r"])}


def kept(v: Values) -> dict[str, Tensor]:
    """Weights that nothing trains."""
    return {"o": recurrent(sum(v["a"][j] * back(v["x"], j) for j in range(L)), v["r"])}


@dataclass(frozen=True)
class Tapped:
    """A spec's lines, what they compute, and how many of its stages are convolutions."""

    lines: str
    truth: Callable[[Values], dict[str, Tensor]]
    stages: int = 1

    def text(self, name: str) -> str:
        """The spec."""
        dims = "D, E" if "E" in self.lines else "D"
        return f"spec {name}\ndim {dims}, L = {L}\n{self.lines}\n"


RUN = "\nparam r[D]\nstate h[D] = 0\nh = tanh(r * h[t-1] + {})\noutput o[D] = h"
CASES = {
    "fir": Tapped("input x[D]\nparam a[L, D]\noutput o = sum[L](a * x[t - index[L]])", fir),
    "cell": Tapped("input x[D]\nparam W[L, E, D], r[E]\nstate h[E] = 0\n"
                   "h = tanh(r * h[t-1] + sum[L, D](W * x[t - 1 - index[L]]))\noutput h", cell),
    "softmaxed": Tapped("input x[D]\nparam a[L, D]" + RUN.format("sum[L](softmax[L](a) * x[t - index[L]])"), softmaxed),
    "chained": Tapped("input x[D]\nparam a[L, D], b[L, D]\ne = sum[L]((a - x[t - index[L]]) * a * 0.1) * x\n"
                          "f = sum[L](relu(x[t - index[L]] - a)) * x" + RUN.format(
                          "sum[L](b * (e[t - 1 - index[L]] + f[t - 1 - index[L]]))"), chained, 3),
    "dilated": Tapped("input x[D]\nparam a[L]" + RUN.format("sum[L](a * x[t + 50 - 3 * index[L]])"), dilated),
    "rising": Tapped("input x[D]\nparam a[L, D]\noutput o = x * sum[L](a * x[t - 5 + index[L]])", rising),
    "decays": Tapped("input x[D]" + RUN.format("sum[L](exp(-index[L] * r^2) / (1 + index[L]) * x[t - index[L]])"), decays),
    "average": Tapped("input x[D]" + RUN.format("sum[L](x[t - index[L]]) / L")
                      + "\noutput total = sum[L, D](x[t - 2 * index[L]])", average, 2),
    "gated": Tapped("input x[D], g[D]\nparam a[L, D], b[D]"
                    + RUN.format("sum[L](sigmoid(g) * a * x[t - index[L]] - g[t - index[L]] * b / 2)"), gated, 2),
    "summed": Tapped("dim F = 3\ninput z[D, F]\nparam A[D, L, F, E], r[E]\nstate h[E] = 0\n"
                     "y = sum[L, D](sum[F](z[t - index[L]]) * sum[F](A))\n"
                     "h = tanh(r * h[t-1] + y)\noutput o[E] = h", summed, 0),
    "chosen": Tapped("input x[D]\nparam a[L]" + RUN.format(
        "sum[L](softmax[L](x[t - index[L]]) * a * x[t - index[L]])"), chosen, 0),
    "spinning": Tapped("input x[D] complex\nparam a[L, D] complex\ny = sum[L](a * x[t - index[L]])"
                       + RUN.format("re(y) - im(y)"), spinning, 4),
    "both": Tapped("scan both\ninput x[D]\nparam a[L, D]" + RUN.format("sum[L](a * x[t - index[L]])"), both),
    "backward": Tapped("scan backward\ninput x[D]\nparam a[L, D]" + RUN.format("sum[L](a * x[t - index[L]])"), backward),
    "ahead": Tapped("input x[D]\nparam a[L, D]\ne = sum[L](a * x[t - index[L]])" + RUN.format("e[t+2]"), ahead),
    "remembered": Tapped("input x[D]\nhistory x 90\nparam a[L, D], b[D]" + RUN.format(
        "sum[L](a * x[t - index[L]] - b * x[t - 1 - 2 * index[L]]) + x[t-85] + b * x[t-3]"), remembered),
    "defined": Tapped("input x[D]\nparam a[L, D], b[D]\ne = cos(x * b)\nf = e * sum[L](a * e[t - index[L]])" + RUN.format(
        "sum[L](a * f[t - 40 + index[L]]) + e[t-2]"), defined, 2),
    "mixed": Tapped("input x[D]\nparam a[L, D]\ne = sin(x)\nw = e[t - index[L]]" + RUN.format(
        "sum[L](a * w) + softmax[L](w)[L = 1]"), mixed, 0),
    "square": Tapped("input x[D]\nparam S[L, D, D], W[L, E, D]\ny = sum[L](W @ (2 * x[t + 3 - index[L]]))" + RUN.format(
        "sum[L](S @ x[t - index[L]]) + sum[E](y)"), square, 2),
    "own": Tapped("input x[D]\nparam a[L, D] per batch" + RUN.format("sum[L](a * x[t - index[L]])"), own, 0),
    "kept": Tapped("input x[D]\nparam r[D]\nbuffer a[L, D] init 1 / (1 + index[L])\nstate h[D] = 0\n"
                   "h = tanh(r * h[t-1] + sum[L](a * x[t - index[L]]))\noutput o[D] = h", kept),
}  # fmt: skip


def arguments(name: str, signature: Any, batch: int, steps: int) -> dict[str, Tensor]:
    """Random values in float64, the same for a case on each call."""
    torch.manual_seed(len(name) + steps)
    sizes = {"B": batch, "T": steps, "D": D, "E": E, "L": L, "F": 3}
    found: dict[str, Tensor] = {}
    for a in signature.table:
        if a.kind != "state":
            shape = [sizes[axis.rstrip("'")] for axis in a.axes]
            found[a.name] = torch.randn(shape, dtype=torch.float64) * (0.3 if a.kind == "param" else 1.0)
    return found


def differences(
    name: str, module: ModuleType, signature: Any, dtype: torch.dtype, bounds: Sequence[int] | None = None,
    reverse: bool = False, steps: int = 70,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(what, value, truth) of each result and each gradient."""
    count = 2 if bounds is None else len(bounds) - 1
    values = arguments(name, signature, 2 if bounds is None else 1, steps if bounds is None else bounds[-1])
    if name == "own" and bounds is not None:
        values["a"] = torch.randn(count, L, D, dtype=torch.float64)
    given = {k: v.to(dtype).requires_grad_(k != "a" or name != "kept") for k, v in values.items()}
    packed = {} if bounds is None else {"cu_seqlens": torch.tensor(bounds)}
    made = getattr(module, signature.spec)(**given, **packed, reverse=reverse)
    right = {k: v.detach().to(torch.float64).requires_grad_() for k, v in given.items()}
    paired = pairs(right, name)
    truth = judged(CASES[name].truth, paired, bounds, reverse)
    cotangents = {k: torch.randn(x.shape, dtype=torch.float64) for k, x in truth.items()}
    yield from ((k, getattr(made, k), x) for k, x in truth.items())
    wrt = [k for k, x in given.items() if x.requires_grad]
    found = torch.autograd.grad([getattr(made, k) for k in truth], [given[k] for k in wrt],
                                [d.to(dtype) for d in cotangents.values()])
    asked = torch.autograd.grad([*truth.values()], [right[k] for k in wrt], [*cotangents.values()], materialize_grads=True)
    yield from ((f"d_{k}", x, y) for k, x, y in zip(wrt, found, asked, strict=True))


def pairs(values: Values, name: str) -> Values:
    """Complex values from their two parts, where the spec has these."""
    if name != "spinning":
        return values
    found = dict(values)
    for k in ("x", "a"):
        parts = [x for x in values if x.startswith(k) and x != "r"]
        re, im = (values[x] for x in parts)
        found[k] = torch.complex(re, im)
    return found


def judged(
    truth: Callable[[Values], dict[str, Tensor]], values: Values, bounds: Sequence[int] | None, reverse: bool
) -> dict[str, Tensor]:
    """What a case computes, of a pack sequence by sequence."""
    if bounds is not None:
        parts = []
        for i, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                timed = {k: v[:, start:end] for k, v in values.items() if k in "xgz"}
                own = {k: v[i : i + 1] for k, v in values.items() if k == "a" and v.dim() == 3}
                parts.append(judged(truth, {**values, **timed, **own}, None, reverse))
        return {k: torch.cat([part[k] for part in parts], 1) for k in parts[0]}
    if not reverse:
        return truth(values)
    turned = {k: v.flip(1) if k in "xgz" else v for k, v in values.items()}
    return {k: x.flip(1) for k, x in truth(turned).items()}
