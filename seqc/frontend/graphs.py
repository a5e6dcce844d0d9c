"""Random graphs of networkx as the edges of a square matrix. In: a graph's name, its numbers, its size. Out: positions.

This module owns networkx, and imports it when a graph is asked for. An edge joins its two nodes in both directions, and no
node is joined with itself: the matrix is symmetric, and its diagonal is left out. Of a graph of several layers, a matrix is the
block that leads from one layer to another; layers that are no neighbours are joined by blocks that skip those between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GraphKind:
    """A kind of random graph: networkx's generator, the whole numbers that it takes, and its probabilities."""

    generator: str
    counts: tuple[str, ...]
    shares: tuple[str, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """What has no default: everything but the seed."""
        return (*(name for name in self.counts if name != "seed"), *self.shares)

    @property
    def whole(self) -> tuple[str, ...]:
        """The options that are whole numbers."""
        return (*self.counts, *LAYERED)


LAYERED = ("layers", "source", "target")


KINDS = {
    "watts_strogatz": GraphKind("watts_strogatz_graph", ("k", "seed"), ("p",)),
    "barabasi_albert": GraphKind("barabasi_albert_graph", ("m", "seed"), ()),
    "erdos_renyi": GraphKind("gnp_random_graph", ("seed",), ("p",)),
}


def edges(kind: str, n: int, given: Mapping[str, float]) -> tuple[int, ...]:
    """Positions i * n + j of the edges of a graph with n nodes, rising. ValueError where networkx refuses the numbers.

    layers: the graph has n nodes in each of so many layers, one after the other; kept is row i, column j where node i of layer
    `target` and node j of layer `source` are joined.
    """
    import networkx as nx

    layers, source, target = (int(given.get(name, least)) for name, least in zip(LAYERED, (1, 0, 0), strict=True))
    if layers < 1 or not (source < layers and target < layers):
        raise ValueError(f"layers are counted from 0, and there are {layers}")
    spec = KINDS[kind]
    numbers = {name: int(given[name]) for name in spec.counts if name in given}
    numbers.setdefault("seed", 0)
    try:
        graph = getattr(nx, spec.generator)(n * layers, **numbers, **{name: given[name] for name in spec.shares})
    except nx.NetworkXError as wrong:
        raise ValueError(str(wrong)) from wrong
    joined = ((i - target * n, j - source * n) for edge in graph.edges if edge[0] != edge[1] for i, j in (edge, edge[::-1]))
    return tuple(sorted(i * n + j for i, j in joined if 0 <= i < n and 0 <= j < n))
