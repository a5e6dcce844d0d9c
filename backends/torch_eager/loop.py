"""The sequential phase: a Python loop over blocks with as few torch calls as possible.

In: the loop's nodes, and the texts of what is known for all blocks. Out: statements. What the loop reads is cut along the
block axis once, before the loop, and so are all views of it. `a * b + c` is one call (`torch.addcmul`) here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.lines import laid
from seqc.backends.torch_eager.pack import Join, joins
from seqc.backends.torch_eager.printer import Printer
from seqc.backends.torch_eager.products import common
from seqc.backends.torch_eager.values import LONG
from seqc.emit.expressions import ATOM, Text, aligned, reordered
from seqc.emit.text import WIDTH, lay
from seqc.ir.graph import Node
from seqc.ir.traverse import postorder


class LoopPrinter(Printer):
    """A printer inside the loop. outer: node -> its text outside: a name or a number, its axes in any order."""

    segmented = False

    def __init__(
        self, fn: Function, roots: Iterable[Node], given: Mapping[Node, Text], names: Mapping[Node, str],
        order: Sequence[str], extent: Mapping[str, int], quotes: Mapping[Node, str], outer: Mapping[Node, Text],
    ) -> None:
        self.outside: dict[str, Text] = {}  # name inside -> text outside
        self._names_of: dict[str, str] = {}  # text outside -> name inside
        known = dict(given)
        for n, x in outer.items():
            inner = tuple(d for d in x.axes if d != BLOCK)
            whole = reordered(x, (BLOCK, *inner))  # the loop cuts along the first axis
            known[n] = x if x.scalar else Text(self._brought(fn, whole, x.code), inner)
        roots = list(roots)
        self.fused: dict[Node, tuple[Node, ...]] = {}
        self.joins: dict[Node, Join] = {}
        super().__init__(fn, roots, known, names, order, extent, quotes)
        every = postorder(roots, lambda n: n.args, self.texts)
        self.joins = joins(every, self.products, self.once)
        self.uses = Counter(roots)
        for n in postorder(roots, self.parts, self.texts):
            self.uses.update(self.parts(n))

    def _brought(self, fn: Function, outside: Text, stem: str) -> str:
        """The name inside the loop of a text outside it."""
        if outside.code not in self._names_of:
            if BLOCK in outside.axes:
                name = fn.names.fresh(stem + ("_t" if fn.step else "_n"))
            else:
                name = outside.code if outside.code.isidentifier() else fn.names.fresh(stem)
            self._names_of[outside.code] = name
            self.outside[name] = outside
        return self._names_of[outside.code]

    def _viewed(self, x: Text, inner: Text, outer: Text) -> Text:
        """inner, or the name of what `outer` says when x comes from outside the loop."""
        if inner.code == x.code:
            return inner
        stem = x.code.removesuffix("_t" if self.fn.step else "_n") if BLOCK in outer.axes else x.code
        return Text(self._brought(self.fn, outer, stem), inner.axes)

    def _whole(self, x: Text) -> Text:
        """What x is cut from, its axes called as x has them: it may have been renamed on the way."""
        outside = self.outside[x.code]
        return Text(outside.code, (*((BLOCK,) if BLOCK in outside.axes else ()), *x.axes), outside.level, outside.scalar)

    def align(self, x: Text, axes: Sequence[str]) -> Text:
        inner = aligned(x, axes)
        if x.code not in self.outside:
            return inner
        outside = self._whole(x)
        front = (BLOCK,) if BLOCK in outside.axes else ()
        return self._viewed(x, inner, aligned(outside, (*front, *inner.axes)))

    def turn(self, x: Text, order: Sequence[str]) -> Text:
        if x.code not in self.outside:
            return reordered(x, order)
        return self._viewed(x, reordered(x, order), reordered(self._whole(x), (BLOCK, *order)))

    def column(self, x: Text) -> Text:
        inner = super().column(x)
        return inner if x.code not in self.outside else self._viewed(x, inner, super().column(self._whole(x)))

    def merged(self, x: Text, dims: Sequence[str]) -> Text:
        inner = super().merged(x, dims)
        return inner if x.code not in self.outside else self._viewed(x, inner, super().merged(self._whole(x), dims))

    def row(self, x: Text) -> Text:
        inner = super().row(x)
        return inner if x.code not in self.outside else self._viewed(x, inner, super().row(self._whole(x)))

    def beside(self, texts: Sequence[Text], dim: str, wide: str) -> Text:
        axes = texts[0].axes
        wider = tuple(wide if d == dim else d for d in axes)
        at = axes.index(dim) - len(axes)
        if all(x.code in self.outside and BLOCK not in self.outside[x.code].axes for x in texts):
            # parameters: once, before the loop
            codes = ", ".join(reordered(self._whole(x), axes).code for x in texts)
            whole = Text(f"torch.cat([{codes}], {at})", wider)
            return Text(self._brought(self.fn, whole, common(texts)), wider)
        codes = ", ".join(self.turn(x, axes).code for x in texts)
        joined = Text(f"torch.cat([{codes}], {at})", wider)
        return joined if len(joined.code) < LONG else self.fn.assign("wide", joined)

    def _join(self, join: Join) -> Text:
        """The sum of contractions as one product, and the other terms."""
        wide = f"{join.along}*{len(join.values)}"
        values = []
        for factors in join.values:
            value = self.arg(factors[0])
            for x in factors[1:]:
                value = self.times(value, self.arg(x))
            values.append(value)
        joined = self.beside(values, join.along, wide)
        params = self.beside([self.texts[w] for w in join.params], join.along, wide)
        out = self.pair(joined, params, frozenset({wide}))
        for x in join.rest:
            out = self.plus(out, self.arg(x))
        return out

    def parts(self, n: Node) -> tuple[Node, ...]:
        if n in self.joins:
            join = self.joins[n]
            return (*(x for factors in join.values for x in factors), *join.params, *join.rest)
        return self._addcmul(n) or super().parts(n)

    def _addcmul(self, n: Node) -> tuple[Node, ...]:
        """(c, a, b) where n is a * b + c and nobody else reads the product."""
        if n.op != "add":
            return ()
        if n not in self.fused:
            self.fused[n] = ()
            for product, c in (n.args, n.args[::-1]):
                if product.op == "mul" and self.raw[product] == 1 and product not in self.texts:
                    if product in self.names or any(x.op in ("const", "size") for x in (c, *product.args)):
                        continue
                    self.fused[n] = (c, *product.args)
                    break
        return self.fused[n]

    def text(self, n: Node) -> Text:
        if n in self.joins:
            return self._join(self.joins[n])
        fused = self._addcmul(n)
        args = [self.texts[x] for x in fused]
        if not fused or any(x.scalar for x in args):
            return super().text(n) if not fused else self.plus(self.times(args[1], args[2]), args[0])
        axes = self.axes_of(args)
        c, a, b = (self.align(x, axes) for x in args)
        return Text(f"torch.addcmul({c.code}, {a.code}, {b.code})", axes)

    def opening(self, body: Sequence[str], reverse: bool) -> tuple[list[str], list[str]]:
        """(statements before the loop, lines of the loop's head), for what `body` reads of the outside."""
        words = set(re.findall(r"\w+", "\n".join(body)))
        read = {name: x for name, x in self.outside.items() if name in words}
        before = [f"{name} = {x.code}" for name, x in read.items() if BLOCK not in x.axes and x.code != name]
        cut = [(name, x) for name, x in read.items() if BLOCK in x.axes]
        if not cut:
            return before, [f"for _ in range({self.fn.size(BLOCK)}):"]
        names = [name for name, _ in cut]
        codes = [x.code for _, x in cut]
        source = f"{cut[0][1].at(ATOM)}.unbind()" if len(cut) == 1 else f"zip({', '.join(codes)})"
        if reverse:
            source = f"reversed({source})" if len(cut) == 1 else f"reversed(list({source}))"
        head = f"for {', '.join(names)} in {source}:"
        if len(head) + self.fn.indent <= WIDTH:
            return before, [head]
        if reverse:
            before += ["blocks = list(", *(f"    {line}" for line in laid(f"zip({', '.join(codes)})", 0)), ")"]
        else:
            before += laid(f"blocks = {source}", 0)
        source = "reversed(blocks)" if reverse else "blocks"
        return before, lay("for (", names, f") in {source}:").splitlines()
