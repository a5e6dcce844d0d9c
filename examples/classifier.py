"""`python -m examples.classifier`: which waveform is in the noise, from sequences of 16 to 120 steps.

In: nothing; sines, squares, saws and bursts are drawn, of any period and phase, with noise. Out: lines on the terminal: the
share that is judged rightly as training goes on, and after it by length.

What to see: sequences of all lengths make one jagged tensor, and no step of padding is computed; a layer takes and gives
it. Then the same model judges a stream while it comes in, one step at a time, and one can see how soon it is sure.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from seqc import nn

KINDS = ("sine", "square", "saw", "bursts")


def drawn(count: int) -> tuple[list[Tensor], Tensor]:
    """(sequences [length, 1], the number of each one's kind)."""
    kinds, found = torch.randint(len(KINDS), (count,)), []
    for kind, length in zip(kinds.tolist(), torch.randint(16, 121, (count,)).tolist(), strict=True):
        phase = torch.rand(()) + torch.arange(length) / (4 + 16 * torch.rand(()))
        turn = phase % 1
        wave = (torch.sin(2 * torch.pi * phase), torch.sign(turn - 0.5), 2 * turn - 1, 4.0 * (turn < 0.1) - 0.4)[kind]
        found.append((wave + 0.4 * torch.randn(length))[:, None])
    return found, kinds


class Classifier(torch.nn.Module):
    """Sequences of any lengths -> logits [B, kinds], from the last step of each."""

    def __init__(self, spec: str, width: int, backend: str) -> None:
        super().__init__()
        self.into, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, len(KINDS))
        self.stack = nn.layer(spec, width, layers=2, conv=4, backend=backend)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        ends = torch.tensor([0, *map(len, sequences)]).cumsum(0)
        jagged = torch.nested.nested_tensor_from_jagged(self.into(torch.cat(sequences)), ends)
        return self.out(self.stack(jagged).values()[ends[1:] - 1])

    @torch.no_grad()
    def judged(self, sequence: Tensor) -> list[str]:
        """What a sequence [length, 1] seems to be after each of its steps."""
        cache, said = self.stack.cache(), []
        for x in sequence:
            said.append(KINDS[int(self.out(self.stack.step(self.into(x[None]), cache)).argmax())])
        return said


def main(arguments: list[str] | None = None) -> int:
    """Train, judge by length, judge a stream."""
    parser = argparse.ArgumentParser(prog="python -m examples.classifier", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spec", default="min_gru", help="a spec's name or file (default: min_gru)")
    parser.add_argument("--width", type=int, default=48, help="of the model (default: 48)")
    parser.add_argument("--updates", type=int, default=300, help="default: 300")
    parser.add_argument("--backend", default="auto", help="of seqc.nn.layer (default: auto)")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Classifier(args.spec, args.width, args.backend)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=args.updates + 1)
    for update in range(args.updates):
        sequences, kinds = drawn(32)
        logits = model(sequences)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, kinds).backward()
        optimiser.step()
        falling.step()
        if (update + 1) % 50 == 0:
            print(f"update {update + 1}: {(logits.argmax(-1) == kinds).float().mean():.0%} of its batch are judged rightly")
    with torch.no_grad():
        sequences, kinds = drawn(512)
        right = model(sequences).argmax(-1) == kinds
    lengths = torch.tensor([len(x) for x in sequences])
    for low, high in ((16, 40), (40, 80), (80, 121)):
        print(f"{low} to {high - 1} steps: {right[(lengths >= low) & (lengths < high)].float().mean():.0%} are judged rightly")
    said = model.judged(sequences[0])
    print(f"a stream of {KINDS[int(kinds[0])]}, as it comes in: {', '.join(said[:: max(len(said) // 8, 1)])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
