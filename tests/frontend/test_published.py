"""Specs whose mathematics has a second form: the recurrence against that form, written as plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.frontend.elaborate import load
from seqc.semantics import reference

SPECS = Path(__file__).parents[2] / "specs"
B, T, H, P, N = 2, 53, 2, 3, 4


@pytest.fixture
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    gates = -rng.exponential(0.2, (B, T, H))
    gates[:, 20] = -np.inf  # a reset
    normal = rng.standard_normal
    return {"x": normal((B, T, H, P)), "g": gates, "Bt": normal((B, T, H, N)), "Ct": normal((B, T, H, N))}


def test_a_window_is_the_difference_of_two_states(arrays: dict[str, Any]) -> None:
    """W_t = h_t - (decays of the last R steps) h_{t-R}, with h the whole recurrence."""
    window = 16
    want = np.zeros((B, T, H, P))
    for t in range(T):
        for s in range(max(0, t - window + 1), t + 1):
            decay = np.exp(arrays["g"][:, s + 1 : t + 1].sum(1))
            reads = np.einsum("bhn,bhn->bh", arrays["Ct"][:, t], arrays["Bt"][:, s])
            want[:, t] += (decay * reads)[..., None] * arrays["x"][:, s]
    found = reference.run(load(SPECS / "stuffed_mamba_window.seq"), arrays)
    np.testing.assert_allclose(found["y"], want, rtol=0, atol=1e-12)


def test_a_state_is_limited_at_its_boundaries(arrays: dict[str, Any]) -> None:
    program = load(SPECS / "stuffed_mamba.seq")
    rng = np.random.default_rng(1)
    steps, limit = 300, 0.5
    given = {
        "x": rng.standard_normal((B, steps, 1, H, P)), "delta": rng.standard_normal((B, steps, 1, H)),
        "Bt": rng.standard_normal((B, steps, 1, N)), "Ct": rng.standard_normal((B, steps, 1, N)),
        "A_log": np.full((1, H), -5.0), "bias": np.zeros((1, H)), "skip": np.zeros((1, H)), "limit": np.full((1, H), limit),
    }
    h, want = np.zeros((B, H, P, N)), []
    for t in range(steps):
        dt = np.log1p(np.exp(given["delta"][:, t, 0]))
        write = (dt[..., None] * given["x"][:, t, 0])[..., None] * given["Bt"][:, t, 0][:, None, None]
        h = np.exp(-dt * np.exp(-5.0))[..., None, None] * h + write
        want.append(np.einsum("bhpn,bn->bhp", h, given["Ct"][:, t, 0]))
        if t in (127, 255):
            size = np.sqrt((h * h).sum((-2, -1), keepdims=True))
            assert (size > limit).all()
            h = h * limit / size
    found = reference.run(program, given)
    np.testing.assert_allclose(found["y"][:, :, 0], np.stack(want, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["h_T"][:, 0], h, rtol=0, atol=1e-12)
