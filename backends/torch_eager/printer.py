"""Nodes as torch expressions and statements.

In: graph roots whose leaves have texts. Out: `Text`s, and statements in a `Function`. Axes of results: blocks, batch, the
dims that every state has (in a chunk), rows, columns, then the declared order; a text knows its own order, so renaming a
dim costs nothing. A dim that a value is constant along is left out of its axes for as long as possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from seqc.backends.torch_eager.contract import Product, plan, product_of
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.pack import Fan, Join, fans
from seqc.backends.torch_eager.scans import Scan, befores_of, scans_of
from seqc.backends.torch_eager.segments import DENSE, Form, axes_in, forms_of, level_of, row_of, within
from seqc.emit.expressions import ATOM, PRODUCT, SIGN, Text, aligned, filled, number, reordered, subscript
from seqc.graph import COL, ROW, Node
from seqc.ops import TABLE
from seqc.phases import BLOCK

LONG = 64  # characters of an expression that is used once and still gets a line of its own
PYTHON = {  # operators on numbers of Python
    "sqrt": "math.sqrt({0})", "exp": "math.exp({0})", "log": "math.log({0})", "log1p": "math.log1p({0})",
    "expm1": "math.expm1({0})", "tanh": "math.tanh({0})", "sin": "math.sin({0})", "cos": "math.cos({0})",
    "erf": "math.erf({0})", "abs": "abs({0})", "min": "min({0}, {1})", "max": "max({0}, {1})",
    "pow": "({0}) ** ({1})", "where": "({1} if {0} else {2})", "not": "(not {0})",
    "and": "({0} and {1})", "or": "({0} or {1})",
}
FREE = ("rename", "expand", "stopgrad")
VIEWS = (*FREE, "leaf", "take", "surrogate", "const", "size", "index", "block_index")  # may share memory with arguments


class Printer:
    """Prints the graph below `roots`; see the file's docstring.

    given: texts of leaves (and of any other nodes that exist already). names: wishes. order: dims, outermost first.
    extent: typical sizes, to choose the order of products. spans: node -> the line of the spec to quote above it.
    """

    def __init__(
        self, fn: Function, roots: Iterable[Node], given: Mapping[Node, Text], names: Mapping[Node, str],
        order: Sequence[str], extent: Mapping[str, int], quotes: Mapping[Node, str],
    ) -> None:
        self.fn = fn
        self.texts = dict(given)
        self.names = names
        self.order = order
        self.extent = extent
        self.quotes = quotes
        self.products: dict[Node, Product] = {}
        self.fused: dict[Node, tuple[Node, ...]] = {}
        roots = list(roots)
        self.raw = raw = Counter(roots)
        every = below(roots, lambda n: n.args, self.texts)
        for n in every:
            raw.update(n.args)
        self.forms = forms_of(every, roots, extent[ROW]) if self.segmented else {}
        self.terms = self._mixed_sums(every)
        self.users: dict[Node, list[Node]] = {}
        for n in every:
            for a in n.args:
                self.users.setdefault(a, []).append(n)
        self.befores = befores_of(every)
        self.scans = scans_of(every, self._once)
        self._views: dict[tuple[str, Form], Text] = {}
        for n in reversed(every):  # users first: what a sum takes apart is no longer printed by itself
            if n.op == "sum":
                self.products[n] = product_of(n, lambda x: self._once(x) and (x.op != "sum" or x not in self.forms))
        self.fans = fans(every, self.products)
        self.joins: dict[Node, Join] = {}
        self.uses = Counter(roots)
        for n in below(roots, self.parts, self.texts):
            self.uses.update(self.parts(n))

    segmented = True  # whether values may live on a part of the rows (see `segments`)

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
        if n.op == "where" and (self._masked_away(n) or self._inside(n)):
            return n.args[1:2]
        if n in self.befores:
            return self.befores[n]
        return n.args

    def _once(self, n: Node) -> bool:
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
                    inner = out[a] if a in out and self._once(a) else [(1, a)]
                    out[n] += [(sign * k, x) for k, x in inner]
                if not any(x in self.forms for _, x in out[n]):
                    del out[n]
        return out

    def values(self, roots: Iterable[Node]) -> list[Text]:
        """The texts of `roots`, after the statements that they need."""
        wanted = list(roots)
        for n in below(wanted, self.parts, self.texts):
            if n in self.fans and n not in self.texts:
                self._fan(self.fans[n])
            if n not in self.texts:
                self.texts[n] = self._placed(n, self._text(n))
        return [self.arg(n) for n in wanted]

    def value(self, root: Node) -> Text:
        """The text of one node."""
        return self.values([root])[0]

    def named(self, root: Node, wish: str = "") -> Text:
        """The text of one node, which is then a name (or a number)."""
        x = self.value(root)
        if not (x.code.isidentifier() or x.scalar):
            x = self.texts[root] = self.fn.assign(wish or self._wish(root), x)
        return x

    # ---- several products as one ----

    def _fan(self, fan: Fan) -> None:
        """Write one product for all members, and name its pieces."""
        wide = f"{fan.along}*{len(fan.params)}"
        params = self.beside([self.texts[w] for w in fan.params], fan.along, wide)
        out = self.pair(self.arg(fan.shared), params, frozenset(fan.over))
        out = self.turn(out, self.canonical(out.axes))
        at = out.axes.index(wide)
        axes = tuple(fan.along if d == wide else d for d in out.axes)
        names = [self.fn.names.fresh(self._wish(n)) for n in fan.members]
        self.fn.say(f"{', '.join(names)} = {out.at(ATOM)}.chunk({len(names)}, {at - len(axes)})")
        for n, name in zip(fan.members, names, strict=True):
            self.texts[n] = Text(name, axes)

    def beside(self, texts: Sequence[Text], dim: str, wide: str) -> Text:
        """Arrays with the same dims side by side along `dim`, which is then called `wide`."""
        axes = texts[0].axes
        codes = ", ".join(self.turn(x, axes).code for x in texts)
        joined = Text(f"torch.cat([{codes}], {axes.index(dim) - len(axes)})", tuple(wide if d == dim else d for d in axes))
        return self.fn.assign(common(texts), joined)

    # ---- values on a part of the rows ----

    def arg(self, n: Node, form: Form = DENSE) -> Text:
        """The text of n on the rows of `form`."""
        x, have, want = self.texts[n], self.forms.get(n, DENSE), within(form, n.dims)
        if have == want:
            return x
        if have:
            x = self._whole(n.dims, [], [(1, x, have)], self._wish(n))
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
                y = self.turn(x, (*(d for d in x.axes if d not in (ROW, COL)), ROW, COL))
                call = f"{self.fn.helper('_pairs')}({y.code}, {b})"
                wish = f"{x.code}_{b}"
            else:
                (dim, _, side), y = next(iter(form)), x
                if side == "@":
                    return self._take(x, dim, b)
                helper = self.fn.helper("_upper" if side == "u" else "_lower")
                call = f"{helper}({x.code}, {b}, {x.axes.index(dim) - len(x.axes)})"
                wish = f"{x.code}_{side}{b}"
            view = Text(call, axes_in(y.axes, form))
            self._views[x.code, form] = self.fn.assign(wish, view) if x.code.isidentifier() else view
        return self._views[x.code, form]

    def _whole(
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
                out = self._infix("{0} + {1}" if sign > 0 else "{0} - {1}", out, x)
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


    # ---- statements ----

    def _placed(self, n: Node, x: Text) -> Text:
        """x itself where it is read once and short, else a name for it."""
        if x.scalar or x.code.isidentifier() or n.op == "leaf":
            return x
        free = n.op in FREE and all(a in self.texts and self.texts[a].code.isidentifier() for a in n.args)
        if free and n not in self.names:
            return x
        if self.uses[n] > 1 or n in self.names or len(x.code) > LONG:
            self.fn.comment(self.quotes.get(n, ""))
            return self.fn.assign(self._wish(n), x)
        return x

    def _wish(self, n: Node) -> str:
        if n in self.names:
            return self.names[n]
        args = [self.texts[a].code for a in self.parts(n) if a in self.texts and not self.texts[a].scalar]
        short = [a for a in args if a.isidentifier() and not a[-1].isdigit()]
        if n.op in ("exp", "log", "sigmoid", "tanh", "softplus", "logsigmoid", "cumsum") and len(short) == 1:
            return f"{ {'cumsum': 'sum'}.get(n.op, n.op)}_{short[0]}"[:24]
        if n.op == "sum" and len(short) == len(args) == 2 and len(short[0]) + len(short[1]) < 12:
            return f"{short[0]}_{short[1]}"
        return {"sum": "p", "and": "m", "eq": "m", "ge": "m", "gt": "m", "where": "w", "tri_inv": "inv"}.get(n.op, "x")

    # ---- views: in a loop they move out of it ----

    def align(self, x: Text, axes: Sequence[str]) -> Text:
        """x ready to broadcast against an array with `axes`."""
        return aligned(x, axes)

    def turn(self, x: Text, order: Sequence[str]) -> Text:
        """x with its axes in the order that `order` gives."""
        return reordered(x, order)

    def column(self, x: Text) -> Text:
        """A vector as a matrix of one column."""
        return Text(f"{x.at(ATOM)}[..., None]", (*x.axes, ""))

    def row(self, x: Text) -> Text:
        """A vector as a matrix of one row."""
        return Text(f"{x.at(ATOM)}[..., None, :]", (*x.axes[:-1], "", *x.axes[-1:]))

    def canonical(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Axes in the order of results; segments and halves of a block stand where its rows do."""
        return tuple(sorted(set(axes), key=self._place))

    def _place(self, dim: str) -> tuple[int, int, str]:
        if dim[0] == "%" and dim != BLOCK:
            return self.order.index(ROW), "mul".index(dim[1]), dim
        plain = dim.split("*")[0].rstrip("'")
        return self.order.index(plain) if plain in self.order else len(self.order), 0, dim

    # ---- expressions ----

    def _text(self, n: Node) -> Text:
        form = self.forms.get(n, DENSE)
        if n in self.scans:
            return self._scan(self.scans[n])
        if n in self.products:
            return self._sum(n, self.products[n], form)
        if n in self.terms:
            whole = [(sign, self.texts[x], self.fresh(x)) for sign, x in self.terms[n] if x not in self.forms]
            parts = [(sign, self.texts[x], self.forms[x]) for sign, x in self.terms[n] if x in self.forms]
            return self._whole(n.dims, whole, parts, self._wish(n))
        if n.op == "rename":
            return self._rename(n, form)
        if n.op == "where" and self._masked_away(n):
            return self.arg(n.args[1], form)
        if n.op == "where" and self._inside(n):
            return self._rows_inside(n)
        if n in self.befores:
            return self._before(n)
        args = [self.arg(a, form) for a in n.args]
        match n.op:
            case "const":
                return number(float(n.attr("value")))  # type: ignore[arg-type]
            case "size":
                return Text(self.fn.size(n.text("dim")), scalar=True)
            case "index":
                return Text(self.fn.arange(n.text("dim")), (n.text("dim"),))
            case "block_index":
                rows = self.fn.arange(n.text("dim"))
                block = n.number("block")
                return Text(self.fn.once(f"{rows}_{block}", f"{rows} // {block}"), (n.text("dim"),))
            case "expand" | "stopgrad":
                return args[0]
            case "take":
                return self._take(args[0], n.text("dim"), n.number("at"))
            case "amax":
                return self._reduced(args[0], n.names("over"), "amax")
            case "shift":
                x, axis = self._along(args[0], n.text("dim"))
                return Text(f"{self.fn.helper('_shift')}({x.code}, {n.number('by')}, {axis})", x.axes)
            case "cumsum":
                return self._cumsum(n, args[0], form)
            case "tri_inv":
                row, col = n.text("row"), n.text("col")
                x = self.full(args[0], (row, col))
                order = (*(d for d in x.axes if d not in (row, col)), row, col)
                x = self.turn(x, order)
                return Text(f"{self.fn.helper('_unit_lower_inverse')}({x.code})", x.axes)
        assert TABLE[n.op].elementwise, f"no torch text for operator '{n.op}'"
        return self._elementwise(n, args)

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
        if set(axes) - set(x.axes):
            sizes = ", ".join(self.fn.size(d) for d in axes)
            return Text(f"{self.align(self.tensor(x), axes).at(ATOM)}.expand({sizes})", tuple(axes))
        return self.turn(x, axes)

    def tensor(self, x: Text) -> Text:
        """A number as a tensor without axes; a tensor as it is."""
        return Text(f"{self.fn.like}.new_tensor({x.code})") if x.scalar else x

    def _along(self, x: Text, dim: str) -> tuple[Text, int]:
        x = self.full(x, (dim,))
        return x, x.axes.index(dim) - len(x.axes)

    def _take(self, x: Text, dim: str, at: int) -> Text:
        if dim not in x.axes:
            return x
        code = f"{x.at(ATOM)}[{subscript([str(at) if d == dim else ':' for d in x.axes])}]"
        return Text(code, tuple(d for d in x.axes if d != dim))

    def _reduced(self, x: Text, over: Sequence[str], how: str) -> Text:
        gone = [x.axes.index(d) - len(x.axes) for d in x.axes if d in over]
        if not gone:
            return x
        code = f"{x.at(ATOM)}.{how}({gone[0] if len(gone) == 1 else tuple(gone)})"
        return Text(code, tuple(d for d in x.axes if d not in over))

    def fresh(self, n: Node) -> bool:
        """Whether the text of n is a new array that nobody reads later."""
        x = self.texts[n]
        others = len(self.users.get(n, ()))
        if n.op in VIEWS or x.scalar or self.raw[n] != others or any(code == x.code for code, _ in self._views):
            return False
        if n.op == "where" and self._inside(n):
            return self.fresh(n.args[1])
        if others == 1:
            return True
        waiting = [u for u in self.users[n] if u not in self.texts]
        return len(waiting) == 1 and all(
            u.op not in VIEWS and not (u.op == "where" and self._inside(u)) and self.texts[u].code.isidentifier()
            for u in self.users[n] if u in self.texts
        )

    def _masked_away(self, n: Node) -> bool:
        """Whether the mask of a choice is what the form of n says."""
        form = self.forms.get(n, DENSE)
        if not form or n.args[2].op != "const" or n.args[2].attr("value") != 0.0:
            return False
        rows = self.extent[ROW]
        return bool(level_of(n.args[0], rows)) or row_of(n.args[0], rows) >= 0

    def _rows_inside(self, n: Node) -> Text:
        x = self.full(self.arg(n.args[1]), (BLOCK, ROW))
        if x.axes[0] != BLOCK:
            x = self.turn(x, (BLOCK, *(d for d in x.axes if d != BLOCK)))
        own = ", own=True" if self.fresh(n.args[1]) and set(x.axes) == set(self.texts[n.args[1]].axes) else ""
        at = x.axes.index(ROW) - len(x.axes)
        value = number(float(f"{n.args[2].attr('value')}")).code
        return Text(f"{self.fn.helper('_inside')}({x.code}, {self.fn.size('T')}, {value}, {at}{own})", x.axes)

    def _before(self, n: Node) -> Text:
        """The rows before: a first row, then those of x without the last."""
        first, x = (self.arg(a) for a in self.befores[n])
        dim = n.args[0].dims[0]
        x = self.full(x, (dim,))
        if first.scalar and first.code == "0.0":
            return Text(f"{self.fn.helper('_shift')}({x.code}, 1, {x.axes.index(dim) - len(x.axes)})", x.axes)
        axes = self.canonical((*first.axes, *x.axes))
        x = self.align(self.turn(x, axes), axes)
        x = x if x.axes == axes else self.exactly(x, axes)
        inner = tuple(d for d in axes if d != dim)
        first = self.align(self.tensor(first), inner)
        at = axes.index(dim) - len(axes)
        return Text(f"{self.fn.helper('_before')}({first.code}, {x.code}, {at})", axes)

    def _rename(self, n: Node, form: Form) -> Text:
        old, new = n.text("old"), n.text("new")
        x = self.arg(n.args[0], frozenset((old if d == new else d, b, side) for d, b, side in form))
        return Text(x.code, tuple(new if d == old else d for d in x.axes), x.level, x.scalar)

    def _cumsum(self, n: Node, x: Text, form: Form) -> Text:
        block = n.number("block")
        dim = axes_in((n.text("dim"),), form)[-1]
        half = next((b for d, b, _ in form if d == n.text("dim")), 0)
        x, axis = self._along(x, dim)
        options = [f"block={block}"] if block and block != half else []
        options += [f"{o}=True" for o in ("reverse", "exclusive") if n.number(o)]
        if not options:
            return Text(f"{x.at(ATOM)}.cumsum({axis})", x.axes)
        return Text(f"{self.fn.helper('_cumsum')}({', '.join([x.code, str(axis), *options])})", x.axes)

    def _scan(self, s: Scan) -> Text:
        a, b, start = (self.arg(x) for x in (s.a, s.b, s.start))
        dim = s.dim
        if s.product and s.end:
            return self._reduced(self.full(a, (dim,)), (dim,), "prod")
        axes = self.canonical((*a.axes, *b.axes, *start.axes, dim))
        inner = tuple(d for d in axes if d != dim)
        own = not s.end and set(b.axes) == set(axes) and self.fresh(s.b)
        ready = [self.align(self.turn(self.full(x, (dim,)), axes), axes).code for x in (a, b)]
        ready += ["None" if s.from_zero else self.align(self.tensor(start), inner).code, str(axes.index(dim) - len(axes))]
        ready += [f"{o}=True" for o, on in (("reverse", s.reverse), ("later", s.later), ("own", own), ("end", s.end)) if on]
        return Text(f"{self.fn.helper(f'_{s.op}')}({', '.join(ready)})", inner if s.end else axes)

    # ---- elementwise ----

    def _elementwise(self, n: Node, args: list[Text]) -> Text:
        if n.op == "surrogate":
            return self._real(args[0]) if n.args[0].dtype == "bool" else args[0]
        if all(x.scalar for x in args):
            spelling = PYTHON.get(n.op, TABLE[n.op].spell["torch"])
            if "torch." in spelling:
                return self._spelled(n, [self.tensor(x) for x in args])
            return filled(spelling, args)
        if n.op == "where":
            return self._where(n, args)
        if n.op in ("min", "max") and any(x.scalar for x in args):
            x, bound = (args[0], args[1]) if args[1].scalar else (args[1], args[0])
            return Text(f"{x.at(ATOM)}.clamp({'max' if n.op == 'min' else 'min'}={bound.code})", x.axes)
        if n.op == "logaddexp":
            args = [self.tensor(x) for x in args]
        if n.op == "pow" and args[1].scalar:
            return Text(f"{args[0].at(ATOM)} ** {args[1].at(ATOM)}", args[0].axes, SIGN)
        return self._spelled(n, args)

    def _real(self, x: Text) -> Text:
        return Text(f"{x.at(ATOM)}.to({self.fn.like}.dtype)", x.axes)

    def _inside(self, n: Node) -> bool:
        """Whether n is where(row inside the sequence, x, number), with x on whole rows of blocks."""
        if n.op != "where" or n in self.forms or n.args[2].op != "const":
            return False
        mask, x = n.args[0], n.args[1]
        if mask.op != "leaf" or mask.text("kind") != "mask":
            return False
        return x.op != "const" and BLOCK in x.dims and ROW in x.dims

    def _where(self, n: Node, args: list[Text]) -> Text:
        condition, a, b = args
        if condition.scalar:
            axes = self.canonical((*a.axes, *b.axes))
            a, b = (self.align(x, axes) for x in (a, b))
            return Text(f"({a.code} if {condition.code} else {b.code})", axes)
        if a.scalar and b.scalar:
            if (a.code, b.code) == ("1.0", "0.0"):
                return self._real(condition)
            if (a.code, b.code) == ("0.0", "1.0"):
                return self._real(Text(f"~{condition.at(ATOM)}", condition.axes, SIGN))
            args = [condition, self.tensor(a), b]
        return self._spelled(n, args)

    def _spelled(self, n: Node, args: list[Text]) -> Text:
        spelling = TABLE[n.op].spell["torch"]
        for i, x in enumerate(args):  # an argument that the spelling repeats, or asks something of, needs a name
            if (spelling.count(f"{{{i}}}") > 1 or f"{{{i}}}." in spelling) and not x.code.isidentifier():
                args[i] = self.fn.assign("x", x)
        if n.op == "neg" and args[0].level == PRODUCT:
            return Text(f"-{args[0].code}", args[0].axes, PRODUCT)  # the sign of the first factor
        axes = self.axes_of(args)
        ready = [self.align(x, axes) for x in args]
        out = filled(spelling, ready)
        return Text(out.code, axes, out.level)

    def axes_of(self, args: Sequence[Text]) -> tuple[str, ...]:
        """The axis order of an elementwise result: the canonical one, unless the widest arguments all have another."""
        axes = self.canonical(d for x in args for d in x.axes)
        wide = {x.axes for x in args if len(x.axes) == len(axes)}
        return next(iter(wide)) if len(wide) == 1 else axes

    # ---- sums of products ----

    def _sum(self, n: Node, p: Product, form: Form) -> Text:
        inner = form | within(self.forms.get(n.args[0], DENSE), p.over)
        texts = [self.arg(f, inner) for f in p.factors]
        scale = [x for x in texts if x.scalar]
        arrays = [x for x in texts if not x.scalar]
        summed = set(axes_in(p.over, inner)) - set(axes_in(n.dims, inner))  # segments are shared by t and s
        have = {d for x in arrays for d in x.axes}
        scale += [Text(self.fn.size(d), scalar=True) for d in self.canonical(summed) if d not in have]
        over = frozenset(d for d in summed if d in have)
        if arrays:
            out = self._contracted(arrays, over)
        else:
            out, scale = (scale[0], scale[1:]) if scale else (Text("1.0", scalar=True), [])
        for x in scale:
            out = self.times(out, x)
        for d in p.divisors:
            out = self._infix("{0} / {1}", out, self.arg(d, form))
        return Text(f"-{out.at(SIGN)}", out.axes, SIGN, out.scalar) if p.negative else out

    def plus(self, a: Text, b: Text) -> Text:
        """a + b."""
        return self._infix("{0} + {1}", a, b)

    def times(self, a: Text, b: Text) -> Text:
        """a * b."""
        return self._infix("{0} * {1}", a, b)

    def _infix(self, spelling: str, a: Text, b: Text) -> Text:
        axes = self.axes_of([x for x in (a, b) if not x.scalar])
        ready = [self.align(x, axes) for x in (a, b)]
        out = filled(spelling, ready)
        return Text(out.code, axes, out.level, out.scalar)

    def _contracted(self, arrays: list[Text], over: frozenset[str]) -> Text:
        if len(arrays) == 1:
            return self._reduced(arrays[0], tuple(over), "sum")
        left = []
        for i, x in enumerate(arrays):
            others = {d for j, y in enumerate(arrays) if j != i for d in y.axes}
            left.append(self._reduced(x, tuple((over & set(x.axes)) - others), "sum"))
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
            return self._reduced(self.times(a, b), tuple(summed), "sum")
        con = next(iter(summed))
        if len(summed) == 1 and len(only_a) <= 1 and len(only_b) <= 1:
            if self.canonical((*only_a, *only_b))[:1] == tuple(only_b) and only_a:
                a, b, only_a, only_b = b, a, only_b, only_a
            return self._matmul(a, b, both, only_a, only_b, con)
        for x, w, free, right in ((a, b, only_a, only_b), (b, a, only_b, only_a)):
            if len(summed) == 1 and not both and len(right) == 1 and x.axes[-1] == con and len(free) > 1:
                w = self.turn(w, (con, right[0]))
                return Text(f"{x.at(PRODUCT)} @ {w.at(ATOM)}", (*x.axes[:-1], right[0]), PRODUCT)
        if both and not (only_a and only_b):  # a matrix and vectors that lie across it
            return self._reduced(self.times(a, b), tuple(summed), "sum")
        axes = self.canonical((*both, *only_a, *only_b))
        letters = ["".join(self.fn.letter(d) for d in s) for s in (a.axes, b.axes, axes)]
        code = f'torch.einsum("{letters[0]},{letters[1]}->{letters[2]}", {a.code}, {b.code})'
        return Text(code, axes)

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


def common(texts: Sequence[Text]) -> str:
    """A name for several arrays side by side: what their names begin with."""
    words = [x.code.split("_")[0] for x in texts]
    return words[0] if len(set(words)) == 1 and words[0].isidentifier() else "wide"


def below(roots: Iterable[Node], parts: Callable[[Node], tuple[Node, ...]], known: Mapping[Node, Text]) -> list[Node]:
    """What must be printed for `roots`, arguments first; nothing below a node that is known already."""
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        stack = [root]
        while stack:
            n = stack[-1]
            if n in seen or n in known:
                stack.pop()
                continue
            waiting = [a for a in parts(n) if a not in seen and a not in known]
            if waiting:
                stack += reversed(waiting)
            else:
                seen.add(n)
                order.append(n)
                stack.pop()
    return order
