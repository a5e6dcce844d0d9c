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


def test_momentum_by_a_longer_lag_says_what_has_a_block_form() -> None:
    """Nesterov's momentum, by the difference of two past states, and by a state that is this difference."""
    head = "spec a\ndim K, V\ninput q[K], k[K] unit[K], v[V], mu in [0, 1]\nstate S[K, V] = 0, M[K, V] = 0\n"
    lagged = head.replace(", M[K, V] = 0", "") + "A = S[t-1] + mu * (S[t-1] - S[t-2])\nS = A + k * (v - sum[K](k * A))\n"
    with pytest.raises(Unsupported, match=r"a state for S\[t-1\] - S\[t-2\], where that is read, has one"):
        lower(elaborate.load(lagged + "output o = sum[K](q * S)"), "chunkwise")
    stated = "A = S[t-1] + mu * M[t-1]\nM = mu * M[t-1] + k * (v - sum[K](k * A))\nS = S[t-1] + M\n"
    assert lower(elaborate.load(head + stated + "output o = sum[K](q * S)"), "chunkwise").form == "chunkwise"


def test_a_decay_that_q_and_k_have_no_dim_of() -> None:
    """Of heads that share q and k each has a matrix of its own, and so one product; a decay along the columns of v is a factor
    of rows and columns, level by level."""
    shared, along_values = (
        {*lower(elaborate.load(path), "chunkwise").names.values()}
        for path in (SPECS / "mamba2.seq", SPECS.parent / "tests" / "recurrences" / "value_decay_delta.seq")
    )
    assert "A" in shared and "A_1" not in shared
    assert "A_1" in along_values
