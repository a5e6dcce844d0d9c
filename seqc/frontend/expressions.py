"""Turns expressions into values: resolves names, lags, dims and functions, and reports what does not fit.

In: a scope and expressions of the tree. Out: `Value`s, or None after a mistake has been noted in the scope (None is
passed up in silence, so that one mistake is told once). On the way it records where each node was written, which nodes
have names, and which longer lags are read. It never decides an order of statements: names are elaborated on demand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from seqc.diagnostics import Label, listing
from seqc.frontend import syntax
from seqc.frontend.complex_pairs import ZERO
from seqc.frontend.functions import FUNCTIONS
from seqc.frontend.idioms import TRANSPOSED, function_advice
from seqc.frontend.indexing import index_read, indexed
from seqc.frontend.inner_gradients import GRAD, grad
from seqc.frontend.lags import index_dims, lag_of, mentions
from seqc.frontend.names import Names
from seqc.frontend.noise import DRAWN, drawn, refuse_draw, split_once
from seqc.frontend.operators import infix, prefix
from seqc.frontend.planes import on_axes, places_back
from seqc.frontend.positions import MOVES, moved, placed, whole_number
from seqc.frontend.rates import BETWEEN, group, named, piece
from seqc.frontend.scope import CONSTANTS
from seqc.frontend.syntax import Expr
from seqc.frontend.trees import FOLDS
from seqc.frontend.values import Misuse, Value, apply, at, contracting, matmul, number, of_pair, shown
from seqc.frontend.windows import sizes_in, window_lags, windowed
from seqc.frontend.written_out import MAX_UNROLLED, PRODUCTS, fold, otherwise, positions_of, product, stacked, taken
from seqc.ir.dims import unprimed
from seqc.ir.graph import const, index, size


@dataclass(frozen=True)
class Frame:
    """Where an expression stands: what it may read, dims that are held at one position, names bound by a fold.

    own: of the bound names those of a step's own values, with what makes each of them and the positions held there.
    """

    place: str = "step"  # "step" | "init" (params and constants only) | "const" (constants only)
    at: Mapping[str, int] = field(default_factory=dict)
    bound: Mapping[str, Value | None] = field(default_factory=dict)
    own: Mapping[str, tuple[Expr, Mapping[str, int]]] = field(default_factory=dict)


class Elaborator(Names):
    """Values of expressions; `Names` below it holds the values of names."""

    def expr(self, e: Expr, frame: Frame) -> Value | None:
        """The value of an expression, or None after a report."""
        chain: list[syntax.Binary] = []
        while isinstance(e, syntax.Binary) and not self._transposed(e):
            chain.append(e)
            e = e.left
        value = self._noted(e, self._expr(e, frame))
        for part in reversed(chain):
            value = self._noted(part, self._binary(part, value, self.expr(part.right, frame)))
        return value

    def _noted(self, e: Expr, value: Value | None) -> Value | None:
        """The value; where its nodes were written is noted."""
        for node in () if value is None else value.parts:
            self.spans.setdefault(node, e.span)
        return value

    def _binary(self, e: syntax.Binary, a: Value | None, b: Value | None) -> Value | None:
        if a is None or b is None:
            return None
        return self._matmul(e, a, b) if e.op == "@" else self.expanded(e, lambda: infix(e.op, a, b))

    def _transposed(self, e: syntax.Binary) -> bool:
        """Whether an expression is `x^T`, where nothing is called T."""
        return e.op == "^" and isinstance(e.right, syntax.Name) and e.right.id == "T" and "T" not in self.scope.names()

    def top(self, e: Expr, place: str) -> Value | None:
        """The value of a whole right-hand side."""
        return self.expr(e, Frame(place))

    def _expr(self, e: Expr, frame: Frame) -> Value | None:
        if id(e) in self.given:
            return self.given[id(e)]
        match e:
            case syntax.Number():
                return of_pair((ZERO, const(e.value)), ()) if e.imaginary else number(e.value)
            case syntax.Name():
                return self._name(e, frame)
            case syntax.Unary(op=op, x=x):
                value = self.expr(x, frame)
                return None if value is None else self.expanded(e, lambda: prefix(op, value))
            case syntax.Binary(right=syntax.Name() as word):  # `x^T`
                self.scope.unknown("name", word, [], TRANSPOSED)
                return None
            case syntax.Subscript():
                return self._subscript(e, frame)
            case syntax.Placed():
                return self._read_at(e, frame)
            case syntax.Call():
                return self._call(e, frame)
            case syntax.Taken():
                return taken(self, e, frame)
            case syntax.Started():
                help = "arguments are told by their places; only the running values of a `fold` have names"
                self.scope.report("syntax", "an argument of a function has no name", Label(e.span), help=help)
                return None
            case _:
                help = "write `fold[J](S0, S -> EXPR)`"
                self.scope.report("syntax", "`->` belongs into a fold", Label(e.span), help=help)
                return None

    # ---- names

    def _name(self, e: syntax.Name, frame: Frame) -> Value | None:
        if e.id in frame.bound:
            return frame.bound[e.id]
        if e.id in CONSTANTS:
            return number(math.pi if e.id == "pi" else math.inf)
        if e.id in (self.scope.axis, self.scope.second):
            self.scope.report(
                "time-as-value",
                f"`{e.id}` has no value of its own",
                Label(e.span, "the time axis" if e.id == self.scope.axis else "the second axis"),
                help=f"time stands only in brackets: `x[{e.id}-1]`; a position is passed as an input",
            )
            return None
        if e.id in self.scope.dims:
            return Value(size(e.id))
        return self.placed(self.read(e, 0, frame.place, e), frame)

    def placed(self, value: Value | None, frame: Frame) -> Value | None:
        """The value at the positions that the frame holds."""
        for dim, position in frame.at.items():
            value = None if value is None else at(value, dim, position)
        return value

    # ---- brackets

    def _subscript(self, e: syntax.Subscript, frame: Frame) -> Value | None:
        name, axis = e.name.id, self.scope.axis
        if any(isinstance(item, syntax.Renaming | syntax.Position) or self._tells(item, frame) for item in e.items):
            return self._read_at(e, frame)
        dims = tuple(item for item in e.items if isinstance(item, syntax.Name))
        if name == "index" and len(dims) == 1 and dims[0].id in self.scope.indexed:
            return Value(index(self.scope.indexed[dims[0].id]))
        if name in ("index", "eye"):
            if len(e.items) != 1 or len(dims) != 1:
                self.scope.report("syntax", f"`{name}` takes one dim", Label(e.span), help=f"write `{name}[N]`")
                return None
            return self._index(name, dims[0], frame) if self.scope.known_dims(dims) else None
        if self.scope.second and name not in frame.bound and on_axes(self.scope, e.items):
            back = places_back(self.scope, e, frame.at)
            return None if back is None else self.placed(self.on_plane(e.name, *back, frame.place, e), frame)
        if len(e.items) == 1 and mentions(e.items[0], axis):
            return self._lagged(e, e.items[0], frame)
        if name in FUNCTIONS or name in DRAWN:
            self.scope.report(
                "not-called",
                f"`{name}` is a function",
                Label(e.span, "not called"),
                help=f"write `{name}[...](x)`",
            )
        elif name not in self.scope.names():
            self.scope.unknown("name", e.name, self.scope.names())
        elif any(mentions(item, axis) for item in e.items) or (
            len(dims) == len(e.items) and all(dim.id in (*self.scope.dims, "B", "T") for dim in dims)
        ):
            time = next((item.span.text for item in e.items if mentions(item, axis)), axis)
            self.scope.report(
                "dims-in-expression",
                "dims are written where a name is declared, not where it is used",
                Label(e.span, "the brackets of a value hold a time"),
                help=f"write `{name}`" if time == axis else f"write `{name}[{time}]`",
            )
        elif len(dims) == 1 and dims[0].id in self.scope.inputs:
            word = dims[0].id
            cause = "an input is a real number unless it is declared as an index"
            label = Label(dims[0].span, "a real number")
            help = f"declare it with the dim whose positions it tells: `input {word} index V`"
            self.scope.report("bad-index", f"`{name}` is read at `{word}`, which is no index", label, cause=cause, help=help)
        elif not any(mentions(item, word) for item in e.items for word in self.scope.lost):
            label = Label(e.span, f"a lag reads `{name}[{axis}-1]`")
            word = e.items[0].span.text
            told = f"; one that a value tells is `{name}[position[K]({word})]`" * (whole_number(self.scope, e.items[0]) is None)
            help = f"one position of a dim is `{name}[K = {word}]`{told}" if len(e.items) == 1 else ""
            self.scope.report("bad-lag", f"the brackets of `{name}` hold no time", label, help=help)
        return None

    def _read_at(self, e: syntax.Subscript | syntax.Placed, frame: Frame) -> Value | None:
        """`k[K -> K']`, `k[t-1, G = 2]`, `(a * b)[N -> N']`: a value with renamed dims, or at one position of a dim."""
        items = tuple(item for item in e.items if isinstance(item, syntax.Renaming | syntax.Position))
        places = [item for item in e.items if self._tells(item, frame)]
        rest = tuple(item for item in e.items if item not in items and item not in places)
        if isinstance(e, syntax.Placed):
            if rest:
                what = "a time belongs to a name" if mentions(rest[0], self.scope.axis) else "this says nothing of the dims"
                help = f"give it a name, `y = {e.x.span.text}`, and read `y[{rest[0].span.text}]`"
                if whole_number(self.scope, rest[0]) is not None:
                    help = f"one position of a dim is `{e.x.span.text}[K = {rest[0].span.text}]`"
                self.scope.report("bad-lag", "an expression has no brackets of its own", Label(rest[0].span, what), help=help)
                return None
            value, where = self.expr(e.x, frame), e.x.span
        else:
            value, where = self.expr(replace(e, items=rest) if rest else e.name, frame), e.name.span
        for item in places:
            place = self.expr(item, Frame(frame.place, bound=frame.bound))
            value = None if value is None or place is None else indexed(self.scope, value, place, where, item.span)
        value = None if value is None else placed(self.scope, value, items, where)
        return self.placed(value, frame)

    def _tells(self, item: Expr, frame: Frame) -> bool:
        """Whether an item of brackets tells positions."""
        bound = isinstance(item, syntax.Name) and item.id in frame.bound
        return bound or index_read(self.scope, item)

    def _index(self, name: str, dim: syntax.Name, frame: Frame) -> Value:
        if name == "eye":
            column = f"{dim.id}'"
            same = apply("eq", Value(index(dim.id), (dim.id,)), Value(index(column), (column,)))
            return apply("where", same, number(1.0), number(0.0))
        if dim.id in frame.at:
            return number(float(frame.at[dim.id]))
        return Value(index(dim.id), (dim.id,))

    def _lagged(self, e: syntax.Subscript, item: Expr, frame: Frame) -> Value | None:
        """`x[t - 1]`, or `x[t - 2*index[L]]`: one tap for every position of L."""
        free = tuple(dim for dim in index_dims(item) if dim not in frame.at and dim in self.scope.dims)
        if free and (lags := window_lags(self, e, item, frame, MAX_UNROLLED)):
            return self.placed(windowed(self, e, free[0], lags), frame)
        if free:
            positions = positions_of(self.scope, free[0], item)
            taps = None if positions is None else [self._tap(e, item, frame, free[0], j) for j in positions]
            if taps is None or any(tap is None for tap in taps):
                return None
            return stacked(free[0], [tap for tap in taps if tap is not None])
        lag = lag_of(item, self.scope.axis, sizes_in(self.scope, item), frame.at)
        if lag is None:
            self.scope.report(
                "bad-lag",
                "a lag is a whole number of steps that is known when the spec is compiled",
                Label(item.span, f"not of the form `{self.scope.axis} - 2` or `{self.scope.axis} - 2*index[L]`"),
                help=next((f"give `{dim}` a size: `dim {dim} = 4`" for dim in self.scope.dims if mentions(item, dim)), ""),
            )
            return None
        if e.name.id in frame.bound:
            message = f"`{e.name.id}` is the running value of a fold: it has no past"
            self.scope.report("bad-lag", message, Label(e.span))
            return None
        return self.placed(self.read(e.name, lag, frame.place, e), frame)

    def _tap(self, e: syntax.Subscript, item: Expr, frame: Frame, dim: str, j: int) -> Value | None:
        return self._lagged(e, item, replace(frame, at={**frame.at, dim: j}))

    # ---- operators and functions

    def _matmul(self, e: syntax.Binary, a: Value, b: Value) -> Value | None:
        product = matmul(a, b)
        if product is None and (a.order or not self.scope.lost):
            last = unprimed(a.order[-1]) if a.order else ""
            cause = "`@` contracts the last dim of its left side with the like-named dim of its right side"
            self.scope.report(
                "missing-dim",
                f"`@` finds no dim `{last}` on its right side" if last else "the left side of `@` is a scalar",
                Label(e.op_span, "nothing to contract"),
                Label(e.left.span, a.shown()),
                Label(e.right.span, b.shown()),
                cause=cause,
                help=contracting((e.left.span.text, a.order), (e.right.span.text, b.order)),
            )
        return product

    def _call(self, e: syntax.Call, frame: Frame) -> Value | None:
        name = e.name.id
        if name in FOLDS:
            made = fold(self, e, frame)
            return None if made is None else made[0]
        if name in PRODUCTS:
            return product(self, e, frame)
        if name == GRAD:
            return grad(self, e, frame)
        if name in DRAWN:
            if frame.place != "step":
                refuse_draw(self.scope, e)
            return self._draw(e, frame) if frame.place == "step" else None
        if name in BETWEEN:
            return self._between(e, frame)
        function = FUNCTIONS.get(name)
        if function is None:
            advice = self._called(e) or function_advice(name, self.scope.dims)
            words = [*FUNCTIONS, *DRAWN, *FOLDS, *PRODUCTS, *BETWEEN, GRAD]
            self.scope.unknown("function", e.name, [] if advice else words, advice)
            return None
        if not self.takes(e, function.least, function.most, function.over):
            return None
        changed = moved(self.scope, e) if name in MOVES else e
        if changed is not e:
            return None if changed is None else self._call(changed, frame)
        dims = tuple(dim.id for dim in e.dims or ())
        if function.over != "other" and (value_of := otherwise(self, e, dims, frame)) is not None:
            return value_of()
        args = [self.expr(arg, frame) for arg in e.args]
        values = [arg for arg in args if arg is not None]
        if len(values) < len(args) or (function.over != "other" and not self.has_dims(e, values[0], dims)):
            return None
        for arg, value in zip(e.args, values, strict=True):
            if value.imag is not None and not function.takes_complex:
                label, help = Label(arg.span, "is complex"), "take `re`, `im` or `abs` of it"
                self.scope.report("complex-value", f"`{name}` takes no complex value", label, help=help)
                return None
        return self.expanded(e, lambda: function.expand(values, dims))

    def _draw(self, e: syntax.Call, frame: Frame) -> Value | None:
        given, once = split_once(e.args)
        args = [self.expr(arg, frame) for arg in given]
        values = [arg for arg in args if arg is not None]
        if len(values) < len(args) or not self.scope.known_dims(e.dims or ()):
            return None
        self.once.append(once)
        return self.expanded(e, lambda: drawn(e, values, self.sites[id(e)], frame.at, once, self.scope.beside))

    def _between(self, e: syntax.Call, frame: Frame) -> Value | None:
        """`down[P](y)` and `up[P](u)`, which lead from one rate to another."""
        if not self.takes(e, 1, 1, "yes"):
            return None
        (dim, *more), name = e.dims or (), named(e.args[0])
        lone = e.name.id == "up" or isinstance(e.args[0], syntax.Name)
        size = self.scope.fix_size(dim.id)
        if more or name is None or not lone or name.id in frame.bound or size is None:
            help = "give the value a name, and the dim a size: `dim P = 4`, `down[P](y)`, `up[P](u[t-1])`"
            self.scope.report("misuse", f"`{e.name.id}` takes one dim of known size, and a name", Label(e.span), help=help)
            return None
        if e.name.id == "down":
            return self.expr(group(self.scope, e, name, dim, size), frame)
        value = self.expr(e.args[0], frame)
        if value is None or not self.has_dims(e, value, (dim.id,)):
            return None
        return piece(self.scope, e, name, dim, size, value)

    def _called(self, e: syntax.Call) -> str:
        """What is meant by a value that is called like a function."""
        name, axis = e.name.id, self.scope.axis
        if name not in self.scope.names():
            return ""
        if len(e.args) == 1 and mentions(e.args[0], axis):
            return f"a time stands in square brackets: `{name}[{e.args[0].span.text}]`"
        return f"`{name}` is a value; a product is written `{name} * (...)`"

    def expanded(self, e: Expr, make: Callable[[], Value]) -> Value | None:
        """What `make` makes, with the misuse that it may find reported at `e`."""
        try:
            return make()
        except Misuse as misuse:
            self.scope.report("misuse", misuse.message, Label(e.span), cause=misuse.cause, help=misuse.help)
            return None

    def takes(self, e: syntax.Call, least: int, most: int, over: str) -> bool:
        """Whether a call has so many arguments, and dims where it needs them; reports one that has not."""
        name = e.name.id
        if e.dims is not None and not self.scope.known_dims(e.dims):
            return False
        if e.dims is None and over in ("yes", "other"):
            label = Label(e.name.span, "over which dims?")
            dim = next(reversed(self.scope.dims), "K")
            help = f"the dims stand in brackets behind the name: `{name}[{dim}](...)`"
            self.scope.report("missing-dims", f"`{name}` needs dims", label, help=help)
            return False
        if e.dims is not None and over == "no":
            label = Label(e.dims[0].span.to(e.dims[-1].span), "not needed")
            self.scope.report("misuse", f"`{name}` works on every element", label, help=f"write `{name}(...)`")
            return False
        most = 1 if over == "maybe" and e.dims is not None else most
        if least <= len(e.args) <= most:
            return True
        count = f"{least}" if least == most else f"{least} to {most}"
        plural = "argument" if count == "1" else "arguments"
        help = f"write `{name}{'[K]' * (e.dims is not None)}({', '.join('xyzuvw'[:least])})`"
        self.scope.report("argument-count", f"`{name}` takes {count} {plural}, not {len(e.args)}", Label(e.span), help=help)
        return False

    def has_dims(self, e: syntax.Call, value: Value, dims: tuple[str, ...]) -> bool:
        """Whether the value of a call's argument has these dims; reports the ones that it lacks."""
        missing = [dim for dim in dims if dim not in value.order]
        if missing:
            product = isinstance(e.args[0], syntax.Binary) and e.args[0].op == "@"
            summed = "`@` sums over one dim already, the last of its left side; `*` instead leaves all sums to these brackets"
            self.scope.report(
                "missing-dim",
                f"`{e.name.id}{shown(dims)}` over {listing(missing)}, which the value does not have",
                Label(e.args[0].span, f"has the dims {value.shown()}"),
                help=summed if product and e.name.id == "sum" else "",
            )
        return not missing
