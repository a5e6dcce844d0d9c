"""A call that is watched: what a spec promises of its arguments, verified on the data, and the first value that is not finite.

In: a program, the emitted functions of it, tensors. Out: the same results, or an error that names the array, the element
and the step. Ranges and norms are what was declared; where a result is not finite, the recurrence runs again step by step in
float64, with every definition of the spec looked at. That costs many times the call: it is there to find a mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from seqc.check.sampling import matrix_axes
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.intervals import ANY
from seqc.ir.program import Program, TensorDecl
from seqc.semantics.reference import run

NORM = 1e-2  # how far a norm may be off: numbers come rounded to half precision
END = 1e-6  # how far a number may lie outside of a range, relative to its ends


def watch(module: ModuleType, program: Program, renamed: Mapping[str, str]) -> None:
    """Have the functions of an emitted file, and so its Module, watch their calls. renamed: a spec's names by emitted ones."""
    for name, time in ((program.name, True), (f"{program.name}_step", False)):
        vars(module)[name] = _watched(getattr(module, name), program, renamed, time)


def _watched(function: Callable[..., Any], program: Program, renamed: Mapping[str, str], time: bool) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        bound = signature.bind(*given, **named)
        if bound.arguments.get("axis") is not None:  # the call comes back with the steps where they belong
            return function(*given, **named)
        tensors = {renamed.get(k, k): x for k, x in bound.arguments.items() if hasattr(x, "detach") and k != "cu_seqlens"}
        arrays = {k: _array(x) for k, x in tensors.items()}
        if not time:
            arrays = {k: x[:, None] if k in program.inputs else x for k, x in arrays.items()}
        bounds = bound.arguments.get("cu_seqlens")
        bounds = None if bounds is None else [int(x) for x in bounds]
        arrays = {k: x[:, : bounds[-1]] if bounds and k in program.inputs else x for k, x in arrays.items()}  # what is read
        if problem := broken_promise(program, arrays):
            raise ValueError(f"{function.__name__}: {problem}")
        result = function(*given, **named)
        wrong = [renamed.get(k, k) for k, x in result._asdict().items() if not np.isfinite(_array(x)).all()]
        if wrong:
            largest = 1.8e308 if any(x.element_size() == 8 for x in tensors.values()) else 3.4e38
            place = first_wrong(program, arrays, bounds, bool(bound.arguments.get("reverse")), largest)
            place = place or f"{wrong[0]} holds such, where the recurrence in float64, step by step, has none"
            raise FloatingPointError(f"{function.__name__}: not every result is a finite number: {place}")
        return result

    return call


def broken_promise(program: Program, arrays: Mapping[str, Any]) -> str:
    """The first element that is not what the spec says of it, in words; "" if all are. arrays: by the spec's names."""
    starts = [replace(d, name=f"{name}_0") for name, d in program.states.items() if d.definite]
    for decl in (*program.inputs.values(), *program.params.values(), *starts):
        x = arrays.get(decl.name)
        if x is None or decl.leaf_type != "real":
            continue
        lo, hi = decl.range.lo, decl.range.hi
        room = END * max([1.0, *(abs(end) for end in (lo, hi) if np.isfinite(end))])
        if problem := _first(decl.name, x, np.isnan(x), "which is no number"):
            return problem
        outside = (x < lo - room) | (x > hi + room)
        if problem := _first(decl.name, x, outside, f"and the spec declares it in [{lo:g}, {hi:g}]"):
            return problem
        if decl.range == ANY and (problem := _first(decl.name, x, np.isinf(x), "and the spec declares no range with it")):
            return problem
        if decl.unit:
            over = tuple(decl.dims.index(d) - len(decl.dims) for d in decl.unit)
            norms = np.sqrt(np.square(x).sum(over))
            dims, wrong = ", ".join(decl.unit), np.abs(norms - 1) > NORM
            if problem := _first(f"the norm of {decl.name} over {dims}", norms, wrong, "and the spec says 1"):
                return problem
        if decl.definite and (problem := _indefinite(decl.name, x, decl.dims)):
            return problem
    return ""


def _indefinite(name: str, x: Any, dims: tuple[str, ...]) -> str:
    """The first matrix of an array that is not symmetric, or has an eigenvalue that is not positive."""
    m = np.moveaxis(x, matrix_axes(dims), (-2, -1))
    size = np.abs(m).max((-2, -1), initial=0.0)
    off = np.abs(m - np.swapaxes(m, -1, -2)).max((-2, -1), initial=0.0)
    if problem := _first(f"{name}, the difference from its transpose", off, off > NORM * size, "and the spec says `definite`"):
        return problem
    least = np.linalg.eigvalsh(m).min(-1, initial=np.inf)
    return _first(f"{name}, the least eigenvalue", least, least <= 0, "and the spec says `definite`")


def first_wrong(
    program: Program, arrays: Mapping[str, Any], bounds: Sequence[int] | None, reverse: bool, largest: float
) -> str:
    """The first definition, state or output that is not finite, or larger than `largest`, with its step and element; "" if
    none is. Steps are counted along the row, from 0."""
    watched = _looked_at(program) if program.direction != "both" else program
    found = run(watched, arrays, bounds, reverse)
    steps = range(next(iter(arrays[name].shape[1] for name in program.inputs)))
    for t in reversed(steps) if (program.direction == "backward") != reverse else steps:
        for name in watched.outputs:
            row = found[name][:, t]
            with np.errstate(invalid="ignore"):
                wrong = ~(np.abs(row) <= largest)
            if wrong.any():
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                value = row[place] if not np.isfinite(row[place]) else np.copysign(np.inf, row[place])
                return f"the first is {name.partition(' ')[0]}[{', '.join(map(str, place))}] at step {t}, {value:g}"
    return ""


def _looked_at(program: Program) -> Program:
    """The program with every definition and every new state as an output besides, in the order in which they follow."""
    named = {n: name for n, name in program.definitions.items() if n.dtype == "real" and n.op not in ("leaf", "const", "size")}
    named |= {program.updates[s]: s for s in program.states}
    named |= {n: name for name, n in program.outputs.items()}
    outputs: dict[str, Node] = {}
    decls: dict[str, TensorDecl] = {}
    for i, n in enumerate(x for x in topological([*program.updates.values(), *program.outputs.values()]) if x in named):
        name = f"{named[n]} {i}"
        outputs[name] = n
        decls[name] = TensorDecl(name, "output", tuple(d for d in n.dims if d != BATCH))
    return replace(program, outputs=outputs, output_decls=decls)


def _first(name: str, x: Any, wrong: Any, why: str) -> str:
    """An element in words; "" if there is none."""
    if not np.any(wrong):
        return ""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    at = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{name}{at} is {np.asarray(x)[place]:g}, {why}"


def _array(x: Any) -> Any:
    x = x.detach().cpu()
    return (x.double() if x.is_floating_point() else x).numpy()
