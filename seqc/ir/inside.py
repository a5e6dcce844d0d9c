"""An input that nobody passes: 1 at every step of a sequence; read at another step, it tells whether that step exists.

A definition that is read ahead, `e[t+1]`, is what it is made of, read ahead, where that step is inside of the sequence, else 0.
The step graph reads `INSIDE` like any input; a program that a backend sees declares it (`exposed`), and the driver passes ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.ir.graph import BATCH, Node, leaf, leaves, node, rebuild, topological
from seqc.ir.ops.elementwise import where
from seqc.ir.program import INSIDE, INSIDE_DECL, Program
from seqc.ir.windows import sooner


def ahead(x: Node, steps: int, known: Mapping[Node, Node] | None = None) -> Node:
    """x, made of inputs, params and known nodes, so many steps ahead; 0 where there is no such step. known: node -> what it is
    then."""
    done = dict(known or {})
    for n in topological([x], known=list(done)):
        if n.op == "leaf" and n.text("kind") == "input":
            done[n] = sooner(n, steps)
        else:
            done[n] = rebuild(n, tuple(done[a] for a in n.args))
    there = node("gt", leaf("input", INSIDE, (BATCH,), -steps), node("const", value=0.5))
    return where(there, done[x], 0.0)


def exposed(program: Program) -> Program:
    """The program with `INSIDE` among its inputs, where it reads it."""
    if INSIDE in program.inputs or not any(n.text("name") == INSIDE for n in leaves(program.graph.values(), "input")):
        return program
    return replace(program, inputs={**program.inputs, INSIDE: INSIDE_DECL})


__all__ = ["INSIDE", "ahead", "exposed"]
