"""solve(M, b), logdet(M)  ->  elementary operators, for kernels that have no library to call.

    x = solve(M, b)     ->   Gauss-Jordan elimination, a column of M after the other; the largest element left in a column
                             is its pivot, so that nothing depends on the order in which equations are written

when the matrix has a size that is fixed at compile time, MOST at most. Needs: a block with its gradient (that of a system is
another system, and no larger for this). Gives: the same block without such systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from seqc.analysis.matrices import MOST, counted
from seqc.ir.block import Block
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, const, index, node, rebuild, topological
from seqc.ir.once import found_once
from seqc.ir.ops.dense import SYSTEMS
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import expanded, take
from seqc.ir.program import Program
from seqc.passes.blocks.choose import EAGER, Machine


def eliminate(block: Block, machine: Machine) -> Block:
    """The block without small systems of equations; a library solves them in plain torch."""
    if machine is EAGER:
        return block
    done = _written(block.program, block.forward, block.backward)
    if all(n is fresh for n, fresh in done.items()):
        return block
    program = counted(block.program)
    forward, backward, updates, outputs = (
        {k: done[n] for k, n in graph.items()} for graph in (block.forward, block.backward, program.updates, program.outputs))
    names, definitions = ({done[n]: k for n, k in table.items() if n in done} for table in (block.names, program.definitions))
    spans = {done[n]: span for n, span in program.spans.items() if n in done}
    program = replace(program, updates=updates, outputs=outputs, definitions=definitions, spans=spans)
    single = None if block.single is None else eliminate(block.single, machine)
    return replace(block, program=program, forward=forward, backward=backward, names=names, single=single)


@found_once
def _written(program: Program, forward: Mapping[str, Node], backward: Mapping[str, Node]) -> Mapping[Node, Node]:
    """By node of the program and of its block, the same without systems of equations."""
    program = counted(program)
    sizes = {name: d.choices[0] for name, d in program.dims.items() if len(d.choices) == 1 and d.choices[0] <= MOST}
    order = topological([*forward.values(), *backward.values(), *program.graph.values()])
    done: dict[Node, Node] = {}
    for n in order:
        fresh = rebuild(n, tuple(done[a] for a in n.args))
        done[n] = _written_out(fresh, sizes) if fresh.op in SYSTEMS else fresh
    return done


def _written_out(n: Node, sizes: Mapping[str, int]) -> Node:
    row, col = n.text("row"), n.text("col")
    size = sizes.get(unprimed(row))
    if size is None:
        return n
    b = n.args[1] if n.op == "solve" else const(0.0)
    solution, logdet = (by_formula if size <= 2 else gauss_jordan)(n.args[0], b, row, col, size)
    return solution if n.op == "solve" else logdet


def by_formula(m: Node, b: Node, row: str, col: str, size: int) -> tuple[Node, Node]:
    """As `gauss_jordan`, of one equation or two: Cramer's rule, a fifth of the operators."""
    b = expanded(b, (row,))
    p, r = take(take(m, row, 0), col, 0), take(b, row, 0)
    if size == 1:
        return expanded(r / p, (col,)), node("log", node("abs", p))
    q, s, t = take(take(m, row, 0), col, 1), take(take(m, row, 1), col, 0), take(take(m, row, 1), col, 1)
    u = take(b, row, 1)
    det = p * t - q * s
    found = where(node("eq", index(col), const(0.0)), t * r - q * u, p * u - s * r)
    return found / det, node("log", node("abs", det))


def gauss_jordan(m: Node, b: Node, row: str, col: str, size: int) -> tuple[Node, Node]:
    """x with m x = b, and the logarithm of the size of m's determinant, in elementwise operators and sums."""
    place = -index(row)
    used: Node | None = None
    pivots: list[Node] = []
    logdet: Node = const(0.0)
    for k in range(size):
        column = take(m, col, k)
        left = node("abs", column) if used is None else where(used, -1.0, node("abs", column))
        best = node("eq", left, node("amax", left, over=(row,)))
        first = node("amax", where(best, place, -math.inf), over=(row,))
        chosen = node("eq", place, first)  # one row: the first of those that are largest
        pivot = _at(chosen, column, row)
        logdet = logdet + node("log", node("abs", pivot))
        lead, right = (_at(chosen, x, row) / pivot for x in (m, b))
        m = where(chosen, lead, m - column * lead) if k < size - 1 else m
        b = where(chosen, right, b - column * right)
        pivots.append(chosen)
        used = chosen if used is None else node("or", used, chosen)
    x: Node = const(0.0)
    for k, chosen in enumerate(pivots):
        x = where(node("eq", index(col), const(float(k))), _at(chosen, b, row), x)
    return x, logdet


def _at(chosen: Node, x: Node, row: str) -> Node:
    """x at the chosen row."""
    return node("sum", where(chosen, x, 0.0), over=(row,))
