"""States that no output depends on: a call computes them for their last values alone.

In: a program, sizes of its dims. Out: their names, and what is said of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.analysis.cost import cost
from seqc.ir.graph import BATCH, Node, leaves
from seqc.ir.program import Program
from seqc.ir.traverse import reached
from seqc.ir.two_axes import lowered


def read_later(program: Program) -> set[str]:
    """The states that an output depends on, however many steps later."""
    def read(*values: Node) -> list[str]:
        return [n.text("name") for n in leaves(values, "state")]

    return set(reached(read(*program.outputs.values()), lambda name: read(program.updates[name])))


def unread(program: Program) -> frozenset[str]:
    """The states that no output depends on, in one run over one axis; none of a program without outputs."""
    read = read_later(lowered(program)) if program.outputs else program.states
    return frozenset(program.states) - set(read)


def for_their_ends(program: Program, names: Iterable[str], sizes: Mapping[str, int]) -> str:
    """What is said of states that no output depends on, behind a semicolon; "" of others."""
    if not {*names} <= unread(program):
        return ""
    share = share_of(program, names, sizes)
    return f"; no output depends on it: {share:.0f}% of a step's operations are for its last value alone"


def share_of(program: Program, names: Iterable[str], sizes: Mapping[str, int]) -> float:
    """The percentage of a step's operations that serve some states alone."""
    kept = [*program.outputs.values(), *(n for name, n in program.updates.items() if name not in {*names})]
    whole, rest = (cost(roots, {**sizes, BATCH: 1}).flops for roots in (program.graph.values(), kept))
    return 100 * (1 - rest / whole) if whole else 0.0
