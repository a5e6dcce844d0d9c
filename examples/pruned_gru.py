"""`python -m examples.pruned_gru`: a GRU learns the Reber grammar, loses recurrent weights, and learns again.

In: nothing; strings are drawn from the grammar, half of them spoilt in one place, and told apart by the last state. Out: lines
on the terminal and `pruned_gru.png`: accuracy on strings that were held out, before pruning, after it and after one more epoch,
for several densities; and the time of a layer of 512 units over the density of its recurrent weights.

What to see: at a tenth of the weights the network has forgotten nearly everything, and one epoch brings it back, as Narang et
al. (2017, arXiv:1704.05119) and Han et al. (2015, arXiv:1506.02626) report for larger ones. Native code leaves out what is
pruned, forward and backward, so that whole blocks of 16 x 16 save nearly the share that is pruned, and single weights less.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SYMBOLS = "BTPSXVE"
GRAMMAR = {  # A. S. Reber (1967): state -> (symbol, next state); -1 is the end
    0: (("B", 1),), 1: (("T", 2), ("P", 3)), 2: (("S", 2), ("X", 4)), 3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)), 5: (("P", 4), ("V", 6)), 6: (("E", -1),),
}  # fmt: skip

SPEC = '''
spec pruned_gru
"""A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; gates as in torch.nn.GRU) with pruned recurrent weights."""
dim I, D
input x[I]
param W_r[D, I] init normal(0, 0.5), W_z[D, I] init normal(0, 0.5), W_n[D, I] init normal(0, 0.5)
param R_r[D, D] init orthogonal, R_z[D, D] init orthogonal, R_n[D, D] init orthogonal
param b_r[D] init 0, b_z[D] init 0, b_n[D] init 0, c_n[D] init 0
state h[D] = 0
r = sigmoid(W_r @ x + b_r + R_r @ h[t-1])
z = sigmoid(W_z @ x + b_z + R_z @ h[t-1])
n = tanh(W_n @ x + b_n + r * (R_n @ h[t-1] + c_n))
output h = (1 - z) * n + z * h[t-1]
sparse R_r, R_z, R_n by magnitude keep 10%
'''


def drawn(rng: random.Random) -> str:
    """A string of the grammar."""
    state, text = 0, ""
    while state >= 0:
        symbol, state = rng.choice(GRAMMAR[state])
        text += symbol
    return text


def valid(text: str) -> bool:
    """Whether the grammar has a string."""
    state = 0
    for symbol in text:
        state = dict(GRAMMAR.get(state, ())).get(symbol, -2)
        if state == -2:
            return False
    return state == -1


def strings(count: int, seed: int) -> list[tuple[str, bool]]:
    """Strings, and whether the grammar has them: every second one has another symbol in one place."""
    rng, found = random.Random(seed), list[tuple[str, bool]]()
    while len(found) < count:
        text = drawn(rng)
        if len(found) % 2:
            at = rng.randrange(1, len(text) - 1)
            text = text[:at] + rng.choice(SYMBOLS[1:-1]) + text[at + 1 :]
        if len(text) <= 40 and valid(text) != bool(len(found) % 2):
            found.append((text, not len(found) % 2))
    return found


def packed(found: Sequence[tuple[str, bool]]) -> tuple[Tensor, Tensor, Tensor]:
    """(one-hot symbols of all strings in one row [1, T, 7], where each begins and the last one ends, labels)."""
    symbols = torch.tensor([SYMBOLS.index(symbol) for text, _ in found for symbol in text])
    lengths = torch.tensor([0, *(len(text) for text, _ in found)])
    return F.one_hot(symbols, len(SYMBOLS)).float()[None], lengths.cumsum(0), torch.tensor([float(yes) for _, yes in found])


class Judge(nn.Module):
    """A generated recurrence and a linear read-out of its last state."""

    def __init__(self, made: Any, units: int) -> None:
        super().__init__()
        self.gru, self.out = made.Module(I=len(SYMBOLS), D=units), nn.Linear(units, 1)

    def forward(self, x: Tensor, bounds: Tensor) -> Tensor:
        """A pack of sequences -> a logit each."""
        logits: Tensor = self.out(self.gru(x, cu_seqlens=bounds).h_T)[:, 0]
        return logits


def epoch(model: Judge, found: list[tuple[str, bool]], optimiser: torch.optim.Optimizer, batch: int = 32) -> None:
    """Once through all strings."""
    for i in torch.randperm(len(found) // batch).tolist():
        x, bounds, labels = packed(found[i * batch : (i + 1) * batch])
        loss = F.binary_cross_entropy_with_logits(model(x, bounds), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


@torch.no_grad()
def accuracy(model: Judge, found: Sequence[tuple[str, bool]]) -> float:
    """The share of strings that are judged rightly."""
    x, bounds, labels = packed(found)
    return ((model(x, bounds) > 0) == labels.bool()).float().mean().item()


def seconds(made: Any, units: int, keep: float, block: int | None, calls: int = 3) -> float:
    """Of a forward and backward pass of a layer, 128 steps of 8 sequences: the shortest."""
    layer = made.Module(I=len(SYMBOLS), D=units)
    layer.prune(keep, **({} if block is None else {"block": block}))
    x = torch.randn(8, 128, len(SYMBOLS))
    taken = []
    for _ in range(calls + 1):
        start = perf_counter()
        layer(x).h.sum().backward()
        taken.append(perf_counter() - start)
    return min(taken[1:])


def main(arguments: list[str] | None = None) -> int:
    """Train, prune, train again, time, plot."""
    import seqc

    parser = argparse.ArgumentParser(prog="python -m examples.pruned_gru", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strings", type=int, default=4000, help="strings to learn from (default: 4000)")
    parser.add_argument("--epochs", type=int, default=4, help="before pruning (default: 4)")
    parser.add_argument("--units", type=int, default=48, help="of the network (default: 48)")
    parser.add_argument("--wide", type=int, default=512, help="units of the layer that is timed (default: 512)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the plot")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made = seqc.compile(SPEC, args.backend)
    known, held_out = strings(args.strings, 0), strings(1000, 1)
    model = Judge(made, args.units)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for i in range(args.epochs):
        epoch(model, known, optimiser)
        print(f"epoch {i + 1}: {accuracy(model, held_out):.3f} of held-out strings are judged rightly")
    rows: dict[float, tuple[float, float]] = {}
    for keep in (0.5, 0.2, 0.1, 0.05):
        smaller = deepcopy(model)
        smaller.gru.prune(keep)
        before = accuracy(smaller, held_out)
        epoch(smaller, known, torch.optim.Adam(smaller.parameters(), lr=5e-3))
        rows[keep] = before, accuracy(smaller, held_out)
        print(f"{keep:4.0%} of the recurrent weights: {before:.3f} after pruning, {rows[keep][1]:.3f} one epoch later")
    times: dict[str, list[tuple[float, float]]] = {"single weights": [], "blocks of 16 x 16": []}
    for name, block in (("single weights", None), ("blocks of 16 x 16", 16)):
        for keep in (1.0, 0.5, 0.2, 0.1, 0.05):
            times[name].append((keep, seconds(made, args.wide, keep, block)))
            print(f"{args.wide} units, {name}, {keep:4.0%} kept: {1e3 * times[name][-1][1]:.0f} ms with gradients")
    plot(accuracy(model, held_out), rows, times, args.out / "pruned_gru.png")
    print(f"written to {args.out / 'pruned_gru.png'}")
    return 0


def plot(
    base: float, rows: dict[float, tuple[float, float]], times: dict[str, list[tuple[float, float]]], path: Path
) -> None:
    """Accuracy and time over density."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    densities = sorted(rows)
    left.axhline(base, color="0.7", label="before pruning")
    left.plot(densities, [rows[keep][0] for keep in densities], "o--", label="after pruning")
    left.plot(densities, [rows[keep][1] for keep in densities], "o-", label="one epoch later")
    left.set(xscale="log", xlabel="share of recurrent weights kept", ylabel="held-out strings judged rightly")
    for name, found in times.items():
        right.plot([keep for keep, _ in found], [1e3 * taken for _, taken in found], "o-", label=name)
    right.set(xscale="log", xlabel="share of recurrent weights kept", ylabel="milliseconds with gradients", ylim=(0, None))
    for axes, shares in ((left, densities), (right, [keep for keep, _ in next(iter(times.values()))])):
        axes.set_xticks(shares, [f"{keep:.0%}" for keep in shares])
        axes.minorticks_off()
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
