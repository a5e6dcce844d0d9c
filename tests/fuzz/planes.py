"""Specs of two axes, by the judge: a double loop over cells, each a step that may look back on either axis.

In: what a `Run` takes. Out: what it gives; rows of outputs by place, (t, u). A run goes on, and packs
are cut, along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from seqc.frontend import syntax
from tests.fuzz.judge import Run
from tests.fuzz.one_step import Step
from tests.fuzz.reading import Spec, mentions, own_dims, whole
from tests.fuzz.values import BATCH, Value, each, number

if TYPE_CHECKING:
    from tests.fuzz.judge import How, Tensors

Place = tuple[int, int]


class Cell(Step):
    """Everything that is computed at one place of two axes: how far back a read is, is a number for each of them."""

    def back(self, times: Sequence[syntax.Expr], at: Mapping[str, int]) -> Any:
        lags = dict.fromkeys(self.spec.axes, 0)
        for time in times:
            (axis,) = (a for a in self.spec.axes if mentions(time, a))
            lags[axis] = -whole(time, {**self.run.sizes, axis: 0}, at)
        return tuple(lags.values()) if any(lags.values()) else 0

    def input(self, name: str, lag: Any) -> Value:
        assert isinstance(self.run, PlaneRun)
        back = lag or (0, 0)
        place = tuple(now - far * way for now, far, way in zip(self.now, back, self.run.ways, strict=True))
        return self.run.cell_input(name, place, self.origin)


class PlaneRun(Run):
    """All cells, from the first on each axis to the last, or the other way."""

    def __init__(self, spec: Spec, arrays: Tensors, sizes: Mapping[str, int], how: How) -> None:
        super().__init__(spec, arrays, sizes, how)
        assert not spec.sites(), "noise on two axes has a key for each place"
        self.ways = self.ahead, -1 if spec.second_scan == "backward" else 1
        self.width = sizes[spec.second.upper()]

    def cell_input(self, name: str, place: tuple[int, ...], cell: Step) -> Value:
        """An input at a place: zero outside of the plane; what is fed, where a closed loop is not given it."""
        x, dims = self.inputs[name], (BATCH, *own_dims(self.spec.inputs[name]))
        t, u = place
        if not (0 <= t < self.steps and 0 <= u < self.width):
            return Value(torch.zeros([self.sizes[d.rstrip("'")] for d in dims], dtype=x.dtype), dims)
        here = Value(x[:, t, u], dims)
        if name not in self.spec.feedback or self.prompts is None or self.opened:
            return here
        if (name, place) not in self.fed:
            assert cell.now == place
            given, fed = Value(self.prompts[:, t, u], (BATCH,)), cell.value(self.spec.feedback[name], {}, {})
            self.fed[name, place] = self.spread(each(torch.where, given, here, fed), dims)
        return self.fed[name, place]

    def _turned(self, place: Place) -> tuple[int, ...]:
        """The place in arrays of the i-th and the j-th of a run."""
        sizes = self.steps, self.width
        return tuple(at if way > 0 else size - 1 - at for at, way, size in zip(place, self.ways, sizes, strict=True))

    def _edge(self, name: str, place: Place) -> Value:
        """What a state is before the first place of an axis, or of both: as a call passes it, or as the spec says."""
        decl, (first, second) = self.spec.states[name], self.spec.axes
        assert not decl.is_complex
        dims, (i, j) = (BATCH, *own_dims(decl)), place
        t, u = self._turned(place)
        key, axes, at = (f"{name}_{first}_{second}_0", (first, second), {}) if i < 0 and j < 0 else (
            (f"{name}_0", (first,), {second: j}) if i < 0 else (f"{name}_{second}_0", (second,), {first: i}))
        if key in self.arrays:
            x = self.arrays[key]
            return Value(x if len(axes) == 2 else x[:, u if i < 0 else t], dims)
        said = self.spec.before.get(name, {}).get(axes, decl.value)
        return self.spread(number(0.0) if said is None else Step(self, None, {}).value(said, at, {}), dims)

    def run(self) -> dict[str, Any]:
        self.fed: dict[tuple[str, tuple[int, ...]], Value] = {}
        kept: dict[str, dict[Place, Value]] = {n: {} for n in dict.fromkeys([*self.spec.states, *self.lags])}
        rows: dict[str, dict[Place, Value]] = {name: {} for name in self.spec.outputs}

        def reader(name: str, i: int, j: int) -> Callable[[Any], Value | None]:
            def read(lag: Any) -> Value | None:
                place = i - lag[0], j - lag[1]
                if min(place) < 0 and name in self.spec.states:
                    return self._edge(name, place)
                return kept[name].get(place)
            return read

        for i in range(self.steps):
            for j in range(self.width):
                t, u = self._turned((i, j))
                cell = Cell(self, (t, u), {n: reader(n, i, j) for n in kept})
                for name, o in self.spec.outputs.items():
                    rows[name][t, u] = cell.value(o.expr, {}, {}) if o.expr is not None and name not in self.spec.states and (
                        name not in self.spec.defined) else cell.named(name, 0, {})
                for name in kept:
                    kept[name][i, j] = cell.named(name, 0, {})
        return {**rows, **self._last(kept)}

    def _last(self, kept: Mapping[str, Mapping[Place, Value]]) -> dict[str, Any]:
        """What a plane that goes on, on either axis, begins with: rows along the other axis, in its own order."""
        found: dict[str, Any] = {}
        for name in self.spec.states:
            at = lambda i, j, name=name: self._edge(name, (i, j)) if min(i, j) < 0 else kept[name][i, j]  # noqa: E731
            ends = [at(self.steps - 1, j) for j in range(self.width)][:: self.ways[1]]
            sides = [at(i, self.width - 1) for i in range(self.steps)][:: self.ways[0]]
            for key, line in ((f"{name}_T", ends), (f"{name}_{self.spec.second}_T", sides)):
                if line:
                    found[key] = Value(torch.stack([x.x for x in line], 1), (BATCH, "places", *line[0].dims[1:]))
            found[f"{name}_{self.spec.axis}_{self.spec.second}_T"] = at(self.steps - 1, -1)
        return found


__all__ = ["PlaneRun"]
