"""Which dims of a kernel are programs, which are loops, and which are vectors.

In: the forward graph of a step block. Out: `Roles`. Every dim plays one role:
- *grid*: one index per program (a program is one unit of parallel work). The batch, unless rows are blocked, and free dims;
- *panel*: the one free dim that a program takes a piece of, as wide as the first-level cache allows;
- *local*: everything else: loops inside the program, and the lanes of vectors.
Rows of the batch are blocked (local, a few rows per program) where a parameter mixes two local dims: the parameter is then
read from the cache once for all rows of the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.ir.block import free_dims
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node
from seqc.ir.program import Program


@dataclass(frozen=True)
class Roles:
    """See the file's docstring. order: all dims of the kernel in the order in which buffers lay them out; sized: dims whose
    extents stand in its text and that no loop has."""

    grid: tuple[str, ...]
    panel: str | None
    blocked: bool
    order: tuple[str, ...]
    sized: tuple[str, ...] = ()

    def local(self, dims: Iterable[str]) -> tuple[str, ...]:
        """Those of `dims` that are loops or lanes inside a program, in the kernel's order."""
        inside = set(dims) - set(self.grid)
        assert inside <= set(self.order), (inside, self.order)
        return tuple(d for d in self.order if d in inside)


def roles_of(program: Program, forward: Mapping[str, Node], backward: Mapping[str, Node]) -> Roles:
    """The roles of all dims of a program."""
    results = [x.dims for x in (*program.states.values(), *program.output_decls.values())]
    graph = _all({**forward, **backward})
    found = {d for dims in (*graph, *results) for d in dims}
    every = [d for d in program.dims if d in found]
    free = set(free_dims(forward))
    mixed = {d for d in every if d not in free}
    matrices = [p.dims for p in program.params.values() if len({unprimed(d) for d in p.dims} & mixed) >= 2]
    matrices += [p.dims for p in program.params.values() if any("'" in d for d in p.dims)]
    blocked = bool(matrices)
    panel = None
    if not blocked:
        # the last free dim of the widest state: its indices are neighbours in memory
        widest = max(program.states.values(), key=lambda s: len(s.dims), default=None)
        candidates = [d for d in (widest.dims if widest else every) if d in free]
        panel = candidates[-1] if candidates else None
    grid = tuple(d for d in (BATCH, *every) if (d in free or d == BATCH) and d != panel and not (d == BATCH and blocked))
    primed = sorted({d for dims in (*graph, *results) for d in dims if "'" in d})
    order = (BATCH, *every, *primed)
    return Roles(grid, panel, blocked, order, _sized(program, {**forward, **backward}, order))


def _sized(program: Program, graph: Mapping[str, Node], order: tuple[str, ...]) -> tuple[str, ...]:
    """Dims that are no loop's: of arrays that no value reads, and such whose size is a number of the spec."""
    from seqc.ir.graph import topological

    found = {d for x in (*program.inputs.values(), *program.params.values()) for d in x.dims}
    found |= {n.text("dim") for n in topological(graph.values()) if n.op == "size"}
    every = [*program.dims, *sorted(d for d in found if "'" in d)]
    return tuple(d for d in every if d in found and d not in order)


def _all(forward: Mapping[str, Node]) -> list[tuple[str, ...]]:
    from seqc.ir.graph import topological

    return [n.dims for n in topological(forward.values())]
