"""How much faster the compiled form is than the loop that one would write. In: the generated function. Out: seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPE = {"B": 2, "H": 4, "K": 64, "V": 64}
ROUNDS = 3

Run = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def eager_loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Gated linear attention, one step after the other: the spec's two lines in torch."""
    S = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for q_t, k_t, v_t, d_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), g.exp().unbind(1), strict=True):
        S = d_t[..., None] * S + k_t[..., None] * v_t[..., None, :]
        outputs.append((q_t[..., None, :] @ S)[..., 0, :])
    return torch.stack(outputs, 1) / q.shape[3] ** 0.5


def arguments(steps: int) -> list[Tensor]:
    """q, k, v, g with gradients."""
    generator = torch.Generator().manual_seed(4)
    B, H, K, V = SHAPE.values()
    q, k, g = (torch.randn(B, steps, H, K, generator=generator) for _ in range(3))
    v = torch.randn(B, steps, H, V, generator=generator)
    return [x.requires_grad_() for x in (q, k, v, F.logsigmoid(g) / 16)]


def seconds(run: Run, given: list[Tensor], backward: bool) -> float:
    """One forward, and with `backward` the gradients of all arguments too."""
    start = perf_counter()
    if backward:
        out = run(*given)
        torch.autograd.grad(out, given, torch.ones_like(out))
    else:
        with torch.no_grad():
            run(*given)
    return perf_counter() - start


def compare(compiled: Run, steps: int, limit: float = math.inf) -> dict[str, tuple[float, float]]:
    """"forward" and "forward+backward" -> (eager seconds, compiled seconds): medians of alternating runs, of fewer where
    they would take longer than `limit` seconds.

    Raises if the two disagree.
    """
    start = perf_counter()
    given = arguments(steps)
    torch.testing.assert_close(compiled(*given), eager_loop(*given), rtol=1e-3, atol=1e-3)
    out = {}
    for name, backward, share in (("forward", False, 0.4), ("forward+backward", True, 1.0)):
        pairs: list[list[float]] = []
        while len(pairs) < ROUNDS and (not pairs or perf_counter() - start < share * limit):
            pairs.append([seconds(run, given, backward) for run in (eager_loop, compiled)])
        eager, ours = (median(times) for times in zip(*pairs, strict=True))
        out[name] = eager, ours
    return out
