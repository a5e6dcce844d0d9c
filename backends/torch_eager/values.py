"""Nodes to statements: which get names, which live on a part of the rows, which are printed as one.

In: graph roots whose leaves have texts. Out: statements in a `Function`, and the texts of the roots. What the text of one
node is, given those of its parts, is `printer`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.contract import Product, product_of
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.pack import Fan, fans
from seqc.backends.torch_eager.products import Products
from seqc.backends.torch_eager.scans import befores_of, scans_of
from seqc.backends.torch_eager.segments import DENSE, Form, axes_in, forms_of, level_of, row_of, within
from seqc.emit.expressions import ATOM, SIGN, Text
from seqc.ir.graph import BATCH, ROW, Node
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import GUARD, is_finite
from seqc.ir.traverse import postorder

LONG = 64  # characters of an expression that is used once and still gets a line of its own
FREE = frozenset(name for name, row in TABLE.items() if "alias" in row.laws)  # the text of their argument
VIEWS = FREE | {"take", "surrogate"} | {name for name, row in TABLE.items() if row.cost == "none"}  # may share memory


class Values(Products):
    """The values below `roots`; see the file's docstring.

    given: texts of leaves (and of any other nodes that exist already). names: wishes. order: dims, outermost first.
    extent: typical sizes. quotes: node -> the line of the spec to quote above it.
    """

    segmented = True  # whether values may live on a part of the rows (see `segments`)

    def __init__(
        self, fn: Function, roots: Iterable[Node], given: Mapping[Node, Text], names: Mapping[Node, str],
        order: Sequence[str], extent: Mapping[str, int], quotes: Mapping[Node, str],
    ) -> None:
        super().__init__(fn, order, extent)
        self.texts = dict(given)
        self.names = names
        self.quotes = quotes
        self.products: dict[Node, Product] = {}
        roots = list(roots)
        self.raw = raw = Counter(roots)
        every = postorder(roots, lambda n: n.args, self.texts)
        for n in every:
            raw.update(n.args)
        self.forms = forms_of(every, roots, extent[ROW]) if self.segmented else {}
        self.terms = self._mixed_sums(every)
        self.users: dict[Node, list[Node]] = {}
        for n in every:
            for a in n.args:
                self.users.setdefault(a, []).append(n)
        self.befores = {n: x for n, x in befores_of(every).items() if n not in self.forms}
        self.scans = scans_of(every, self.once)
        self._ends = {n.args[0]: n for n, scan in self.scans.items() if scan.end}
        self._views: dict[tuple[str, Form], Text] = {}
        for n in reversed(every):  # users first: what a sum takes apart is no longer printed by itself
            if n.op == "sum":
                self.products[n] = product_of(
                    n, lambda x: self.once(x) and (x.op != "sum" or x not in self.forms), self.texts
                )
        looped = tuple(order[:2]) != (BATCH, BLOCK)  # else products are large, and cutting one in pieces costs more than calls
        whole = {n: p for n, p in self.products.items() if n not in self.forms}
        self.fans = fans(every, whole) if looped else {}
        self.uses = Counter(roots)
        for n in postorder(roots, self.parts, self.texts):
            self.uses.update(self.parts(n))

    def text(self, n: Node) -> Text:
        """The text of a node, from those of its parts."""
        raise NotImplementedError

    def parts(self, n: Node) -> tuple[Node, ...]:
        """The nodes whose texts the text of n is made of."""
        if n in self.fans:
            return (self.fans[n].shared, *self.fans[n].params)
        if n in self.products:
            return (*self.products[n].factors, *self.products[n].divisors)
        if n in self.terms:
            return tuple(x for _, x in self.terms[n])
        if n in self.scans:
            return self.scans[n].parts
        if n.op == "where" and (self.masked_away(n) or self.is_inside(n)):
            return n.args[1:2]
        if n in self.befores:
            return self.befores[n]
        return n.args

    def once(self, n: Node) -> bool:
        """Whether n has one user and no name, so that it may be taken apart."""
        return self.raw[n] == 1 and n not in self.texts and n not in self.names

    def _mixed_sums(self, order: Sequence[Node]) -> dict[Node, list[tuple[int, Node]]]:
        """Sums of whole values and of values on a part of the rows: node -> its terms with their signs."""
        out: dict[Node, list[tuple[int, Node]]] = {}
        for n in order:
            if n.op in ("add", "sub") and n not in self.forms and any(a in self.forms or a in out for a in n.args):
                signs = (1, -1 if n.op == "sub" else 1)
                out[n] = []
                for sign, a in zip(signs, n.args, strict=True):
                    inner = out[a] if a in out and self.once(a) else [(1, a)]
                    out[n] += [(sign * k, x) for k, x in inner]
                if not any(x in self.forms for _, x in out[n]):
                    del out[n]
        return out

    # ---- statements ----

    def values(self, roots: Iterable[Node]) -> list[Text]:
        """The texts of `roots`, after the statements that they need."""
        wanted = list(roots)
        for n in postorder(wanted, self.parts, self.texts):
            if n in self.fans and n not in self.texts:
                self._fan(self.fans[n])
            if n not in self.texts:
                self.texts[n] = self._placed(n, self.text(n))
        return [self.arg(n) for n in wanted]

    def value(self, root: Node) -> Text:
        """The text of one node."""
        return self.values([root])[0]

    def named(self, root: Node, wish: str = "") -> Text:
        """The text of one node, which is then a name (or a number)."""
        x = self.value(root)
        if not (x.code.isidentifier() or x.scalar):
            x = self.texts[root] = self.fn.assign(wish or self.wish(root), x)
        return x

    def _placed(self, n: Node, x: Text) -> Text:
        """x itself where it is read once and short, else a name for it."""
        if x.scalar or x.code.isidentifier() or n.op == "leaf":
            return x
        free = n.op in FREE and all(a in self.texts and self.texts[a].code.isidentifier() for a in n.args)
        if free and n not in self.names:
            return x
        if self.uses[n] > 1 or n in self.names or len(x.code) > LONG:
            self.fn.comment(GUARD if is_finite(n) else self.quotes.get(n, ""))
            return self.fn.assign(self.wish(n), x)
        return x

    def wish(self, n: Node) -> str:
        if n in self.names or is_finite(n):
            return self.names.get(n, "finite")
        args = [self.texts[a].code for a in self.parts(n) if a in self.texts and not self.texts[a].scalar]
        short = [a for a in args if a.isidentifier() and not a[-1].isdigit()]
        if n.op in ("exp", "log", "sigmoid", "tanh", "softplus", "logsigmoid", "cumsum") and len(short) == 1:
            return f"{ {'cumsum': 'sum'}.get(n.op, n.op)}_{short[0]}"[:24]
        if n.op == "sum" and len(short) == len(args) == 2 and len(short[0]) + len(short[1]) < 12:
            return f"{short[0]}_{short[1]}"
        return {"sum": "p", "and": "m", "eq": "m", "ge": "m", "gt": "m", "where": "w", "tri_inv": "inv"}.get(n.op, "x")

    def fresh(self, n: Node) -> bool:
        """Whether the text of n is a new array that nobody reads later."""
        x = self.texts[n]
        others = len(self.users.get(n, ()))
        if n.op in VIEWS or n in self.fans or x.scalar or self.raw[n] != others:
            return False
        alike = [self.texts[a].code for a in n.args if a in self.texts] + [code for code, _ in self._views]
        if x.code in alike:  # another name of its argument, or read in parts
            return False
        if n.op == "where" and self.is_inside(n):  # may be the very array of its argument
            whole = n.args[1]
            if len(self.users[whole]) > 1 or not self.fresh(whole):
                return False
        if others == 1:
            return True
        readers = [self._ends.get(u, u) for u in self.users[n]]
        waiting = [u for u in readers if u not in self.texts]
        return len(waiting) == 1 and all(
            (u.op not in VIEWS or u in self.scans) and not (u.op == "where" and self.is_inside(u))
            and self.texts[u].code.isidentifier() for u in readers if u in self.texts
        )

    # ---- choices that are not computed as such ----

    def masked_away(self, n: Node) -> bool:
        """Whether the mask of a choice is what the form of n says."""
        form = self.forms.get(n, DENSE)
        if not form or n.args[2].op != "const" or n.args[2].attr("value") != 0.0:
            return False
        rows = self.extent[ROW]
        return bool(level_of(n.args[0], rows)) or row_of(n.args[0], rows) >= 0

    def is_inside(self, n: Node) -> bool:
        """Whether n is where(row inside the sequence, x, number), with x on whole rows of blocks."""
        if n.op != "where" or n in self.forms or n.args[2].op != "const":
            return False
        mask, x = n.args[0], n.args[1]
        if mask.op != "leaf" or mask.text("kind") != "mask":
            return False
        return x.op != "const" and BLOCK in x.dims and ROW in x.dims

    # ---- several products as one ----

    def _fan(self, fan: Fan) -> None:
        """Write one product for all members, and name its pieces."""
        wide = f"{fan.along}*{len(fan.params)}"
        params = self.beside([self.texts[w] for w in fan.params], fan.along, wide)
        out = self.pair(self.arg(fan.shared), params, frozenset(fan.over))
        out = self.turn(out, self.canonical(out.axes))
        at = out.axes.index(wide)
        axes = tuple(fan.along if d == wide else d for d in out.axes)
        names = [self.fn.names.fresh(self.wish(n)) for n in fan.members]
        self.fn.say(f"{', '.join(names)} = {out.at(ATOM)}.chunk({len(names)}, {at - len(axes)})")
        for n, name in zip(fan.members, names, strict=True):
            self.texts[n] = Text(name, axes)

    # ---- values on a part of the rows ----

    def arg(self, n: Node, form: Form = DENSE) -> Text:
        """The text of n on the rows of `form`."""
        x, have, want = self.texts[n], self.forms.get(n, DENSE), within(form, n.dims)
        if have == want:
            return x
        if have:
            x = self.whole_of(n.dims, [], [(1, x, have)], self.wish(n))
            self.texts[n] = x
            del self.forms[n]
        return self.part(x, want)

    def part(self, x: Text, form: Form) -> Text:
        """A view of x on the rows of `form`."""
        form = within(form, x.axes)
        if not form or x.scalar:
            return x
        if (x.code, form) not in self._views:
            b = next(b for _, b, _ in form)
            if len(form) == 2:
                y = self.turn(x, self._turned(x, form))
                call = f"{self.fn.helper('_pairs')}({y.code}, {b})"
                wish = f"{x.code}_{b}"
            else:
                (dim, _, side), y = next(iter(form)), x
                if side == "@":
                    return self.row_at(x, dim, b)
                helper = self.fn.helper("_upper" if side == "u" else "_lower")
                call = f"{helper}({x.code}, {b}, {x.axes.index(dim) - len(x.axes)})"
                wish = f"{x.code}_{side}{b}"
            view = Text(call, axes_in(y.axes, form))
            self._views[x.code, form] = self.fn.assign(wish, view) if x.code.isidentifier() else view
        return replace(self._views[x.code, form], axes=axes_in(self._turned(x, form), form))  # its dims may have other names

    def _turned(self, x: Text, form: Form) -> tuple[str, ...]:
        """The axes of x, both times last where a form has both: first the one of the upper halves, whatever they are called."""
        if len(form) != 2:
            return x.axes
        times = [d for side in "ul" for d, _, own in form if own == side]
        return (*(d for d in x.axes if d not in times), *times)

    def whole_of(
        self, dims: Sequence[str], whole: list[tuple[int, Text, bool]], parts: list[tuple[int, Text, Form]], wish: str
    ) -> Text:
        """The sum of whole values and of values on a part of the rows, as a new array that the parts are added to.

        whole: sign, text, and whether the text is an array that nobody else reads.
        """
        axes = self.canonical(dims)
        if whole:
            out, first = whole[0][1], whole[0][0]
            out = out if first > 0 else Text(f"-{out.at(SIGN)}", out.axes, SIGN, out.scalar)
            for sign, x, _ in whole[1:]:
                out = self.infix("{0} + {1}" if sign > 0 else "{0} - {1}", out, x)
            own = (len(whole) > 1 or whole[0][2] or first < 0) and not set(axes) - set(out.axes)
            axes = out.axes if not set(axes) - set(out.axes) else axes
            out = self.exactly(out, axes)
            out = out if own else Text(f"{out.at(ATOM)}.clone()", axes)
        else:
            sizes = ", ".join(self.fn.size(d) for d in axes)
            out = Text(f"{self.fn.like}.new_zeros({sizes})", axes)
        out = self.fn.assign(wish, out)
        for sign, x, form in parts:
            place = self.part(Text(f" {out.code}", axes), form)  # not kept: the array changes
            code = place.code.replace(f" {out.code}", out.code)
            self.fn.say(f"{code}.{'add_' if sign > 0 else 'sub_'}({self.align(x, place.axes).code})")
        return out
