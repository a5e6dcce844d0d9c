"""Systems of equations written out: equal to what a library says, whatever the order of the equations."""

from __future__ import annotations

import numpy as np
import pytest

from seqc.ir.graph import leaf
from seqc.passes.blocks.eliminate import by_formula, gauss_jordan
from seqc.semantics.evaluate import evaluate

M, B = leaf("param", "m", ("H", "N", "N'")), leaf("param", "b", ("N", "V"))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("how", ["drawn", "in another order", "singular"])
def test_written_out_is_solved(size: int, how: str) -> None:
    rng = np.random.default_rng(size)
    m, b = rng.standard_normal((3, size, size)), rng.standard_normal((size, 2))
    if how == "in another order":  # no pivot stands where an elimination without exchanges looks for it
        m = np.roll(np.eye(size) + np.triu(m, 1), 1, axis=1)
    if how == "singular":
        m[1] = 0.0
    for made in [gauss_jordan, by_formula][: 1 + (size <= 2)]:
        x, logdet = made(M, B, "N", "N'", size)
        found = evaluate({"x": x, "logdet": logdet}, {M: m, B: b}, {"H": 3, "N": size, "V": 2})
        good = [0, 2] if how == "singular" else [0, 1, 2]
        want = np.linalg.solve(m[good], np.broadcast_to(b, (len(good), size, 2)))
        np.testing.assert_allclose(found["x"][good], want, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found["logdet"][good], np.linalg.slogdet(m[good])[1], rtol=1e-9, atol=1e-11)
        assert how != "singular" or not np.isfinite(found["x"][1]).all()
