"""Values at several rates, by the judge: groups of steps, reads from one rate to another. In: a spec, a step. Out: values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqc.frontend import syntax
from tests.fuzz.places import at_places
from tests.fuzz.reading import Spec
from tests.fuzz.values import BATCH, Value

if TYPE_CHECKING:
    from tests.fuzz.one_step import Step


class Groups:
    """How many steps of its group each sequence has had before a step, for each way: (steps, of the first)."""

    def __init__(self, spec: Spec, arrays: Mapping[str, Tensor], batch: int) -> None:
        self.ways = {name: (s.steps, s.first or s.steps) for name, s in spec.down.items()}
        self.names = {way: "down_" + "_".join(map(str, dict.fromkeys(way))) for way in self.ways.values()}
        self.had: dict[tuple[int, int], Tensor] = {}
        for (steps, first), name in self.names.items():
            start = torch.full((batch,), float(steps - first), dtype=torch.float64)
            self.had[steps, first] = arrays.get(f"{name}_0", start).detach()

    def due(self, name: str) -> Value:
        """Whether this step is the last of its group, for a slow state."""
        steps, _ = self.ways[name]
        return Value(self.had[self.ways[name]] + 1 >= steps, (BATCH,))

    def step(self) -> None:
        """One step more."""
        for (steps, first), had in self.had.items():
            self.had[steps, first] = torch.where(had + 1 >= steps, 0.0, had + 1)

    def last(self) -> dict[str, Value]:
        """The counts that the next call goes on with."""
        return {f"{self.names[way]}_T": Value(had, (BATCH,)) for way, had in self.had.items()}


def last_values(step: Step, e: syntax.Call, at: Mapping[str, int]) -> Value:
    """`down[P](y)`: the last |P| values that y has had, the oldest first."""
    (dim,), (name,) = e.dims or (), e.args
    assert isinstance(name, syntax.Name)
    apart, size = step.spec.rate(name.id), step.run.sizes[dim.id]
    rows = [step.named(name.id, apart * (size - 1 - j), at) for j in range(size)]
    axes = tuple(dict.fromkeys(d for row in rows for d in row.dims))
    return Value(torch.stack([row.to(axes, step.run.sizes) for row in rows]), (dim.id, *axes))


def part_of_now(step: Step, e: syntax.Call, at: Mapping[str, int]) -> Value:
    """`up[P](u)`: the part of a slow state that belongs to this step of its group."""
    (dim,), (of,) = e.dims or (), e.args
    name = of.id if isinstance(of, syntax.Name) else of.name.id if isinstance(of, syntax.Subscript) else ""
    steps, _ = way = step.run.groups.ways[name]
    each_has = steps // step.run.sizes[dim.id]
    place = Value(torch.div(step.run.groups.had[way], each_has, rounding_mode="floor").long(), (BATCH,))
    return at_places(step.value(of, at, {}), place, dim.id)
