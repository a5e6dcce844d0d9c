"""Runs a `Plan` on numpy, stage after stage, each by the float64 oracle: checks the cutting of programs alone.

In: a plan, arrays as for the oracle. Out: the same results and gradients as the oracle's. No backend and no emitted text takes
part; how arrays are moved onto diagonals, and rows of tables read and written, is written here once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
        if stage.walk == "ones":
            shape = next(np.shape(values[name])[:2] for name, d in _inputs(values))
            return {name: np.ones(shape) for name in program.output_decls}, {}
        return reference.gradients(program, given, weights, None, reverse)
    inner = stage.inner
    match stage.walk:
        case "both":
            return both_ways.joined(
                program, given, weights, lambda _, x, d, back: run_plan(inner, x, d or {}, None, reverse != back))
        case "diagonals":
            return _diagonals(stage, inner, given, weights, reverse)
    return _rows(stage, inner, given, weights, reverse)


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


def _rows(stage: Stage, inner: Plan, given: Arrays, weights: Arrays, reverse: bool) -> Answer:
    """A loop over the steps: rows are read in front of the inner plan, and written behind it."""
    program, core = stage.program, inner.program
    steps = next(np.shape(given[name])[1] for name in program.inputs)
    if not steps:  # nothing is moved
        return reference.gradients(program, given, weights, None, reverse)
    order = list(range(steps))[:: -1 if (program.direction == "backward") != reverse else 1]
    tables = {one.state: np.moveaxis(np.array(given[f"{one.state}_0"]), one.axis, 1) for one in stage.tables}
    states = {name: given[f"{name}_0"] for name in core.states}
    fixed = {name: given[name] for name in core.params if name in given}

    def row(name: str, t: int) -> Any:
        return np.asarray(given[name])[:, t]

    def at(place: Any, i: int) -> tuple[Any, ...]:
        return (np.arange(len(place)), place[:, i] if place.ndim > 1 else place)

    kept, outputs = {}, {name: [None] * steps for name in program.output_decls}
    for t in order:
        now = {name: row(name, t)[:, None] for name in core.inputs if name in given}
        for one in stage.tables:
            for rows in one.reads:
                place = row(rows.place, t)
                lead = np.arange(len(place)) if place.ndim == 1 else np.arange(len(place))[:, None]
                now[rows.name] = tables[one.state][lead, place][:, None]
        kept[t] = {**now, **fixed, **{f"{name}_0": x for name, x in states.items()}}
        made, _ = run_plan(inner, kept[t], {})
        states = {name: made[f"{name}_T"] for name in core.states}
        for name in program.output_decls:
            outputs[name][t] = made[name][:, 0]
        for one in stage.tables:
            place, new = row(one.written.place, t), made[one.written.name][:, 0]
            for i in range(place.shape[1] if place.ndim > 1 else 1):
                tables[one.state][at(place, i)] = new[:, i] if place.ndim > 1 else new
    results = {name: np.stack(x, 1) for name, x in outputs.items()} | {f"{name}_T": x for name, x in states.items()}
    results |= {f"{one.state}_T": np.moveaxis(tables[one.state], 1, one.axis) for one in stage.tables}
    if not weights:
        return results, {}
    d_tables = {one.state: np.moveaxis(np.array(weights[f"{one.state}_T"]), one.axis, 1) for one in stage.tables}
    d_states = {name: weights[f"{name}_T"] for name in core.states}
    slopes = {name: np.zeros(np.shape(given[name])) for name, d in program.inputs.items() if d.gradient}
    slopes |= {name: np.zeros(np.shape(x)) for name, x in fixed.items()}
    for t in reversed(order):
        now = {name: weights[name][:, t, None] for name in program.output_decls}
        for one in stage.tables:
            place = row(one.written.place, t)
            taken = []
            for i in reversed(range(place.shape[1] if place.ndim > 1 else 1)):
                taken.append(d_tables[one.state][at(place, i)])
                d_tables[one.state][at(place, i)] = 0.0
            now[one.written.name] = (np.stack(taken[::-1], 1) if place.ndim > 1 else taken[0])[:, None]
        now |= {f"{name}_T": x for name, x in d_states.items()}
        _, found = run_plan(inner, kept[t], now)
        d_states = {name: found[f"{name}_0"] for name in core.states}
        for name in set(found) & set(slopes):
            if name in program.inputs:
                slopes[name][:, t] += found[name][:, 0]
            else:
                slopes[name] = slopes[name] + found[name]
        for one in stage.tables:
            for rows in one.reads:
                place = row(rows.place, t)
                for i in range(place.shape[1] if place.ndim > 1 else 1):
                    d = found[rows.name][:, 0]
                    d_tables[one.state][at(place, i)] += d[:, i] if place.ndim > 1 else d
    slopes |= {f"{name}_0": x for name, x in d_states.items()}
    return results, slopes | {f"{one.state}_0": np.moveaxis(d_tables[one.state], 1, one.axis) for one in stage.tables}


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


def _diagonals(stage: Stage, inner: Plan, given: Arrays, weights: Arrays, reverse: bool) -> Answer:
    program, wave = stage.program, inner.program
    plane = program.plane
    assert plane is not None
    found = {edge.state: edge for edge in edges(program)}

    def turned(name: str, x: Any) -> Any:
        decl = {**program.inputs, **program.output_decls}[name]
        x = np.flip(x, 1) if (program.direction == "backward") != reverse else x
        return np.flip(x, 2) if plane.backward and plane.dim in decl.dims else x

    def turned_state(x: Any) -> Any:
        return np.flip(x, 1) if plane.backward else x

    whole = next(name for name in program.inputs if name not in {edge.start for edge in found.values()})
    steps, width = np.shape(given[whole])[1:3]
    moves = _Moves(steps, width)
    arrays = {name: given[name] for name in wave.params}
    late = np.minimum(np.arange(steps + width - 1), steps - 1)
    for read in reads(program):
        arrays[read.name] = _taken(turned(read.source, given[read.source]), moves.read(read.back, read.beside))
    for edge in found.values():
        start = turned(edge.start, given[edge.start])
        arrays[edge.start] = start[:, late]
        if edge.crosses:
            arrays[edge.crossed] = np.concatenate([given[f"{edge.corner}_0"][:, None], start[:, :-1]], 1)[:, late]
    arrays[inside(program)] = np.broadcast_to(moves.within.astype(float), (len(given[whole]), *moves.within.shape)).copy()
    held = {edge.held: edge.state for edge in found.values()}
    starts = {name: turned_state(given[f"{held.get(name, name)}_0"]) for name in wave.states}
    arrays = {name: arrays[name] for name in (*wave.inputs, *wave.params)} | {f"{name}_0": x for name, x in starts.items()}
    corners = {edge.corner: edge for edge in found.values() if edge.crosses}
    ends = {edge.end for edge in found.values()}
    cells = np.arange(steps)[:, None] + np.arange(width)  # the diagonal of each cell
    d_wave: dict[str, Any] = {}
    for name in wave.output_decls if weights else ():
        x = turned(name, weights[name])
        d = np.zeros((len(x), steps + width - 1, *x.shape[2:]))
        if name in ends:
            d[:, width - 1 :] = x
        else:
            d[:, cells, np.arange(width)] = x
        d_wave[name] = d
    for name in wave.states if weights else ():
        x = weights[f"{held.get(name, name)}_T"]
        d_wave[f"{name}_T"] = np.zeros(np.shape(x)) if name in held else turned_state(x)
    made, slopes = run_plan(inner, arrays, d_wave)
    results = {}
    for name in program.output_decls:
        x = made[name]
        results[name] = turned(name, x[:, width - 1 :] if name in ends else x[:, cells, np.arange(width)])
    for name in program.states:
        edge = corners.get(name)
        results[f"{name}_T"] = turned_state(made[f"{name}_T"]) if edge is None else turned(edge.start, given[edge.start])[:, -1]
    if not weights:
        return results, {}
    out: dict[str, Any] = {name: slopes[name] for name in wave.params if name in slopes}
    for read in reads(program):
        if program.inputs[read.source].gradient:
            at = np.where(moves.within, moves.read(read.back, read.beside), -1)
            d = _given_back(np.shape(given[read.source]), at, slopes[read.name])
            out[read.source] = out.get(read.source, 0.0) + turned(read.source, d)
    for edge in found.values():
        d = np.zeros(np.shape(given[edge.start]))
        if edge.reads:
            d += slopes[edge.start][:, :steps]
        if edge.crosses:
            d[:, :-1] += slopes[edge.crossed][:, 1:steps]
            d[:, -1] += weights[f"{edge.corner}_T"]
            out[f"{edge.corner}_0"] = slopes[edge.crossed][:, 0]
        out[edge.start] = turned(edge.start, d)
    for name in program.states:
        if name not in corners:
            more = [x for x, state in held.items() if state == name and x in wave.states]
            out[f"{name}_0"] = turned_state(slopes[f"{name}_0"] + sum(slopes[f"{x}_0"] for x in more))
    return results, out


__all__ = ["run_plan"]
