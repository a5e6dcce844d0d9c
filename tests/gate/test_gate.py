"""The gate: operator x backend x place. Each cell is printed and run against the operator's row, or refused with a reason.

`REFUSED` is the list of refusals, with what the backend says; a cell that is not listed must be served, and one that is
listed must be refused.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from tests.gate.cells import NODES
from tests.gate.running import SERVED, emits, run
from tests.triton import processes

ROOT = Path(__file__).parents[2]
CELLS = [(backend, place) for backend, places in SERVED.items() for place in places]
NO_LOOP = ("cumsum", "affine_scan", "max_scan", "tri_inv", "block_index")  # along a dim of the spec no spec makes any of them
INDEXED = ("gather", "scatter", "put", "as_real")  # plain torch reads by an index for all steps at once, before a kernel runs
REFUSED: dict[tuple[str, str, str], str] = {  # (backend, place, operator) -> the reason
    **{("cpu", place, name): f"the native CPU backend has no loop for operator '{name}'"
       for place in ("step", "loop") for name in NO_LOOP},
    **{("cpu", place, name): f"the native CPU backend has no loop for operator '{name}'"
       for place in ("step", "loop") for name in INDEXED},
    **{("triton", place, name): f"a GPU program computes no `{name}`" for place in SERVED["triton"] for name in INDEXED},
    **{("cpu", place, "as_place"): "the native CPU backend has no loop for operator 'gather'" for place in ("step", "loop")},
    **{("triton", place, "as_place"): "a GPU program computes no `as_real`" for place in SERVED["triton"]},
    **{("cpu", place, "expm"): "the native CPU backend has no loop for operator 'expm'" for place in ("step", "loop")},
    **{("triton", place, "expm"): "a GPU program computes no `expm`" for place in ("step", "loop", "block")},
    **{("triton", place, "tri_inv"): "a triangular system along N: a GPU program solves one along the steps of a block alone"
       for place in ("step", "loop", "block")},
}  # fmt: skip


@cache
def refusals(backend: str, place: str) -> dict[str, str]:
    """The operators that a backend does not print in a place, with what it says."""
    return {name: why for name in NODES[place] if (why := emits(backend, place, name))}


@pytest.mark.parametrize(("backend", "place"), CELLS)
def test_every_operator_is_printed_or_refused_as_listed(backend: str, place: str) -> None:
    listed = {name: why for (b, p, name), why in REFUSED.items() if (b, p) == (backend, place)}
    assert refusals(backend, place) == listed


@pytest.mark.parametrize(("backend", "place"), [cell for cell in CELLS if cell[0] != "triton"])
def test_every_printed_operator_is_its_row(backend: str, place: str, tmp_path: Path) -> None:
    run(backend, place, [name for name in NODES[place] if name not in refusals(backend, place)], tmp_path)


def test_every_printed_operator_is_its_row_in_triton() -> None:
    pytest.importorskip("triton")
    cells = [[place, [n for n in NODES[place] if n not in refusals("triton", place)]] for place in SERVED["triton"]]
    done = processes.run(["-m", "tests.gate.running"], json.dumps(cells))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stdout, done.stdout
