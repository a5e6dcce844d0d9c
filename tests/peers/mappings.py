"""Every mapping, by family."""

from __future__ import annotations

from tests.peers.cells import GATED
from tests.peers.complex_states import COMPLEX
from tests.peers.layers import LAYERS
from tests.peers.linear import LINEAR
from tests.peers.units import UNITS

PEERS = (*LINEAR, *GATED, *UNITS, *LAYERS, *COMPLEX)
