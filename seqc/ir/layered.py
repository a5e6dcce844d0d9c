"""A place for every node of a graph on a page: layers from top to bottom, edges that cross little and run nearly straight.

In: sizes of nodes, and edges of a graph without cycles. Out: the centre of every node, and the bends of every edge. The method
is the layered drawing of Sugiyama, Tagawa and Toda (1981): layers by longest paths, places in a layer by medians of neighbours,
dummy nodes where an edge crosses a layer. Graphviz draws larger graphs better; this one needs nothing installed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

Key: TypeAlias = Hashable
GAP = 18.0  # between neighbours of a layer, in the units of the sizes
SWEEPS = 12


@dataclass(frozen=True)
class Drawing:
    """centres: node -> (x, y); bends: (from, to) -> points on the way, without both ends; size: width and height."""

    centres: Mapping[Key, tuple[float, float]]
    bends: Mapping[tuple[Key, Key], Sequence[tuple[float, float]]]
    size: tuple[float, float]


def drawn(sizes: Mapping[Key, tuple[float, float]], edges: Sequence[tuple[Key, Key]], apart: float = 34.0) -> Drawing:
    """The places. sizes: node -> (width, height), in topological order; apart: between two layers."""
    rank = _ranks(list(sizes), edges)
    layers: list[list[Key]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for one in sizes:
        layers[rank[one]].append(one)
    chains, short = _chains(edges, rank, layers)
    above: dict[Key, list[Key]] = {one: [] for layer in layers for one in layer}
    below: dict[Key, list[Key]] = {one: [] for layer in layers for one in layer}
    for a, b in short:
        above[b].append(a)
        below[a].append(b)
    width = {one: sizes[one][0] if one in sizes else 4.0 for layer in layers for one in layer}
    _order(layers, above, below)
    x = _across(layers, above, below, width)
    left = min((x[one] - width[one] / 2 for one in x), default=0.0)
    heights = [max((sizes[one][1] for one in layer if one in sizes), default=0.0) for layer in layers]
    tops = [sum(heights[:i]) + apart * i for i in range(len(layers))]
    level = {one: tops[i] + heights[i] / 2 for i, layer in enumerate(layers) for one in layer}
    place = {one: (x[one] - left, level[one]) for one in x}
    size = max((place[one][0] + width[one] / 2 for one in x), default=0.0), sum(heights) + apart * max(len(layers) - 1, 0)
    bends = {edge: [place[one] for one in chain] for edge, chain in chains.items()}
    return Drawing({one: place[one] for one in sizes}, bends, size)


def _ranks(order: Sequence[Key], edges: Sequence[tuple[Key, Key]]) -> dict[Key, int]:
    """The layer of every node: below all that it reads, and what reads nothing right above its first reader."""
    reads: dict[Key, list[Key]] = {one: [] for one in order}
    users: dict[Key, list[Key]] = {one: [] for one in order}
    for a, b in edges:
        reads[b].append(a)
        users[a].append(b)
    rank: dict[Key, int] = {}
    for one in order:
        rank[one] = max((rank[a] + 1 for a in reads[one]), default=0)
    for one in reversed(order):
        if users[one] and not reads[one]:
            rank[one] = min(rank[b] for b in users[one]) - 1
    return rank


def _chains(
    edges: Sequence[tuple[Key, Key]], rank: Mapping[Key, int], layers: list[list[Key]]
) -> tuple[dict[tuple[Key, Key], list[Key]], list[tuple[Key, Key]]]:
    """Edges through dummy nodes, one in each layer between; and the short edges that these make."""
    chains: dict[tuple[Key, Key], list[Key]] = {}
    short: list[tuple[Key, Key]] = []
    for a, b in dict.fromkeys(edges):
        chain: list[Key] = [("bend", a, b, i) for i in range(rank[a] + 1, rank[b])]
        for i, one in enumerate(chain):
            layers[rank[a] + 1 + i].append(one)
        chains[a, b] = chain
        short += list(zip([a, *chain], [*chain, b], strict=True))
    return chains, short


def _order(layers: list[list[Key]], above: Mapping[Key, list[Key]], below: Mapping[Key, list[Key]]) -> None:
    """Sort every layer by the medians of what it is joined with, downwards and upwards in turn; keep the least crossings."""
    best, least = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for i in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            fixed = {one: k for k, one in enumerate(layers[i - 1 if down else i + 1])}
            joined = above if down else below
            own = {one: k for k, one in enumerate(layers[i])}
            wish = {one: median([fixed[x] for x in joined[one]] or [own[one]]) for one in layers[i]}
            layers[i].sort(key=wish.__getitem__)
        count = _crossings(layers, below)
        if count < least:
            best, least = [list(layer) for layer in layers], count
    layers[:] = best


def _crossings(layers: Sequence[Sequence[Key]], below: Mapping[Key, list[Key]]) -> int:
    count = 0
    for upper, lower in pairwise(layers):
        place = {one: k for k, one in enumerate(lower)}
        ends = [place[b] for a in upper for b in sorted(below[a], key=place.__getitem__)]
        count += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return count


def _across(
    layers: Sequence[Sequence[Key]], above: Mapping[Key, list[Key]], below: Mapping[Key, list[Key]], width: Mapping[Key, float]
) -> dict[Key, float]:
    """Where every node stands in its layer: drawn to the mean of its neighbours, as far as the order leaves room."""
    x: dict[Key, float] = {}
    for layer in layers:
        at = 0.0
        for one in layer:
            x[one] = at + width[one] / 2
            at += width[one] + GAP
    for sweep in range(2 * SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            joined = above if sweep % 2 == 0 else below
            wanted = {}
            for one in layer:
                near = joined[one] or above[one] or below[one]
                wanted[one] = sum(x[n] for n in near) / len(near) if near else x[one]
            x.update(_fitted(layer, wanted, width))
    return x


def _fitted(layer: Sequence[Key], wanted: Mapping[Key, float], width: Mapping[Key, float]) -> dict[Key, float]:
    """Places in the given order without overlap, least squares from those wanted (pool adjacent violators)."""
    offset, at = [], 0.0
    for k, one in enumerate(layer):
        at += (width[layer[k - 1]] + width[one]) / 2 + GAP if k else 0.0
        offset.append(at)
    pools: list[tuple[float, int]] = []  # (mean, members)
    for one, off in zip(layer, offset, strict=True):
        pools.append((wanted[one] - off, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    means = [mean for mean, members in pools for _ in range(members)]
    return {one: mean + off for one, mean, off in zip(layer, means, offset, strict=True)}
