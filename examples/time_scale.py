"""`python -m examples.time_scale`: trained on 64 samples of a signal, run on 16,384 of it, with the step size divided by 256.

In: nothing; ten kinds of smooth signals are drawn. Out: lines on the terminal: the share that is judged rightly at several
rates of sampling, with the step size divided to match, and as it was.

What to see: S4D's step size says how much time passes between two samples, and it is a parameter like any other. A model that
has learned what happens in time knows it at all rates; one whose step size stays sees each signal 256 times slower. (Gu et al.
2021, arXiv:2110.13985, show this with speech.)
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import torch
from torch import Tensor

import seqc

KINDS, WAVES = 10, 4


def drawn(count: int, steps: int) -> tuple[Tensor, Tensor]:
    """(signals [count, steps], the kind of each): sums of waves, moved, louder or softer, with a slow disturbance."""
    make = torch.Generator().manual_seed(7)
    turns = torch.randint(1, 7, (KINDS, WAVES), generator=make) * 2 * math.pi
    phases = torch.rand(KINDS, WAVES, generator=make) * 2 * math.pi
    kinds = torch.randint(KINDS, (count,))
    place = (torch.arange(steps) + 0.5) / steps
    moved = place + 0.04 * torch.randn(count, 1)
    waves = torch.sin(turns[kinds][..., None] * moved[:, None] + phases[kinds][..., None]).sum(1)
    slow = torch.sin(2 * math.pi * (torch.rand(count, 1) + (1 + 4 * torch.rand(count, 1)) * place))
    return (0.7 + 0.6 * torch.rand(count, 1)) * waves + 0.7 * slow, kinds


class Judge(torch.nn.Module):
    """Signals [B, T] -> logits [B, kinds], by the mean over time."""

    def __init__(self, width: int, backend: str) -> None:
        super().__init__()
        self.s4d: Any = seqc.compile("s4d", backend)
        self.into, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, KINDS)
        own = self.s4d.Module(M=1, H=width, N=8)
        with torch.no_grad():
            own.log_dt.uniform_(math.log(0.02), math.log(0.2))
        self.own = own

    def forward(self, signals: Tensor, slower: float = 1.0) -> Tensor:
        """slower: what the step size is divided by."""
        params = dict(self.own.named_parameters())
        params["log_dt"] = params["log_dt"] - math.log(slower)
        y = self.s4d(self.into(signals[..., None]), **params).y[:, :, 0]
        return self.out(torch.nn.functional.gelu(y).mean(1))


@torch.no_grad()
def share(model: Judge, steps: int, slower: float, count: int) -> float:
    """The share that is judged rightly."""
    torch.manual_seed(1)
    right = []
    for _ in range(count // 12):
        signals, kinds = drawn(12, steps)
        right.append((model(signals, slower).argmax(-1) == kinds).float().mean().item())
    return sum(right) / len(right)


def main(arguments: list[str] | None = None) -> int:
    """Train at one rate, judge at others."""
    parser = argparse.ArgumentParser(prog="python -m examples.time_scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=32, help="of the model (default: 32)")
    parser.add_argument("--updates", type=int, default=400, help="default: 400")
    parser.add_argument("--steps", type=int, default=64, help="samples of a signal in training (default: 64)")
    parser.add_argument("--longest", type=int, default=256, help="times as many at most, after it (default: 256)")
    parser.add_argument("--batch", type=int, default=64, help="signals at a time (default: 64)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Judge(args.width, args.backend)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=args.updates + 1)
    for _ in range(args.updates):
        signals, kinds = drawn(args.batch, args.steps)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(signals), kinds).backward()
        optimiser.step()
        falling.step()
    for times in sorted({1, min(16, args.longest), args.longest}):
        both = [share(model, times * args.steps, slower, 3 * args.batch) for slower in (times, 1.0)]
        as_it_was = "" if times == 1 else f", {both[1]:.0%} with the step size as it was"
        print(f"{times * args.steps} samples: {both[0]:.0%} are judged rightly{as_it_was}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
