"""`python -m examples.parity`: a leaky network with trainable time constants counts ones, one or many at a time.

In: nothing; the bits are drawn. Out: lines on the terminal and `parity.png`. The task: after a sequence of -1 and 1, the
parity of its last N bits. Two curricula make it harder whenever 98 of 100 answers are right. *Single head*: the network is
asked for the largest N alone, by a readout of its own for each. *Multi-head*: it is asked for all of 2, 3, .., N. Both train
for the same time.

What to see (Khajehabdollahi et al. 2023, arXiv:2309.12927): with many heads the network reaches a larger N, for it may not
forget what it has learnt. Its time constants fall towards 1: the memory lies in the recurrent weights.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPEC = '''
spec parity_net
"""Leaky units with a trainable time constant each, and no connection of a unit with itself (arXiv:2309.12927)."""
dim D
input x
param w[D] init uniform(-1, 1), b[D] init uniform(-0.1, 0.1), tau[D] init uniform(1, 2)
param R[D, D] init uniform(-1 / sqrt(D), 1 / sqrt(D))
state h[D] = 0
slow = max(tau, 1)
output h = leaky_relu((1 - 1 / slow) * h[t-1] + (R @ h[t-1] + w * x + b) / slow)
sparse R zero diagonal
'''
FIRST, RIGHT = 2, 0.98  # the N to begin with, and the share of right answers that ends a lesson


def drawn(most: int, batch: int) -> Tensor:
    """[B, T] of -1 and 1; T between N + 2 and 4 N, the same for a batch."""
    steps = int(torch.randint(most + 2, 4 * most + 1, ()))
    return torch.randint(2, (batch, steps)) * 2.0 - 1.0


def parity(x: Tensor, n: int) -> Tensor:
    """[B]: 1 where the number of ones among the last n bits is odd."""
    return (x[:, -n:] > 0).sum(1) % 2


@dataclass
class Learner:
    """A network, its readouts, and how far it has come. several: whether all N up to the largest are asked."""

    layer: Any
    units: int
    several: bool
    heads: dict[int, nn.Linear] = field(default_factory=dict)
    reached: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, the N that was learnt)"""
    updates: int = 0

    def asked(self, most: int) -> range:
        """The N that are asked where `most` is the largest."""
        return range(FIRST if self.several else most, most + 1)

    def learn(self, seconds: float, batch: int, rate: float) -> None:
        """Lesson after lesson, until the time is over."""
        begin, most = perf_counter(), FIRST
        while perf_counter() - begin < seconds:
            for n in self.asked(most):
                self.heads.setdefault(n, nn.Linear(self.units, 2))
            trained = [*self.layer.parameters(), *(p for n in self.asked(most) for p in self.heads[n].parameters())]
            optimiser = torch.optim.Adam(trained, lr=rate)
            share = 0.0
            while share < RIGHT and perf_counter() - begin < seconds:
                x = drawn(most, batch)
                last = self.layer(x).h[:, -1]
                answers = {n: self.heads[n](last) for n in self.asked(most)}
                losses = [F.cross_entropy(answer, parity(x, n)) for n, answer in answers.items()]
                optimiser.zero_grad()
                torch.stack(losses).mean().backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimiser.step()
                right = min(float((answer.argmax(1) == parity(x, n)).float().mean()) for n, answer in answers.items())
                share += 0.05 * (right - share)
                self.updates += 1
            if share >= RIGHT:
                self.reached.append((perf_counter() - begin, most))
                most += 1

    @property
    def most(self) -> int:
        """The largest N that was learnt; 0 for none."""
        return self.reached[-1][1] if self.reached else 0

    @property
    def constants(self) -> Tensor:
        """The time constants, in steps."""
        found: Tensor = self.layer.tau.detach().clamp(min=1)
        return found


def main(arguments: list[str] | None = None) -> int:
    """Train with both curricula, and plot."""
    import seqc

    parser = argparse.ArgumentParser(prog="python -m examples.parity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=90, help="of training for each curriculum (default: 90)")
    parser.add_argument("--units", type=int, default=128, help="of the network (default: 128)")
    parser.add_argument("--batch", type=int, default=64, help="sequences of an update (default: 64)")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning (default: 0.001)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the plot")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    made = seqc.compile(SPEC, args.backend)
    learners = {}
    for name in ("single head", "multi-head"):
        torch.manual_seed(0)
        learner = learners[name] = Learner(made.Module(D=args.units), args.units, name == "multi-head")
        learner.layer(drawn(FIRST, args.batch)).h.sum().backward()  # kernels are built before the clock runs
        learner.learn(args.seconds, args.batch, args.rate)
        constants = learner.constants
        told = f"time constants {constants.mean():.2f} steps in the mean, {constants.max():.2f} at most"
        print(f"{name}: N = {learner.most} after {learner.updates} updates; {told}")
    plot(learners, args.seconds, args.out / "parity.png")
    print(f"written to {args.out / 'parity.png'}")
    return 0


def plot(learners: dict[str, Learner], seconds: float, path: Path) -> None:
    """N over time, and the time constants in the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name, learner in learners.items():
        times, reached = zip((0.0, 0), *learner.reached, (seconds, learner.most), strict=True)
        left.step(times, reached, where="post", label=name)
        right.hist(learner.constants.numpy(), bins=30, histtype="step", label=name)
    left.set(xlabel="seconds of training", ylabel="largest N learnt", title="parity of the last N bits")
    right.set(xlabel="time constant, steps", ylabel="units", title="after training")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
