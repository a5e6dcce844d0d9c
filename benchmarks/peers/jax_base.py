"""What the recurrences in jax share: types, a scan over time, two stretches of a linear recurrence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax.numpy as jnp
from jax import lax

Arrays = Mapping[str, Any]
Results = dict[str, Any]
Run = Callable[[Arrays, Arrays], Results]  # inputs and params, initial states -> outputs


def over_time(step: Callable[..., Any], start: Any, *sequences: Any, reverse: bool = False) -> Any:
    """`lax.scan` over axis 1."""
    return jnp.swapaxes(lax.scan(step, start, tuple(jnp.swapaxes(x, 0, 1) for x in sequences), reverse=reverse)[1], 0, 1)


def affine(h: Any, now: Any) -> Any:
    """A step of a h + b, which is also the output."""
    h = now[0] * h + now[1]
    return h, h


def combine(first: Any, second: Any) -> Any:
    """The factor and the summand of two stretches of such steps, one after the other."""
    return first[0] * second[0], second[0] * first[1] + second[1]
