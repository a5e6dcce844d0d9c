"""Running a case through an emitted file, and comparing it with the peer's numbers.

Tolerance: 1e-9 of the largest element (at least 1). Both sides compute in float64, in different orders of summation, over
at most 48 steps and sums of a few dozen terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import seqc
from tests.peers.mapping import Arrays, Peer, Run, evaluate, load

TOLERANCE = 1e-9


def compare(peer: Peer, run: Run) -> None:
    """Outputs and gradients of the peer against those of `run`; AssertionError names the first that differs."""
    data = load(peer.case)
    outputs, gradients = evaluate(peer, run)
    assert outputs.keys() == data["out"].keys()
    for name, want in {**data["out"], **{f"d.{name}": x for name, x in data["grad"].items()}}.items():
        got = gradients[name[2:]] if name.startswith("d.") else outputs[name]
        assert got.shape == want.shape, name
        scale = np.abs(want).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * scale, err_msg=name)


def emitted(peer: Peer, backend: str) -> Run:
    """The public function that the compiler emits for the case's spec, run on tensors in float64."""
    recurrence = seqc.compile(peer.path, backend)

    def run(arrays: Arrays, cotangents: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        given = {name: torch.tensor(x, requires_grad=True) for name, x in arrays.items()}
        found = recurrence(**given)._asdict()
        weighed = [(x * torch.tensor(cotangents[name])).sum() for name, x in found.items() if name in cotangents]
        gradients: dict[str, Any] = {}
        if weighed:
            parts = torch.autograd.grad(torch.stack(weighed).sum(), list(given.values()), allow_unused=True)
            gradients = {name: torch.zeros_like(given[name]).numpy() if g is None else g.numpy()
                         for name, g in zip(given, parts, strict=True)}
        return {name: x.detach().numpy() for name, x in found.items()}, gradients

    return run
