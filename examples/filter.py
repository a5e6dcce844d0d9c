"""`python -m examples.filter`: what is behind observations with outliers, by a learnt filter beside Kalman's.

In: nothing; a target swings at random (an autoregressive process of second order), and is observed with noise; one
observation in ten is far off. Out: lines on the terminal: root mean squared errors of the observations themselves, of the
Kalman filter, which knows the process and the variance of all noise and is the best linear filter, and of a stack of two
layers that has learnt from examples.

What to see: the spec is four lines of one's own. Its gain is an input in [0, 1], so the layer gives it a sigmoid of a
projection: it can distrust an observation that is far from what it expects, which no linear filter does. The Kalman filter
is a spec too.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

import seqc
from seqc import nn

SPEC = '''
spec gated_filter
"""Estimates that move towards what is read, each by a gain of its own: m_t = m_{t-1} + gain_t (y_t - m_{t-1})."""
dim D
input y[D], gain[D] in [0, 1]
state m[D] = 0
m = m[t-1] + gain * (y - m[t-1])
output m
'''
KALMAN = '''
spec kalman
"""The Kalman filter (Kalman 1960): of a state in N dimensions, M are observed."""
dim N = 2, M = 1
input y[M]
param F[N, N], Z[M, N], Q[N, N], R[M, M]
state a[N] = 0, P[N, N'] = eye[N]
ahead = F @ P[t-1] @ F[N -> N', N' -> N] + Q
seen = ahead @ Z
S = Z @ seen[M -> M'] + R
expected = F @ a[t-1]
a = expected + seen @ solve(S, y - Z @ expected)
P = ahead - seen @ solve(S, Z @ ahead)
output x[M] = Z @ a
'''
FIRST, SECOND = 1.8, -0.9  # x_t = FIRST x_{t-1} + SECOND x_{t-2} + DRIVE noise: variance near 1, a period of 19 steps
DRIVE, NOISE, OUTLIERS, FAR = 0.14, 0.3, 0.1, 3.0  # standard deviations; the share of observations that are far off


def drawn(count: int, steps: int) -> tuple[Tensor, Tensor]:
    """(targets, observations), [count, steps, 1] each."""
    x = [torch.zeros(count), torch.zeros(count)]
    for _ in range(steps + 100):
        x.append(FIRST * x[-1] + SECOND * x[-2] + DRIVE * torch.randn(count))
    target = torch.stack(x[-steps:], 1)[..., None]
    size = torch.where(torch.rand(target.shape) < OUTLIERS, FAR, NOISE)
    return target, target + size * torch.randn(target.shape)


def kalman(observed: Tensor, backend: str) -> Tensor:
    """The Kalman filter's estimates, its parameters those of the process."""
    variance = (1 - OUTLIERS) * NOISE**2 + OUTLIERS * FAR**2
    F, Z = torch.tensor([[FIRST, SECOND], [1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    Q, R = torch.tensor([[DRIVE**2, 0.0], [0.0, 0.0]]), torch.tensor([[variance]])
    return seqc.compile(KALMAN, backend)(observed, F, Z, Q, R).x


class Filter(torch.nn.Module):
    """Observations [B, T, 1] -> estimates [B, T, 1], each from what was observed until then."""

    def __init__(self, width: int, backend: str) -> None:
        super().__init__()
        self.into, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
        self.stack = nn.layer(SPEC, width, layers=2, conv=3, backend=backend)

    def forward(self, observed: Tensor) -> Tensor:
        return self.out(self.stack(self.into(observed)))


def error(estimate: Tensor, target: Tensor) -> float:
    """The root mean squared error, after 20 steps of finding the target."""
    return float((estimate - target)[:, 20:].square().mean().sqrt())


def main(arguments: list[str] | None = None) -> int:
    """Train, and compare."""
    parser = argparse.ArgumentParser(prog="python -m examples.filter", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=48, help="of the model (default: 48)")
    parser.add_argument("--updates", type=int, default=400, help="default: 400")
    parser.add_argument("--steps", type=int, default=128, help="of a sequence (default: 128)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile and seqc.nn.layer (default: auto)")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Filter(args.width, args.backend)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=args.updates + 1)
    for update in range(args.updates):
        target, observed = drawn(32, args.steps)
        loss = (model(observed) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        if (update + 1) % 100 == 0:
            print(f"update {update + 1}: root mean squared error {loss.sqrt().item():.3f}")
    with torch.no_grad():
        target, observed = drawn(256, args.steps)
        print(f"observations: {error(observed, target):.3f}")
        print(f"the Kalman filter: {error(kalman(observed, args.backend), target):.3f}")
        print(f"the learnt filter: {error(model(observed), target):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
