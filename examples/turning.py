"""`python -m examples.turning`: is the number of ones odd? One word of a spec decides whether a scan can tell.

In: nothing; sequences of bits are drawn. Out: lines on the terminal: how often the parity after the last bit is told rightly (0
is guessing, 1 is always), up to 40 bits as in training and on 41 to 256, with transitions in [0, 1] and in [-1, 1].

What to see: Mamba's decay a is a number from 0 to 1. With 2 a - 1 in its place the same state can turn over, and so count
modulo two; without, it fits the lengths that it has seen and no others (Grazzi et al. 2024, arXiv:2411.12537). The claim on
the eigenvalues is proved for either.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

import seqc

SPEC = """spec counter
dim D, N = 16
input u[D], delta[D], Bt[N], Ct[N]
param A_log[D, N] init log(1 + index[N]), skip[D] init 1
state h[D, N] = 0
dt = softplus(delta)
a = exp(-dt * exp(A_log))
h = {transition} * h[t-1] + dt * Bt * u
output y = sum[N](Ct * h) + skip * u
eigenvalues h in [{low}, 1]
"""
RANGES = {"[0, 1]": SPEC.format(transition="a", low=0), "[-1, 1]": SPEC.format(transition="(2 * a - 1)", low=-1)}


def drawn(count: int, bits: int) -> tuple[Tensor, Tensor]:
    """(bits [count, bits], the parity so far)."""
    x = torch.randint(2, (count, bits))
    return x, x.cumsum(1) % 2


class Counter(torch.nn.Module):
    """Bits [B, T] -> logits [B, T, 2]: two blocks of a scan with a gate, and residuals."""

    def __init__(self, spec: str, width: int, backend: str) -> None:
        super().__init__()
        scan: Any = seqc.compile(spec, backend)
        self.into, self.out = torch.nn.Embedding(2, width), torch.nn.Linear(width, 2)
        self.blocks = torch.nn.ModuleList()
        for _ in range(2):
            parts = {"norm": torch.nn.LayerNorm(width), "scan": scan.Module(D=width), "z": torch.nn.Linear(width, width)}
            sizes = {"u": width, "delta": width, "B": 16, "C": 16, "o": width}
            parts |= {name: torch.nn.Linear(width, size) for name, size in sizes.items()}
            self.blocks.append(torch.nn.ModuleDict(parts))

    def forward(self, bits: Tensor) -> Tensor:
        x = self.into(bits)
        for b in self.blocks:
            n = b["norm"](x)
            y = b["scan"](torch.nn.functional.silu(b["u"](n)), b["delta"](n), b["B"](n), b["C"](n)).y
            x = x + b["o"](y * torch.nn.functional.silu(b["z"](n)))
        return self.out(x)


@torch.no_grad()
def share(model: Counter, low: int, high: int, count: int) -> float:
    """How often the parity of all bits is told rightly, of lengths from low to high, scaled so that guessing is 0."""
    torch.manual_seed(1)
    found = []
    for length in torch.linspace(low, high, 6).long().tolist():
        bits, parity = drawn(count, length)
        found.append((model(bits)[:, -1].argmax(-1) == parity[:, -1]).float().mean().item())
    return 2 * sum(found) / len(found) - 1


def main(arguments: list[str] | None = None) -> int:
    """Train both, judge both."""
    parser = argparse.ArgumentParser(prog="python -m examples.turning", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=32, help="of the model (default: 32)")
    parser.add_argument("--updates", type=int, default=500, help="default: 500")
    parser.add_argument("--bits", type=int, default=40, help="the longest sequence in training (default: 40)")
    parser.add_argument("--longest", type=int, default=256, help="bits after it (default: 256)")
    parser.add_argument("--batch", type=int, default=64, help="sequences at a time (default: 64)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    args = parser.parse_args(arguments)
    for name, spec in RANGES.items():
        torch.manual_seed(0)
        model = Counter(spec, args.width, args.backend)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=args.updates + 1)
        for _ in range(args.updates):
            bits, parity = drawn(args.batch, int(torch.randint(3, args.bits + 1, ())))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(bits).flatten(0, 1), parity.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            falling.step()
        seen, longer = share(model, 3, args.bits, args.batch), share(model, args.bits + 1, args.longest, args.batch)
        told = f"{seen:.3f} up to {args.bits} bits, {longer:.3f} from {args.bits + 1} to {args.longest}"
        print(f"transitions in {name}: {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
