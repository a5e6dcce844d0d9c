"""Products of arrays with named axes: in which order, and as which torch call.

In: `Text`s and the dims to sum. Out: one `Text`: a product, a matrix product, or an einsum where neither fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.backends.torch_eager.contract import plan
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.views import Views
from seqc.emit.expressions import ATOM, PRODUCT, Text
from seqc.ir.dims import is_rank


class Products(Views):
    """extent: typical sizes, to choose the order of products."""

    def __init__(self, fn: Function, order: Sequence[str], extent: Mapping[str, int]) -> None:
        super().__init__(fn, order)
        self.extent = extent

    def contracted(self, arrays: list[Text], over: frozenset[str]) -> Text:
        """sum[over] of the product of arrays."""
        if len(arrays) == 1:
            return self.reduced(arrays[0], tuple(over), "sum")
        left = []
        for i, x in enumerate(arrays):
            others = {d for j, y in enumerate(arrays) if j != i for d in y.axes}
            left.append(self.reduced(x, tuple((over & set(x.axes)) - others), "sum"))
        gone = frozenset(d for d in over if any(d in x.axes for x in left))
        steps = plan([frozenset(x.axes) for x in left], gone, self.extent)
        for k, (i, j, summed) in enumerate(steps):
            a, b = left[i], left[j]
            out = self.pair(a, b, summed)
            if summed and k + 1 < len(steps) and not out.code.isidentifier():
                out = self.fn.assign("p", out)
            left = [x for m, x in enumerate(left) if m not in (i, j)] + [out]
        return left[0]

    def pair(self, a: Text, b: Text, summed: frozenset[str]) -> Text:
        """sum[summed](a * b), as a product, a matrix product or an einsum."""
        if not summed:
            return self.times(a, b)
        both = [d for d in self.canonical(a.axes) if d in b.axes and d not in summed]
        only_a = [d for d in a.axes if d not in b.axes]
        only_b = [d for d in b.axes if d not in a.axes]
        if not only_a and not only_b:
            return self.reduced(self.times(a, b), tuple(summed), "sum")
        if self.fn.whole and only_a and only_b and not both:
            return self._einsum(a, b, self.canonical((*only_a, *only_b)), self.fn.helper("_product"))
        con = next(iter(summed))
        if only_a and only_b and any(is_rank(d) for d in (*a.axes, *b.axes)):
            return self._matmul_of_merged(a, b, both, *(self.canonical(dims) for dims in (only_a, only_b, summed)))
        if len(summed) == 1 and len(only_a) <= 1 and len(only_b) <= 1:
            if self.canonical((*only_a, *only_b))[:1] == tuple(only_b) and only_a:
                a, b, only_a, only_b = b, a, only_b, only_a
            return self._matmul(a, b, both, only_a, only_b, con)
        for x, w, free, right in ((a, b, only_a, only_b), (b, a, only_b, only_a)):
            if len(summed) == 1 and not both and len(right) == 1 and x.axes[-1] == con and len(free) > 1:
                w = self.turn(w, (con, right[0]))
                return Text(f"{x.at(PRODUCT)} @ {w.at(ATOM)}", (*x.axes[:-1], right[0]), PRODUCT)
        if both and not (only_a and only_b):  # a matrix and vectors that lie across it
            return self.reduced(self.times(a, b), tuple(summed), "sum")
        axes = self.canonical((*both, *only_a, *only_b))
        if not both and axes[0] in only_b:  # the result then lies as its axes say
            a, b = b, a
        return self._einsum(a, b, axes, "torch.einsum")

    def _einsum(self, a: Text, b: Text, axes: tuple[str, ...], function: str) -> Text:
        letters = ["".join(self.fn.letter(d) for d in s) for s in (a.axes, b.axes, axes)]
        return Text(f'{function}("{letters[0]},{letters[1]}->{letters[2]}", {a.code}, {b.code})', axes)

    def _matmul(self, a: Text, b: Text, both: list[str], left: list[str], right: list[str], con: str) -> Text:
        a = self.turn(a, (*both, *left, con))
        b = self.turn(b, (*both, con, *right))
        axes = (*both, *left, *right)
        if left and right:
            return Text(f"{a.at(PRODUCT)} @ {b.at(ATOM)}", axes, PRODUCT)
        if left:  # matrix times vector
            column = self.column(b)
            return Text(f"({a.at(PRODUCT)} @ {column.at(ATOM)})[..., 0]", axes)
        row = self.row(a)
        return Text(f"({row.at(PRODUCT)} @ {b.at(ATOM)})[..., 0, :]", axes)

    def _matmul_of_merged(
        self, a: Text, b: Text, both: Sequence[str], left: Sequence[str], right: Sequence[str], con: Sequence[str]
    ) -> Text:
        """Several dims, such as steps and rows of each, as one of a matrix."""
        if self.canonical((*left, *right))[0] == right[0]:
            a, b, left, right = b, a, right, left
        a, b = self.as_matrix(a, both, left, con), self.as_matrix(b, both, con, right)
        return self.apart(Text(f"{a.at(PRODUCT)} @ {b.at(ATOM)}", (), PRODUCT), both, left, right)

    def apart(self, x: Text, both: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> Text:
        """A matrix, each of whose axes may be several."""
        for dims, at in ((columns, -1), (rows, -1 - len(columns))):
            if len(dims) > 1:
                sizes = ", ".join(self.fn.size(d) for d in dims)
                x = Text(f"{x.at(ATOM)}.unflatten({at}, ({sizes}))")
        return Text(x.code, (*both, *rows, *columns), x.level)

    def as_matrix(self, x: Text, both: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> Text:
        """x with two axes behind `both`. Axes that lie side by side become one before they change places: no copy."""
        want = (*both, *rows, *columns)
        if not all("".join(dims) in "".join(x.axes) for dims in (rows, columns)):
            x = self.turn(x, want)
        x = self.merged(self.merged(x, rows), columns)
        return self.turn(x, (*both, "&".join(rows), "&".join(columns)))

    def beside(self, texts: Sequence[Text], dim: str, wide: str) -> Text:
        """Arrays with the same dims side by side along `dim`, which is then called `wide`."""
        axes = texts[0].axes
        codes = ", ".join(self.turn(x, axes).code for x in texts)
        joined = Text(f"torch.cat([{codes}], {axes.index(dim) - len(axes)})", tuple(wide if d == dim else d for d in axes))
        return self.fn.assign(common(texts), joined)


def common(texts: Sequence[Text]) -> str:
    """A name for several arrays side by side: what their names begin with."""
    words = [x.code.split("_")[0] for x in texts]
    return words[0] if len(set(words)) == 1 and words[0].isidentifier() else "wide"
