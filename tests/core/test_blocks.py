"""Which block form the cost model takes, and what a refusal of a form says. `torch_eager/test_specs` runs every block."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate

SPECS = Path(__file__).parents[2] / "specs"
CHOSEN = {
    **dict.fromkeys(("gla", "delta_rule", "retention", "linear_attention", "kda", "mlstm"), "chunkwise"),
    "hgrn": "scan",
    **dict.fromkeys(("lstm", "gru", "lif"), "step"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_chosen(name: str) -> None:
    """The form that the cost model takes on its own."""
    assert lower(elaborate.load(SPECS / f"{name}.seq")).form == CHOSEN[name]


def test_refusal_quotes_the_term() -> None:
    with pytest.raises(Unsupported, match="is applied to a value that depends on the state: `u >= 1`"):
        lower(elaborate.load(SPECS / "lif.seq"), "scan")
