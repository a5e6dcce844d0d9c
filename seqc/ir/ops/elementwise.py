"""Elementwise operators: one row each, with interval, derivative, float64 reference and spelling per printer.

The numerically split forms (sigmoid, softplus, ...) are part of the spelling: the plain torch functions hold at every
argument; Triton uses the `seqc_*` device functions of the triton backend; C++ uses the functions of its runtime header.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from seqc.ir.graph import Node, const, constant, node
from seqc.ir.intervals import ANY, POSITIVE, SIGNED_UNIT, UNIT, Interval
from seqc.ir.ops.row import Op, boolean


def op(name: str, *args: Node) -> Node:
    """Shorthand for the derivative rules."""
    return node(name, *args)


def where(c: Node, a: Node | float, b: Node | float) -> Node:
    """a where c holds, else b."""
    lifted = [x if isinstance(x, Node) else const(x) for x in (a, b)]
    return node("where", c, *lifted)


def finite(x: Node) -> Node:
    """Whether x is a number, and no infinity."""
    return node("lt", node("abs", x), const(math.inf))


GUARD = "what is not finite makes NaN of the sums that it is in, and of no others"


def is_finite(n: Node) -> bool:
    """Whether n is `finite` of something: `GUARD` says why a block asks for it."""
    return n.op == "lt" and n.args[0].op == "abs" and n.args[1] is const(math.inf)


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else math.inf


def _sigmoid(x: Any) -> Any:
    x = np.asarray(x, dtype=float)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x)


def _logaddexp(a: Any, b: Any) -> Any:
    return np.logaddexp(a, b)


def _sqrt(x: float) -> float:
    return math.sqrt(max(x, 0.0))


def _log(x: float) -> float:
    return -math.inf if x <= 0 else math.log(x)


def _abs(i: Interval) -> Interval:
    if i.lo <= 0 <= i.hi:
        return Interval(0.0, i.magnitude)
    return Interval(min(abs(i.lo), abs(i.hi)), i.magnitude)


def _whole(round_off: Any) -> Any:
    return lambda x: x if math.isinf(x) else float(round_off(x))


def _mul_interval(n: Node, a: tuple[Interval, ...]) -> Interval:
    if n.args[0] is n.args[1]:
        low = _abs(a[0])
        return low * low
    return a[0] * a[1]


def _power(x: float, c: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.power(x, c))


def _pow_interval(n: Node, a: tuple[Interval, ...]) -> Interval:
    exponent = n.args[1]
    if exponent.op == "const":
        c = constant(exponent)
        if c == 2.0:
            low = _abs(a[0])
            return low * low
        if a[0].lo >= 0 and c >= 0:
            return a[0].map(lambda x: _power(x, c))
        if a[0].lo > 0:
            return a[0].map(lambda x: _power(x, c), increasing=False)
    if n.args[0].op == "const" and a[0].lo > 0:
        return a[1].map(lambda x: _power(a[0].lo, x), increasing=a[0].lo >= 1)
    return POSITIVE if a[0].lo >= 0 else ANY


def _f(low: float, high: float) -> Interval:
    return Interval(low, high)


def _half_if_tied(strict: str, weak: str) -> tuple[Any, Any]:
    """Gradient of min/max: to the winner, half to each at a tie (what torch does). The loser is not chosen: no factor of 0."""

    def share(first: bool) -> Any:
        def rule(n: Node, d: Node) -> Node:
            a, b = n.args if first else n.args[::-1]
            return where(op(weak, a, b), d * where(op(strict, a, b), 1.0, 0.5), 0.0)

        return rule

    return share(True), share(False)


def nonnegative(n: Node) -> bool:
    """Whether the way in which n is spelled shows that it is never negative."""
    match n.op:
        case "exp" | "sigmoid" | "softplus" | "abs" | "sqrt" | "size":
            return True
        case "const":
            return constant(n) >= 0
        case "mul" if n.args[0] is n.args[1]:
            return True
        case "add" | "mul" | "div" | "sum" | "expand" | "rename" | "min" | "stopgrad":
            return all(nonnegative(a) for a in n.args)
        case "max":
            return any(nonnegative(a) for a in n.args)
        case _:
            return False


def positive(n: Node) -> bool:
    """Whether the way in which n is spelled keeps it away from zero: a square and a constant, or what `where` tests."""
    match n.op:
        case "const":
            return constant(n) > 0
        case "add":
            return all(map(nonnegative, n.args)) and any(map(positive, n.args))
        case "max":
            return any(map(positive, n.args))
        case "where" if n.args[0].op == "gt" and n.args[0].args[0] is n.args[1]:
            bound = n.args[0].args[1]
            return bound.op == "const" and constant(bound) >= 0 and positive(n.args[2])
        case "expand" | "rename" | "stopgrad":
            return positive(n.args[0])
        case _:
            return False


def _sqrt_vjp(n: Node, d: Node) -> Node:
    """d / (2 sqrt(x)): unbounded towards x = 0, where the derivative is taken to be 0 (it multiplies what vanishes there)."""
    inside = d * 0.5 / n
    return inside if positive(n.args[0]) else where(op("eq", n, const(0.0)), 0.0, inside)


def _exp_vjp(n: Node, d: Node) -> Node:
    """d exp(x); 0 where exp(-m) is infinite because the maximum m is -inf: there is nothing that it depends on."""
    x, inside = n.args[0], d * n
    if x.op != "neg" or x.args[0].op not in ("max", "amax", "max_scan"):
        return inside
    return where(op("eq", x.args[0], const(-math.inf)), 0.0, inside)


def _pow_vjp_base(n: Node, d: Node) -> Node:
    """c x^(c - 1) d; 0 at x = 0 for c < 1, where it is unbounded, like that of a square root."""
    x, c = n.args
    inside = d * c * op("pow", x, c - 1.0)
    at_zero = op("eq", x, const(0.0))
    if c.op != "const":
        low = op("and", op("ge", c, const(0.0)), op("lt", c, const(1.0)))
        return where(op("and", at_zero, low), 0.0, inside)
    return where(at_zero, 0.0, inside) if 0.0 <= constant(c) < 1.0 and not positive(x) else inside


def _pow_vjp_exponent(n: Node, d: Node) -> Node:
    """x^c log(x) d, which is 0 at x = 0 for c >= 0."""
    x, c = n.args
    if positive(x):
        return d * n * op("log", x)
    hidden = op("and", op("eq", x, const(0.0)), op("ge", c, const(0.0)))
    return where(hidden, 0.0, d * n * op("log", x))


def _lae_vjp(i: int) -> Any:
    # exp(a - y) is 0/0 at a = y = -inf; the mass there is zero, so the gradient is defined as zero
    return lambda n, d: where(op("eq", n.args[i], const(-math.inf)), 0.0, d * op("exp", n.args[i] - n))


def _row(
    name: str, ref: Any, vjps: Any, interval: Any, torch: str, triton: str, cpp: str, laws: str = "", cost: str = "dear",
    python: str = "", infix: tuple[str, int] | None = None, safe: str = "",
) -> Op:
    spell = {"torch": torch, "triton": triton, "cpp": cpp} | ({"python": python} if python else {})
    return Op(name, len(vjps), ref, vjps, interval=interval, elementwise=True, spell=spell,
              laws=frozenset(laws.split()), cost=cost, infix=infix, safe=safe)


def _unary(name: str, ref: Any, vjp: Any, interval: Any, torch: str, triton: str, cpp: str, laws: str = "", **more: Any) -> Op:
    return _row(name, ref, (vjp,), lambda n, a: interval(a[0]), torch, triton, cpp, laws, **more)


def _compare(name: str, ref: Any, symbol: str) -> Op:
    text = f"({{0}} {symbol} {{1}})"
    spell = {"torch": text, "triton": text, "cpp": text}
    return Op(name, 2, ref, (None, None), dtype=boolean, elementwise=True, spell=spell, cost="cheap", infix=(symbol, 3))


def _truth(name: str, ref: Any, infix: tuple[str, int] | None, arity: int, **spell: str) -> Op:
    return Op(name, arity, ref, (None,) * arity, dtype=boolean, elementwise=True, spell=spell, cost="cheap",
              takes=("bool",) * arity, infix=infix, laws=frozenset(("associative",) if arity == 2 else ()))


def _np_sign(x: Any) -> Any:
    """1, 0 or -1; of what is no number 0, as torch has it."""
    return np.where(np.isnan(x), 0.0, np.sign(x))


ROWS: tuple[Op, ...] = (
    # arithmetic
    _row("add", np.add, (lambda n, d: d, lambda n, d: d), lambda n, a: a[0] + a[1],
         "{0} + {1}", "{0} + {1}", "{0} + {1}",
         "commutative associative linear additive zeros finite lanes", "cheap", infix=("+", 4)),
    _row("sub", np.subtract, (lambda n, d: d, lambda n, d: -d),
         lambda n, a: _f(0.0, 0.0) if n.args[0] is n.args[1] else a[0] - a[1],
         "{0} - {1}", "{0} - {1}", "{0} - {1}", "linear additive zeros finite lanes", "cheap",
         infix=("-", 4)),
    _row("mul", np.multiply, (lambda n, d: d * n.args[1], lambda n, d: d * n.args[0]), _mul_interval,
         "{0} * {1}", "{0} * {1}", "{0} * {1}", "commutative associative linear finite lanes", "cheap", infix=("*", 5)),
    _row("div", np.divide, (lambda n, d: d / n.args[1], lambda n, d: -(d * n) / n.args[1]),
         lambda n, a: a[0] * a[1].inverse(), "{0} / {1}", "{0} / {1}", "{0} / {1}", "linear zero steep lanes",
         infix=("/", 5)),
    _row("pow", np.power,
         (_pow_vjp_base, _pow_vjp_exponent), _pow_interval,
         "torch.pow({0}, {1})", "seqc_pow({0}, {1})", "std::pow({0}, {1})",
         "steep", python="({0}) ** ({1})", infix=("^", 7)),
    _unary("neg", np.negative, lambda n, d: -d, lambda a: -a, "-{0}", "-{0}", "-{0}",
           "linear additive zero finite lanes", cost="cheap"),
    _row("min", np.minimum, _half_if_tied("lt", "le"), lambda n, a: _f(min(a[0].lo, a[1].lo), min(a[0].hi, a[1].hi)),
         "torch.minimum({0}, {1})", "tl.minimum({0}, {1}, tl.PropagateNan.ALL)", "std::min({0}, {1})",
         "commutative associative zeros finite", "cheap", "min({0}, {1})"),
    _row("max", np.maximum, _half_if_tied("gt", "ge"), lambda n, a: _f(max(a[0].lo, a[1].lo), max(a[0].hi, a[1].hi)),
         "torch.maximum({0}, {1})", "tl.maximum({0}, {1}, tl.PropagateNan.ALL)", "std::max({0}, {1})",
         "commutative associative zeros finite", "cheap", "max({0}, {1})"),
    _unary("abs", np.abs, lambda n, d: d * op("sign", n.args[0]), _abs, "torch.abs({0})", "tl.abs({0})",
           "std::abs({0})", "zero finite", cost="cheap", python="abs({0})"),
    _unary("sign", _np_sign, None, lambda a: _f(-1.0 if a.lo < 0 else 0.0, 1.0 if a.hi > 0 else 0.0),
           "torch.sign({0})", "seqc_sign({0})", "seqc_sign({0})", "zero finite", cost="cheap"),
    # exponentials
    _unary("exp", np.exp, _exp_vjp, lambda a: a.map(_exp), "torch.exp({0})", "tl.exp({0})",
           "std::exp({0})", "curved lanes", python="math.exp({0})"),
    _unary("expm1", np.expm1, lambda n, d: d * (n + 1.0), lambda a: a.map(lambda x: _exp(x) - 1),
           "torch.expm1({0})", "seqc_expm1({0})", "std::expm1({0})", "zero curved lanes",
           python="math.expm1({0})", safe="series near 0"),
    _unary("log", np.log, lambda n, d: d / n.args[0], lambda a: a.map(_log), "torch.log({0})", "tl.log({0})",
           "std::log({0})", "steep curved", python="math.log({0})"),
    _unary("log2", np.log2, lambda n, d: d / (n.args[0] * math.log(2.0)), lambda a: a.map(lambda x: _log(x) / math.log(2.0)),
           "torch.log2({0})", "tl.log2({0})", "std::log2({0})", "steep", safe="exact at powers of 2"),
    _unary("log1p", np.log1p, lambda n, d: d / (n.args[0] + 1.0), lambda a: a.map(lambda x: _log(1 + x)),
           "torch.log1p({0})", "seqc_log1p({0})", "std::log1p({0})", "zero steep curved",
           python="math.log1p({0})", safe="series near 0"),
    _unary("sqrt", np.sqrt, _sqrt_vjp, lambda a: a.map(_sqrt), "torch.sqrt({0})", "tl.sqrt({0})",
           "std::sqrt({0})", "zero steep lanes", python="math.sqrt({0})"),
    _unary("sigmoid", _sigmoid, lambda n, d: d * n * (1.0 - n), lambda a: a.map(lambda x: float(_sigmoid(x))),
           "torch.sigmoid({0})", "seqc_sigmoid({0})", "seqc_sigmoid({0})", "finite curved lanes",
           safe="split at 0: exp of -|x| only"),
    _unary("logsigmoid", lambda x: -_softplus(-x), lambda n, d: d * op("sigmoid", -n.args[0]),
           lambda a: a.map(lambda x: -float(_softplus(-x))), "torch.nn.functional.logsigmoid({0})",
           "seqc_logsigmoid({0})", "seqc_logsigmoid({0})", "finite curved", safe="min(x, 0) - log1p(exp(-|x|))"),
    _unary("softplus", _softplus, lambda n, d: d * op("sigmoid", n.args[0]),
           lambda a: a.map(lambda x: float(_softplus(x))), "torch.logaddexp({0}, torch.zeros_like({0}))",
           "seqc_softplus({0})", "seqc_softplus({0})", "finite curved", safe="max(x, 0) + log1p(exp(-|x|))"),
    _row("logaddexp", _logaddexp, (_lae_vjp(0), _lae_vjp(1)),
         lambda n, a: _f(max(a[0].lo, a[1].lo), max(a[0].hi, a[1].hi) + math.log(2)),
         "torch.logaddexp({0}, {1})", "seqc_logaddexp({0}, {1})", "seqc_logaddexp({0}, {1})",
         "commutative curved"),
    _unary("tanh", np.tanh, lambda n, d: d * (1.0 - n * n), lambda a: a.map(math.tanh), "torch.tanh({0})",
           "seqc_tanh({0})", "std::tanh({0})", "zero finite lanes", python="math.tanh({0})", safe="odd, from expm1 of -2|x|"),
    _unary("erf", _erf, lambda n, d: d * (2 / math.sqrt(math.pi)) * op("exp", -(n.args[0] * n.args[0])),
           lambda a: a.map(math.erf), "torch.erf({0})", "tl.erf({0})", "std::erf({0})", "zero finite", python="math.erf({0})"),
    _unary("sin", np.sin, lambda n, d: d * op("cos", n.args[0]), lambda a: SIGNED_UNIT, "torch.sin({0})",
           "tl.sin({0})", "std::sin({0})", "zero finite", python="math.sin({0})"),
    _unary("cos", np.cos, lambda n, d: -(d * op("sin", n.args[0])), lambda a: SIGNED_UNIT, "torch.cos({0})",
           "tl.cos({0})", "std::cos({0})", "finite", python="math.cos({0})"),
    _unary("atan", np.arctan, lambda n, d: d / (n.args[0] * n.args[0] + 1.0), lambda a: a.map(math.atan), "torch.atan({0})",
           "seqc_atan({0})", "std::atan({0})", "zero finite"),
    # whole numbers: steps, with derivative 0; round goes to the even one of two that are as near
    _unary("floor", np.floor, None, lambda a: a.map(_whole(math.floor)), "torch.floor({0})", "tl.floor({0})",
           "std::floor({0})", "zero finite", cost="cheap"),
    _unary("round", np.round, None, lambda a: a.map(_whole(round)), "torch.round({0})", "seqc_nearest({0})",
           "std::rint({0})", "zero finite", cost="cheap"),
    # choice
    _compare("lt", np.less, "<"),
    _compare("le", np.less_equal, "<="),
    _compare("gt", np.greater, ">"),
    _compare("ge", np.greater_equal, ">="),
    _compare("eq", np.equal, "=="),
    _compare("ne", np.not_equal, "!="),
    _truth("and", np.logical_and, ("and", 2), 2, torch="({0} & {1})", triton="({0} & {1})", cpp="({0} && {1})",
           lanes="seqc_and({0}, {1})", python="({0} and {1})"),
    _truth("or", np.logical_or, ("or", 1), 2, torch="({0} | {1})", triton="({0} | {1})", cpp="({0} || {1})",
           lanes="seqc_or({0}, {1})", python="({0} or {1})"),
    _truth("not", np.logical_not, None, 1, torch="~{0}", triton="({0} == 0)", cpp="!{0}", lanes="seqc_not({0})",
           python="(not {0})"),
    Op("where", 3, np.where,
       (None, lambda n, d: where(n.args[0], d, 0.0), lambda n, d: where(n.args[0], 0.0, d)),
       interval=lambda n, a: a[1].union(a[2]), elementwise=True,
       spell={"torch": "torch.where({0}, {1}, {2})", "triton": "tl.where({0}, {1}, {2})", "cpp": "({0} ? {1} : {2})",
              "lanes": "seqc_where({0}, {1}, {2})", "python": "({1} if {0} else {2})"},
       laws=frozenset(("linear", "finite")), cost="cheap", takes=("bool",)),
    # derivatives by decree
    Op("stopgrad", 1, lambda x: x, (None,), interval=lambda n, a: a[0], elementwise=True,
       spell={"torch": "{0}", "triton": "{0}", "cpp": "{0}"}, laws=frozenset(("alias", "zero", "finite")), cost="cheap",
       takes=("any",)),
    # gradclip(x, c): the value x; its cotangent is cut to [-c, c]
    Op("gradclip", 2, lambda x, c: x,
       (lambda n, d: op("min", op("max", d, -n.args[1]), n.args[1]), None),
       interval=lambda n, a: a[0], elementwise=True, linear_backward=False, cost="cheap",
       spell={"torch": "({0})", "triton": "({0})", "cpp": "({0})"}),
    # surrogate(y, x, slope): the value of y (a truth value or a number) as a real; its derivative w.r.t. x is slope
    Op("surrogate", 3, lambda y, x, slope: np.asarray(y, dtype=float),
       (None, lambda n, d: d * n.args[2], None),
       interval=lambda n, a: UNIT if n.args[0].dtype == "bool" else a[0], elementwise=True,
       spell={"torch": "({0}).to({1}.dtype)", "triton": "({0}).to({1}.dtype)", "cpp": "real({0})", "lanes": "as_real({0})",
              "python": "float({0})"},
       laws=frozenset(("zero",)), cost="view", takes=("any",), word="withgrad"),
)
