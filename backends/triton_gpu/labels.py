"""What values are called: the lines of the spec that define them, the names of results, and those of what lies between.

In: a `Block`, its two graphs. Out: node -> text. Names in a kernel, which are unique there, are `names`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seqc.emit.names import safe_name
from seqc.ir.block import Block
from seqc.ir.graph import Node
from seqc.ir.keys import is_next, next_key, result_of, slope_of


def spec_lines(block: Block) -> dict[Node, str]:
    """The line of the spec that defines a node, for those that have one."""
    program = block.program
    step = {**program.outputs, **{next_key(s): n for s, n in program.updates.items()}}
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
    found = {n: f"{safe_name(result_of(key))}_next" for key, n in forward.items() if is_next(key)}
    for key, n in forward.items():
        found.setdefault(n, safe_name(key))
    for key, n in backward.items():
        found.setdefault(n, "d" + safe_name(slope_of(key).name))
    return found


class Labels:
    """What a kernel's values are called. labels, names: of results, and of values of the spec; bare: the bare name of a value
    that has a variable."""

    def __init__(self, labels: Mapping[Node, str], names: Mapping[Node, str], bare: Callable[[Node], str | None]) -> None:
        self.labels, self.names, self.bare = labels, names, bare

    def label(self, n: Node) -> str:
        label = self.labels.get(n)
        if label and label.endswith("_next"):
            return label
        known = self.names.get(n)
        if known:
            return safe_name(known)
        if n.op == "leaf":
            name = n.text("name")
            if n.text("kind") == "cot":
                return f"d{safe_name(result_of(name))}"
            return safe_name(name) + (f"_{n.number('offset')}".replace("-", "m") if n.number("offset") else "")
        if label:
            return label
        if n.op == "sum" and n.args[0].op == "mul":
            parts = [self.bare(a) for a in n.args[0].args]
            if all(p and len(p) <= 3 for p in parts):
                return "".join(p for p in parts if p)
        if n.op == "mul" and all(p and len(p) <= 3 for p in map(self.bare, n.args)):
            return "".join(self.bare(a) or "" for a in n.args)
        under = self.bare(n.args[1 if n.op == "where" else 0]) if n.args else None
        match n.op:
            case "where" if under and n.args[0].op == "leaf":
                return f"{under}_in"
            case "where":
                return f"{under or 'x'}_low"
            case "cumsum":
                return f"{under or 'x'}_sum{n.number('block') or ''}{'_rest' if n.number('reverse') else ''}"
            case "tri_inv":
                return "inverse"
            case "sum":
                return "sum"
        return f"{n.op}_{under}" if len(n.args) == 1 and under and len(under) <= 12 else "x"
