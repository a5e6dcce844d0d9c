"""Arguments at the ends of what a spec declares, and how far a backend's answers are from float64's.

In: a program. Out: `Case`s of `tests.harness`, built from the declared ranges alone, and errors by name. A log decay is an
input that may be anything in [-inf, 0]; a coefficient is one in [0, 1], [-1, 1] or [0, 2].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from seqc.ir.arguments import argument_table
from seqc.ir.program import Program, TensorDecl
from seqc.semantics import reference
from tests.harness import EXTREMES, Case, draw

Call = Callable[..., Any]


def is_log_decay(d: TensorDecl) -> bool:
    """Whether an input's range is that of a log decay."""
    return (d.range.lo, d.range.hi) == (-np.inf, 0.0)


def is_coefficient(d: TensorDecl) -> bool:
    """Whether an input's range is that of a coefficient or a rate."""
    return (d.range.lo, d.range.hi) in ((0.0, 1.0), (-1.0, 1.0), (0.0, 2.0))


def drawn(program: Program, steps: int, level: float | None = None, one_key: bool = False, seed: int = 0) -> Case:
    """level: of all log decays, and of coefficients the exponential; None mixes all levels, and the ends of ranges.

    one_key: whether every step has the same unit vectors, and rates at the upper end.
    """
    case = draw(program, steps, seed=seed)
    rng = np.random.default_rng(seed + 1)
    for name, d in program.inputs.items():
        x = case.arrays[name]
        if d.unit and one_key:
            x = np.broadcast_to(x[:, :1], x.shape).copy()
        elif is_log_decay(d) and not one_key:
            x = rng.choice(EXTREMES, x.shape) if level is None else np.full(x.shape, level)
        elif is_coefficient(d):
            ends = (d.range.lo, d.range.hi, 0.5, 1.0, 1e-9)
            whole = np.full(x.shape, d.range.hi if one_key else max(np.exp(level or 0.0), d.range.lo))
            x = rng.choice(ends, x.shape) if level is None and not one_key else whole
        case.arrays[name] = x
    return case


def errors(case: Case, forward: Call, backward: Call, dtype: torch.dtype) -> dict[str, float]:
    """Of every result, and of every gradient as d.NAME: the largest error over the largest element.

    The reference gets the arguments as the dtype holds them. What is not finite on either side is an infinite error.
    """
    arguments = {name: torch.tensor(case.arrays[name], dtype=dtype) for name in case.arguments}
    weights = {name: torch.tensor(case.cotangents[name], dtype=dtype) for name in case.results}
    with torch.no_grad():
        got = forward(*arguments.values())
        found = dict(zip(case.results, got, strict=False))
        gradients = backward(*arguments.values(), *got[len(weights) :], *weights.values())
    derived = [one.name for one in argument_table(case.program) if one.gradient]
    found |= dict(zip((f"d.{name}" for name in derived), gradients, strict=True))
    with np.errstate(all="ignore"):
        want, slopes = reference.gradients(
            case.program, *({k: x.double().numpy() for k, x in part.items()} for part in (arguments, weights))
        )
    want |= {f"d.{name}": x for name, x in slopes.items()}
    return {name: _error(x.double().numpy(), want[name]) for name, x in found.items()}


def _error(got: Any, want: Any) -> float:
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return float("inf") if not np.array_equal(got, want) else 0.0
    size = np.abs(want).max(initial=0.0)
    return float(np.abs(got - want).max(initial=0.0) / size) if size else float(np.abs(got).max(initial=0.0))
