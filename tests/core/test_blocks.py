"""Every block form of every spec, and of recurrences that nobody tuned the compiler for, against the oracle in float64.

`specs/` are the published ones, `tests/recurrences/` are others. A form that a recurrence cannot take must be refused
with a reason. Tolerance: 1e-11 relative to the largest element, float64 roundoff times path lengths of at most 40 steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.both_ways import one_run
from seqc.ir.program import Program
from seqc.semantics import reference
from tests.block_runner import run_block

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "specs").glob("*.seq")) + sorted((ROOT / "tests" / "recurrences").glob("*.seq"))
SIZES = {"B": 2, "H": 2, "K": 5, "V": 3, "D": 4, "N": 3, "J": 3, "M": 4, "P": 3, "G": 2, "L": 3, "E": 3, "F": 2}
ROWS = 8
TOLERANCE = 1e-11


def sample(program: Program, steps: int, hard: bool, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays within the declared ranges (hard: also their ends) and cotangents of every result."""
    rng = np.random.default_rng(seed)
    sizes = {**SIZES, **{d.name: d.default for d in program.dims.values() if d.default}}

    def normal(*axes: str) -> Any:
        return rng.standard_normal([sizes[a.rstrip("'")] if a != "T" else steps for a in axes])

    arrays = {}
    for name, d in program.inputs.items():
        x = normal("B", "T", *d.dims)
        if d.unit:
            x /= np.linalg.norm(x, axis=-1, keepdims=True)
            if hard and steps:
                x[:, :] = x[:, :1]  # one key for ever
        lo, hi = d.range.lo, d.range.hi
        if np.isfinite(lo) and np.isfinite(hi):
            x = lo + (hi - lo) * rng.random(x.shape)
            if hard:
                x = np.where(rng.random(x.shape) < 0.3, rng.choice([lo, hi], x.shape), x)
        elif hi == 0:
            x = -np.abs(x)
            if hard:
                x = np.where(rng.random(x.shape) < 0.5, rng.choice([0.0, -1e-8, -20.0, -np.inf], x.shape), x)
        arrays[name] = x
    arrays |= {name: 0.4 * normal(*d.axes) for name, d in program.params.items()}
    arrays |= {f"{name}_0": normal("B", *d.dims) for name, d in program.states.items()}
    cotangents = {name: normal("B", "T", *d.dims) for name, d in program.output_decls.items()}
    cotangents |= {f"{name}_T": normal("B", *d.dims) for name, d in program.states.items()}
    return arrays, cotangents


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
@pytest.mark.parametrize("form", ["step", "scan", "chunkwise"])
def test_form(path: Path, form: str) -> None:
    program = one_run(elaborate.load(path))
    try:
        block = lower(program, form, ROWS if form != "step" else None)
    except Unsupported as refusal:
        assert form != "step"
        assert "cannot run as" in str(refusal)
        return
    assert block.form == form
    with np.errstate(all="ignore"):
        for steps, hard in [(0, False), (1, True), (ROWS, True), (ROWS + 1, False), (2 * ROWS + 1, True), (40, False)]:
            arrays, cotangents = sample(program, steps, hard)
            want, want_gradients = reference.gradients(program, arrays, cotangents)
            got, got_gradients = run_block(block, arrays, cotangents)
            for name, x in {**want, **{f"d.{k}": g for k, g in want_gradients.items()}}.items():
                y = got[name] if name in got else got_gradients[name[2:]]
                scale = np.abs(x).max(initial=1.0)
                np.testing.assert_allclose(y, x, rtol=0, atol=TOLERANCE * scale, err_msg=f"{name} at T={steps}")


def test_what_is_chosen() -> None:
    """The forms that the cost model takes on its own."""
    chosen = {p.stem: lower(elaborate.load(p)).form for p in PATHS}
    assert {chosen[n] for n in ("gla", "delta_rule", "retention", "linear_attention", "kda", "mlstm")} == {"chunkwise"}
    assert chosen["hgrn"] == "scan"
    assert {chosen[n] for n in ("lstm", "gru", "lif")} == {"step"}


def test_refusal_quotes_the_term() -> None:
    with pytest.raises(Unsupported, match="is applied to a value that depends on the state: `u >= 1`"):
        lower(elaborate.load(ROOT / "specs/lif.seq"), "scan")
