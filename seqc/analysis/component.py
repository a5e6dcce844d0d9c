"""A group of states that depend on each other within one step, and what is known of how: the classifier's verdict.

The kinds: see `seqc.passes.classify`, which makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.analysis.affine import Affine
from seqc.analysis.boundaries import Hook
from seqc.ir.graph import Node


@dataclass(frozen=True)
class Component:
    """States that depend on each other. `forms` (state -> affine form of its update) is empty when there is none."""

    states: tuple[str, ...]
    kind: str
    why: str
    forms: Mapping[str, Affine]
    at: Node | None = None  # the node that decided a nonlinear or dense class
    hook: Hook | None = None  # of a single state that boundaries replace: the class is that of its own update
