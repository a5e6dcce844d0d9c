"""Numbers of other projects' code, reproduced from specs: outputs and every gradient, by each way to run a spec.

Tolerance: 1e-9 of the largest element (at least 1). Both sides compute in float64, in different orders of summation, over
at most 48 steps and sums of a few dozen terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc import build, reference
from seqc.compiled import BACKENDS
from seqc.diagnostics import Unsupported
from seqc.driver import lower
from tests.block_runner import run_block
from tests.peers.mapping import CASES, Arrays, Peer, Run, evaluate, load
from tests.peers.mappings import PEERS

TOLERANCE = 1e-9
ROWS = 16
each = pytest.mark.parametrize("peer", PEERS, ids=lambda p: f"{p.case}-{p.spec}")


def compare(peer: Peer, run: Run) -> None:
    """Outputs and gradients of the peer against those of `run`."""
    data = load(peer.case)
    outputs, gradients = evaluate(peer, run)
    assert outputs.keys() == data["out"].keys()
    for name, want in {**data["out"], **{f"d.{name}": x for name, x in data["grad"].items()}}.items():
        got = gradients[name[2:]] if name.startswith("d.") else outputs[name]
        assert got.shape == want.shape, name
        scale = np.abs(want).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * scale, err_msg=name)


@each
def test_oracle(peer: Peer) -> None:
    program = build.load(peer.path)
    compare(peer, lambda arrays, cotangents: reference.gradients(program, arrays, cotangents))


@each
@pytest.mark.parametrize("form", ["step", "scan", "chunkwise"])
def test_block(peer: Peer, form: str) -> None:
    program = build.load(peer.path)
    try:
        block = lower(program, form, ROWS if form != "step" else None)
    except Unsupported as refusal:
        assert form != "step"
        assert "cannot run as" in str(refusal)
        return

    def run(arrays: Arrays, cotangents: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = reference.sizes_of(program, arrays)
        starts = {f"{n}_0": x for n, x in reference.initial_states(program, arrays, sizes).items()}
        ends = {f"{n}_T": cotangents.get(f"{n}_T", np.zeros_like(starts[f"{n}_0"])) for n in program.states}
        steps = next(np.shape(arrays[n])[1] for n in program.inputs)
        outputs = {n: cotangents.get(n, np.zeros([sizes["B"], steps, *(sizes[x] for x in d.dims)]))
                   for n, d in program.output_decls.items()}
        return run_block(block, {**arrays, **starts}, {**outputs, **ends})

    with np.errstate(all="ignore"):
        compare(peer, run)


@each
@pytest.mark.parametrize("backend", [name for name in ("torch", "cpu") if name in BACKENDS])
def test_emitted(peer: Peer, backend: str) -> None:
    """The emitted file as a user has it, in the form that the compiler chooses."""
    recurrence = seqc.compile(peer.path, backend)

    def run(arrays: Arrays, cotangents: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        given = {name: torch.tensor(x, requires_grad=True) for name, x in arrays.items()}
        found = recurrence(**given)._asdict()
        weighed = [(x * torch.tensor(cotangents[name])).sum() for name, x in found.items() if name in cotangents]
        gradients: Arrays = {}
        if weighed:
            parts = torch.autograd.grad(torch.stack(weighed).sum(), list(given.values()), allow_unused=True)
            gradients = {name: torch.zeros_like(given[name]).numpy() if g is None else g.numpy()
                         for name, g in zip(given, parts, strict=True)}
        return {name: x.detach().numpy() for name, x in found.items()}, dict(gradients)

    compare(peer, run)


def test_every_case_is_mapped() -> None:
    assert {path.stem for path in CASES.glob("*.npz")} == {peer.case for peer in PEERS}
