"""Random graphs of networkx as the edges of a square matrix. In: a graph's name, its numbers, its size. Out: positions.

This module owns networkx, and imports it when a graph is asked for. An edge joins its two nodes in both directions, and no
node is joined with itself: the matrix is symmetric, and its diagonal is left out.
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


KINDS = {
    "watts_strogatz": GraphKind("watts_strogatz_graph", ("k", "seed"), ("p",)),
    "barabasi_albert": GraphKind("barabasi_albert_graph", ("m", "seed"), ()),
    "erdos_renyi": GraphKind("gnp_random_graph", ("seed",), ("p",)),
}


def edges(kind: str, n: int, given: Mapping[str, float]) -> tuple[int, ...]:
    """Positions i * n + j of the edges of a graph with n nodes, rising. ValueError where networkx refuses the numbers."""
    import networkx as nx

    spec = KINDS[kind]
    numbers = {name: int(given[name]) for name in spec.counts if name in given}
    numbers.setdefault("seed", 0)
    try:
        graph = getattr(nx, spec.generator)(n, **numbers, **{name: given[name] for name in spec.shares})
    except nx.NetworkXError as wrong:
        raise ValueError(str(wrong)) from wrong
    return tuple(sorted({at for i, j in graph.edges for at in (i * n + j, j * n + i) if i != j}))


__all__ = ["KINDS", "GraphKind", "edges"]
