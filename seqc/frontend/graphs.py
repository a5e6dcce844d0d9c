"""Random graphs of networkx as the edges of a matrix. In: a graph's name, its numbers, the sizes of its layers. Out: positions.

This module owns networkx, and imports it when a graph is asked for. An edge joins its two nodes in both directions, and no
node is joined with itself: the matrix of a layer is symmetric, and its diagonal is left out. Of several layers, a matrix is the
block that leads from one to another; layers that are no neighbours are joined by blocks that skip those between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def edges(kind: str, sizes: Sequence[int], target: int, source: int, given: Mapping[str, float]) -> tuple[int, ...]:
    """Positions of the edges from one layer to another, rising: i * (size of the source) + j where node i of the layer `target`
    and node j of the layer `source` are joined.

    sizes: how many nodes each layer has, one layer after the other. ValueError where networkx refuses the numbers.
    """
    import networkx as nx

    spec = KINDS[kind]
    numbers = {name: int(given[name]) for name in spec.counts if name in given}
    numbers.setdefault("seed", 0)
    try:
        graph = getattr(nx, spec.generator)(sum(sizes), **numbers, **{name: given[name] for name in spec.shares})
    except nx.NetworkXError as wrong:
        raise ValueError(str(wrong)) from wrong
    rows, columns = sizes[target], sizes[source]
    top, left = sum(sizes[:target]), sum(sizes[:source])
    joined = ((i - top, j - left) for edge in graph.edges if edge[0] != edge[1] for i, j in (edge, edge[::-1]))
    return tuple(sorted(i * columns + j for i, j in joined if 0 <= i < rows and 0 <= j < columns))
