"""Which elements of a parameter a spec keeps: the `sparse` statement as data.

In: rules by position (a band, blocks, a triangle, a graph's edges), and how the rest is found later (by magnitude, or by a
mask that the caller gives). Out: `Support`, and the masks of its rules as arrays. A parameter with a support counts, wherever
it is read, as `where(mask, parameter, 0)`: what the mask leaves out has no effect, and a gradient of 0, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rule:
    """One rule by position, of row i and column j of a square matrix.

    kind: "band" (|i - j| <= size), "blocks" (i and j in one block of `size`), "lower" (j <= i), "off diagonal" (i != j), or
    "edges": those of a graph alone, as positions i * n + j in rising order, n the one size of the dim (`size`).
    words: as the spec writes it.
    """

    kind: str
    size: int = 0
    edges: tuple[int, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Pruning:
    """How a mask that no rule knows is found: what `Module.prune` does unless it is told otherwise.

    by: "magnitude", or "mask" (the caller's own). keep: the share of elements that stay, or None. block: they stay and go in
    squares of `block` rows and columns. pattern: (n, m): of m neighbours along the last dim n stay.
    """

    by: str
    keep: float | None = None
    block: int = 1
    pattern: tuple[int, int] | None = None


@dataclass(frozen=True)
class Support:
    """What is kept of one parameter. mask: the name of the argument that says it; pruning: None where rules say it all."""

    mask: str
    rules: tuple[Rule, ...] = ()
    pruning: Pruning | None = None
    words: str = ""


@dataclass(frozen=True)
class Units:
    """Whether positions of a dim may go. reads: (parameter, its axis without a batch) of every product that adds them up;
    held: why none can go, or ""."""

    reads: tuple[tuple[str, int], ...] = ()
    held: str = ""


def square(dims: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the row and the column of a square matrix stand among dims: D and D'; None where there is none."""
    for i, d in enumerate(dims):
        if f"{d}'" in dims:
            return i, dims.index(f"{d}'")
    return None


def rule_mask(rule: Rule, n: int) -> Any:
    """The mask [n, n] of a rule: True where an element is kept."""
    i, j = np.arange(n)[:, None], np.arange(n)
    match rule.kind:
        case "band":
            return abs(i - j) <= rule.size
        case "blocks":
            return i // rule.size == j // rule.size
        case "lower":
            return j <= i
        case "off diagonal":
            return i != j
        case "edges":
            flat = np.zeros(n * n, bool)
            flat[list(rule.edges)] = True
            return flat.reshape(n, n)
    raise ValueError(f"there is no rule {rule.kind}")


def mask(support: Support, dims: tuple[str, ...], sizes: Mapping[str, int]) -> Any:
    """The mask of a parameter's rules alone, True where it is kept, with as many axes as `dims` (1 where none matters)."""
    shape = [1] * len(dims)
    place = square(dims)
    if place is None or not support.rules:
        return np.ones(shape, bool)
    n = sizes[dims[place[0]]]
    kept = np.logical_and.reduce([rule_mask(rule, n) for rule in support.rules])
    shape[place[0]] = shape[place[1]] = n
    return kept.reshape(shape) if place[0] < place[1] else kept.T.reshape(shape)
