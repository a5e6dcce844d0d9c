"""Layers one after the other, at one rate or several, over a whole sequence or as it arrives.

In: torch Modules over [B, T, D]. Out: a Module, and its stream: portions of any size give what one call gives. A layer is a
Module of a compiled spec (its first output goes on), a layer of `seqc.nn`, one of the classes here, or what treats every step
by itself: `Each(module)`, and the Modules of torch named in `ALONE`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ALONE = (
    nn.Linear, nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.Dropout, nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.LeakyReLU, nn.ELU,
)  # fmt: skip
HOW = {
    "stack": lambda x: x.flatten(-2),
    "mean": lambda x: x.mean(-2),
    "sum": lambda x: x.sum(-2),
    "last": lambda x: x[..., -1, :],
}


class Each(nn.Module):
    """What treats every step by itself: a function or a Module from [B, T, D] to [B, T, D']."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D']."""
        return self.function(x)


class Chain(nn.Sequential):
    """Layers one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D']."""
        for layer in self:
            x = _first(layer(x))
        return x

    def stream(self) -> Flow:
        """The streams of all, one after the other. Raises TypeError for a layer that has none."""
        return _Flows([flow(layer) for layer in self])


class Residual(nn.Module):
    """x + inner(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return x + _first(self.inner(x))

    def stream(self) -> Flow:
        """Of the sum."""
        return _Sums(flow(self.inner))


class Slower(nn.Module):
    """A layer that runs once for every `steps` steps.

    down: what it takes of each group of steps, [B, T, D] -> [B, N, D']: "stack" (all, side by side), "mean", "sum" or
    "last". up: what each step gets of the answer to a group, "repeat" (all of it) or "split" (its part: D' / steps). first:
    the steps of the first group; all others have `steps`; what the last one lacks is 0. shift: a step gets the answer to so
    many groups before its own, zeros at first. With shift=1, or first=1 and shift=0, no step waits for later ones, if
    the layer does not.
    """

    def __init__(
        self, inner: nn.Module, steps: int, down: str = "stack", up: str = "split", first: int | None = None, shift: int = 1
    ) -> None:
        super().__init__()
        self.inner, self.steps, self.down, self.up, self.shift = inner, steps, down, up, shift
        self.first = steps if first is None else first
        if steps < 1 or not 1 <= self.first <= steps or shift < 0:
            raise ValueError(f"steps={steps}, first={first}, shift={shift}: groups have 1 or more steps, the first one no more")
        if down not in HOW or up not in ("repeat", "split"):
            raise ValueError(f"down={down!r}, up={up!r}: down is one of {', '.join(HOW)}; up is repeat or split")

    def extra_repr(self) -> str:
        """What is not a Module."""
        return f"steps={self.steps}, down={self.down!r}, up={self.up!r}, first={self.first}, shift={self.shift}"

    def grouped(self, x: Tensor, first: bool) -> Tensor:
        """[B, groups of steps, D] -> [B, N, D']; first: whether the first of them is the first of all."""
        if first:
            x = torch.cat([x.new_zeros(len(x), self.steps - self.first, *x.shape[2:]), x], 1)
        x = x.reshape(len(x), x.shape[1] // self.steps, self.steps, *x.shape[2:])
        if self.down == "mean" and first and self.first < self.steps and x.shape[1]:
            return torch.cat([x[:, :1].sum(2) / self.first, x[:, 1:].mean(2)], 1)
        y: Tensor = HOW[self.down](x)
        return y

    def spread(self, y: Tensor) -> Tensor:
        """Answers to groups [B, N, D'] -> what `steps` steps each get, [B, N steps, D'']."""
        if self.up == "repeat":
            return y.repeat_interleave(self.steps, 1)
        return y.reshape(len(y), y.shape[1] * self.steps, *y.shape[2:-1], y.shape[-1] // self.steps)

    def missing(self, steps: int) -> int:
        """How many steps the last group lacks."""
        return 0 if steps == 0 else self.first - steps if steps <= self.first else -(steps - self.first) % self.steps

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D'']."""
        long = x.shape[1]
        if long == 0:
            raise ValueError("a sequence without steps has no group")
        filled = torch.cat([x, x.new_zeros(len(x), self.missing(long), *x.shape[2:])], 1)
        y = _first(self.inner(self.grouped(filled, True)))
        y = torch.cat([y.new_zeros(len(y), self.shift, *y.shape[2:]), y, y.new_zeros(len(y), 1, *y.shape[2:])], 1)
        return self.spread(y[:, : -(-long // self.steps)])[:, :long]

    def stream(self) -> Flow:
        """Of the whole."""
        return _Groups(self)


class Flow(ABC):
    """A stream of one layer. latency: an output is there as soon as the input so many steps later is."""

    latency: int

    @abstractmethod
    def push(self, x: Tensor) -> Tensor:
        """[B, n, D] -> the outputs that can be told now, [B, m, D']."""

    @abstractmethod
    def flush(self) -> Tensor:
        """The outputs that are left; the stream ends."""


def flow(layer: nn.Module) -> Flow:
    """The stream of a layer. Raises TypeError for what has none."""
    if isinstance(layer, Chain | Residual | Slower):
        return layer.stream()
    if isinstance(layer, Each) or type(layer) in ALONE:
        return _Alone(layer)
    if hasattr(layer, "cache") and hasattr(layer, "step"):
        return _Cached(layer)
    if hasattr(layer, "stream"):
        return _Recurrences(layer.stream(latency=layer.stream().lookahead))  # type: ignore[operator]
    name = type(layer).__name__
    raise TypeError(f"{name} has no stream: where it treats every step by itself, write Each({name}(..))")


def _first(y: Any) -> Tensor:
    """The first output of a recurrence; what other layers give as it is."""
    first: Tensor = y if isinstance(y, Tensor) else y[0]
    return first


class _Alone(Flow):
    """Every step by itself."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.latency = layer, 0
        self._none: Tensor | None = None

    def push(self, x: Tensor) -> Tensor:
        """At once."""
        y = _first(self.layer(x))
        self._none = y[:, :0]
        return y

    def flush(self) -> Tensor:
        """Nothing is left."""
        assert self._none is not None
        return self._none


class _Cached(_Alone):
    """A layer of `seqc.nn`, by its cache."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        cache = layer.cache()  # type: ignore[operator]
        self.layer = Each(lambda x: layer(x, cache))


class _Recurrences(Flow):
    """A compiled spec."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.latency = stream, stream.latency

    def push(self, x: Tensor) -> Tensor:
        """What its own stream gives."""
        return _first(self._stream.push(x))

    def flush(self) -> Tensor:
        """What its own stream gives."""
        return _first(self._stream.flush())


class _Flows(Flow):
    """Streams one after the other."""

    def __init__(self, flows: list[Flow]) -> None:
        self._flows = flows
        self.latency = sum(one.latency for one in flows)

    def push(self, x: Tensor) -> Tensor:
        """Through all."""
        for one in self._flows:
            x = one.push(x)
        return x

    def flush(self) -> Tensor:
        """What each has left goes through those behind it."""
        rest: Tensor | None = None
        for one in self._flows:
            parts = ([] if rest is None else [one.push(rest)]) + [one.flush()]
            rest = torch.cat(parts, 1)
        assert rest is not None
        return rest


class _Sums(Flow):
    """The inner stream, and what it was given, until its answers come."""

    def __init__(self, inner: Flow) -> None:
        self._inner, self.latency = inner, inner.latency
        self._kept: Tensor | None = None

    def _sum(self, y: Tensor) -> Tensor:
        assert self._kept is not None
        steps = y.shape[1]
        total, self._kept = self._kept[:, :steps] + y, self._kept[:, steps:]
        return total

    def push(self, x: Tensor) -> Tensor:
        """What the inner stream answers, and what it answers to."""
        self._kept = x if self._kept is None else torch.cat([self._kept, x], 1)
        return self._sum(self._inner.push(x))

    def flush(self) -> Tensor:
        """The rest of both."""
        return self._sum(self._inner.flush())


class _Groups(Flow):
    """The stream of a slower layer."""

    def __init__(self, slower: Slower) -> None:
        self._own, self._inner = slower, flow(slower.inner)
        self.latency = max(0, (self._inner.latency - slower.shift) * slower.steps + slower.first - 1)
        self._kept: Tensor | None = None  # steps of a group that is not whole
        self._begun = False
        self._received = self._told = 0
        self._answers: Tensor | None = None  # to groups, from that on which the next output needs

    def push(self, x: Tensor) -> Tensor:
        """Whole groups go through the inner stream."""
        kept = x if self._kept is None else torch.cat([self._kept, x], 1)
        self._received += x.shape[1]
        first = self._own.first if not self._begun else 0
        whole = 0 if kept.shape[1] < first else first + (kept.shape[1] - first) // self._own.steps * self._own.steps
        y = self._inner.push(self._own.grouped(kept[:, :whole], not self._begun and whole > 0))
        self._begun |= whole > 0
        self._kept = kept[:, whole:]
        return self._answer(y, False)

    def flush(self) -> Tensor:
        """The last group, filled up with zeros, and what is left."""
        own, kept = self._own, self._kept
        if not self._received or kept is None:
            raise ValueError("a sequence without steps has no group")
        parts = []
        if kept.shape[1]:
            filled = torch.cat([kept, kept.new_zeros(len(kept), own.missing(self._received), *kept.shape[2:])], 1)
            parts = [self._inner.push(own.grouped(filled, not self._begun))]
        return self._answer(torch.cat([*parts, self._inner.flush()], 1), True)

    def _answer(self, y: Tensor, last: bool) -> Tensor:
        """The outputs that answers to groups allow."""
        own = self._own
        before = self._answers if self._answers is not None else y.new_zeros(len(y), own.shift, *y.shape[2:])
        rows = torch.cat([before, y], 1)
        if last:  # steps behind the answers, where the first group is a short one
            rows = torch.cat([rows, rows.new_zeros(len(rows), 1, *rows.shape[2:])], 1)
        start = self._told // own.steps  # the group of steps that the first row answers
        end = min(self._received, (start + rows.shape[1]) * own.steps)
        needed = max(0, math.ceil(end / own.steps) - start)
        out = own.spread(rows[:, :needed])[:, self._told - start * own.steps : end - start * own.steps]
        self._told = end
        self._answers = rows[:, end // own.steps - start :]
        return out
