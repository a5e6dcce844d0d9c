"""How a case of another project meets a spec: names and layout as torch functions, so that gradients flow through them.

In: a case's arrays (float64) and a way to run a spec. Out: the peer's outputs and the gradients by the peer's own
inputs, as this project computes them. `tests/peers/mappings.py` lists the mappings; nothing here knows a case by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
Tensors = dict[str, torch.Tensor]
Arrays = Mapping[str, Any]
Run = Callable[[Arrays, Arrays], tuple[dict[str, Any], dict[str, Any]]]  # (arrays, cotangents) -> results, gradients


@dataclass(frozen=True)
class Peer:
    """One case by one spec.

    arrays: the peer's inputs -> the spec's inputs, params and initial states (NAME_0), by differentiable operations.
    results: (the spec's outputs and final states NAME_T, the peer's inputs) -> the peer's outputs.
    """

    case: str
    spec: str
    arrays: Callable[[Tensors], Tensors]
    results: Callable[[Tensors, Tensors], Tensors]

    @property
    def path(self) -> Path:
        """The spec's file: a published system, or a peer's own variant of one."""
        published = ROOT / "specs" / f"{self.spec}.seq"
        return published if published.exists() else Path(__file__).parent / "specs" / f"{self.spec}.seq"


def renamed(case: str, spec: str, arrays: str, results: str) -> Peer:
    """A case that differs from the spec in names only: "theirs=ours" pairs, or one name where they agree."""
    there = [(pair.split("=")[0], pair.split("=")[-1]) for pair in arrays.split()]
    back = [(pair.split("=")[0], pair.split("=")[-1]) for pair in results.split()]
    return Peer(
        case,
        spec,
        lambda given: {ours: given[theirs] for theirs, ours in there},
        lambda found, _: {theirs: found[ours] for theirs, ours in back},
    )


def load(case: str) -> dict[str, dict[str, Any]]:
    """The case's arrays: "in", "out", "cot" (a cotangent for every output) and "grad" (no entry for a constant)."""
    groups: dict[str, dict[str, Any]] = {"in": {}, "out": {}, "cot": {}, "grad": {}}
    with np.load(CASES / f"{case}.npz") as file:
        for key in file.files:
            group, _, name = key.partition(".")
            groups[group][name] = np.asarray(file[key], dtype=np.float64)
    return groups


def evaluate(peer: Peer, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the peer's outputs, the gradients by its inputs) as `run` computes them on the spec."""
    data = load(peer.case)
    given = {name: torch.tensor(x, requires_grad=name in data["grad"]) for name, x in data["in"].items()}
    arrays = peer.arrays(given)
    values = {name: x.detach().numpy() for name, x in arrays.items()}
    found = {name: torch.tensor(x, requires_grad=True) for name, x in run(values, {})[0].items()}
    outputs = peer.results(found, given)
    total = sum((torch.tensor(data["cot"][name]) * x).sum() for name, x in outputs.items())
    assert isinstance(total, torch.Tensor)
    total.backward()
    cotangents = {name: x.grad.numpy() for name, x in found.items() if x.grad is not None}
    gradients = run(values, cotangents)[1]
    through = [name for name, x in arrays.items() if x.requires_grad]
    torch.autograd.backward([arrays[n] for n in through], [torch.tensor(gradients[n]) for n in through])
    by_input = {name: given[name].grad for name in data["grad"]}
    return (
        {name: x.detach().numpy() for name, x in outputs.items()},
        {name: np.zeros(given[name].shape) if g is None else g.numpy() for name, g in by_input.items()},
    )
