"""Recurrences of many fields, each written twice: as a spec, and by hand as a loop in torch with autograd.

In: nothing. Out: `HAND`: name -> `Hand`. Nothing of seqc stands in a loop. Sources are named where a system has one; the
others are textbook forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Given = dict[str, Tensor]
Loop = Callable[[Given], Given]
HAND: dict[str, Hand] = {}


@dataclass(frozen=True)
class Hand:
    """fit: what makes of a random array one that may be given, by name; the spec's own ranges are kept anyhow."""

    spec: str
    sizes: Mapping[str, int]
    fit: Mapping[str, Callable[[Tensor], Tensor]]
    loop: Loop


def by_hand(spec: str, fit: Mapping[str, Callable[[Tensor], Tensor]] | None = None, **sizes: int) -> Callable[[Loop], None]:
    """Registers a loop that computes what the spec says, from arguments by name."""

    def register(loop: Loop) -> None:
        HAND[spec.split()[1]] = Hand(spec, sizes, fit or {}, loop)

    return register


def stacked(rows: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """The values of all steps by output."""
    return [torch.stack(column, 1) for column in zip(*rows, strict=True)]


def definite(x: Tensor) -> Tensor:
    """A positive definite matrix."""
    return torch.eye(x.shape[-1], dtype=x.dtype) + 0.1 * x @ x.mT


def between(low: float, high: float) -> Callable[[Tensor], Tensor]:
    """What brings any number between two ends."""
    return lambda x: low + (high - low) * torch.sigmoid(x)


def below_zero(x: Tensor) -> Tensor:
    """What brings any number below 0."""
    return -torch.nn.functional.softplus(x)
