"""Two axes in numbers: a double loop over cells in float64 numpy, with gradients.

In: the program of the caller (`seqc.ir.two_axes`) and arrays. Out: arrays of results and gradients. It evaluates the
graph of one cell and shares nothing with the program over diagonals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqc.analysis.derivative import vjp
from seqc.ir.arguments import argument_table
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, leaf, leaves
from seqc.ir.program import Program, TensorDecl
from seqc.ir.two_axes import Edges, edges, reads
from seqc.semantics.evaluate import evaluate, to_order

Arrays = Mapping[str, Any]
Place = tuple[str, Any]  # an array, and where in it


@dataclass(frozen=True)
class _Plane:
    """The arrays of one run in the order of the scan, and where each leaf of a cell is read."""

    program: Program
    arrays: dict[str, Any]
    sizes: Mapping[str, int]

    @property
    def extents(self) -> tuple[int, int]:
        """The lengths of both axes."""
        assert self.program.plane is not None
        return self.sizes["T"], self.sizes[self.program.plane.dim]

    def cells(self) -> Iterator[tuple[int, int]]:
        """All places, each after those that it reads."""
        steps, width = self.extents
        return ((t, u) for t in range(steps) for u in range(width))

    def places(self, t: int, u: int) -> dict[Node, Place | None]:
        """Every leaf of a cell -> the array that it is read from and the index there; None is zero."""
        steps, width = self.extents
        found: dict[Node, Place | None] = {d.leaf(): (name, ()) for name, d in self.program.params.items()}
        for read in reads(self.program):
            at, beside = t - read.back, u - read.beside
            inside = 0 <= at < steps and 0 <= beside < width
            found[read.leaf] = (read.source, np.s_[:, at, beside : beside + 1]) if inside else None
        crossing = {edge.state: edge for edge in edges(self.program)}
        corners = {edge.corner for edge in crossing.values()}
        for name, d in self.program.states.items():
            if name not in corners:
                found[d.leaf()] = self._past(name, t - 1, u)
                if (edge := crossing.get(name)) is not None:
                    axes = (BATCH, *d.dims)
                    if edge.reads:
                        found[leaf("state", edge.beside, axes)] = self._past(name, t, u - 1, edge)
                    if edge.crosses:
                        found[leaf("state", edge.corner, axes)] = self._past(name, t - 1, u - 1, edge)
        return found

    def _past(self, name: str, t: int, u: int, edge: Edges | None = None) -> Place:
        if t >= 0 and u >= 0:
            return f"{name}.all", np.s_[:, t, u : u + 1]
        if u >= 0:
            return f"{name}_0", np.s_[:, u : u + 1]
        assert edge is not None
        return (edge.start, np.s_[:, t, None]) if t >= 0 else (f"{edge.corner}_0", np.s_[:, None])


def gradients(
    program: Program, arrays: Arrays, cotangents: Arrays | None, sizes: Mapping[str, int], fixed: Mapping[Node, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, gradients); see `seqc.semantics.reference.gradients`. sizes: of all dims, the batch and "T"; fixed: params."""
    assert program.plane is not None
    given, missing = _given(program, arrays, sizes, fixed)
    plane = _Plane(program, {name: _turned(program, name, x) for name, x in given.items()}, sizes)
    cell = {**sizes, program.plane.dim: 1}
    values = _forward(plane, cell)
    results = _results(plane, values)
    out = {name: _turned(program, name, x) for name, x in results.items()}
    if cotangents is None:
        return out, {}
    weights = {name: _turned(program, name, np.asarray(x, dtype=np.float64)) for name, x in cotangents.items() if x is not None}
    slopes = {name: _turned(program, name, x) for name, x in _backward(plane, cell, weights).items()}
    for name, decl in missing.items():  # the spec's own value may depend on params
        assert decl.init is not None
        along = "T" in decl.init.dims
        start = leaf("cot", name, (BATCH, "T", *decl.dims) if along else decl.axes)
        through = vjp({name: decl.init}, {name: start}, [n for n in fixed if n.text("name") in slopes])
        lengths = slopes.pop(name)
        if decl.kind == "input":
            lengths = _counted(program, decl, lengths) if along else lengths.sum(1)
        found = evaluate({p.text("name"): g for p, g in through.items()}, {**fixed, start: lengths}, sizes)
        for p, g in through.items():
            slopes[p.text("name")] = slopes[p.text("name")] + to_order(found[p.text("name")], g.dims, p.names("shape"), sizes)
    return out, slopes


def _given(
    program: Program, arrays: Arrays, sizes: Mapping[str, int], fixed: Mapping[Node, Any]
) -> tuple[dict[str, Any], dict[str, TensorDecl]]:
    """Every argument as an array, and the declarations of those that the caller did not give."""
    out, missing = {n.text("name"): x for n, x in fixed.items()}, dict[str, TensorDecl]()
    for name, decl in {**program.inputs, **program.states}.items():
        key = f"{name}_0" if decl.kind == "state" else name
        if arrays.get(key) is not None:
            out[key] = np.asarray(arrays[key], dtype=np.float64)
            continue
        if decl.init is None:
            raise ValueError(f"input {name} is missing")
        missing[key] = decl
        axes = (BATCH, "T", *decl.dims) if decl.kind == "input" else decl.axes
        made = np.array(to_order(evaluate({"v": decl.init}, fixed, sizes)["v"], decl.init.dims, axes, sizes))
        out[key] = _counted(program, decl, made)
    return out, missing


def _counted(program: Program, decl: TensorDecl, x: Any) -> Any:
    """An edge's own value [B, T, dims], with places counted in the order of the run, at the steps of the arrays; or back."""
    return x[:, ::-1] if decl.init is not None and "T" in decl.init.dims and program.direction == "backward" else x


def _turned(program: Program, name: str, x: Any) -> Any:
    """An array in the order of the scan, or back from it: the steps of what has some, the places of what has some."""
    plane = program.plane
    assert plane is not None
    base = name.removesuffix("_0").removesuffix("_T")
    long = name in program.inputs or name in program.output_decls
    if long and program.direction == "backward":
        x = x[:, ::-1]
    decl = program.inputs.get(name) or program.output_decls.get(name) or program.states.get(base)
    if plane.backward and decl is not None and plane.dim in decl.dims:
        x = x[:, :, ::-1] if long else x[:, ::-1]
    return x


def _forward(plane: _Plane, cell: Mapping[str, int]) -> dict[str, Any]:
    """All values: NAME.all of the states, and outputs, [B, T, U, dims]."""
    program = plane.program
    batch, (steps, width) = plane.sizes[BATCH], plane.extents
    graph = _cell_graph(program)
    values = plane.arrays
    for key, (_, axes) in graph.items():
        values[key] = np.zeros([batch, steps, width, *(plane.sizes[unprimed(d)] for d in axes[2:])])
    for t, u in plane.cells():
        env = {n: _at(values, place, n, cell) for n, place in plane.places(t, u).items()}
        now = evaluate({key: n for key, (n, _) in graph.items()}, env, cell)
        for key, (n, axes) in graph.items():
            values[key][:, t, u] = to_order(now[key], n.dims, axes, cell)[:, 0]
    return values


def _cell_graph(program: Program) -> dict[str, tuple[Node, tuple[str, ...]]]:
    """What a cell computes: key -> the node, and the order of its dims."""
    hidden = {name for edge in edges(program) for name in (edge.end, edge.corner)}
    graph = {f"{name}.all": (n, program.states[name].axes) for name, n in program.updates.items() if name not in hidden}
    return graph | {name: (y, program.output_decls[name].axes) for name, y in program.outputs.items() if name not in hidden}


def _at(values: Arrays, place: Place | None, n: Node, cell: Mapping[str, int]) -> Any:
    if place is None:
        return np.zeros([cell[unprimed(d)] for d in n.names("shape")])
    return values[place[0]][place[1]]


def _results(plane: _Plane, values: Arrays) -> dict[str, Any]:
    program, (steps, _) = plane.program, plane.extents
    out = {name: values[name] for name in program.outputs if name in values}
    for edge in edges(program):
        out[edge.end] = values[f"{edge.state}.all"][:, :, -1]
        if edge.crosses:
            out[f"{edge.corner}_T"] = values[edge.start][:, -1] if steps else values[f"{edge.corner}_0"]
    for name in program.states:
        if f"{name}.all" in values:
            out[f"{name}_T"] = values[f"{name}.all"][:, -1] if steps else values[f"{name}_0"]
    return out


def _backward(plane: _Plane, cell: Mapping[str, int], weights: Arrays) -> dict[str, Any]:
    """The gradient of every argument, in the order of the scan."""
    program, (steps, _) = plane.program, plane.extents
    graph = _cell_graph(program)
    slopes = {key: np.zeros_like(x) for key, x in plane.arrays.items()}
    for name in program.outputs:
        if name in graph and name in weights:
            slopes[name] += weights[name]
    for edge in edges(program):
        if edge.end in weights:
            slopes[f"{edge.state}.all"][:, :, -1] += weights[edge.end]
        if edge.crosses and f"{edge.corner}_T" in weights:
            target = slopes[edge.start][:, -1] if steps else slopes[f"{edge.corner}_0"]
            target += weights[f"{edge.corner}_T"]
    for name in program.states:
        if f"{name}.all" in graph and f"{name}_T" in weights:
            target = slopes[f"{name}.all"][:, -1] if steps else slopes[f"{name}_0"]
            target += weights[f"{name}_T"]
    cots = {key: leaf("cot", key, axes) for key, (_, axes) in graph.items()}
    read = leaves([n for n, _ in graph.values()])
    rules = vjp({key: n for key, (n, _) in graph.items()}, cots, read)
    for t, u in reversed(list(plane.cells())):
        places = plane.places(t, u)
        env = {n: _at(plane.arrays, places[n], n, cell) for n in read}
        env |= {cots[key]: slopes[key][:, t, u][:, None] for key in graph}
        now = evaluate({str(i): rules[n] for i, n in enumerate(read)}, env, cell)
        for i, n in enumerate(read):
            if (place := places[n]) is not None:
                slopes[place[0]][place[1]] += to_order(now[str(i)], rules[n].dims, n.names("shape"), cell)
    kept = {a.name for a in argument_table(program) if a.gradient}
    return {name: x for name, x in slopes.items() if name in kept}
