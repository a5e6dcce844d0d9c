"""A small character model around a generated recurrence: embedding, blocks of (recurrence, MLP), a linear head.

In: characters [B, T] and the states of the blocks, or None at the start of a text. Out: logits [B, T, symbols] and the
states to go on from. `step` does the same for one character [B], which is how text is generated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOW = 16.0  # log decays are divided by this, so that a new model forgets slowly


class Recurrent(nn.Module):
    """Gated linear attention as a layer: projections around the generated Module, and a gate on what it gives."""

    def __init__(self, gla: nn.Module, width: int, heads: int) -> None:
        super().__init__()
        self.gla, self.heads = gla, heads
        self.norm = nn.RMSNorm(width)
        self.project = nn.Linear(width, 5 * width, bias=False)
        self.norm_heads = nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, width], state [B, H, K, V] -> the same."""
        return self.around(self.gla, x, state)

    def step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, width], state [B, H, K, V] -> the same."""
        return self.around(self.gla.step, x, state)

    def around(self, recurrence: Callable[..., Any], x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The layer, whatever axes stand before the width."""
        q, k, v, g, gate = self.project(self.norm(x)).unflatten(-1, (5, self.heads, -1)).unbind(-3)
        o, state = recurrence(q, k, v, F.logsigmoid(g) / SLOW, S_0=state)
        return x + self.out((self.norm_heads(o) * F.silu(gate)).flatten(-2)), state


class Mlp(nn.Module):
    """Two linear maps with a nonlinearity between, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return x + self.narrow(F.gelu(self.widen(self.norm(x))))


class CharModel(nn.Module):
    """The model; see the file's docstring. `generated` is the class that the emitted file holds."""

    def __init__(self, generated: Callable[..., nn.Module], symbols: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        size = width // heads
        self.embed = nn.Embedding(symbols, width)
        self.recurrent = nn.ModuleList(
            Recurrent(generated(H=heads, K=size, V=size), width, heads) for _ in range(blocks)
        )
        self.mlps = nn.ModuleList(Mlp(width) for _ in range(blocks))
        self.head = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, symbols))

    def forward(self, characters: Tensor, states: Sequence[Tensor | None] = ()) -> tuple[Tensor, list[Tensor]]:
        """[B, T] -> logits [B, T, symbols], states."""
        return self.through("forward", characters, states)

    def step(self, character: Tensor, states: Sequence[Tensor | None] = ()) -> tuple[Tensor, list[Tensor]]:
        """[B] -> logits [B, symbols], states."""
        return self.through("step", character, states)

    def through(self, how: str, characters: Tensor, states: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """All blocks, by whole sequences or by one character."""
        x, carried = self.embed(characters), []
        for i, (recurrent, mlp) in enumerate(zip(self.recurrent, self.mlps, strict=True)):
            x, state = getattr(recurrent, how)(x, states[i] if states else None)
            x = mlp(x)
            carried.append(state)
        return self.head(x), carried

    @torch.no_grad()
    def continue_text(
        self, prompt: Tensor, count: int, generator: torch.Generator, heat: float = 0.7, seconds: float = math.inf
    ) -> Tensor:
        """prompt [T] -> `count` more characters [count], fewer where the seconds are over: the prompt in one call, then one
        decoding step a character."""
        start = perf_counter()
        logits, states = self.forward(prompt[None])
        logits, made = logits[:, -1], []
        for _ in range(count):
            chosen = torch.multinomial(torch.softmax(logits / heat, -1), 1, generator=generator)[:, 0]
            made.append(chosen)
            if perf_counter() - start > seconds:
                break
            logits, states = self.step(chosen, states)
        return torch.cat(made)
