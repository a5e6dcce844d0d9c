"""The text of one node, given those of its arguments: every operator of the table.

In: nodes and the texts of their parts. Out: `Text`s. Renaming a dim costs nothing, for a text knows its own axes; a dim that
a value is constant along is left out of its axes for as long as possible.
"""

from __future__ import annotations

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.contract import Product
from seqc.backends.torch_eager.scans import Scan
from seqc.backends.torch_eager.segments import DENSE, Form, axes_in, within
from seqc.backends.torch_eager.values import Values
from seqc.emit.expressions import ATOM, PRODUCT, SIGN, Text, filled, number
from seqc.emit.numbers import number_spelling
from seqc.ir.graph import ROW, Node
from seqc.ir.ops import TABLE


class Printer(Values):
    """Prints every operator; see the file's docstring."""

    def text(self, n: Node) -> Text:
        form = self.forms.get(n, DENSE)
        if n in self.scans:
            return self._scan(self.scans[n])
        if n in self.products:
            return self._sum(n, self.products[n], form)
        if n in self.terms:
            whole = [(sign, self.texts[x], self.fresh(x)) for sign, x in self.terms[n] if x not in self.forms]
            parts = [(sign, self.texts[x], self.forms[x]) for sign, x in self.terms[n] if x in self.forms]
            return self.whole_of(n.dims, whole, parts, self.wish(n))
        if n.op == "rename":
            return self._rename(n, form)
        if n.op == "where" and self.masked_away(n):
            return self.arg(n.args[1], form)
        if n.op == "where" and self.is_inside(n):
            return self._rows_inside(n)
        if n in self.befores:
            return self._before(n)
        return self._operator(n, [self.arg(a, form) for a in n.args], form)

    def _operator(self, n: Node, args: list[Text], form: Form) -> Text:
        """The operator of a node on the texts of its arguments, whatever the nodes around it."""
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
            case "stopgrad" if self.fn.differentiated and not args[0].scalar:
                return Text(f"{args[0].at(ATOM)}.detach()", args[0].axes)
            case "expand" | "stopgrad":
                return args[0]
            case "take":
                return self.row_at(args[0], n.text("dim"), n.number("at"))
            case "amax":
                return self.reduced(args[0], n.names("over"), "amax")
            case "shift":
                x, axis = self.along(args[0], n.text("dim"))
                return Text(f"{self.fn.helper('_shift')}({x.code}, {n.number('by')}, {axis})", x.axes)
            case "as_real":
                return self._real(args[0])
            case "as_place":
                return Text(f"{self.tensor(args[0]).at(ATOM)}.long()", self.tensor(args[0]).axes)
            case "gather":
                return self._gather(n, *args)
            case "scatter":
                return self._scatter(n, *args)
            case "put":
                return self._put(n, *args)
            case "cumsum":
                return self._cumsum(n, args[0], form)
            case "tri_inv" | "solve" | "logdet" | "expm" | "expm_slope":
                return self._square(n, args)
        assert TABLE[n.op].elementwise, f"no torch text for operator '{n.op}'"
        return self._elementwise(n, args)

    # ---- rows ----

    def _rename(self, n: Node, form: Form) -> Text:
        old, new = n.text("old"), n.text("new")
        x = self.arg(n.args[0], frozenset((old if d == new else d, b, side) for d, b, side in form))
        return Text(x.code, tuple(new if d == old else d for d in x.axes), x.level, x.scalar)

    def _cumsum(self, n: Node, x: Text, form: Form) -> Text:
        block = n.number("block")
        dim = axes_in((n.text("dim"),), form)[-1]
        half = next((b for d, b, _ in form if d == n.text("dim")), 0)
        x, axis = self.along(x, dim)
        options = [f"block={block}"] if block and block != half else []
        options += [f"{o}=True" for o in ("reverse", "exclusive") if n.number(o)]
        return Text(f"{self.fn.helper('_cumsum')}({', '.join([x.code, str(axis), *options])})", x.axes)

    def _scan(self, s: Scan) -> Text:
        a, b, start = (self.arg(x) for x in (s.a, s.b, s.start))
        dim = s.dim
        if s.product and s.end:
            return self.reduced(self.full(a, (dim,)), (dim,), "prod")
        axes = self.canonical((*a.axes, *b.axes, *start.axes, dim))
        inner = tuple(d for d in axes if d != dim)
        own = s.op == "affine_scan" and not s.end and set(b.axes) == set(axes) and self.fresh(s.b)
        ready = [self.align(self.turn(self.full(x, (dim,)), axes), axes).code for x in (a, b)]
        ready += ["None" if s.from_zero else self.align(self.tensor(start), inner).code, str(axes.index(dim) - len(axes))]
        options = ("reverse", s.reverse), ("later", s.later), ("own", own), ("end", s.end), ("resets", s.resets)
        ready += [f"{o}=True" for o, on in options if on]
        return Text(f"{self.fn.helper(f'_{s.op}')}({', '.join(ready)})", inner if s.end else axes)

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

    def _rows_inside(self, n: Node) -> Text:
        x = self.full(self.arg(n.args[1]), (BLOCK, ROW))
        if x.axes[0] != BLOCK:
            x = self.turn(x, (BLOCK, *(d for d in x.axes if d != BLOCK)))
        own = ", own=True" if self.fresh(n.args[1]) and set(x.axes) == set(self.texts[n.args[1]].axes) else ""
        at = x.axes.index(ROW) - len(x.axes)
        value = number(float(f"{n.args[2].attr('value')}")).code
        return Text(f"{self.fn.helper('_inside')}({x.code}, {self.fn.size('T')}, {value}, {at}{own})", x.axes)

    # ---- square matrices ----

    def _square(self, n: Node, args: list[Text]) -> Text:
        """An operator on square matrices."""
        match n.op:
            case "tri_inv":
                rows, columns = n.names("row"), n.names("col")
                x = self.full(args[0], (*rows, *columns))
                both = [d for d in x.axes if d not in (*rows, *columns)]
                x = self.as_matrix(x, both, rows, columns)
                name = "_unit_lower_inverse" if len(rows) == 1 else "_refined_lower_inverse"
                return self.apart(Text(f"{self.fn.helper(name)}({x.code})"), both, rows, columns)
            case "solve":
                return self._solve(n, args[0], args[1])
            case "logdet":
                x = self._matrices(n, args[0])
                return Text(f"torch.linalg.slogdet({x.code})[1]", x.axes[:-2])
        return self._exponential(n, args)

    def _matrices(self, n: Node, x: Text) -> Text:
        """x with the rows and columns that an operator names as its last axes."""
        row, col = n.text("row"), n.text("col")
        x = self.full(x, (row, col))
        return self.turn(x, (*(d for d in x.axes if d not in (row, col)), row, col))

    def _solve(self, n: Node, m: Text, b: Text) -> Text:
        """The last dim of the right-hand side that the matrix lacks is one of columns."""
        row, col = n.text("row"), n.text("col")
        m, b = self.full(m, (row, col)), self.full(b, (row,))
        right = next((d for d in reversed(self.canonical(b.axes)) if d != row and d not in m.axes), "")
        front = tuple(d for d in self.canonical((*m.axes, *b.axes)) if d not in (row, col, right))
        m = self.align(self.turn(m, (*(d for d in front if d in m.axes), row, col)), (*front, row, col))
        own = (*front, row, *((right,) if right else ()))
        b = self.align(self.turn(b, tuple(d for d in own if d in b.axes)), own)
        columns = "" if right else ", vector=True"
        axes = (*front, col, *((right,) if right else ()))
        return Text(f"{self.fn.helper('_solved')}({m.code}, {b.code}{columns})", axes)

    def _exponential(self, n: Node, args: list[Text]) -> Text:
        row, col = n.text("row"), n.text("col")
        args = [self.full(x, (row, col)) for x in args]
        axes = (*(d for d in self.canonical([d for x in args for d in x.axes]) if d not in (row, col)), row, col)
        ready = [self.align(self.turn(x, tuple(d for d in axes if d in x.axes)), axes).code for x in args]
        if n.op == "expm":
            plain = n.args[0].op == "leaf" and n.args[0].text("kind") == "param"
            code = ready[0] if plain else f"({ready[0]}).contiguous()"
            return Text(f"{self.fn.helper('_phi')}({ready[0]})" if n.number("phi") else f"torch.matrix_exp({code})", axes)
        return Text(f"{self.fn.helper('_phi_slope' if n.number('phi') else '_expm_slope')}({', '.join(ready)})", axes)

    # ---- positions that an index tells ----

    def _gather(self, n: Node, x: Text, place: Text) -> Text:
        """Rows of x, those of dims that the index has too side by side."""
        shared = tuple(d for d in place.axes if d in n.args[0].dims)
        x = self.full(self.tensor(x), (*shared, n.text("dim")))
        rest = tuple(d for d in x.axes if d not in (*shared, n.text("dim")))
        own = tuple(d for d in place.axes if d not in shared)
        x, place = self.turn(x, (*shared, n.text("dim"), *rest)), self.turn(place, (*shared, *own))
        return Text(f"{self.fn.helper('_rows_at')}({x.code}, {place.code}, {len(shared)})", (*shared, *own, *rest))

    def _scatter(self, n: Node, d: Text, place: Text) -> Text:
        """Rows added up where the index says."""
        shared = tuple(a for a in place.axes if a not in n.names("over"))
        own = tuple(a for a in place.axes if a in n.names("over"))
        d = self.full(self.tensor(d), place.axes)
        rest = tuple(a for a in d.axes if a not in place.axes)
        d, place = self.turn(d, (*shared, *own, *rest)), self.turn(place, (*shared, *own))
        given = [d.code, place.code, self.fn.size(n.text("dim")), str(len(shared))]
        return Text(f"{self.fn.helper('_rows_added')}({', '.join(given)})", (*shared, n.text("dim"), *rest))

    def _put(self, n: Node, x: Text, rows: Text, place: Text) -> Text:
        """A table with other rows where the index says."""
        shared = tuple(d for d in place.axes if d not in n.names("over"))
        x = self.full(self.tensor(x), n.dims)
        rows = self.full(self.tensor(rows), [*(d for d in n.dims if d != n.text("dim")), *n.names("over")])
        rest = tuple(d for d in x.axes if d not in (*shared, n.text("dim")))
        x, place = self.turn(x, (*shared, n.text("dim"), *rest)), self.turn(place, (*shared, *n.names("over")))
        rows = self.turn(rows, (*shared, *n.names("over"), *rest))
        given = [x.code, rows.code, place.code, str(len(shared))]
        return Text(f"{self.fn.helper('_rows_put')}({', '.join(given)})", x.axes)

    # ---- elementwise ----

    def _elementwise(self, n: Node, args: list[Text]) -> Text:
        if n.op == "surrogate":
            value = self._real(args[0]) if n.args[0].dtype == "bool" else args[0]
            value = filled("float({0})", args[:1]) if args[0].scalar else value
            return value if args[1].scalar or not self.fn.differentiated else self._decreed(value, *args[1:])
        if n.op == "gradclip":
            watched = self.fn.differentiated and not args[0].scalar
            return Text(f"{self.fn.helper('_uncut')}({args[0].code})", args[0].axes) if watched else args[0]
        if all(x.scalar for x in args):
            return filled(number_spelling(n), args)
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

    def _decreed(self, value: Text, x: Text, slope: Text) -> Text:
        """value, whose derivative with respect to x is `slope`."""
        value, x, slope = (self.tensor(part) for part in (value, x, slope))
        axes = self.canonical((*value.axes, *x.axes, *slope.axes))
        parts = ", ".join(self.align(part, axes).code for part in (value, x, slope))
        return Text(f"{self.fn.helper('_with_slope')}({parts})", axes)

    def _real(self, x: Text) -> Text:
        return Text(f"{x.at(ATOM)}.to({self.fn.like}.dtype)", x.axes)

    def _where(self, n: Node, args: list[Text]) -> Text:
        condition, a, b = args
        if condition.scalar:
            axes = self.canonical((*a.axes, *b.axes))
            a, b = (self.exactly(x, axes) for x in (a, b))  # a tensor with all axes, whichever it is
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
        if spelling.startswith("_"):
            self.fn.helper(spelling.partition("(")[0])
        axes = self.axes_of(args)
        ready = [self.align(x, axes) for x in args]
        out = filled(spelling, ready)
        return Text(out.code, axes, out.level)

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
            out = self.contracted(arrays, over)
        else:
            out, scale = (scale[0], scale[1:]) if scale else (Text("1.0", scalar=True), [])
        for x in scale:
            out = self.times(out, x)
        for d in p.divisors:
            out = self.infix("{0} / {1}", out, self.arg(d, form))
        return Text(f"-{out.at(SIGN)}", out.axes, SIGN, out.scalar) if p.negative else out
