"""`python -m examples.language_model`: a small character model of this repository's own pages, written by `seqc.nn`.

In: nothing; the text is that of `docs/*.md`. Out: lines on the terminal: the loss in bits per character before and after,
on a page that was never trained on, and a text that the model goes on with.

What to see: a stack of layers around any spec (`--spec delta_rule`, `--spec mamba`, a file of your own) is one call; a
prompt is read in one call, and each further character is one step of all layers, from their cache.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from seqc import nn

PAGES = Path(__file__).resolve().parent.parent / "docs"
HELD_OUT = "calls.md"
SYMBOLS = 128  # ASCII; another character counts as `?`


class Model(torch.nn.Module):
    """Characters [B, T] -> logits [B, T, SYMBOLS] of the next ones."""

    def __init__(self, spec: str, width: int, layers: int, backend: str) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(SYMBOLS, width)
        self.stack = nn.layer(spec, width, layers=layers, conv=4, backend=backend)
        self.head = torch.nn.Linear(width, SYMBOLS)

    def forward(self, characters: Tensor, cache: object = None) -> Tensor:
        return self.head(self.stack(self.embed(characters), cache))

    @torch.no_grad()
    def continued(self, prompt: str, count: int, heat: float = 0.6) -> str:
        """The prompt, and `count` characters more."""
        cache, text = self.stack.cache(), prompt
        logits = self(encode(prompt)[None], cache)[:, -1]
        for _ in range(count):
            chosen = torch.multinomial(torch.softmax(logits / heat, -1), 1)[:, 0]
            text += chr(int(chosen))
            logits = self.head(self.stack.step(self.embed(chosen), cache))
        return text


def encode(text: str) -> Tensor:
    """A text as codes [length]."""
    return torch.tensor(list(text.encode("ascii", errors="replace")))


def bits(model: Model, rows: Tensor) -> Tensor:
    """The mean loss over rows [B, T + 1], in bits per character."""
    logits = model(rows[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) / math.log(2)


def main(arguments: list[str] | None = None) -> int:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(prog="python -m examples.language_model", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spec", default="gated_delta_rule", help="a spec's name or file (default: gated_delta_rule)")
    parser.add_argument("--width", type=int, default=96, help="of the model (default: 96)")
    parser.add_argument("--layers", type=int, default=2, help="default: 2")
    parser.add_argument("--updates", type=int, default=300, help="default: 300")
    parser.add_argument("--backend", default="auto", help="of seqc.nn.layer (default: auto)")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    text = torch.cat([encode(page.read_text("utf-8")) for page in sorted(PAGES.glob("*.md")) if page.name != HELD_OUT])
    held_out = encode((PAGES / HELD_OUT).read_text("utf-8"))
    held_out = held_out[: len(held_out) // 257 * 257].view(-1, 257)[:16]
    model = Model(args.spec, args.width, args.layers, args.backend)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=args.updates + 1)
    with torch.no_grad():
        print(f"{len(text)} characters; before: {bits(model, held_out):.2f} bits per character")
    for update in range(args.updates):
        starts = torch.randint(len(text) - 129, (16, 1))
        loss = bits(model, text[starts + torch.arange(129)])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        falling.step()
        if (update + 1) % 50 == 0:
            print(f"update {update + 1}: {loss.item():.2f} bits per character")
    with torch.no_grad():
        print(f"after: {bits(model, held_out):.2f} bits per character of a page that it has not seen")
    print(model.continued("A state is ", 200))
    return 0


if __name__ == "__main__":
    sys.exit(main())
