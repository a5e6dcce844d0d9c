"""`scan both`: a recurrence that runs twice over the same inputs, from the first step on and from the last step back.

In: the program of one run. Out: the program that a caller sees: params and states once for each run, outputs twice as
wide, and still the step graph of one run, which is all that is ever lowered. `joined` says what it means: the results
and gradients of both runs, from those of one. What belongs to the run from the last step back is called `NAME_reverse`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seqc.ir.graph import Node, substitute
from seqc.ir.program import Program, TensorDecl
from seqc.oracle.evaluate import TWICE

Arrays = Mapping[str, Any]
Answer = tuple[dict[str, Any], dict[str, Any]]
Run = Callable[[Program, Arrays, "Arrays | None", bool], Answer]


def twin(name: str) -> str:
    """What is called `name` in the run from the first step on, in the run from the last step back."""
    return f"{name}_reverse"


def both_runs(one: Program) -> Program:
    """The program of two runs, of that of one."""
    table = {d.leaf(): replace(d, name=twin(d.name)).leaf() for d in one.params.values()}

    def doubled(decls: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
        again = {twin(n): replace(d, name=twin(n), init=_replaced(d.init, table)) for n, d in decls.items()}
        return {**decls, **again}

    wide = {n: replace(d, dims=(*d.dims[:-1], TWICE + "".join(d.dims[-1:]))) for n, d in one.output_decls.items()}
    return replace(one, params=doubled(one.params), states=doubled(one.states), output_decls=wide, direction="both")


def one_run(program: Program) -> Program:
    """The run from the first step on of a program of two; any other program as it is."""
    if program.direction != "both":
        return program
    half = {n: replace(d, dims=(*d.dims[:-1], *filter(None, [d.dims[-1][1:]]))) for n, d in program.output_decls.items()}
    params, states = (dict(list(x.items())[: len(x) // 2]) for x in (program.params, program.states))
    return replace(program, params=params, states=states, output_decls=half, direction="forward", half=True)


def twins(one: Program) -> dict[str, str]:
    """Of every argument and result that each run has of its own: the name in the first, and that in the second."""
    names = {n: twin(n) for n in one.params}
    return names | {f"{s}{end}": f"{twin(s)}{end}" for end in ("_0", "_T") for s in one.states}


def joined(program: Program, arrays: Arrays, cotangents: Arrays | None, run: Run) -> Answer:
    """(results, gradients) of both runs. run: those of one; told whether it goes from the last step back."""
    one = one_run(program)
    names = twins(one)
    answers = []
    for back in (False, True):
        given = _of_run(one, names, arrays, back)
        weights = None if cotangents is None else _of_run(one, names, cotangents, back)
        answers.append(run(one, given, weights, back))
    (first, d_first), (second, d_second) = answers
    results: dict[str, Any] = {n: _beside(one, n, first[n], second[n]) for n in one.outputs}
    slopes: dict[str, Any] = {n: d_first[n] + d_second[n] for n in d_first if n in one.inputs}
    for whole, here, there in ((results, first, second), (slopes, d_first, d_second)):
        whole |= {n: here[n] for n in names if n in here} | {names[n]: there[n] for n in names if n in there}
    return results, slopes


def _of_run(one: Program, names: Mapping[str, str], arrays: Arrays, back: bool) -> dict[str, Any]:
    """What one run has of arrays, by the names of the first."""
    own = {n: arrays.get(names[n] if back else n) for n in names}
    shared = {n: arrays.get(n) for n in one.inputs}
    parts = {n: _half(one, n, arrays[n], back) for n in one.outputs if arrays.get(n) is not None}
    return {n: x for n, x in {**shared, **own, **parts}.items() if x is not None}


def _half(one: Program, name: str, x: Any, back: bool) -> Any:
    """One run's part of an output."""
    x = np.asarray(x)
    return np.split(x, 2, -1)[back] if one.output_decls[name].dims else x[..., int(back)]


def _beside(one: Program, name: str, first: Any, second: Any) -> Any:
    """An output of both runs: one after the other in the last dim."""
    return np.concatenate((first, second), -1) if one.output_decls[name].dims else np.stack((first, second), -1)


def _replaced(init: Node | None, table: Mapping[Node, Node]) -> Node | None:
    return None if init is None else substitute({"init": init}, table)["init"]


__all__ = ["both_runs", "joined", "one_run", "twin", "twins"]
