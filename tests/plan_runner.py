"""Runs a `Plan` on numpy, stage after stage, each by the float64 oracle: checks the cutting of programs alone.

In: a plan, arrays as for the oracle. Out: the same results and gradients as the oracle's. No backend and no emitted text takes
part; how arrays are moved onto diagonals, and rows of tables read and written, is written here once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqc.analysis.boundaries import counters
from seqc.analysis.derivative import vjp
from seqc.ir.graph import leaf
from seqc.ir.plan import Plan, Stage
from seqc.ir.two_axes import edges, inside, reads
from seqc.semantics import both_ways, packed_arrays, reference
from seqc.semantics.evaluate import evaluate, to_order

Arrays = Mapping[str, Any]
Answer = tuple[dict[str, Any], dict[str, Any]]


def run_plan(
    plan: Plan, arrays: Arrays, cotangents: Arrays, cu_seqlens: Sequence[int] | None = None, reverse: bool = False
) -> Answer:
    """(results, gradients by NAME and NAME_0); every argument, NAME_0 too, and every cotangent must be given."""
    if cu_seqlens is not None:
        return packed_arrays.joined(plan.program, arrays, cotangents, list(cu_seqlens), lambda _, given, weights: run_plan(
            plan, given, weights or {}, None, reverse))
    values, weights, results = dict(arrays), dict(cotangents), dict[str, Any]()
    for stage in plan.stages:
        made, _ = _run(stage, values, {}, reverse)
        values |= {name: made[name] for name in stage.program.output_decls}
        results |= made
    gradients: dict[str, Any] = {}
    for stage in reversed(plan.stages):
        zeros = {name: np.zeros(np.shape(results[name])) for name in stage.writes}
        _, slopes = _run(stage, values, {name: weights.get(name, zeros[name]) for name in stage.writes}, reverse)
        own = {name for other in plan.stages for name in other.program.output_decls}
        for name, d in slopes.items():
            table = weights if name in own else gradients
            table[name] = table.get(name, 0.0) + d
    return {name: results[name] for name in _written(plan)}, gradients


def _written(plan: Plan) -> tuple[str, ...]:
    return (*plan.program.output_decls, *(f"{name}_T" for name in plan.program.states))


def _run(stage: Stage, values: Arrays, weights: Arrays, reverse: bool) -> Answer:
    program = stage.program
    given = {name: values[name] for name in (*stage.reads, *(f"{name}_0" for name in program.states)) if name in values}
    if stage.inner is None:
        if stage.walk == "once":
            return _once(stage, given, weights)
        if stage.walk == "clocks":
            return _clocks(stage, values, weights, reverse)
        if stage.walk == "ones":
            shape = next(np.shape(values[name])[:2] for name, d in _inputs(values))
            return {name: np.ones(shape) for name in program.output_decls}, {}
        return reference.gradients(program, given, weights, None, reverse)
    inner = stage.inner
    match stage.walk:
        case "both":
            return both_ways.joined(
                program, given, weights, lambda _, x, d, back: run_plan(inner, x, d or {}, None, reverse != back))
        case "newton":
            return run_plan(inner, given, weights, None, reverse)
        case "diagonals":
            plane = _Diagonals(stage, inner, given, reverse)
            made, slopes = run_plan(inner, plane.arguments(), plane.cotangents(weights) if weights else {})
            return plane.results(made), plane.slopes(slopes, weights) if weights else {}
        case "groups":
            slow = _Groups(stage, inner, given, reverse)
            made, slopes = run_plan(inner, slow.arguments(), slow.cotangents(weights) if weights else {})
            return slow.results(made), slow.slopes(slopes, weights) if weights else {}
    walk = _Rows(stage, inner, given, reverse)
    if not walk.steps:  # nothing is moved
        return reference.gradients(program, given, weights, None, reverse)
    results = walk.forward()
    return results, walk.backward(weights) if weights else {}


def _inputs(values: Arrays) -> list[tuple[str, Any]]:
    return [(name, x) for name, x in values.items() if np.ndim(x) > 1]


def _once(stage: Stage, given: Arrays, weights: Arrays) -> Answer:
    program = stage.program
    sizes = reference.sizes_of(program, given)
    params = {d.leaf(): np.asarray(given[name]) for name, d in program.params.items()}
    decls = program.output_decls
    found = evaluate(program.outputs, params, sizes)
    results = {name: np.array(to_order(found[name], n.dims, decls[name].axes, sizes)) for name, n in program.outputs.items()}
    cotangents = {name: leaf("cot", name, d.axes) for name, d in decls.items()}
    slopes = vjp(program.outputs, cotangents, list(params))
    cots = {n: weights.get(name, np.zeros(results[name].shape)) for name, n in cotangents.items()}
    names = {n.text("name"): n for n in params if program.params[n.text("name")].gradient}
    values = evaluate({name: slopes[n] for name, n in names.items()}, {**params, **cots}, sizes)
    return results, {name: to_order(values[name], slopes[n].dims, n.names("shape"), sizes) for name, n in names.items()}


def _clocks(stage: Stage, values: Arrays, weights: Arrays, reverse: bool) -> Answer:
    program, results = stage.program, dict[str, Any]()
    backwards = (program.direction == "backward") != reverse
    steps = next(np.shape(x)[1] for _, x in _inputs({n: x for n, x in values.items() if not n.endswith("_0")}))
    for name, period in counters(program).items():
        counts = np.asarray(values[f"{name}_0"])[:, None] + np.arange(steps + 1)
        results[f"{name}_T"] = counts[:, -1] % period
        for out, n in program.outputs.items():
            if n is program.states[name].leaf():
                before = counts[:, :-1] % period
                results[out] = before[:, ::-1] if backwards else before
    held = {f"{name}_0": weights[f"{name}_T"] * (steps == 0) for name in program.states if weights}
    return results, held


class _Groups:
    """A loop over the steps of each sequence that tells where its groups end."""

    def __init__(self, stage: Stage, inner: Plan, given: Arrays, reverse: bool) -> None:
        assert stage.groups is not None
        self.stage, self.groups, self.inner, self.given = stage, stage.groups, inner.program, given
        self.backwards = (stage.program.direction == "backward") != reverse
        count = self.turned(given[self.groups.count])
        self.batch, self.steps = count.shape
        self.many = -(-self.steps // self.groups.steps)
        ends = [[t for t in range(self.steps) if count[b, t] + 1 >= self.groups.steps] for b in range(self.batch)]
        self.ends = [(b, n, t) for b, own in enumerate(ends) for n, t in enumerate(own)]
        self.last = [[sum(e <= t for e in own) for t in range(-1, self.steps)] for own in ends]  # whose group's answer holds

    def turned(self, x: Any) -> Any:
        """An array with steps in the order of the scan."""
        return np.flip(x, 1) if self.backwards else np.asarray(x)

    def arguments(self) -> dict[str, Any]:
        """What the inner plan is given."""
        found = {x: self.given[x] for x in self.given if x in self.inner.params or x.endswith("_0")}
        whole = np.zeros((self.batch, self.many))
        for b, n, _ in self.ends:
            whole[b, n] = 1.0
        for name, (source, back) in self.groups.picked.items():
            x = self.turned(self.given[source])
            rows = np.array(x[:, :1].repeat(self.many, 1))
            for b, n, t in self.ends:
                rows[b, n] = x[b, t - back] if 0 <= t - back < self.steps else 0
            found[name] = rows
        return found | {self.groups.whole: whole}

    def results(self, made: Arrays) -> dict[str, Any]:
        """The stage's, of those of the inner plan."""
        found = {f"{s}_T": made[f"{s}_T"] for s in self.stage.program.states}
        for name, (state, before) in self.groups.held.items():
            rows = np.concatenate([np.asarray(self.given[f"{state}_0"])[:, None], made[self.groups.made[state]]], 1)
            at = np.array(self.last)[:, :-1] if before else np.array(self.last)[:, 1:]
            found[name] = self.turned(rows[np.arange(self.batch)[:, None], at])
        return found

    def cotangents(self, weights: Arrays) -> dict[str, Any]:
        """Those of the inner plan's results; what holds from the start is kept in `first`."""
        found = {f"{s}_T": weights[f"{s}_T"] for s in self.stage.program.states}
        dims = {s: np.shape(self.given[f"{s}_0"])[1:] for s in self.stage.program.states}
        sums = {s: np.zeros((self.batch, self.many + 1, *shape)) for s, shape in dims.items()}
        for name, (state, before) in self.groups.held.items():
            d = self.turned(weights[name])
            for b in range(self.batch):
                for t in range(self.steps):
                    sums[state][b, self.last[b][t if before else t + 1]] += d[b, t]
        self.first = {s: x[:, 0] for s, x in sums.items()}
        return found | {self.groups.made[s]: x[:, 1:] for s, x in sums.items()}

    def slopes(self, found: Arrays, weights: Arrays) -> dict[str, Any]:
        """Gradients of what the stage is given."""
        out = {x: d for x, d in found.items() if x in self.inner.params}
        out |= {f"{s}_0": found[f"{s}_0"] + self.first[s] for s in self.stage.program.states}
        for name, (source, back) in self.groups.picked.items():
            if name in found:
                d = np.zeros(np.shape(self.given[source]))
                for b, n, t in self.ends:
                    if 0 <= t - back < self.steps:
                        d[b, t - back] += found[name][b, n]
                out[source] = out.get(source, 0.0) + self.turned(d)
        return out


class _Rows:
    """A loop over the steps: rows are read in front of the inner plan, and written behind it."""

    def __init__(self, stage: Stage, inner: Plan, given: Arrays, reverse: bool) -> None:
        self.stage, self.inner, self.given = stage, inner, given
        self.program, self.core = stage.program, inner.program
        self.steps = next(np.shape(given[name])[1] for name in self.program.inputs)
        backwards = (self.program.direction == "backward") != reverse
        self.order = list(range(self.steps))[:: -1 if backwards else 1]
        self.fixed = {name: given[name] for name in self.core.params if name in given}
        self.kept: dict[int, dict[str, Any]] = {}

    def row(self, name: str, t: int) -> Any:
        """An input at a step."""
        return np.asarray(self.given[name])[:, t]

    def tables(self, arrays: Arrays, end: str) -> dict[str, Any]:
        """Copies of the tables of a call, [B, rows, ..]. end: what their names end with."""
        return {one.state: np.moveaxis(np.array(arrays[f"{one.state}{end}"]), one.axis, 1) for one in self.stage.tables}

    def named(self, tables: Arrays, end: str) -> dict[str, Any]:
        """Tables as arrays of a call again."""
        return {f"{one.state}{end}": np.moveaxis(tables[one.state], 1, one.axis) for one in self.stage.tables}

    def forward(self) -> dict[str, Any]:
        """Results. What the inner plan was given at each step is kept."""
        tables = self.tables(self.given, "_0")
        states = {name: self.given[f"{name}_0"] for name in self.core.states}
        outputs: dict[str, list[Any]] = {name: [None] * self.steps for name in self.program.output_decls}
        for t in self.order:
            now = {name: self.row(name, t)[:, None] for name in self.core.inputs if name in self.given}
            for one in self.stage.tables:
                for rows in one.reads:
                    place = self.row(rows.place, t)
                    lead = np.arange(len(place)) if place.ndim == 1 else np.arange(len(place))[:, None]
                    now[rows.name] = tables[one.state][lead, place][:, None]
            self.kept[t] = {**now, **self.fixed, **{f"{name}_0": x for name, x in states.items()}}
            made, _ = run_plan(self.inner, self.kept[t], {})
            states = {name: made[f"{name}_T"] for name in self.core.states}
            for name in self.program.output_decls:
                outputs[name][t] = made[name][:, 0]
            for one in self.stage.tables:
                new = made[one.written.name][:, 0]
                for at, of in _places(self.row(one.written.place, t)):
                    tables[one.state][at] = new[of]
        results = {name: np.stack(x, 1) for name, x in outputs.items()} | {f"{name}_T": x for name, x in states.items()}
        return results | self.named(tables, "_T")

    def backward(self, weights: Arrays) -> dict[str, Any]:
        """Gradients, after `forward`."""
        program = self.program
        d_tables = self.tables(weights, "_T")
        d_states = {name: weights[f"{name}_T"] for name in self.core.states}
        slopes = {name: np.zeros(np.shape(self.given[name])) for name, d in program.inputs.items() if d.gradient}
        slopes |= {name: np.zeros(np.shape(x)) for name, x in self.fixed.items()}
        for t in reversed(self.order):
            now = {name: weights[name][:, t, None] for name in program.output_decls}
            now |= {one.written.name: self.taken(d_tables[one.state], self.row(one.written.place, t))[:, None]
                    for one in self.stage.tables}
            now |= {f"{name}_T": x for name, x in d_states.items()}
            _, found = run_plan(self.inner, self.kept[t], now)
            d_states = {name: found[f"{name}_0"] for name in self.core.states}
            for name in set(found) & set(slopes):
                if name in program.inputs:
                    slopes[name][:, t] += found[name][:, 0]
                else:
                    slopes[name] = slopes[name] + found[name]
            for one in self.stage.tables:
                for rows in one.reads:
                    for at, of in _places(self.row(rows.place, t)):
                        d_tables[one.state][at] += found[rows.name][:, 0][of]
        return slopes | {f"{name}_0": x for name, x in d_states.items()} | self.named(d_tables, "_0")

    @staticmethod
    def taken(table: Any, place: Any) -> Any:
        """The cotangents of rows that were written, the last one first: what was written before them leaves no trace."""
        found = []
        for at, _ in reversed(_places(place)):
            found.append(table[at])
            table[at] = 0.0
        return np.stack(found[::-1], 1) if place.ndim > 1 else found[0]


def _places(place: Any) -> list[tuple[Any, Any]]:
    """(the rows of a table, the part of an array of rows) for each row that an index tells, in order."""
    lead = np.arange(len(place))
    if place.ndim == 1:
        return [((lead, place), slice(None))]
    return [((lead, place[:, i]), (slice(None), i)) for i in range(place.shape[1])]


class _Moves:
    """Where each entry of the arrays over diagonals comes from: arrays of flat positions, -1 for zero."""

    def __init__(self, steps: int, width: int) -> None:
        d, u = np.arange(steps + width - 1)[:, None], np.arange(width)
        self.steps, self.width, self.rows, self.columns = steps, width, d - u, np.broadcast_to(u, (len(d), width))
        self.within = (self.rows >= 0) & (self.rows < steps)

    def read(self, back: int, beside: int) -> Any:
        t, u = np.clip(self.rows, 0, self.steps - 1) - back, self.columns - beside
        return np.where((t >= 0) & (t < self.steps) & (u >= 0) & (u < self.width), t * self.width + u, -1)


def _taken(x: Any, at: Any) -> Any:
    flat = np.reshape(x, (x.shape[0], -1, *x.shape[3:]))
    return np.where((at >= 0).reshape(*at.shape, *[1] * (x.ndim - 3)), flat[:, at], 0.0)


def _given_back(shape: tuple[int, ...], at: Any, d: Any) -> Any:
    out = np.zeros((shape[0], shape[1] * shape[2], *shape[3:]))
    for b in range(shape[0]):
        np.add.at(out[b], at[at >= 0], d[b][at >= 0])
    return out.reshape(shape)


class _Diagonals:
    """The arrays of a plane, and of its diagonals."""

    def __init__(self, stage: Stage, inner: Plan, given: Arrays, reverse: bool) -> None:
        self.program, self.wave, self.given = stage.program, inner.program, given
        assert self.program.plane is not None
        self.plane = self.program.plane
        self.backwards = (self.program.direction == "backward") != reverse
        self.edges = {edge.state: edge for edge in edges(self.program)}
        self.held = {edge.held: edge.state for edge in self.edges.values()}
        self.corners = {edge.corner: edge for edge in self.edges.values() if edge.crosses}
        self.ends = {edge.end for edge in self.edges.values()}
        self.whole = next(x for x in self.program.inputs if x not in {edge.start for edge in self.edges.values()})
        self.steps, self.width = np.shape(given[self.whole])[1:3]
        self.moves = _Moves(self.steps, self.width)
        self.cells = np.arange(self.steps)[:, None] + np.arange(self.width)  # the diagonal of each cell

    def turned(self, name: str, x: Any) -> Any:
        """An array of inputs or outputs, with both axes in the order of the recurrence; and back."""
        decl = {**self.program.inputs, **self.program.output_decls}[name]
        x = np.flip(x, 1) if self.backwards else x
        return np.flip(x, 2) if self.plane.backward and self.plane.dim in decl.dims else x

    def turned_state(self, x: Any) -> Any:
        """The same of a state, along the second axis."""
        return np.flip(x, 1) if self.plane.backward else x

    def arguments(self) -> dict[str, Any]:
        """What the inner plan is given."""
        given, wave, moves = self.given, self.wave, self.moves
        arrays = {name: given[name] for name in wave.params}
        late = np.minimum(np.arange(self.steps + self.width - 1), self.steps - 1)
        for read in reads(self.program):
            arrays[read.name] = _taken(self.turned(read.source, given[read.source]), moves.read(read.back, read.beside))
        for edge in self.edges.values():
            start = self.turned(edge.start, given[edge.start])
            arrays[edge.start] = start[:, late]
            if edge.crosses:
                arrays[edge.crossed] = np.concatenate([given[f"{edge.corner}_0"][:, None], start[:, :-1]], 1)[:, late]
        within = moves.within.astype(float)
        arrays[inside(self.program)] = np.broadcast_to(within, (len(given[self.whole]), *within.shape)).copy()
        starts = {name: self.turned_state(given[f"{self.held.get(name, name)}_0"]) for name in wave.states}
        return {x: arrays[x] for x in (*wave.inputs, *wave.params)} | {f"{name}_0": x for name, x in starts.items()}

    def cotangents(self, weights: Arrays) -> dict[str, Any]:
        """Those of the inner plan's results."""
        found: dict[str, Any] = {}
        for name in self.wave.output_decls:
            x = self.turned(name, weights[name])
            d = np.zeros((len(x), self.steps + self.width - 1, *x.shape[2:]))
            if name in self.ends:
                d[:, self.width - 1 :] = x
            else:
                d[:, self.cells, np.arange(self.width)] = x
            found[name] = d
        for name in self.wave.states:
            x = weights[f"{self.held.get(name, name)}_T"]
            found[f"{name}_T"] = np.zeros(np.shape(x)) if name in self.held else self.turned_state(x)
        return found

    def results(self, made: Arrays) -> dict[str, Any]:
        """The plane's, of those of the inner plan."""
        found = {}
        for name in self.program.output_decls:
            x = made[name]
            cells = x[:, self.width - 1 :] if name in self.ends else x[:, self.cells, np.arange(self.width)]
            found[name] = self.turned(name, cells)
        for name in self.program.states:
            edge = self.corners.get(name)
            found[f"{name}_T"] = (
                self.turned_state(made[f"{name}_T"]) if edge is None else self.turned(edge.start, self.given[edge.start])[:, -1]
            )
        return found

    def slopes(self, slopes: Arrays, weights: Arrays) -> dict[str, Any]:
        """The plane's gradients, of those of the inner plan."""
        given, moves = self.given, self.moves
        out: dict[str, Any] = {name: slopes[name] for name in self.wave.params if name in slopes}
        for read in reads(self.program):
            if self.program.inputs[read.source].gradient:
                at = np.where(moves.within, moves.read(read.back, read.beside), -1)
                d = _given_back(np.shape(given[read.source]), at, slopes[read.name])
                out[read.source] = out.get(read.source, 0.0) + self.turned(read.source, d)
        for edge in self.edges.values():
            d = np.zeros(np.shape(given[edge.start]))
            if edge.reads:
                d += slopes[edge.start][:, : self.steps]
            if edge.crosses:
                d[:, :-1] += slopes[edge.crossed][:, 1 : self.steps]
                d[:, -1] += weights[f"{edge.corner}_T"]
                out[f"{edge.corner}_0"] = slopes[edge.crossed][:, 0]
            out[edge.start] = self.turned(edge.start, d)
        for name in self.program.states:
            if name not in self.corners:
                more = [x for x, state in self.held.items() if state == name and x in self.wave.states]
                out[f"{name}_0"] = self.turned_state(slopes[f"{name}_0"] + sum(slopes[f"{x}_0"] for x in more))
        return out


__all__ = ["run_plan"]
