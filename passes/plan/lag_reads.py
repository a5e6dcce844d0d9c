"""What a step graph reads at many lags along a dim: windows of inputs, and delay lines at positions that are known.

    x[t - index[L]]                                           a window of the input x (`seqc.ir.windows`)
    gather(e.lags, as_place(|line| - lag), ..)                e at lags from 1 on, of a delay line
    where(index[L] == 0, e, gather(e.lags, as_place(..)))     and at lag 0, which is its newest value

In: a program. Out: node -> `LagRead`. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.ir.graph import BATCH, Node, const, index, leaf, leaves, node, topological
from seqc.ir.once import found_once
from seqc.ir.ops.structure import shift, take
from seqc.ir.program import Program
from seqc.ir.windows import lags, window_of
from seqc.semantics.evaluate import evaluate


@dataclass(frozen=True)
class LagRead:
    """name: the input, or the delay line's state; dim: that of the lags."""

    name: str
    dim: str
    lags: range


@dataclass(frozen=True)
class Line:
    """A delay line. newest: the value that a step adds at its end."""

    state: Node
    dim: str
    length: int
    newest: Node


@found_once
def lines_of(program: Program) -> dict[str, Line]:
    """The delay lines among the states, of values that no state makes before them: state -> line."""
    found: dict[str, Line] = {}
    for name, decl in program.states.items():
        update = program.updates[name]
        size = program.dims[decl.dims[0]].default if decl.dims and decl.dims[0] in program.dims else None
        if update.op != "where" or size is None:
            continue
        last = node("eq", index(decl.dims[0]), const(size - 1.0))
        moved = shift(decl.leaf(), decl.dims[0], -1)
        if update.args[0] is last and update.args[2] is moved and decl.dims[0] not in update.args[1].dims:
            found[name] = Line(decl.leaf(), decl.dims[0], size, update.args[1])
    return found


@found_once
def lag_reads(program: Program) -> dict[Node, LagRead]:
    """The reads of a program at many lags; of a choice between the newest value and a line, the choice alone."""
    lines = {line.state: line for line in lines_of(program).values()}
    found: dict[Node, LagRead] = {}
    for n in topological(program.graph.values()):
        if window_of(n):
            found[n] = LagRead(n.text("name"), window_of(n), lags(n))
        elif n.op == "gather" and n.args[0] in lines:
            one = _at_places(program, n, lines[n.args[0]])
            found |= {n: one} if one and 0 not in one.lags else {}
        elif n.op == "where" and n.args[2].op == "gather" and n.args[2].args[0] in lines:
            line = lines[n.args[2].args[0]]
            one = _at_places(program, n.args[2], line)
            if one and 0 in one.lags and n.args[1] is line.newest and n.args[0] is _at_now(one):
                found[n] = one
    return found


def _at_places(program: Program, n: Node, line: Line) -> LagRead | None:
    """A line at positions along a dim. The first or last lag may be 0, at which it is read at its end instead."""
    place = n.args[1]
    if place.op != "as_place" or len(place.dims) != 1 or leaves([place]) or n.text("dim") != line.dim:
        return None
    size = program.dims[place.dims[0]].default if place.dims[0] in program.dims else None
    if size is None or size < 4:
        return None
    found = evaluate({"p": place.args[0]}, {}, {place.dims[0]: size})["p"]
    far = [line.length - round(float(x)) for x in found]
    step = far[2] - far[1]
    lags = range(far[1] - step, far[1] + step * (size - 1), step or 1)
    same = far == [max(lag, 1) for lag in lags] and min(lags) >= 0
    return LagRead(line.state.text("name"), place.dims[0], lags) if same else None


def _at_now(read: LagRead) -> Node:
    """Whether a position of the dim is that of lag 0."""
    return node("eq", index(read.dim), const(float(read.lags.index(0))))


def single(n: Node, read: LagRead, lines: Mapping[str, Line], j: int) -> Node:
    """What a read reads at one position of its dim."""
    lag = read.lags[j]
    if window_of(n):
        return leaf("input", read.name, (BATCH, *n.names("shape")[2:]), lag)
    line = lines[read.name]
    return line.newest if lag == 0 else take(line.state, line.dim, line.length - lag)


def over_lags(reads: Mapping[Node, LagRead], roots: Iterable[Node]) -> set[str]:
    """The dims of the lags that are read below some roots."""
    return {reads[n].dim for n in topological(roots) if n in reads}


__all__ = ["LagRead", "Line", "lag_reads", "lines_of", "over_lags", "single"]
