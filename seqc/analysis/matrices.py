"""Which operators on matrices a kernel computes, and which only a library does. In: a node and its program. Out: an answer."""

from __future__ import annotations

from dataclasses import replace

from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, topological
from seqc.ir.ops.dense import DENSE, SYSTEMS
from seqc.ir.program import Program

MOST = 16  # rows of a system that is written out: its nodes grow with them, and each has as many elements as the matrix


def counted(program: Program) -> Program:
    """The program for kernels that write its systems out: their dims have their default sizes, and no other."""
    dims = dict(program.dims)
    for n in topological(program.graph.values()):
        decl = dims[unprimed(n.text("row"))] if n.op in SYSTEMS else None
        if decl is not None and not decl.choices and decl.default is not None and decl.default <= MOST:
            dims[decl.name] = replace(decl, choices=(decl.default,))
    return program if dims == program.dims else replace(program, dims=dims)


def small(n: Node, program: Program) -> bool:
    """Whether a kernel computes n: all but exponentials of matrices, and systems that are not written out."""
    if n.op not in DENSE:
        return True
    decl = program.dims[unprimed(n.text("row"))]
    return n.op in SYSTEMS and len(decl.choices) == 1 and decl.choices[0] <= MOST
