"""`scan both` in numbers: the results and gradients of both runs, from those of one.

In: a program of two runs, arrays, and how one run is done. Out: arrays of both. The program of one run, and the names of what
each run has of its own, are `seqc.ir.both_ways`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seqc.ir.both_ways import one_run, twins
from seqc.ir.program import Program

Arrays = Mapping[str, Any]
Answer = tuple[dict[str, Any], dict[str, Any]]
Run = Callable[[Program, Arrays, "Arrays | None", bool], Answer]


def joined(program: Program, arrays: Arrays, cotangents: Arrays | None, run: Run) -> Answer:
    """(results, gradients) of both runs. run: those of one; told whether it goes from the last step back."""
    one = one_run(program)
    names = twins(program)
    answers = []
    for back in (False, True):
        given = _of_run(program, one, names, arrays, back)
        weights = None if cotangents is None else _of_run(program, one, names, cotangents, back)
        answers.append(run(one, given, weights, back))
    (first, d_first), (second, d_second) = answers
    join = _added if program.added else _beside
    results: dict[str, Any] = {n: join(one, n, first[n], second[n]) for n in one.outputs}
    slopes: dict[str, Any] = {n: d_first[n] + d_second[n] for n in d_first if n not in names}
    for whole, here, there in ((results, first, second), (slopes, d_first, d_second)):
        whole |= {n: here[n] for n in names if n in here} | {names[n]: there[n] for n in names if n in there}
    return results, slopes


def _of_run(program: Program, one: Program, names: Mapping[str, str], arrays: Arrays, back: bool) -> dict[str, Any]:
    """What one run has of arrays, by the names of the first."""
    own = {n: arrays.get(names[n] if back else n) for n in names}
    shared = {n: arrays.get(n) for n in (*one.inputs, *one.params) if n not in names}
    parts = {n: arrays[n] for n in one.outputs if arrays.get(n) is not None}
    if not program.added:
        parts = {n: _half(one, n, x, back) for n, x in parts.items()}
    return {n: x for n, x in {**shared, **own, **parts}.items() if x is not None}


def _half(one: Program, name: str, x: Any, back: bool) -> Any:
    """One run's part of an output."""
    x = np.asarray(x)
    return np.split(x, 2, -1)[back] if one.output_decls[name].dims else x[..., int(back)]


def _added(one: Program, name: str, first: Any, second: Any) -> Any:
    """The sum of both runs' outputs."""
    return first + second


def _beside(one: Program, name: str, first: Any, second: Any) -> Any:
    """An output of both runs: one after the other in the last dim."""
    return np.concatenate((first, second), -1) if one.output_decls[name].dims else np.stack((first, second), -1)
