"""What a caller may wish of a compile. In: nothing. Out: `Options`, which loads nothing of the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """What a caller may wish; None leaves a choice to the compiler. dims: extents that are fixed at compile time; save_states:
    steps between states that are kept for the backward pass, instead of what the spec's `checkpoint` says."""

    backend: str = "auto"
    target: str = "sm_90"
    dims: Mapping[str, int] = field(default_factory=dict)
    form: str | None = None
    rows: int | None = None
    save_states: int | None = None


DEFAULTS = Options()
