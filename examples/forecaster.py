"""`python -m examples.forecaster`: a day ahead, hour by hour, from a series with gaps.

In: nothing; series are drawn: a daily and a weekly rhythm whose shapes and strengths differ from series to series, an
autoregressive disturbance, and gaps of some hours in which nothing is observed. Out: lines on the terminal: the mean
absolute error of the model, of "as yesterday" and of "as a week ago", and a forecast that goes on as new values come in.

What to see: the model takes the value and whether there is one; at every hour it forecasts all of the next 24, so each
series gives as many examples as it has hours. S5's states are oscillators, which find the rhythms; with `--spec gla` or
`--spec gru` one can see what is harder. In use it is fed hour by hour, from its cache: nothing of the past is read again.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from seqc import nn

DAY, WEEK = 24, 168


def drawn(count: int, hours: int) -> tuple[Tensor, Tensor]:
    """(values, whether each is observed), [count, hours] each."""
    t = torch.arange(hours)
    shape = torch.randn(count, 4, 2)
    turns = (2 * torch.pi * k * t / DAY for k in (1, 2, 3))
    daily = sum(shape[:, k, :1] * torch.sin(x) + shape[:, k, 1:] * torch.cos(x) for k, x in enumerate(turns))
    weekend = shape[:, 3, :1] * ((t // DAY) % 7 >= 5)
    noise, disturbance = 0.3 * torch.randn(count, hours), [torch.zeros(count)]
    for i in range(1, hours):
        disturbance.append(0.9 * disturbance[-1] + noise[:, i])
    gaps = torch.rand(count, hours // 8).repeat_interleave(8, 1) < 0.1
    observed = torch.nn.functional.pad(~gaps, (0, hours - gaps.shape[1]), value=True)
    return daily + weekend + torch.stack(disturbance, 1), observed


class Forecaster(torch.nn.Module):
    """Values and whether they are there [B, T] each -> the next `DAY` values at every step, [B, T, DAY]."""

    def __init__(self, spec: str, width: int, backend: str) -> None:
        super().__init__()
        self.into = torch.nn.Linear(2, width)
        self.stack = nn.layer(spec, width, layers=2, backend=backend)
        self.ahead = torch.nn.Linear(width, DAY)

    def seen(self, values: Tensor, observed: Tensor) -> Tensor:
        """What the stack reads: 0 where nothing is observed, and that it is so."""
        return self.into(torch.stack([torch.where(observed, values, 0), observed.float()], -1))

    def forward(self, values: Tensor, observed: Tensor, cache: object = None) -> Tensor:
        return self.ahead(self.stack(self.seen(values, observed), cache))

    def step(self, value: Tensor, observed: Tensor, cache: object) -> Tensor:
        """One hour more, [B] -> [B, DAY]."""
        return self.ahead(self.stack.step(self.seen(value, observed), cache))


def error(forecast: Tensor, values: Tensor) -> Tensor:
    """The mean absolute error of forecasts [B, T, DAY] of what came, from the third week on, when a week can have been seen."""
    came = values.unfold(1, DAY, 1)[:, 1:]
    return (forecast[:, : came.shape[1]] - came)[:, 2 * WEEK :].abs().mean()


def main(arguments: list[str] | None = None) -> int:
    """Train, compare, forecast as values come in."""
    parser = argparse.ArgumentParser(prog="python -m examples.forecaster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spec", default="s5", help="a spec's name or file (default: s5)")
    parser.add_argument("--width", type=int, default=64, help="of the model (default: 64)")
    parser.add_argument("--updates", type=int, default=120, help="default: 120")
    parser.add_argument("--hours", type=int, default=4 * WEEK, help="of each series (default: 672)")
    parser.add_argument("--backend", default="auto", help="of seqc.nn.layer (default: auto)")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Forecaster(args.spec, args.width, args.backend)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=args.updates + 1)
    for update in range(args.updates):
        values, observed = drawn(16, args.hours)
        loss = error(model(values, observed), values)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        falling.step()
        if (update + 1) % 50 == 0:
            print(f"update {update + 1}: mean absolute error {loss.item():.3f}")
    with torch.no_grad():
        values, observed = drawn(64, args.hours)
        print(f"the model: {error(model(values, observed), values):.3f}")
        for name, ago in (("as yesterday", DAY), ("as a week ago", WEEK)):
            came = values.unfold(1, DAY, 1)[:, 1:]
            before = torch.nn.functional.pad(values, (ago, 0))[:, : values.shape[1]].unfold(1, DAY, 1)[:, 1:]
            print(f"{name}: {(before - came)[:, 2 * WEEK :].abs().mean():.3f}")
        cache = model.stack.cache()
        model(values[:1, :-3], observed[:1, :-3], cache)
        for t in range(-3, 0):
            ahead = model.step(values[:1, t], observed[:1, t], cache)[0]
            print(f"{-t} hours before the end, the next three: {', '.join(f'{x:.2f}' for x in ahead[:3].tolist())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
