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
