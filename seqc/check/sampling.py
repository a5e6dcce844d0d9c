"""Random arguments of a program, inside what its declarations promise. In: a program, extents, a number of steps.
Out: float64 arrays for `seqc.semantics.reference`, and cotangents of every result; the same for the same seed.

`hard` draws the ends of ranges too (a decay of zero, a log decay of -inf), and one unit key for all steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqc.analysis.ranges import interval_of
from seqc.ir.both_ways import twin
from seqc.ir.dims import extent
from seqc.ir.graph import BATCH
from seqc.ir.intervals import ANY, Interval
from seqc.ir.program import Program, TensorDecl
from seqc.ir.two_axes import lowered

ODD = (3, 5, 2, 7)  # extents of dims that the spec leaves open, in the order of the dims
EXTREMES = (0.0, -1e-8, -20.0, -np.inf)  # drawn for a range that ends at 0 and has no other end
STEEP = 0.5  # share of the values that `hard` puts at the ends


def sample_sizes(program: Program, batch: int = 2, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Small extents, odd and different where the spec allows any; a dim that no input or param tells has its default."""
    sizes = {BATCH: batch}
    for i, d in enumerate(program.dims.values()):
        usual = min(d.choices) if d.choices else d.default if d.name not in program.told else None
        sizes[d.name] = (given or {}).get(d.name) or usual or ODD[i % len(ODD)]
    return sizes


def sample(
    program: Program, sizes: Mapping[str, int], steps: int, *, hard: bool = False, seed: int = 0, rows: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, cotangents): inputs, params and NAME_0 by name; cotangents by output name and NAME_T.

    rows: the batch size of what has a time axis, where that is not the number of sequences (1 for a pack).
    """
    rng = np.random.default_rng(seed)

    def normal(*axes: str) -> Any:
        extents = {**sizes, "T": steps, BATCH: rows if rows and "T" in axes else sizes[BATCH]}
        return rng.standard_normal([extent(a, extents) for a in axes])

    arrays = {name: _input(d, normal(BATCH, "T", *d.dims), sizes, hard, rng) for name, d in program.inputs.items()}
    for name, d in program.params.items():
        if not d.hidden:
            x = 0.4 * normal(*d.axes)
            arrays[name] = (x > 0) * 1.0 if d.mask else _within(d, x, False, rng)
    starts = state_domains(program)
    arrays |= {f"{name}_0": _start(d, starts[name], normal(*d.axes), rng) for name, d in program.states.items()}
    cotangents = {name: normal(BATCH, "T", *d.dims) for name, d in program.output_decls.items()}
    cotangents |= {f"{name}_T": normal(*d.axes) for name, d in program.states.items()}
    return arrays, cotangents


def _input(decl: TensorDecl, x: Any, sizes: Mapping[str, int], hard: bool, rng: Any) -> Any:
    """An input; an index is drawn from all positions of its dim."""
    return rng.integers(0, sizes[decl.places], x.shape) if decl.places else _within(decl, x, hard, rng)


def state_domains(program: Program) -> dict[str, Interval]:
    """Where each state may begin: in its declared range, and with the sign that it keeps from the spec's own start on.

    So a sum of squares is not negative, whatever else a caller could pass.
    """
    one = lowered(program)
    reached = interval_of(one, own_start=True)
    signs = {name: _sign(reached.get(d.leaf(), ANY)) for name, d in one.states.items()}
    signs |= {twin(name): sign for name, sign in signs.items()}  # a second run has the same ones
    held = {name: name.partition(".")[0] if program.plane else name for name in program.states}  # a corner is of its state
    return {name: d.range.meet(signs.get(held[name], ANY)) for name, d in program.states.items()}


def _sign(reached: Interval) -> Interval:
    """All numbers of the signs that a range has."""
    if reached.lo == reached.hi:
        return ANY
    return Interval(0.0 if reached.lo >= 0.0 else -np.inf, 0.0 if reached.hi <= 0.0 else np.inf)


def counted(program: Program) -> frozenset[str]:
    """The arguments that are whole numbers, which nothing is differentiated by."""
    return frozenset(f"{name}_0" for name, d in program.states.items() if d.whole)


def domains(program: Program) -> dict[str, Interval]:
    """Where the values of every argument lie, by its name in a call."""
    declared = {name: d.range for name, d in {**program.inputs, **program.params}.items()}
    return declared | {f"{name}_0": allowed for name, allowed in state_domains(program).items()}


def _within(decl: TensorDecl, x: Any, hard: bool, rng: Any) -> Any:
    """Normal numbers brought into the declared range, onto the unit sphere, or together to a definite matrix."""
    if decl.definite:
        return definite(x, decl.dims)
    if decl.unit:
        axes = tuple(x.ndim - len(decl.dims) + decl.dims.index(d) for d in decl.unit)
        x = x / np.linalg.norm(x, axis=axes, keepdims=True)
        if hard and x.shape[1]:
            x = np.repeat(x[:, :1], x.shape[1], axis=1)
        return x
    return _inside(decl.range, x, hard, rng)


def definite(x: Any, dims: tuple[str, ...]) -> Any:
    """Half the identity, and a square of the matrices of x along the last pair of dims X and X'. dims: the last axes of x."""
    row, column = matrix_axes(dims)
    m = np.moveaxis(x, (row, column), (-2, -1))
    size = m.shape[-1]
    return np.moveaxis(0.5 * np.eye(size) + m @ np.swapaxes(m, -1, -2) / size, (-2, -1), (row, column))


def matrix_axes(dims: tuple[str, ...]) -> tuple[int, int]:
    """Where the last dim X that has an X' and that X' stand among the last axes of an array."""
    row = [d for d in dims if f"{d}'" in dims][-1]
    return dims.index(row) - len(dims), dims.index(f"{row}'") - len(dims)


def _start(decl: TensorDecl, allowed: Interval, x: Any, rng: Any) -> Any:
    """Normal numbers brought into the range of a state, or to a definite matrix; whole ones where it counts."""
    if decl.definite:
        return definite(x, decl.dims)
    found = _inside(allowed, x, False, rng)
    return np.floor(found) if decl.whole else found


def _inside(allowed: Interval, x: Any, hard: bool, rng: Any) -> Any:
    """Normal numbers brought into a range; hard: many at its ends."""
    lo, hi = allowed.lo, allowed.hi
    ends: tuple[float, ...] = ()
    if np.isfinite(lo) and np.isfinite(hi):
        x, ends = lo + (hi - lo) * rng.random(x.shape), (lo, hi)
    elif np.isfinite(hi):
        x, ends = hi - np.abs(x), EXTREMES if hi == 0 else (hi,)
    elif np.isfinite(lo):
        x, ends = lo + np.abs(x), (lo,)
    if hard and ends:
        x = np.where(rng.random(x.shape) < STEEP, rng.choice(ends, x.shape), x)
    return x
