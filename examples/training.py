"""The character model, trained and judged. In: a model and text. Out: losses in bits per character."""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from examples.char_model import CharModel
from examples.corpus import windows
from examples.pace import Pace

WARM_UP = 30  # steps until the learning rate is at its height


def bits(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy in bits per character."""
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten()) / math.log(2)


@torch.no_grad()
def evaluate(model: CharModel, text: Tensor, count: int, steps: int) -> float:
    """Bits per character over `count` windows of `steps` characters; the same windows at every call."""
    seen, wanted = windows(text, count, steps, torch.Generator().manual_seed(1))
    return float(bits(model(seen)[0], wanted))


def train(
    model: CharModel, text: Tensor, updates: int, batch: int, steps: int, rate: float = 4e-3, pace: Pace | None = None,
    seconds: float = math.inf,
) -> list[float]:
    """AdamW with a warm-up and a cosine decay of the rate; the loss of every update, in bits per character.

    seconds: when they are over, training ends, with its rate decayed as after all updates. pace: told of Ctrl-C, which
    ends training too.
    """
    generator = torch.Generator().manual_seed(2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = perf_counter()
    losses: list[float] = []
    patience = 0.2 if sys.stderr.isatty() else 15.0  # seconds between redraws; a log file gets few lines
    stoppable = pace.stoppable() if pace else nullcontext()
    with stoppable, tqdm(total=updates, desc="training", unit="update", mininterval=patience, file=sys.stderr) as bar:
        for update in range(updates):
            spent = (perf_counter() - start) / seconds
            if spent >= 1:
                break
            done = max((update - WARM_UP) / max(updates - WARM_UP, 1), spent)
            for group in optimiser.param_groups:
                group["lr"] = rate * height(update, done)
            seen, wanted = windows(text, batch, steps, generator)
            loss = bits(model(seen)[0], wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
            bar.set_postfix_str(f"{losses[-1]:.3f} bits per character", refresh=False)
            bar.update()
    return losses


def height(update: int, done: float) -> float:
    """The learning rate's share of its greatest value. done: how much of the decay is over; below 0 it has not begun."""
    return min((update + 1) / WARM_UP, 0.05 + 0.95 * (1 + math.cos(math.pi * max(done, 0.0))) / 2)
