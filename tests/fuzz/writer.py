"""The parts that random specs are made of: names, declarations, expressions. In: a way to draw. Out: text with its dims.

Every expression is tame: whatever finite values its leaves have, it is finite and of moderate size, so that values can be
compared. Domains are kept (a logarithm sees what is positive); the families in `families.py` bound the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Expr = tuple[str, frozenset[str]]  # text, and the dims that the value has
NAMES = ("x", "k", "v", "q", "u", "a", "w", "e", "lambda", "len", "float", "auto", "self", "xs", "T0", "ρ", "Bm", "in", "out")
DIMS = ("D", "N", "K", "V", "H", "M", "P", "batch", "class")
UNARY = ("tanh({})", "sigmoid({})", "relu({})", "silu({})", "gelu({})", "softplus({})", "sin({})", "cos({})", "erf({})",
         "abs({})", "exp(-softplus({}))",
         "log1p(({})^2)", "sqrt(1 + ({})^2)", "logsigmoid({})", "sign({})", "stopgrad({})", "0.5 * ({})",
         "({})^2", "-({})", "1 - {}", "expm1(-abs({}))", "log(1.5 + sin({}))", "2^(-abs({}))", "({})^3", "1 / (1 + ({})^2)")
CURVES = ("exp2(-abs({}))", "log2(1.5 + cos({}))", "log10(2 + ({})^2)", "rsqrt(1 + ({})^2)", "tan(0.5 * tanh({}))", "atan({})",
          "sinh(tanh({}))", "cosh(tanh({}))", "clamp({}, -0.7, 1.1)", "hardtanh({})", "hardtanh({}, -0.4, 2.5)",
          "hardsigmoid({})", "hardswish({})", "relu6(3 * ({}))", "elu({})", "elu({}, 0.3)", "celu({}, 1.7)", "leaky_relu({})",
          "leaky_relu({}, 0.2)",
          "selu({})", "softsign({})", "mish({})", "0.3 * floor({})", "0.3 * ceil({})", "0.3 * round({})", "0.3 * trunc({})",
          "mod({}, 1.3)")
FURTHER = ("safe_sqrt(abs({}))", "safe_sqrt(({})^2, 3)", "0.1 * lgamma(1 + abs({}))", "0.3 * digamma(1 + abs({}))",
           "abs({})^1.5", "(1 + abs({}))^0.3", "zoh(-abs({}), 0.4)", "bilinear(-abs({}), 0.4)", "zoh(-abs({}), 0.7, 0.4)",
           "bilinear(-abs({}), 0.7, 0.4)", "max({}, 0.2, -0.3)", "min({}, 0.2, 1)", "mod(floor(abs({})), 2)",
           "1 - ({})^4 / (1 + ({})^4)", "1.5^(-abs({}))", "abs({})^(-abs({}))", "logaddexp({}, -inf)",
           "where(({}) == 0, 1, 0.3)", "hardtanh(1 / (0.5 + abs({})))")
OVER = ("l2norm[{d}]({e})", "softmax[{d}]({e})", "layernorm[{d}]({e})", "rmsnorm[{d}]({e})")
TURNED = ("flip[{d}]({e})", "roll[{d}]({e}, 1)", "roll[{d}]({e}, -1)", "shift[{d}]({e}, -3, -0.5)",
          "cumsum[{d}](flip[{d}]({e})) / 2")
ALONG = ("0.5 * cumsum[{d}]({e})", "shift[{d}]({e}, 1)", "shift[{d}]({e}, -1, 0.5)", "shift[{d}]({e}, 2)")
REDUCE = ("sum[{d}]({e})", "mean[{d}]({e})", "max[{d}]({e})", "min[{d}]({e})", "logsumexp[{d}]({e})", "norm[{d}]({e})")
SPREAD = ("var[{d}]({e})", "std[{d}]({e})")
BINARY = ("{} + {}", "{} - {}", "({}) * ({})", "max({}, {})", "min({}, {})", "logaddexp({}, {})", "({}) / (1 + ({})^2)")
COMPARE = ("<", "<=", ">", ">=")


class Writer:
    """What a spec declares so far, and random parts of it."""

    def __init__(self, below: Callable[[int], int], wide: bool = True) -> None:
        self.below = below  # 0 to n - 1; the simplest is 0
        self.wide = wide  # whether all parts of the language may stand in the spec
        self.sizes: dict[str, int] = {}
        self.given: set[str] = set()  # dims whose size the text gives
        self.lines: list[str] = []
        self.inputs: dict[str, tuple[frozenset[str], str]] = {}
        self.indices: dict[str, tuple[frozenset[str], str]] = {}  # dims, and the dim whose positions they tell
        self.params: dict[str, tuple[frozenset[str], str]] = {}
        self.definitions: dict[str, frozenset[str]] = {}
        self.states: dict[str, tuple[str, ...]] = {}
        self.carried: dict[str, tuple[str, ...]] = {}  # every state, also those that no other family may read
        self.features: set[str] = set()
        self.taken: set[str] = set()
        self.fed = False  # whether an input is fed back
        self.alone = False  # whether no other family, and no other expression, may stand beside this one
        self.ahead = True  # whether inputs may be read ahead
        self.further = self.plane = False  # whether newer parts of the language may stand in the spec; whether it has two axes
        self.width = 1  # of the second axis
        self.indexed = self.buffered = self.noisy = False  # whether positions, buffers, draws may stand among expressions

    # ---- drawing

    def pick(self, items: Sequence[T]) -> T:
        """One of several; the simplest is the first."""
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        """True so often; the simplest is False."""
        return self.below(100) >= 100 - percent

    def subset(self, dims: Sequence[str], full: int = 50) -> tuple[str, ...]:
        """Some of the dims, all of them so often."""
        if not dims or not self.chance(100 - full):
            return tuple(dims)
        return tuple(d for d in dims if self.chance(50))

    # ---- names and declarations

    def fresh(self, stem: str) -> str:
        """A name that is free."""
        name, n = stem, 1
        while name in self.taken:
            n += 1
            name = f"{stem}{n}"
        self.taken.add(name)
        return name

    def dim(self, size: int | None = None) -> str:
        """A new dim; size: one that the text gives."""
        name = self.fresh(DIMS[self.below(7)] if self.chance(95) else self.pick(DIMS))
        fixed = size is not None or self.chance(12)
        long = size or (1 + self.below(5) if self.chance(90) else self.pick((1, 7, 8, 16)))
        self.sizes[name] = long
        if fixed:
            self.given.add(name)
        self.lines.append(f"dim {name} = {long}" if fixed else f"dim {name}")
        return name

    def input(self, dims: Sequence[str], marks: str = "", again: int = 60) -> str:
        """An input with these dims and marks: one that there is, so often."""
        same = [n for n, (own, m) in self.inputs.items() if own == frozenset(dims) and m == marks]
        if same and self.chance(again):
            return self.pick(same)
        name = self.fresh(self.pick(NAMES) if self.chance(10) else "x")
        self.inputs[name] = frozenset(dims), marks
        self.lines.append(f"input {name}{shown(dims)}{' ' if marks else ''}{marks}")
        return name

    def param(self, dims: Sequence[str], marks: str = "", square: bool = False, again: bool = True) -> str:
        """A param with these dims and marks; square: with its last dim again. again: whether it may be one that there is."""
        same = [n for n, (own, m) in self.params.items() if own == frozenset(dims) and m == marks]
        if same and not square and again and self.chance(40):
            return self.pick(same)
        name = self.fresh(self.pick(NAMES) if self.chance(6) else "p")
        batch = " per batch" if not square and self.chance(10) else ""
        self.features |= {"per batch"} if batch else set()
        self.features |= {"rank-0 param"} if not dims else set()
        if not square:
            self.params[name] = frozenset(dims), marks
        axes = (*dims, dims[-1]) if square else tuple(dims)
        self.lines.append(f"param {name}{shown(axes)}{batch}{' ' if marks else ''}{marks}")
        return name

    def index(self, dims: Sequence[str], of: str) -> str:
        """An input of positions of a dim: one that there is, or a new one."""
        same = [n for n, (own, dim) in self.indices.items() if own == frozenset(dims) and dim == of]
        if same and self.chance(60):
            return self.pick(same)
        name = self.fresh(self.pick(("w", "i", "place")))
        self.indices[name] = frozenset(dims), of
        self.lines.append(f"input {name}{shown(dims)} index {of}")
        self.features.add("index")
        return name

    def buffer(self, dims: Sequence[str]) -> str:
        """A buffer, mostly with an initial value."""
        name = self.fresh(self.pick(("m", "seen", "p")))
        counts = " + ".join(f"0.25 * index[{d}]" for d in dims) or "0.25"
        init = self.pick((f" init cos({counts})", " init 0.5", f" init where({counts} > 0.3, 1, 0)", ""))
        self.lines.append(f"buffer {name}{shown(dims)}{init}")
        self.features.add("buffer")
        return name

    def draw(self, dims: Sequence[str]) -> str:
        """Noise with these dims."""
        own = shown(dims)
        self.features.add("noise")
        once = self.pick(("", "", "once"))
        of = self.pick(("0.5", "0.7", self.input(self.subset(dims), "in [0, 1]")))
        self.features |= {"noise once"} if once else set()
        after = f", {once}" if once else ""
        return self.pick((f"bernoulli{own}({of}{after})", f"normal{own}({once})", f"uniform{own}({once})",
                          f"0.3 * normal{own}({self.param(())}, 0.5{after})", f"uniform{own}(-1, {of}{after})"))

    def at_index(self, dims: Sequence[str]) -> Expr:
        """A row of a table of params, of a buffer, or of an input, at a position that an input tells."""
        of = self.pick([d for d in self.sizes if d not in dims] or [self.dim()])
        table = self.param((of, *dims)) if self.chance(70) else self.input((of, *dims))
        place = self.index(self.subset(dims, 20), of)
        lag = self.pick(("", "", "", *(("[u-1]", "[t-1]", "[t+1, u-2]") if self.plane else ("[t-1]", "[t-2]"))))
        return f"{table}[{place}{lag}]", frozenset(dims)

    def const(self, dims: Sequence[str]) -> str:
        """A constant."""
        name = self.fresh("c")
        index = " + ".join(f"0.25 * index[{d}]" for d in dims) or "0.25"
        self.lines.append(f"const {name}{shown(dims)} = {self.pick(('0.5', 'exp(-0.5)', '1 / (1 + 0.5)'))} * cos({index})")
        return name

    def define(self, e: Expr) -> Expr:
        """The expression under a name of its own."""
        name = self.fresh("d")
        self.definitions[name] = e[1]
        self.lines.append(f"{name} = {e[0]}")
        return name, e[1]

    # ---- expressions without states

    def leaf(self, dims: Sequence[str]) -> Expr:
        """A value with some of these dims."""
        kind = self.below(20)
        own = self.subset(dims)
        if self.indexed and self.chance(12):
            return self.at_index(own)
        if self.buffered and self.chance(12):
            return self.buffer(own), frozenset(own)
        if self.noisy and self.chance(15):
            return self.draw(own), frozenset(own)
        if kind < 8:
            return self.input(own, self.pick(("", "", "", "", "in [-1, 1]"))), frozenset(own)
        if kind < 11:
            return self.param(own), frozenset(own)
        if kind < 13:
            name = self.input(own)
            lag = self.pick((1, 2, 3, -1, -2)) if self.ahead else self.pick((1, 2, 3))
            self.features.add("lag of an input" if lag > 0 else "look-ahead")
            if self.plane and self.chance(60):
                beside = f"u{-self.pick((1, 2, -1)):+d}"
                return f"{name}[{self.pick((beside, f't{-lag:+d}, {beside}'))}]", frozenset(own)
            return f"{name}[t{-lag:+d}]", frozenset(own)
        if kind < 15:
            return self.pick(("0.5", "1", "-0.3", "2")), frozenset()
        if kind < 16:
            return self.const(own), frozenset(own)
        fitting = [n for n, d in self.definitions.items() if d <= frozenset(dims)]
        if kind < 18 and fitting:
            name = self.pick(fitting)
            return name, self.definitions[name]
        if kind < 19 and own and self.chance(40):
            return f"0.3 * index[{own[0]}]", frozenset(own[:1])
        if kind < 19 and own and self.chance(50):
            self.features.add("position")
            return f"{self.input(own)}[{own[0]} = {self.pick(('0', '-1'))}]", frozenset(own[1:])
        return self.contraction(own)

    def contraction(self, dims: Sequence[str]) -> Expr:
        """A sum over a further dim, over taps, or a product with a matrix."""
        kind = self.below(4)
        if kind == 0:
            other = self.pick([d for d in self.sizes if d not in dims] or [self.dim()])
            self.features.add("sum over a dim")
            a, b = self.input((*dims, other)), self.param((other,))
            return f"sum[{other}]({a} * {b})", frozenset(dims)
        if kind == 1 and self.ahead:
            other = self.dim(self.pick((2, 3, 4)))
            self.features.add("taps")
            a, x = self.param((other, *dims)), self.input(dims)
            far = self.pick(("t - index[{}]", "t - 2*index[{}]", "t + 1 - index[{}]")).format(other)
            return f"sum[{other}]({a} * {x}[{far}])", frozenset(dims)
        if not dims:
            return self.param(()), frozenset()
        self.features.add("projection")
        if kind == 2:
            w = self.param(dims, square=True)
            return f"{w} @ {self.input(dims[-1:])}", frozenset(dims)
        other = self.pick([d for d in self.sizes if d not in dims] or [self.dim()])
        w = self.param((*dims, other), again=False)
        return f"{w} @ {self.input((other,))}", frozenset(dims)

    def expr(self, dims: Sequence[str], depth: int = 2, leaf: Callable[[Sequence[str]], Expr] | None = None) -> Expr:
        """A tame expression with some of these dims. leaf: what stands at its ends (without states unless said)."""
        leaf = leaf or self.leaf
        kind = self.below(12) if depth else 0
        if kind < 4:
            return leaf(dims)
        if kind < 7:
            e, own = self.expr(dims, depth - 1, leaf)
            curves = CURVES if self.wide and self.chance(30) else UNARY
            curve = self.pick(FURTHER if self.further and self.chance(25) else curves)
            return curve.replace("{}", bracketed(e)), own
        if kind == 7:
            e, own = self.expr(dims, depth - 1, leaf)
            wide = sorted(d for d in own if self.sizes[d] > 1)  # of one element, they divide 0 by a root of almost 0
            if wide:
                if self.wide and self.chance(30):
                    self.features.add("along a dim")
                    return self.pick(ALONG + TURNED if self.further else ALONG).format(d=self.pick(wide), e=e), own
                return self.pick(OVER).format(d=self.pick(wide), e=e), own
            return e, own
        if kind == 8:
            return self.reduction(dims, depth, leaf)
        a, b = self.expr(dims, depth - 1, leaf), self.expr(dims, depth - 1, leaf)
        if kind == 9:
            c = self.expr(dims, depth - 1, leaf)
            self.features.add("where")
            condition = f"{bracketed(a[0])} {self.pick(COMPARE)} {bracketed(b[0])}"
            if self.chance(15):
                x, y = bracketed(a[0]), bracketed(b[0])
                condition = self.pick((f"not {x} > {y}", f"{condition} and {x} < 1", f"{condition} or {y} > 2"))
            return f"where({condition}, {c[0]}, {a[0]})", a[1] | b[1] | c[1]
        return self.pick(BINARY).format(bracketed(a[0]), bracketed(b[0])), a[1] | b[1]

    def reduction(self, dims: Sequence[str], depth: int, leaf: Callable[[Sequence[str]], Expr]) -> Expr:
        """A value over a further dim, taken together over it."""
        others = [d for d in self.sizes if d not in dims]
        if not others:
            return leaf(dims)
        other = self.pick(others)
        e, own = self.covered(self.expr((*dims, other), depth - 1, leaf), (other,))
        return self.pick(REDUCE + SPREAD if self.wide else REDUCE).format(d=other, e=e), own - {other}

    def covered(self, e: Expr, dims: Sequence[str]) -> Expr:
        """The expression, with what lacks of these dims brought in by an input."""
        missing = [d for d in dims if d not in e[1]]
        if not missing:
            return e
        return f"{bracketed(e[0])} {self.pick(('+', '*', '-'))} {self.input(missing)}", e[1] | frozenset(missing)

    # ---- coefficients

    def gate(self, dims: Sequence[str]) -> Expr:
        """A coefficient of a past state, from 0 to 1."""
        own = self.subset(dims)
        kind = self.below(13)
        if kind < 3:
            self.features.add("log decay")
            return f"exp({self.input(own, 'in [-inf, 0]')})", frozenset(own)
        if kind < 5:
            return self.input(own, "in [0, 1]"), frozenset(own)
        if kind == 5:
            return self.pick(("0.9", "0.5", "1", "0")), frozenset()
        if kind == 6:
            return f"sigmoid({self.param(own)})", frozenset(own)
        if kind == 7:
            return f"exp(-exp({self.param(own)}))", frozenset(own)
        if kind == 8:
            e, dims_e = self.expr(own, 1)
            return f"exp(-softplus({e}))", dims_e
        if kind == 9:
            m = self.input(self.subset(own, 30), "in [0, 1]")
            self.features.add("where")
            a, own_a = self.gate(own)
            return f"where({m} > 0.4, {a}, {self.pick(('1', '0', '0.5'))})", own_a | self.inputs[m][0]
        if kind == 10:
            a, b = self.gate(own), self.gate(own)
            return f"{bracketed(a[0])} * {bracketed(b[0])}", a[1] | b[1]
        e, dims_e = self.expr(own, 2)
        return f"sigmoid({e})", dims_e

    def coefficient(self, dims: Sequence[str]) -> Expr:
        """A coefficient from -1 to 1."""
        own = self.subset(dims)
        kind = self.below(6)
        if kind < 3:
            return self.gate(dims)
        self.features.add("signed coefficient")
        if kind == 3:
            return self.input(own, "in [-1, 1]"), frozenset(own)
        if kind == 4:
            e, dims_e = self.expr(own, 1)
            return f"tanh({e})", dims_e
        return f"0.4 * {self.input(own)}", frozenset(own)


def shown(dims: Sequence[str]) -> str:
    """Dims in brackets, or nothing."""
    return f"[{', '.join(dims)}]" if dims else ""


def bracketed(e: str) -> str:
    """The text as it may stand beside any sign."""
    return e if e.replace("_", "").replace("'", "").isalnum() else f"({e})"


__all__ = ["Expr", "Writer", "bracketed", "shown"]
