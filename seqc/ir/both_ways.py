"""`scan both`: a recurrence that runs twice over the same inputs, from the first step on and from the last step back.

In: the program of one run. Out: the program that a caller sees: params and states once for each run, outputs twice as
wide, and still the step graph of one run, which is all that is ever lowered. `seqc.semantics.both_ways` says what it means in
numbers. What belongs to the run from the last step back is called `NAME_reverse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.ir.dims import TWICE
from seqc.ir.graph import Node, substitute
from seqc.ir.program import Program, TensorDecl


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


def _replaced(init: Node | None, table: Mapping[Node, Node]) -> Node | None:
    return None if init is None else substitute({"init": init}, table)["init"]


__all__ = ["both_runs", "one_run", "twin", "twins"]
