"""Packs of sequences: arrays of one row with several sequences, one after the other, and their parts.

In: a program, arrays by name, and bounds: sequence i has the steps from bounds[i] up to bounds[i + 1]. Out: the arrays of
one sequence, or the results of all joined. Inputs and outputs are [1, T, dims]; states, and parameters that belong to a
sample, have one entry per sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seqc.ir.program import Program

Arrays = Mapping[str, Any]
Gradients = Callable[[Program, Arrays, "Arrays | None"], tuple[dict[str, Any], dict[str, Any]]]


def part(program: Program, arrays: Arrays, bounds: Sequence[int], i: int) -> dict[str, Any]:
    """What sequence i has of arrays or tensors: inputs, params, NAME_0; or of outputs and NAME_T."""
    out = {}
    for name, x in arrays.items():
        decl = program.inputs.get(name) or program.output_decls.get(name)
        if decl is not None:
            out[name] = x[:, bounds[i] : bounds[i + 1]]
        elif name in program.params and not program.params[name].per_batch:
            out[name] = x
        else:
            out[name] = x[i : i + 1]
    return out


def joined(
    program: Program, arrays: Arrays, cotangents: Arrays | None, bounds: Sequence[int], gradients: Gradients
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, gradients) of a pack, from those of its sequences; zeros at steps behind the last one. ValueError where the
    bounds are wrong."""
    steps = min((np.shape(x)[1] for name, x in arrays.items() if name in program.inputs), default=bounds[-1])
    if list(bounds) != sorted(bounds) or bounds[0] != 0 or bounds[-1] > steps:
        raise ValueError(f"cu_seqlens is {list(bounds)}; it begins with 0, never decreases, and ends with T = {steps} or less")
    if len(bounds) < 2:
        raise ValueError("cu_seqlens [0] has no sequence: the results of none have no shapes that the oracle could know")
    found = []
    for i in range(len(bounds) - 1):
        own = None if cotangents is None else part(program, cotangents, bounds, i)
        found.append(gradients(program, part(program, arrays, bounds, i), own))
    results = [results for results, _ in found]
    slopes = [slopes for _, slopes in found]
    left = steps - bounds[-1]
    return _together(program, results, left), _together(program, slopes, left)


def _together(program: Program, parts: Sequence[Arrays], left: int) -> dict[str, Any]:
    """left: steps that no sequence has."""
    out: dict[str, Any] = {}
    for name in parts[0]:
        pieces = [np.asarray(one[name]) for one in parts]
        if name in program.params and not program.params[name].per_batch:
            out[name] = sum(pieces[1:], pieces[0])
        elif name in program.inputs or name in program.output_decls:
            out[name] = np.concatenate([*pieces, np.zeros((1, left, *pieces[0].shape[2:]))], 1)
        else:
            out[name] = np.concatenate(pieces, 0)
    return out
