"""`scan both`: a recurrence that runs twice over the same inputs, from the first step on and from the last step back.

In: the program of one run. Out: the program that a caller sees: params and states once for each run, outputs twice as
wide, and still the step graph of one run, which is all that is ever lowered. `seqc.semantics.both_ways` says what it means in
numbers. What belongs to the run from the last step back is called `NAME_reverse`. Of `scan both shared` the params are
common to the runs; of `scan both sum` outputs are added, and as wide as those of one run.
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


def both_runs(one: Program, added: bool = False, shared: bool = False) -> Program:
    """The program of two runs, of that of one. added: their outputs are added; shared: they have the same params."""
    table = {} if shared else {d.leaf(): replace(d, name=twin(d.name)).leaf() for d in one.params.values()}

    def doubled(decls: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
        again = {twin(n): replace(d, name=twin(n), init=_replaced(d.init, table)) for n, d in decls.items()}
        masks = {n: replace(d.support, mask=twin(d.support.mask)) for n, d in again.items() if d.support}
        return {**decls, **again, **{n: replace(again[n], support=support) for n, support in masks.items()}}

    wide = {n: replace(d, dims=(*d.dims[:-1], TWICE + "".join(d.dims[-1:]))) for n, d in one.output_decls.items()}
    return replace(
        one, params=one.params if shared else doubled(one.params), states=doubled(one.states),
        output_decls=one.output_decls if added else wide, direction="both", added=added, shared=shared,
    )  # fmt: skip


def one_run(program: Program) -> Program:
    """The run from the first step on of a program of two; any other program as it is."""
    if program.direction != "both":
        return program
    decls, params, states = program.output_decls, program.params, dict(list(program.states.items())[: len(program.states) // 2])
    if not program.added:
        decls = {n: replace(d, dims=(*d.dims[:-1], *filter(None, [d.dims[-1][1:]]))) for n, d in decls.items()}
    if not program.shared:
        params = dict(list(params.items())[: len(params) // 2])
    return replace(
        program, params=params, states=states, output_decls=decls, direction="forward", half=True, added=False, shared=False,
    )  # fmt: skip


def twins(program: Program) -> dict[str, str]:
    """Of every argument and result that each run of two has of its own: the name in the first, and that in the second."""
    one = one_run(program)
    names = {} if program.shared else {n: twin(n) for n in one.params}
    return names | {f"{s}{end}": f"{twin(s)}{end}" for end in ("_0", "_T") for s in one.states}


def _replaced(init: Node | None, table: Mapping[Node, Node]) -> Node | None:
    return None if init is None else substitute({"init": init}, table)["init"]
