"""`python -m examples.delays`: spiking neurons tell patterns apart by learning how long each synapse waits.

In: nothing; the patterns are drawn. Every channel fires once in a pattern, at a time that belongs to the class, jittered; so
neither rates nor single channels tell the class, only when channels fire relative to each other. Out: lines on the terminal and
`delays.png`. Three networks with the same neurons: with learnable delays, with random ones that stay, and without.

What to see (Hammouamri et al. 2023, arXiv:2306.17670): a neuron that forgets within a few steps needs its spikes at the same
time. Learnt delays bring the spikes of one class together; random ones do so by chance, and the network is right less often;
without delays it is right least. Each weight sits at a position in time, blurred by a Gaussian whose width shrinks in the first
half of training, so that a position feels spikes far away at first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST = 20  # steps that a synapse can wait, and a pattern's length
NARROW = 0.5  # the width of a position in the end, steps
SPEC = f'''
spec delay_net
"""Leaky integrate-and-fire neurons behind synapses with learnable delays, and leaky sums that read them out."""
dim J, D, C, L = {LONGEST}
input s[J]
param w[D, J] init uniform(0, 4 / J), p[D, J] init uniform(0, {LONGEST - 1}), U[C, D] init normal(0, 0.3)
buffer sigma init {LONGEST / 4} in [0.1, inf]
state v[D] = 0, m[C] = 0
at = clamp(p, 0, L - 1)
bump = exp(-0.5 * ((index[L] - at) / sigma)^2)
K = w * bump / sum[L](bump)
u = 0.5 * v[t-1] + sum[J, L](K * s[t - index[L]])
z = withgrad(u >= 1, 2.5 / (1 + (2.5 * pi * (u - 1))^2))
v = (1 - stopgrad(z)) * u
m = 0.9 * m[t-1] + U @ z
output m, z
'''


def templates(classes: int, channels: int) -> Tensor:
    """[C, J]: when each channel fires in the pattern of each class."""
    return torch.randint(LONGEST, (classes, channels))


def drawn(when: Tensor, batch: int, jitter: float) -> tuple[Tensor, Tensor]:
    """Spikes [B, T, J] and classes [B]; each pattern begins anywhere in the first ten steps."""
    labels = torch.randint(len(when), (batch,))
    shifts = torch.randint(10, (batch, 1))
    times = (when[labels] + shifts + jitter * torch.randn(batch, when.shape[1])).round().long().clamp(0, 2 * LONGEST - 1)
    spikes = torch.zeros(batch, 3 * LONGEST, when.shape[1])
    return spikes.scatter_(1, times[:, None], 1.0), labels


def right(layer: Any, when: Tensor, jitter: float) -> float:
    """The share of right answers, on patterns that are drawn anew."""
    with torch.no_grad():
        spikes, labels = drawn(when, 512, jitter)
        return float((layer(spikes).m.sum(1).argmax(1) == labels).float().mean())


def train(layer: Any, when: Tensor, updates: int, batch: int, jitter: float) -> list[float]:
    """The share of right answers at each update. The width of positions shrinks in the first half."""
    trained = [p for p in layer.parameters() if p.requires_grad]
    positions = [p for p in trained if p is layer.p]
    others = [p for p in trained if p is not layer.p]
    optimiser = torch.optim.Adam([{"params": others, "lr": 1e-2}, {"params": positions, "lr": 0.1}])
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    found = []
    for update in range(updates):
        done = min(2 * update / updates, 1.0)
        layer.sigma.fill_(LONGEST / 4 * (NARROW / (LONGEST / 4)) ** done)
        spikes, labels = drawn(when, batch, jitter)
        made = layer(spikes)
        scores = made.m.sum(1) / 10
        rates = made.z.mean(1)
        silent = (0.01 - rates).relu().square().sum(1).mean()  # neurons that never fire learn nothing
        loss = F.cross_entropy(scores, labels) + 10 * silent
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        found.append(float((scores.argmax(1) == labels).float().mean()))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Train the three networks, and plot."""
    import seqc

    parser = argparse.ArgumentParser(prog="python -m examples.delays", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--updates", type=int, default=400, help="of each network (default: 400)")
    parser.add_argument("--batch", type=int, default=64, help="patterns of an update (default: 64)")
    parser.add_argument("--units", type=int, default=8, help="spiking neurons (default: 8)")
    parser.add_argument("--channels", type=int, default=6, help="of the patterns (default: 6)")
    parser.add_argument("--classes", type=int, default=20, help="of patterns (default: 20)")
    parser.add_argument("--jitter", type=float, default=0.7, help="of the spikes, steps (default: 0.7)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the plot")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    made = seqc.compile(SPEC, args.backend)
    torch.manual_seed(0)
    when = templates(args.classes, args.channels)
    curves, layers = {}, {}
    for name in ("learnt delays", "random delays", "no delays"):
        torch.manual_seed(1)
        layer = layers[name] = made.Module(J=args.channels, D=args.units, C=args.classes)
        if name != "learnt delays":
            layer.p.requires_grad_(False)  # then no kernel's gradient of positions is computed
        if name == "no delays":
            layer.p.zero_()
        curves[name] = train(layer, when, args.updates, args.batch, args.jitter)
        print(f"{name}: {right(layer, when, args.jitter):.1%} of patterns told right")
    plot(curves, layers["learnt delays"], when, args.out / "delays.png")
    print(f"written to {args.out / 'delays.png'}")
    return 0


def plot(curves: dict[str, list[float]], layer: Any, when: Tensor, path: Path) -> None:
    """Right answers over updates, and one class's spikes as they come and as the neuron that answers to it most gets them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, last) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for name, found in curves.items():
        width = max(len(found) // 25, 1)
        parts = [found[max(i - width, 0) : i + 1] for i in range(len(found))]
        left.plot([sum(part) / len(part) for part in parts], label=name)
    left.set(xlabel="update", ylabel="share of right answers", ylim=(0, 1))
    left.legend()
    unit = int(layer.U[0].argmax())  # the neuron that speaks most for the first class
    size = 80 * layer.w[unit].detach().clamp(min=0) / layer.w[unit].detach().max()
    channels = torch.arange(when.shape[1])
    middle.scatter(when[0], channels, s=size)
    middle.set(xlabel="step", ylabel="channel", title="a class, as it comes in", xlim=(-1, 2 * LONGEST))
    last.scatter(when[0] + layer.p[unit].detach(), channels, s=size)
    last.set(xlabel="step", title="after a neuron's delays (size: weight)", xlim=(-1, 2 * LONGEST))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
