"""Every mapping, by case: matrix and vector states, then cells."""

from __future__ import annotations

from tests.peers.cells import CELLS
from tests.peers.linear import LINEAR

PEERS = (*LINEAR, *CELLS)
