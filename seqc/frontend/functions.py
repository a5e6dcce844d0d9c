"""The functions of the language: how many arguments and dims each takes, and what it means in operators.

In: values. Out: values. A row whose name is an operator applies it; the others are expanded here into forms that hold
at every argument (`softmax` subtracts its maximum, `zoh` goes through expm1). Names that are understood but not lowered
yet are listed with the reason. Looking names up and reporting mistakes is the elaborator's work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from seqc.analysis.running_maximum import from_maximum
from seqc.frontend.activations import ACTIVATIONS, expanded_call
from seqc.frontend.choices import chosen, position
from seqc.frontend.complex_pairs import RULES, ZERO, conj
from seqc.frontend.square_matrices import exponential, identity, logdet, solved, square, times
from seqc.frontend.values import (
    Misuse,
    Value,
    apply,
    constant_of,
    part,
    real,
    reduced,
    renamed_dims,
    truth,
)
from seqc.ir.dims import primed
from seqc.ir.graph import BATCH, index, node, size
from seqc.ir.graph import total as sum_of
from seqc.ir.ops import TABLE
from seqc.ir.ops.structure import shift

EPS_NORM = 1e-5  # layernorm, rmsnorm: added to the mean square
EPS_UNIT = 1e-6  # l2norm: added to the sum of squares

Dims: TypeAlias = tuple[str, ...]
Expand: TypeAlias = Callable[[list[Value], Dims], Value]


@dataclass(frozen=True)
class Function:
    """`least` to `most` arguments; `over`: whether dims in brackets are required ("yes"), or not taken ("no").

    over "other": dims are required, which are none of the argument's. takes_complex: whether arguments may be complex.
    """

    expand: Expand
    least: int
    most: int
    over: str = "no"
    takes_complex: bool = False


def _op(name: str, arity: int) -> Function:
    def expand(args: list[Value], dims: Dims) -> Value:
        return apply(name, *map(real, args))

    return Function(expand, arity, arity, takes_complex=name in RULES)


def total(x: Value, dims: Dims) -> Value:
    """sum[dims](x)"""
    return reduced("sum", real(x), dims)


def mean(x: Value, dims: Dims) -> Value:
    """sum[dims](x) / (their extents)"""
    count = Value(size(dims[0]))
    for dim in dims[1:]:
        count = count * Value(size(dim))
    return total(x, dims) / count


def _variance(x: Value, dims: Dims) -> Value:
    """The mean of the squared distances from the mean (divided by the extent, not by one less)."""
    centred = x - mean(x, dims)
    return mean(centred * centred, dims)


def _root(square: Value) -> Value:
    """The square root of a sum of squares, with derivative 0 (not 0/0) at zero."""
    positive = apply("gt", square, 0.0)
    return apply("where", positive, apply("sqrt", apply("where", positive, square, 1.0)), 0.0)


def _largest(args: list[Value], dims: Dims) -> Value:
    return _fold_max("max", args) if not dims else reduced("amax", real(args[0]), dims)


def _smallest(args: list[Value], dims: Dims) -> Value:
    if not dims:
        return _fold_max("min", args)
    return -reduced("amax", -real(args[0]), dims)


def _fold_max(op: str, args: list[Value]) -> Value:
    if len(args) < 2:
        hint = f"write `{op}(a, b)`, or `{op}[K](x)` for the {op} over a dim"
        raise Misuse(f"`{op}` of one value needs the dims to run over", help=hint)
    result = real(args[0])
    for arg in args[1:]:
        result = apply(op, result, real(arg))
    return result


def _met(x: Value, dim: str, other: str, where: Value) -> Value:
    """At each position of `dim`, the sum of the elements whose positions, called `other`, meet a condition."""
    kept = apply("where", where, renamed_dims(x, {dim: other}), 0.0)
    return x.of(y if y is ZERO else sum_of(y, (other,)) for y in kept.pair)


def _cumsum(args: list[Value], dims: Dims) -> Value:
    """The sum of the elements up to each one; over several dims, of all that are not behind it in any of them."""
    x = real(args[0])
    for dim in dims:
        other = primed(dim, x.order)
        upto = apply("le", Value(index(other), (other,)), Value(index(dim), (dim,)))
        x = _met(x, dim, other, upto)
    return x


def _shift(args: list[Value], dims: Dims) -> Value:
    """The element `by` positions before each one; what is outside is 0, or the third argument."""
    x, by = real(args[0]), constant_of(args[1])
    if len(dims) != 1 or by is None or by != int(by):
        help = "write `shift[N](x, 1)`, or `roll[N](x, 1)` around a ring"
        raise Misuse("a value is moved along one dim, by a whole number", help=help)
    dim, steps = dims[0], int(by)
    moved = x.of(shift(part(x, i).node, dim, steps) for i in range(len(x.parts))) if steps else x
    if len(args) < 3:
        return moved
    place = Value(index(dim), (dim,))
    inside = apply("ge", place, by) if steps > 0 else apply("lt", place, Value(size(dim)) + by)
    return apply("where", inside, moved, real(args[2]))


def _anchor(x: Value, dims: Dims) -> Value:
    return apply("stopgrad", reduced("amax", x, dims))


def _softmax(args: list[Value], dims: Dims) -> Value:
    x = real(args[0])
    e = apply("exp", x - _anchor(x, dims))
    return x.of([(e / total(e, dims)).node])


def _exp(args: list[Value], dims: Dims) -> Value:
    """The exponential; of a difference from a maximum it is 0 where both are -inf."""
    x = real(args[0])
    return apply("exp", x) if x.imag is not None else x.of([node("exp", from_maximum(x.node))])


def _logsumexp(args: list[Value], dims: Dims) -> Value:
    """Of nothing but -inf it is -inf, with derivative 0."""
    x = real(args[0])
    top = _anchor(x, dims)
    inside = top + apply("log", total(apply("exp", x - top), dims))
    return apply("where", apply("eq", top, -math.inf), -math.inf, inside)


def _scaled(x: Value, rest: list[Value]) -> Value:
    """x * gain + bias, as far as given."""
    result = x
    for op, arg in zip(("mul", "add"), rest, strict=False):
        result = apply(op, result, real(arg))
    return result


def _layernorm(args: list[Value], dims: Dims) -> Value:
    x = real(args[0])
    centred = x - mean(x, dims)
    spread = apply("sqrt", mean(centred * centred, dims) + EPS_NORM)
    return _scaled(x.of([(centred / spread).node]), args[1:])


def _rmsnorm(args: list[Value], dims: Dims) -> Value:
    x = real(args[0])
    return _scaled(x.of([(x / apply("sqrt", mean(x * x, dims) + EPS_NORM)).node]), args[1:])


def _l2norm(args: list[Value], dims: Dims) -> Value:
    x = real(args[0])
    return x.of((x / apply("sqrt", total(_square(x), dims) + EPS_UNIT)).pair)


def _square(x: Value) -> Value:
    """x^2, or the square of the size of a complex value."""
    if x.imag is None:
        return x * x
    real_part, imag_part = part(x, 0), part(x, 1)
    return real_part * real_part + imag_part * imag_part


def _norm(args: list[Value], dims: Dims) -> Value:
    """The 2-norm, with derivative 0 (not 0/0) at zero."""
    return _root(total(_square(real(args[0])), dims))


def _where(args: list[Value], dims: Dims) -> Value:
    found = apply("where", truth(args[0]), real(args[1]), real(args[2]))
    told = {x.places for x in args[1:] if constant_of(x) is None}
    return replace(found, places=told.pop()) if len(told) == 1 else found


def _withgrad(args: list[Value], dims: Dims) -> Value:
    """The truth value as 0 or 1; its derivative with respect to (a - b) of `a > b` is the slope."""
    y, slope = args[0], real(args[1])
    if y.node.op not in ("gt", "ge", "lt", "le"):
        cause = "the slope is the derivative with respect to a - b, so the first argument must be a comparison a > b"
        raise Misuse("`withgrad` needs a comparison", cause, "write `withgrad(u > 1, slope)`")
    a, b = y.node.args
    difference = node("sub", a, b) if y.node.op in ("gt", "ge") else node("sub", b, a)
    order = (*y.order, *(d for d in slope.order if d not in y.order))
    return Value(node("surrogate", y.node, difference, slope.node), order, None, y.written | slope.written)


def _gradclip(args: list[Value], dims: Dims) -> Value:
    """x, whose cotangent is cut to [-c, c], element by element and step by step."""
    x, c = real(args[0]), real(args[1])
    if not any(BATCH in n.dims for n in x.parts):
        cause = "a param's gradient is a sum over all steps and sequences, which no step sees"
        raise Misuse("`gradclip` takes what each sequence has its own of", cause, "clip the gradients of params in training")
    constant = constant_of(c)
    if set(c.order) - set(x.order) or (constant is not None and not constant > 0):
        help = "write `gradclip(x, 1)`: its gradient stays in [-1, 1]"
        raise Misuse("the bound of `gradclip` is a positive number", help=help)
    return x.of([node("gradclip", x.node, c.node)])


def _zoh(args: list[Value], dims: Dims) -> Value:
    """zoh(A, dt) = exp(dt A); zoh(A, B, dt) = (exp(dt A) - 1) / A * B, which is dt * B at A = 0."""
    a, dt = real(args[0]), real(args[-1])
    x = dt * a
    if square(a):
        return exponential(x) if len(args) == 2 else times(dt * exponential(x, 1), real(args[1]))
    if len(args) == 2:
        return apply("exp", x)
    small = apply("lt", apply("abs", x) if x.imag is None else _square(x), 1e-6 if x.imag is None else 1e-12)
    safe = apply("where", small, 1.0, x)
    gain = apply("where", small, 1.0 + 0.5 * x, apply("expm1", safe) / safe)
    return dt * gain * real(args[1])


def _bilinear(args: list[Value], dims: Dims) -> Value:
    """bilinear(A, dt) = (1 + dt A / 2) / (1 - dt A / 2); bilinear(A, B, dt) = dt B / (1 - dt A / 2)."""
    a, dt = real(args[0]), real(args[-1])
    half = 0.5 * (dt * a)
    if square(a):
        one = identity(half)
        return solved(one - half, one + half if len(args) == 2 else dt * real(args[1]))
    return (1.0 + half if len(args) == 2 else dt * real(args[1])) / (1.0 - half)


def _conj(args: list[Value], dims: Dims) -> Value:
    x = real(args[0])
    return x.of(conj(x.pair))


def _activation(name: str) -> Function:
    row = ACTIVATIONS[name]
    return Function(lambda args, dims: expanded_call(name, args), row.least, row.most)


def _over(reduce: Callable[[Value, Dims], Value]) -> Expand:
    return lambda args, dims: reduce(args[0], dims)


def _flip(x: Value, dims: Dims) -> Value:
    """The elements in the other order."""
    for dim in dims:
        other = primed(dim, x.order)
        from_end = Value(size(dim)) - 1.0 - Value(index(dim), (dim,))
        met = apply("eq", Value(index(other), (other,)), from_end)
        x = _met(x, dim, other, met)
    return x


_OTHERWISE = ("neg", "not", "draw", "surrogate")  # operators that a spec writes as signs, as noise, or with `withgrad`


def of_table() -> dict[str, Function]:
    """By name, the elementwise operators that have no sign: a spec calls them as their rows do."""
    rows = (row for name, row in TABLE.items() if row.elementwise and not row.infix and name not in _OTHERWISE)
    return {row.name: _op(row.name, row.arity) for row in rows}


FUNCTIONS: dict[str, Function] = {
    **of_table(),
    **{name: _activation(name) for name in ACTIVATIONS},
    "exp": Function(_exp, 1, 1, takes_complex=True),
    "where": Function(_where, 3, 3, takes_complex=True),
    "re": Function(lambda args, dims: part(real(args[0]), 0), 1, 1, takes_complex=True),
    "im": Function(lambda args, dims: part(real(args[0]), 1), 1, 1, takes_complex=True),
    "conj": Function(_conj, 1, 1, takes_complex=True),
    "gradclip": Function(_gradclip, 2, 2),
    "withgrad": Function(_withgrad, 2, 2),
    "max": Function(_largest, 1, 16, "maybe"),
    "min": Function(_smallest, 1, 16, "maybe"),
    "position": Function(lambda args, dims: position(args[0], dims), 1, 1, "other"),
    "argmax": Function(_over(chosen), 1, 1, "yes"),
    "argmin": Function(lambda args, dims: chosen(-real(args[0]), dims), 1, 1, "yes"),
    "sum": Function(_over(total), 1, 1, "yes", takes_complex=True),
    "mean": Function(_over(mean), 1, 1, "yes", takes_complex=True),
    "var": Function(lambda args, dims: _variance(real(args[0]), dims), 1, 1, "yes"),
    "std": Function(lambda args, dims: _root(_variance(real(args[0]), dims)), 1, 1, "yes"),
    "cumsum": Function(_cumsum, 1, 1, "yes", takes_complex=True),
    "flip": Function(lambda args, dims: _flip(real(args[0]), dims), 1, 1, "yes", takes_complex=True),
    "shift": Function(_shift, 2, 3, "yes", takes_complex=True),
    "roll": Function(_shift, 2, 2, "yes", takes_complex=True),
    "softmax": Function(_softmax, 1, 1, "yes"),
    "logsumexp": Function(_logsumexp, 1, 1, "yes"),
    "layernorm": Function(_layernorm, 1, 3, "yes"),
    "rmsnorm": Function(_rmsnorm, 1, 2, "yes"),
    "l2norm": Function(_l2norm, 1, 1, "yes", takes_complex=True),
    "norm": Function(_norm, 1, 1, "yes", takes_complex=True),
    "solve": Function(lambda args, dims: solved(real(args[0]), real(args[1])), 2, 2),
    "inv": Function(lambda args, dims: solved(real(args[0]), identity(real(args[0]))), 1, 1),
    "logdet": Function(lambda args, dims: logdet(real(args[0])), 1, 1),
    "expm": Function(lambda args, dims: exponential(real(args[0])), 1, 1),
    "zoh": Function(_zoh, 2, 3, takes_complex=True),
    "bilinear": Function(_bilinear, 2, 3, takes_complex=True),
}
