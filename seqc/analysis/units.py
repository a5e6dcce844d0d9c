"""Which dims of a recurrence may lose positions: units, heads, channels, features.

In: a program of one run along one axis. Out: of each dim what holds its positions together, or the products that add them up. A
position of a dim that meets the others in products with parameters alone can go where these hold 0 for it: nothing that is left
changes. Where positions meet otherwise (a norm, a softmax, their number or their place), none can go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seqc.ir.dims import unprimed
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, along, topological
from seqc.ir.program import Program
from seqc.ir.support import Units


@dataclass
class _Found:
    reads: dict[tuple[str, int], None] = field(default_factory=dict)
    held: str = ""


def units(program: Program) -> dict[str, Units]:
    """See the file's docstring, of every dim."""
    found = {name: _Found() for name in program.dims}
    names = program.definitions
    for name, d in program.dims.items():
        if len(d.choices) == 1:
            found[name].held = "no other size is served"
    for p in program.params.values():
        for dim in {unprimed(d) for d in p.dims} if p.support is not None and p.support.rules else ():
            found[dim].held = found[dim].held or f"what is kept of {p.name} is told by positions"
    for n in topological(program.graph.values()):
        if n.op == "sum":
            for dim in n.names("over"):
                _added(n, dim, found[unprimed(dim)], names)
        elif n.op == "amax":
            for dim in n.names("over"):
                _hold(found[unprimed(dim)], n, names)
        elif n.op not in ("rename", "expand"):
            for dim in along(n):
                _hold(found[unprimed(dim)], n, names)
    return {name: Units(tuple(one.reads), one.held) for name, one in found.items()}


def _hold(found: _Found, n: Node, names: Mapping[Node, str]) -> None:
    found.held = found.held or f"its positions meet in `{spell(n, names)}`"


def _added(n: Node, dim: str, found: _Found, names: Mapping[Node, str]) -> None:
    """Enter the parameters that a sum over a dim multiplies its positions by; where there is none, they meet."""
    reads = _zeros(n.args[0], dim)
    if reads is None:
        _hold(found, n, names)
    else:
        found.reads |= dict.fromkeys(reads)


def _zeros(x: Node, dim: str) -> tuple[tuple[str, int], ...] | None:
    """Parameters, and an axis of each, at whose zeros x is 0 at a position of a dim; None where no parameter decides that."""
    if dim not in x.dims:
        return None
    match x.op:
        case "leaf" if x.text("kind") == "param":
            return ((x.text("name"), [d for d in x.names("shape") if d != BATCH].index(dim)),)
        case "rename":
            return _zeros(x.args[0], x.text("old") if x.text("new") == dim else dim)
        case "mul":
            return next((found for a in x.args if (found := _zeros(a, dim)) is not None), None)
        case "sum" | "expand" | "neg" | "stopgrad" | "div":
            return _zeros(x.args[0], dim)
        case "add" | "sub":
            both = [_zeros(a, dim) for a in x.args]
            return None if None in both else tuple(read for found in both if found for read in found)
        case _:
            return None


__all__ = ["units"]
