"""What values are called: the lines of the spec that define them, and the names of results.

In: a `Block`, its two graphs. Out: node -> text. Names in a kernel, which are unique there, are `names`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.emit.names import safe_name
from seqc.ir.block import Block
from seqc.ir.graph import Node


def spec_lines(block: Block) -> dict[Node, str]:
    """The line of the spec that defines a node, for those that have one."""
    program = block.program
    step = {**program.outputs, **{f"{s}.next": n for s, n in program.updates.items()}}
    found = {}
    for n in (*program.definitions, *step.values()):
        if n in program.spans:
            span = program.spans[n]
            found[n] = span.source.line(span.line).partition("#")[0].strip()
    for key, n in step.items():  # in a block of rows the same line stands for another node
        if n in found:
            found.setdefault(block.forward[key], found[n])
    return found


def labels(forward: Mapping[str, Node], backward: Mapping[str, Node]) -> dict[Node, str]:
    """What the results of the two graphs are called where they are computed."""
    found = {n: f"{safe_name(key.removesuffix('.next'))}_next" for key, n in forward.items() if key.endswith(".next")}
    for key, n in forward.items():
        found.setdefault(n, safe_name(key))
    for key, n in backward.items():
        found.setdefault(n, "d" + safe_name(key[2:].removesuffix(".prev").partition("@")[0]))
    return found
