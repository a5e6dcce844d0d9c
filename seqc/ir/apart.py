"""A program whose names mean no local of the functions that are emitted for it.

Emitted functions call what they make after the names of a spec: `d_x` is the gradient of x, `need_x` says whether it is asked
for, `h_all` are the values of a state. Where a spec has such a name itself, beside the one that it is made of, its kernels are
those of a program with another name in its place. They take arguments by position: what a caller sees keeps the spec's names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from seqc.ir.both_ways import one_run, twin
from seqc.ir.graph import Node, leaves, node, substitute, topological
from seqc.ir.program import Program, TensorDecl
from seqc.ir.support import Support

_BEFORE = ("d_", "need_")
_BEHIND = r"_(after|all|before|of|t_u_start)(_\w+)?"
_OF_GROUPS, _OF_DIAGONALS, _OF_PIECES = ("first", "length", "whole"), ("steps", "width"), ("piece_steps",)
_OF_LAUNCHERS = ("DOT", "EVERY", "N_BLOCKS", "N_KEPT", "N_SPANS", "N_STEPS", "PRECISION", "STEP", "empty")


def apart(program: Program) -> Program:
    """The program with other names for those that locals may have; itself where there are none."""
    one = one_run(program)
    decls = [*one.inputs.values(), *one.params.values(), *one.states.values(), *one.output_decls.values()]
    names = dict.fromkeys(_base(d.name) for d in decls)
    hidden = {d.name.replace(".", "_") for d in decls if "." in d.name}
    walks = (*_OF_LAUNCHERS, *_OF_PIECES, *(_OF_GROUPS if any(x.startswith("down") for x in hidden) else ()))
    walks += _OF_DIAGONALS if program.plane is not None else ()
    table: dict[str, str] = {}
    for name in names:
        if name in walks or _local(name, {*names, *hidden} - {name}):
            new = f"own_{name}"
            while new in names or new in table.values():
                new = f"own_{new}"
            table[name] = new
    if program is not one:
        table |= {twin(old): twin(new) for old, new in table.items()}

    def called(name: str) -> str:
        base = _base(name)
        return table.get(base, base) + name.removeprefix(base)

    return renamed(program, called, called, lambda name: table.get(name, name)) if table else program


def _base(name: str) -> str:
    """The name of the spec within one of the compiler's: `y` of `y.lag2`."""
    return name.partition(".")[0]


def _local(name: str, others: Collection[str]) -> bool:
    """Whether a name is what locals made of other names are called."""
    of_one = (name.removeprefix(mark) for mark in _BEFORE if name.startswith(mark))
    if any(rest == other or rest.startswith(f"{other}_") for rest in of_one for other in others):
        return True
    return any(re.fullmatch(_BEHIND, name.removeprefix(other)) for other in others if name.startswith(f"{other}_"))


def renamed(
    program: Program, new: Callable[[str], str], result: Callable[[str], str], defined: Callable[[str], str] = str
) -> Program:
    """The program with other names. new: of inputs, params and states; result: of outputs; defined: of definitions."""

    def moved(nodes: Iterable[Node]) -> dict[Node, Node]:
        old = {str(i): n for i, n in enumerate(nodes)}
        given = {n: node("leaf", **{**dict(n.attrs), "name": new(n.text("name"))}) for n in leaves(old.values())}
        return {old[i]: n for i, n in substitute(old, given).items()}

    decls = [*program.inputs.values(), *program.params.values(), *program.states.values()]
    roots = [*program.graph.values(), *(d.init for d in decls if d.init is not None)]
    there = moved(dict.fromkeys([*topological(roots), *program.spans, *program.definitions]))

    def told(given: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
        return {new(n): replace(d, name=new(n), init=None if d.init is None else there[d.init], support=kept(d))
                for n, d in given.items()}

    def kept(d: TensorDecl) -> Support | None:
        return d.support and replace(d.support, mask=new(d.support.mask))

    return replace(
        program, inputs=told(program.inputs), params=told(program.params), states=told(program.states),
        output_decls={result(n): replace(d, name=result(n)) for n, d in program.output_decls.items()},
        updates={new(n): there[x] for n, x in program.updates.items()},
        outputs={result(n): there[x] for n, x in program.outputs.items()},
        claims=tuple(replace(claim, state=new(claim.state)) for claim in program.claims),
        spans={there[n]: span for n, span in program.spans.items()},
        definitions={there[n]: defined(name) for n, name in program.definitions.items()},
    )  # fmt: skip
