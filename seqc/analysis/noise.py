"""Noise drawn in the step (`normal[D]()`), as it stands in a step graph: what it reads are hidden states.

    noise.low, noise.high   the key of each sequence: two words of 24 bits, which never change
    noise.clock             the number of the step, from 0 on; after 2^24 steps it begins again

A draw is a function of these states, of its site (which draw of the spec it is) and of the place in the value that is drawn.
So a run in parts, a pack, a step after a run and a gradient that computes a step again see the numbers of the whole run, and no
form of a recurrence knows of noise. None of the three states has a gradient, and a linear state stays linear beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.analysis.boundaries import counter
from seqc.ir.graph import BATCH, Node, const, index, leaf, node, size, substitute
from seqc.ir.intervals import Interval
from seqc.ir.ops.random import LARGEST
from seqc.ir.program import TensorDecl

LOW, HIGH, CLOCK = "noise.low", "noise.high", "noise.clock"
ONCE = const(LARGEST)  # the clock of what is drawn once a sequence: no step has it


def draw(
    dims: Iterable[str], site: int, once: bool, word: int, at: Mapping[str, int] = {}, across: tuple[str, ...] = ()
) -> Node:
    """A number in [0, 1) for each place. dims: of the value, in their order; at: those of which one position is meant; across:
    the dim of a second axis, whose places have keys of their own."""
    low, high = (leaf("state", name, (BATCH, *across)) for name in (LOW, HIGH))
    clock = ONCE if once else leaf("state", CLOCK, (BATCH, *across))
    element = const(0.0)
    for dim in dims:
        place = const(at[dim]) if dim in at else index(dim)
        element = place if element is const(0.0) else element * size(dim) + place
    return node("draw", low, high, clock, element, const(site), const(word))


def hidden(names: frozenset[str], across: tuple[str, ...] = ()) -> dict[str, tuple[TensorDecl, Node]]:
    """The states that draws read, with their new values. names: of those that are read."""
    out: dict[str, tuple[TensorDecl, Node]] = {}
    for name in (LOW, HIGH):
        if name in names:
            decl = TensorDecl(name, "state", (), range=Interval(0.0, LARGEST - 1.0), init=const(0.0), hidden=True, whole=True)
            out[name] = decl, node("stopgrad", leaf("state", name, (BATCH, *across)))
    if CLOCK in names:
        count = counter(LARGEST, CLOCK)
        placed = {count.decl.leaf(): leaf("state", CLOCK, (BATCH, *across))}
        out[CLOCK] = count.decl, substitute({"next": count.next}, placed)["next"]
    return out
