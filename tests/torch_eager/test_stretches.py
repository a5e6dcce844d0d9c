"""A call without gradients runs one stretch of steps after the other on a CPU, with the results of the whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import seqc
from seqc.check.sampling import sample, sample_sizes
from seqc.emit.names import safe_name
from seqc.frontend.elaborate import load

BOUNDS = (0, 3, 70, 133, 200)


@pytest.mark.parametrize("how", [{}, {"reverse": True}, {"cu_seqlens": torch.tensor(BOUNDS)}], ids=["plain", "reverse", "pack"])
@pytest.mark.parametrize("spec", ["mamba", "fsmn", "lru"])
def test_stretches_are_the_sequence(spec: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = seqc.compile(spec, backend="torch").module
    program = load(spec)
    sizes = sample_sizes(program, batch=len(BOUNDS) - 1 if "cu_seqlens" in how else 2)
    arrays, _ = sample(program, sizes, 200, seed=1, rows=1 if "cu_seqlens" in how else None)
    given = {safe_name(name): torch.tensor(x) for name, x in arrays.items()}
    monkeypatch.setattr(module, "_STRETCH", 1)  # element: stretches of one block
    calls: list[int] = []
    forward = module._forward_torch
    monkeypatch.setattr(module, "_forward_torch", lambda *x: calls.append(1) or forward(*x))
    with torch.no_grad():
        stretched = getattr(module, program.name)(**given, **how)
    assert len(calls) == (6 if "cu_seqlens" in how else 4)  # in blocks of 64
    monkeypatch.setattr(module, "_STRETCH", 1 << 40)
    with torch.no_grad():
        whole = getattr(module, program.name)(**given, **how)
    for one, other in zip(stretched, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


SHORT = """spec brief
dim D
input x[D], a[D] in [0, 1]
state h[D] = 0
h = a * h[t-1] + x
output y[D] = h - 0.5 * h[t-1] + x[t-1]
"""


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 63, 64, 65])
def test_a_short_sequence_is_a_block_of_its_own_length(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = seqc.compile(SHORT, backend="torch").module
    torch.manual_seed(steps)
    x, a, h0 = (torch.rand(2, *n, 3, dtype=torch.float64, requires_grad=True) for n in ((steps,), (steps,), ()))
    rows: list[int] = []
    blocks = module._blocks
    monkeypatch.setattr(module, "_blocks", lambda x, n, repeat: rows.append(n) or blocks(x, n, repeat))
    got = module.brief(x, a, h_0=h0)
    h, before, wanted = h0, torch.zeros_like(h0), list[torch.Tensor]()
    for now, factor in zip(x.unbind(1), a.unbind(1), strict=True):
        new = factor * h + now
        wanted.append(new - 0.5 * h + before)
        h, before = new, now
    want = torch.stack(wanted, 1)
    torch.testing.assert_close((got.y, got.h_T), (want, h))
    weights = torch.rand_like(want)
    for one, other in zip(*(torch.autograd.grad((weights * y).sum() + z.sin().sum(), (x, a, h0))
                            for y, z in ((got.y, got.h_T), (want, h))), strict=True):
        torch.testing.assert_close(one, other)
    assert set(rows) == {min(64, max(steps, 4))}
