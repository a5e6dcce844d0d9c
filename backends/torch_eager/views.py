"""Axes and views: pieces of torch text with named axes, put together.

In: `Text`s. Out: `Text`s, aligned, turned, widened, reduced. It knows no node of a graph. Axes of results: blocks, batch, the
dims that every state has (in a chunk), rows, columns, then the declared order; a text knows its own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.function import Function
from seqc.emit.expressions import ATOM, Text, aligned, filled, reordered, subscript
from seqc.ir.dims import is_primed, is_rank, unprimed
from seqc.ir.graph import COL, ROW


class Views:
    """Text with axes, in one function. order: dims, outermost first."""

    def __init__(self, fn: Function, order: Sequence[str]) -> None:
        self.fn = fn
        self.order = order

    # ---- in a loop these move out of it ----

    def align(self, x: Text, axes: Sequence[str]) -> Text:
        """x ready to broadcast against an array with `axes`."""
        return aligned(x, axes)

    def turn(self, x: Text, order: Sequence[str]) -> Text:
        """x with its axes in the order that `order` gives."""
        return reordered(x, order)

    def column(self, x: Text) -> Text:
        """A vector as a matrix of one column."""
        return Text(f"{x.at(ATOM)}[..., None]", (*x.axes, ""))

    def merged(self, x: Text, dims: Sequence[str]) -> Text:
        """x with adjacent axes as one."""
        return merged(x, dims)

    def row(self, x: Text) -> Text:
        """A vector as a matrix of one row."""
        return Text(f"{x.at(ATOM)}[..., None, :]", (*x.axes[:-1], "", *x.axes[-1:]))

    # ---- axes ----

    def canonical(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Axes in the order of results; segments and halves of a block stand where its rows do."""
        return tuple(sorted(set(axes), key=self._place))

    def _place(self, dim: str) -> tuple[int, int, str]:
        if dim[0] == "%" and dim != BLOCK:
            return self.order.index(ROW), "mul".index(dim[1]), dim
        if is_rank(dim):  # of rows beside these, of columns beside those
            return self.order.index(COL if is_primed(dim) else ROW), 1, dim
        plain = unprimed(dim.split("*")[0])
        return self.order.index(plain) if plain in self.order else len(self.order), 0, dim

    def axes_of(self, args: Sequence[Text]) -> tuple[str, ...]:
        """The axis order of an elementwise result: the canonical one, unless the widest arguments all have another."""
        axes = self.canonical(d for x in args for d in x.axes)
        wide = {x.axes for x in args if len(x.axes) == len(axes)}
        return next(iter(wide)) if len(wide) == 1 else axes

    def full(self, x: Text, dims: Sequence[str]) -> Text:
        """x with all of `dims` among its axes, repeated along those that it lacks."""
        missing = [d for d in dims if d not in x.axes]
        if not missing:
            return x
        axes = self.canonical((*x.axes, *dims))
        sizes = ", ".join(self.fn.size(d) for d in axes)
        x = self.align(self.tensor(x), axes)
        return Text(f"{x.at(ATOM)}.expand({sizes})", axes)

    def exactly(self, x: Text, axes: Sequence[str]) -> Text:
        """x with exactly `axes`, in that order."""
        if x.scalar and not axes:
            return self.tensor(x)
        if set(axes) - set(x.axes):
            sizes = ", ".join(self.fn.size(d) for d in axes)
            return Text(f"{self.align(self.tensor(x), axes).at(ATOM)}.expand({sizes})", tuple(axes))
        return self.turn(x, axes)

    def tensor(self, x: Text) -> Text:
        """A number as a tensor without axes; a tensor as it is."""
        return Text(f"{self.fn.like}.new_tensor({x.code})") if x.scalar else x

    def along(self, x: Text, dim: str) -> tuple[Text, int]:
        x = self.full(x, (dim,))
        return x, x.axes.index(dim) - len(x.axes)

    # ---- rows, sums, products of two ----

    def row_at(self, x: Text, dim: str, at: int) -> Text:
        if dim not in x.axes:
            return x
        index = self.fn.row(at) if dim == ROW else str(at)
        code = f"{x.at(ATOM)}[{subscript([index if d == dim else ':' for d in x.axes])}]"
        return Text(code, tuple(d for d in x.axes if d != dim))

    def reduced(self, x: Text, over: Sequence[str], how: str) -> Text:
        gone = [x.axes.index(d) - len(x.axes) for d in x.axes if d in over]
        if not gone:
            return x
        code = f"{x.at(ATOM)}.{how}({gone[0] if len(gone) == 1 else tuple(gone)})"
        return Text(code, tuple(d for d in x.axes if d not in over))

    def plus(self, a: Text, b: Text) -> Text:
        """a + b."""
        return self.infix("{0} + {1}", a, b)

    def times(self, a: Text, b: Text) -> Text:
        """a * b."""
        return self.infix("{0} * {1}", a, b)

    def infix(self, spelling: str, a: Text, b: Text) -> Text:
        axes = self.axes_of([x for x in (a, b) if not x.scalar])
        ready = [self.align(x, axes) for x in (a, b)]
        out = filled(spelling, ready)
        return Text(out.code, axes, out.level, out.scalar)


def merged(x: Text, dims: Sequence[str]) -> Text:
    """x with adjacent axes as one, whose name is those of all."""
    if len(dims) < 2:
        return x
    at = x.axes.index(dims[0])
    last = at + len(dims) - len(x.axes) - 1
    code = f"{x.at(ATOM)}.flatten({at - len(x.axes)}{'' if last == -1 else f', {last}'})"
    return Text(code, (*x.axes[:at], "&".join(dims), *x.axes[at + len(dims) :]))
