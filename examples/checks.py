"""An emitted file against the oracle. In: a spec and the module of its emitted file. Out: relative errors.

The oracle runs the spec step by step in float64 and differentiates it step by step: it shares no block form and no
emitted code with what it judges.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from seqc.check.sampling import sample
from seqc.frontend.elaborate import load
from seqc.semantics.reference import gradients

SIZES = {"B": 2, "H": 2, "K": 16, "V": 12}


def errors(spec: Path, module: ModuleType, dtype: torch.dtype, steps: int) -> tuple[float, float]:
    """(error of the results, error of the gradients), the largest difference over the largest element of a tensor.

    Cotangents are random on outputs and final states; arguments are rounded to the dtype before either side sees them.
    """
    program = load(spec)
    arrays, cotangents = sample(program, SIZES, steps, seed=3)
    tensors = {name: torch.tensor(x).to(dtype).requires_grad_() for name, x in arrays.items()}
    weights = {name: torch.tensor(x).to(dtype) for name, x in cotangents.items()}
    want, want_gradients = gradients(program, numbers(tensors), numbers(weights))
    got = getattr(module, program.name)(**tensors)._asdict()
    torch.autograd.backward([got[name] for name in weights], list(weights.values()))
    found = {name: x.grad for name, x in tensors.items() if x.grad is not None}
    assert found.keys() == tensors.keys(), "an argument has no gradient"
    return worst(numbers(got), want), worst(numbers(found), want_gradients)


def numbers(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors as float64 arrays."""
    return {name: x.detach().double().numpy() for name, x in tensors.items()}


def worst(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """The largest relative error of any tensor."""
    return max(float(np.abs(got[name] - x).max() / np.abs(x).max()) for name, x in want.items())
