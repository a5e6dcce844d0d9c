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


def test_a_decay_that_q_and_k_have_no_dim_of() -> None:
    """Of heads that share q and k each has a matrix of its own, and so one product; a decay along the columns of v is a factor
    of rows and columns, level by level."""
    shared, along_values = (
        {*lower(elaborate.load(path), "chunkwise").names.values()}
        for path in (SPECS / "mamba2.seq", SPECS.parent / "tests" / "recurrences" / "value_decay_delta.seq")
    )
    assert "A" in shared and "A_1" not in shared
    assert "A_1" in along_values
