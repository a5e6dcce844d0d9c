"""The past values of a name that is read many steps back, as one state: a delay line.

    y[t-40]   ->   take(y.lags, position of lag 40),    y.lags = the line one step further, with the newest value at its end

In: a name and its longest lag. Out: `Line`: the reads of the line, and the state itself with its new value. The values stand
in the order of time, the oldest first: what a call gives as `y_lags_T` is the end of the sequence. The line of a state begins
two steps ago, since one step ago is the state; that of a definition begins one step ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.frontend.scope import Scope
from seqc.ir.graph import BATCH, Node, const, index, leaf, node
from seqc.ir.intervals import ANY
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.indexing import as_place, gather
from seqc.ir.ops.structure import shift, take
from seqc.ir.program import DimDecl, TensorDecl

APART = 8  # the longest lag of a state whose steps are states of their own
FED = 32  # that of a definition: taps of what needs no recurrence run in blocks of steps, a line does not
MOST = 40  # states for lags in all: a call takes and gives each, and operators have a limit of arguments


@dataclass(frozen=True)
class Line:
    """dim: of the positions in the line; the lag at position p is `deepest - p`."""

    dim: str
    deepest: int
    length: int

    def leaf(self, name: str, order: tuple[str, ...]) -> Node:
        """The line as the step begins."""
        return leaf("state", f"{name}.lags", (BATCH, self.dim, *order))

    def at(self, name: str, order: tuple[str, ...], lag: int) -> Node:
        """The value `lag` steps ago."""
        return take(self.leaf(name, order), self.dim, self.deepest - lag)

    def window(self, name: str, order: tuple[str, ...], dim: str, lags: range, now: Node | None) -> Node:
        """The values at many lags, along a dim. now: that of lag 0, which the line has at the end of the step."""
        here = index(dim)
        place = const(float(self.deepest - lags.start)) - here * float(lags.step)
        if now is None:
            return gather(self.leaf(name, order), as_place(place), self.dim)
        is_now = node("eq", here, const(float(lags.index(0))))
        place = where(is_now, const(self.length - 1.0), place)
        return where(is_now, now, gather(self.leaf(name, order), as_place(place), self.dim))

    def state(self, name: str, order: tuple[str, ...], newest: Node, init: Node | None) -> tuple[TensorDecl, Node]:
        """The state, and its new value."""
        moved = shift(self.leaf(name, order), self.dim, -1)
        last = node("eq", index(self.dim), const(self.length - 1.0))
        decl = TensorDecl(f"{name}.lags", "state", (self.dim, *order), range=ANY, init=init, hidden=True)
        return decl, where(last, newest, moved)


def long(scope: Scope, deepest: Mapping[str, int]) -> dict[str, int]:
    """The names whose lags are one state, with the longest lag of each."""
    found = {word: lag for word, lag in deepest.items() if lag > (APART if word in scope.states else FED)}
    apart = sum(lag for word, lag in deepest.items() if word not in found)
    return found if apart <= MOST else {word: lag for word, lag in deepest.items() if lag > 1}


def line(scope: Scope, word: str, deepest: int) -> Line:
    """The line of a name; declares its dim."""
    length = deepest - (1 if word in scope.states else 0)
    dim = f"{word}_lags"
    while dim in scope.places or dim in scope.dims:
        dim += "_"
    scope.dims[dim] = DimDecl(dim, length, (length,))
    return Line(dim, deepest, length)
