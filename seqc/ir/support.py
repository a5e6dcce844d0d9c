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

from seqc.ir.dims import unprimed


@dataclass(frozen=True)
class Rule:
    """One rule by position, of row i and column j of a matrix.

    kind: "band" (|i - j| <= size), "blocks" (i and j in one block of `size`), "lower" (j <= i), "off diagonal" (i != j), or
    "edges": those of a graph alone, as positions i * columns + j in rising order.
    at: the dims of rows and columns. shape: of edges, the one size of each of the two. words: as the spec writes it.
    """

    kind: str
    at: tuple[str, str]
    size: int = 0
    edges: tuple[int, ...] = ()
    shape: tuple[int, int] = (0, 0)
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
    """What is kept of one parameter. mask: the name of the argument that says it; rules: all of the same rows and columns;
    pruning: None where rules say it all."""

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


def rule_mask(rule: Rule, sizes: Mapping[str, int]) -> Any:
    """The mask [rows, columns] of a rule: True where an element is kept."""
    rows, columns = (sizes[unprimed(d)] for d in rule.at)
    i, j = np.arange(rows)[:, None], np.arange(columns)
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
            flat = np.zeros(rows * columns, bool)
            flat[list(rule.edges)] = True
            return flat.reshape(rows, columns)
    raise ValueError(f"there is no rule {rule.kind}")


def mask(support: Support, dims: tuple[str, ...], sizes: Mapping[str, int]) -> Any:
    """The mask of a parameter's rules alone, True where it is kept, with as many axes as `dims` (1 where none matters)."""
    shape = [1] * len(dims)
    if not support.rules:
        return np.ones(shape, bool)
    row, column = (dims.index(d) for d in support.rules[0].at)
    kept = np.logical_and.reduce([rule_mask(rule, sizes) for rule in support.rules])
    shape[row], shape[column] = kept.shape
    return kept.reshape(shape) if row < column else kept.T.reshape(shape)
