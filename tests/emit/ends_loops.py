"""Specs with states that no output depends on, and loops in plain torch that say what each means. Shared by `test_ends` and the
process that runs Triton's interpreter (`ends_interpreted`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Given = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """A spec, its shapes ([T] inputs, then the rest), the states that no output depends on, and one step as torch code:
    (arguments of the step, states before it) -> (outputs, states after it)."""

    text: str
    inputs: Mapping[str, tuple[int, ...]]
    params: Mapping[str, tuple[int, ...]]
    states: Mapping[str, tuple[int, ...]]
    ends: tuple[str, ...]
    step: Callable[[Any, Any], tuple[dict[str, Tensor], dict[str, Tensor]]]


def _watched(a: Any, s: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    h = torch.tanh(s["h"] @ a["R"].T + a["x"])
    n = s["n"] + 1
    mean = s["mean"] + (a["x"] - s["mean"]) / n[:, None]
    peak = torch.maximum(0.99 * s["peak"], h.abs())
    return {"h": h}, {"h": h, "n": n, "mean": mean, "peak": peak}


def _remembered(a: Any, s: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    h = torch.tanh(s["h"] @ a["R"].T + a["x"])
    k, v = h @ a["W"].T, torch.sigmoid(h + a["x"])
    M = a["g"][:, None, None] * s["M"] + k[:, :, None] * v[:, None, :]
    e = a["w"] * s["e"] + M.sum((1, 2))[:, None]
    return {"y": h.sum(-1)}, {"h": h, "M": M, "e": e, "last": h * a["x"] + 0 * s["last"]}


def _delayed(a: Any, s: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    h = 0.5 * s["h"] + a["x"]
    return {"h": h}, {"h": h, "m": 0.2 * s["m"] + s["h_lag2"], "h_lag2": s["h"]}


def _stateless(a: Any, s: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return {"y": 2 * a["x"] * a["w"]}, {"total": s["total"] + a["x"] ** 2, "last": a["x"] + 0 * s["last"]}


def _reset(a: Any, s: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    due = (s["count"] + 1 >= 3)[:, None]
    h = 0.5 * s["h"] + a["x"]
    m = torch.maximum(s["m"], a["x"])
    return {"h": h}, {"count": torch.where(due[:, 0], 0 * s["count"], s["count"] + 1),
                      "h": torch.where(due, 0.1 * h, h), "m": torch.where(due, a["u"] * m, m)}


SPECS = {
    "watched": Kept(
        """
spec watched
dim D
input x[D]
param R[D, D]
state h[D] = 0, mean[D] = 0, n = 0, peak[D] = 0
h = tanh(R @ h[t-1] + x)
n = n[t-1] + 1
mean = mean[t-1] + (x - mean[t-1]) / n
peak = max(0.99 * peak[t-1], abs(h))
output h
""",
        {"x": (3,)}, {"R": (3, 3)}, {"h": (3,), "mean": (3,), "n": (), "peak": (3,)}, ("mean", "n", "peak"), _watched),
    "remembered": Kept(
        """
spec remembered
dim D, K
input x[D], g in [0, 1]
param R[D, D], W[K, D], w[D]
state h[D] = 0, M[K, D] = 0, e[D] = 0, last[D] = 0
h = tanh(R @ h[t-1] + x)
M = g * M[t-1] + (W @ h) * sigmoid(h + x)
e = w * e[t-1] + sum[K, D](M)
last = h * x
output y = sum[D](h)
""",
        {"x": (3,), "g": ()}, {"R": (3, 3), "W": (2, 3), "w": (3,)}, {"h": (3,), "M": (2, 3), "e": (3,), "last": (3,)},
        ("M", "e", "last"), _remembered),
    "delayed": Kept(
        """
spec delayed
dim D
input x[D]
state h[D] = 0, m[D] = 0
h = 0.5 * h[t-1] + x
m = 0.2 * m[t-1] + h[t-2]
output h
""",
        {"x": (3,)}, {}, {"h": (3,), "m": (3,), "h_lag2": (3,)}, ("m", "h_lag2"), _delayed),
    "stateless": Kept(
        """
spec stateless
dim D
input x[D]
param w[D]
state total[D] = 0, last[D] = 0
total = total[t-1] + x^2
last = x
output y = 2 * x * w
""",
        {"x": (3,)}, {"w": (3,)}, {"total": (3,), "last": (3,)}, ("total", "last"), _stateless),
    "reset": Kept(
        """
spec reset
dim D
input x[D]
param u[D]
state h[D] = 0, m[D] = 0
h = 0.5 * h[t-1] + x
m = max(m[t-1], x)
every 3: h = 0.1 * h
every 3: m = u * m
output h
""",
        {"x": (3,)}, {"u": (3,)}, {"h": (3,), "m": (3,)}, ("m",), _reset),
}  # fmt: skip

STEPS, BATCH = 7, 2


def given(kept: Kept, dtype: torch.dtype, batch: int = BATCH, rows: int = BATCH) -> dict[str, Tensor]:
    """Arguments that ask for their gradients. batch: rows of the states, rows: of the inputs."""
    made = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=made, dtype=torch.float64) - 0.4).to(dtype).requires_grad_()

    found = {x: draw(rows, STEPS, *shape) for x, shape in kept.inputs.items()}
    found |= {x: draw(*shape) for x, shape in kept.params.items()}
    return found | {f"{x}_0": draw(batch, *shape) for x, shape in kept.states.items()}


def loop(kept: Kept, a: Given, reverse: bool = False) -> dict[str, Tensor]:
    """The results, step after step."""
    states = {x: a[f"{x}_0"] for x in kept.states} | {"count": a["x"].new_zeros(len(a["x"]))}
    order = range(a["x"].shape[1])
    found = {}
    for t in reversed(order) if reverse else order:
        found[t], states = kept.step({x: a[x][:, t] if x in kept.inputs else a[x] for x in a}, states)
    outputs = {x: torch.stack([found[t][x] for t in order], 1) for x in found[0]}
    return outputs | {f"{x}_T": states[x] for x in kept.states}


def packed(kept: Kept, a: Given, bounds: tuple[int, ...]) -> dict[str, Tensor]:
    """The results of a pack: each sequence by itself."""
    parts = []
    for i, (start, end) in enumerate(pairwise(bounds)):
        own = {x: a[x][:, start:end] if x in kept.inputs else a[x][i : i + 1] if x.endswith("_0") else a[x] for x in a}
        parts.append(loop(kept, own))
    return {x: torch.cat([p[x] for p in parts], 0 if x.endswith("_T") else 1) for x in parts[0]}


def losses(kept: Kept) -> Iterator[tuple[str, ...]]:
    """Sets of results that a loss may have: all, outputs alone, all but what is kept for its end, that alone, one of it."""
    ends = [f"{x}_T" for x in kept.ends]
    others = [f"{x}_T" for x in kept.states if x not in kept.ends]
    outputs = ["h" if "output h" in kept.text else "y"]
    yield from ((*outputs, *others, *ends), (*outputs,), (*outputs, *others), (*ends,), (*outputs, ends[-1]))


def gradients(results: Given, names: tuple[str, ...], wrt: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum of the results with weights that depend on the place."""
    total = sum((results[x] * torch.cos(torch.arange(results[x].numel(), dtype=results[x].dtype)).view_as(results[x])).sum()
                for x in names)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, wrt, retain_graph=True, materialize_grads=True)


def compared(
    kept: Kept, call: Callable[..., Any], step: Callable[..., Any], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is compared, what calls give, and what the loop gives: results and gradients of a batch, backwards, of a pack;
    single steps."""
    for way in ("forward", "reverse", "pack"):
        bounds = (0, 3, 3 + 1, STEPS)
        a = given(kept, dtype, 3, 1) if way == "pack" else given(kept, dtype)
        exact = {x: v.detach().double().requires_grad_() for x, v in a.items()}
        keywords = {"forward": {}, "reverse": {"reverse": True}, "pack": {"cu_seqlens": torch.tensor(bounds)}}[way]
        mine = call(**a, **keywords)._asdict()
        want = packed(kept, exact, bounds) if way == "pack" else loop(kept, exact, way == "reverse")
        yield from ((f"{way} {x}", mine[x], y) for x, y in want.items())
        if way == "forward":
            ends = {f"{x}_0": a[f"{x}_0"] for x in kept.states}
            for t in range(STEPS):
                one = step(**{x: v[:, t] if x in kept.inputs else v for x, v in a.items() if x not in ends}, **ends)._asdict()
                yield from ((f"step {t} {x}", y, want[x][:, t]) for x, y in one.items() if x in want and not x.endswith("_T"))
                ends = {f"{x.removesuffix('_T')}_0": v for x, v in one.items() if x.endswith("_T")}  # that of what counts too
            yield from ((f"steps {x}", one[f"{x}_T"], want[f"{x}_T"]) for x in kept.states)
        for names in losses(kept):
            found = gradients(mine, names, [*a.values()]), gradients(want, names, [*exact.values()])
            yield from ((f"{way} {names} d_{x}", d, e) for x, d, e in zip(a, *found, strict=True))
