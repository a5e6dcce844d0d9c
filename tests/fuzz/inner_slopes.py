"""`grad(E, x)` by the judge: E once more with a tensor of its own in the place of x, and torch's derivative by that tensor.

In: a step, a call. Out: a value with the dims of x, one for each sequence, which has derivatives itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from seqc.frontend import syntax
from tests.fuzz.reading import mentions
from tests.fuzz.values import BATCH, Value, real

if TYPE_CHECKING:
    from tests.fuzz.one_step import Step


def slope(step: Step, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
    """The derivative of the sum of E by x, at the positions that a fold holds."""
    of, by = e.args
    x = step.value(by, {}, bound)
    dims = (BATCH, *(d for d in x.dims if d != BATCH))
    with torch.enable_grad():
        own = real(x.to(dims, step.run.sizes)).clone()
        own = own if own.requires_grad else own.requires_grad_()
        stand = Value(own, dims)
        if isinstance(by, syntax.Name) and by.id in bound:
            total = step.value(of, at, {**bound, by.id: stand})
        else:
            name, lag = _read(step, by)
            total = step.with_another(name, lag, stand).value(of, at, bound)
        energy = real(total.x).sum()
        slopes = torch.autograd.grad(energy, own, create_graph=True, allow_unused=True) if energy.requires_grad else (None,)
    value = Value(torch.zeros_like(own) if slopes[0] is None else slopes[0], dims)
    for dim, position in at.items():
        if dim in value.dims:
            value = Value(value.x.select(value.dims.index(dim), position), tuple(d for d in value.dims if d != dim))
    return value


def _read(step: Step, by: syntax.Expr) -> tuple[str, Any]:
    """The name that x is of, and how many steps ago."""
    if isinstance(by, syntax.Name):
        return by.id, 0
    assert isinstance(by, syntax.Subscript)
    return by.name.id, step.back([i for i in by.items if any(mentions(i, axis) for axis in step.spec.axes)], {})


__all__ = ["slope"]
