"""one step -> several steps as one graph, so that a matrix state is read and written once for all of them.

before: the outputs and S.next of a step -> after: those of each of `count` steps, on the states and inputs of the first. An
input of the j-th step is the leaf with offset -j. Needs: a graph without time. Gives: the same values.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.ir.graph import Node, leaf, leaves, substitute
from seqc.ir.verify import verify


def unroll_steps(graph: Mapping[str, Node], carried: Mapping[Node, str], count: int) -> list[dict[str, Node]]:
    """The graph of each step. carried: the leaf of a state -> the key of its next value."""
    inputs = leaves(graph.values(), "input")
    out: list[dict[str, Node]] = []
    for j in range(count):
        states = {n: out[-1][key] for n, key in carried.items()} if out else {}
        out.append(substitute(graph, {**states, **{n: later(n, j) for n in inputs}}))
        verify(out[-1], "unroll_steps")
    return out


def later(n: Node, steps: int) -> Node:
    """The leaf of an input so many steps later."""
    return leaf("input", n.text("name"), n.names("shape"), n.number("offset") - steps, n.text("type"))
