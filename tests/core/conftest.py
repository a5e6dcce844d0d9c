"""Random values for the leaves of a graph, for tests that evaluate it."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from seqc.ir.graph import Node, leaves

Values = dict[Node, np.ndarray]
SIZES = {"B": 2, "H": 2, "K": 3, "V": 4, "D": 3, "t": 4, "s": 4}


@pytest.fixture
def sizes() -> dict[str, int]:
    """Extents of the dims that the tests use."""
    return dict(SIZES)


@pytest.fixture
def values() -> Callable[..., Values]:
    """values(outputs, seed): an array per leaf, standard normal or a coin."""

    def make(outputs: Mapping[str, Node], seed: int = 0) -> Values:
        rng = np.random.default_rng(seed)
        found: Values = {}
        for n in sorted(leaves(outputs.values()), key=lambda n: (n.text("kind"), n.text("name"), n.number("offset"))):
            shape = [SIZES[d.rstrip("'")] for d in n.names("shape")]
            drawn = rng.standard_normal(shape)
            found[n] = drawn > 0 if n.dtype == "bool" else drawn
        return found

    return make
