"""The functions of cells and neurons that are made of other operators, each in the form whose derivative is finite everywhere.

In: values. Out: values. A row says how many arguments a function takes at least and at most. Derivatives at a corner are those
of torch's function of that name. Reductions and matrix products are elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from operator import mul

from seqc.frontend.values import Value, apply, number, power, real

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


@dataclass(frozen=True)
class Activation:
    """`make` from the arguments, of which there are `least` to `most`."""

    make: Callable[..., Value]
    least: int = 1
    most: int = 1


def _where(test: Value, a: Value | float, b: Value | float) -> Value:
    return apply("where", test, a, b)


def clamp(x: Value, low: Value | float, high: Value | float) -> Value:
    """low below low, high above high, else x; high where low is above high. NaN stays NaN."""
    raised = _where(apply("lt", x, low), low, x)
    return _where(apply("gt", raised, high), high, raised)


def _cut(x: Value, low: Value | float = -1.0, high: Value | float = 1.0) -> Value:
    """`clamp` with derivative 0 at the ends, as `relu` has."""
    raised = _where(apply("le", x, low), low, x)
    return _where(apply("ge", raised, high), high, raised)


def _hardsigmoid(x: Value) -> Value:
    """Between 0 at -3 and 1 at 3."""
    return _cut(x * (1 / 6) + 0.5, 0.0, 1.0)


def _celu(x: Value, alpha: Value | None = None, inside: bool = True) -> Value:
    """x above 0, else alpha (exp(x / alpha) - 1); the exponential sees no positive argument. inside: whether alpha divides."""
    above = apply("gt", x, 0.0)
    low = _where(above, 0.0, x)
    below = apply("expm1", low if alpha is None or not inside else low / alpha)
    below = below if alpha is None else alpha * below
    return _where(above, x, below)


def _selu(x: Value) -> Value:
    above = apply("gt", x, 0.0)
    return _where(above, x * SELU_SCALE, apply("expm1", _where(above, 0.0, x)) * (SELU_SCALE * SELU_ALPHA))


def _mod(a: Value, b: Value) -> Value:
    """a - floor(a / b) b, with the sign of b: a quotient that is rounded up to a whole number is corrected."""
    rest = a - apply("floor", a / b) * b
    return _where(apply("lt", rest * b, 0.0), rest + b, rest)


def _sinh(x: Value) -> Value:
    """(exp(x) - exp(-x)) / 2 without cancellation near 0."""
    return (apply("expm1", x) - apply("expm1", -x)) * 0.5


def _ceil(x: Value) -> Value:
    return -apply("floor", -x)


def _safe_sqrt(x: Value, most: Value | None = None) -> Value:
    """The square root, whose derivative is cut to `most` (De et al. 2024, arXiv:2402.19427: 1000)."""
    most = most or number(1000.0)
    least = 0.25 / (most * most)  # where 1 / (2 sqrt(x)) is `most`
    return apply("surrogate", apply("sqrt", x), x, 0.5 / apply("sqrt", apply("max", x, least)))


STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)  # B_2k / (2k (2k - 1)), k = 1, 2, ..
FAR = 8  # from there on Stirling's series has the digits of float64; below, the recurrence of the gamma function leads there


def _near(x: Value) -> tuple[Value, Value, list[Value]]:
    """Whether x > 0 is below `FAR`; an argument that is not; and x, x + 1, .. as far as they lead there, else 1, 2, .."""
    near = apply("lt", x, float(FAR))
    begun = _where(near, x, 1.0) * 1.0
    return near, _where(near, x + float(FAR), x), [begun + float(i) if i else begun for i in range(FAR)]


def _lgamma(x: Value) -> Value:
    """log gamma(x) for x > 0 (Abramowitz and Stegun 1964, 6.1.41)."""
    near, z, steps = _near(x)
    inverse, product = 1.0 / z, reduce(mul, steps)
    square, series = inverse * inverse, number(STIRLING[-1])
    for c in STIRLING[-2::-1]:
        series = series * square + c
    main = (z * 1.0 + -0.5) * apply("log", z) - z
    return main * 1.0 + 0.5 * math.log(2 * math.pi) + series * inverse - _where(near, apply("log", product), 0.0)


def _digamma(x: Value) -> Value:
    """The derivative of log gamma(x) for x > 0 (6.3.18)."""
    near, z, steps = _near(x)
    inverse, back = 1.0 / z, sum((1.0 / step for step in steps), number(0.0))
    square, series = inverse * inverse, number(0.0)
    for k in range(len(STIRLING), 0, -1):
        series = (series + (2 * k - 1) * STIRLING[k - 1]) * square
    return apply("log", z) - inverse * 0.5 - series - _where(near, back, 0.0)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda x: _where(apply("le", x, 0.0), 0.0, x)),  # the derivative at 0 is 0, and a NaN stays a NaN
    "silu": Activation(lambda x: x * apply("sigmoid", x)),
    "gelu": Activation(lambda x: 0.5 * x * (1.0 + apply("erf", x * math.sqrt(0.5)))),
    "clamp": Activation(clamp, 3, 3),
    "hardtanh": Activation(_cut, 1, 3),
    "hardsigmoid": Activation(_hardsigmoid),
    "hardswish": Activation(lambda x: x * _hardsigmoid(x)),
    "relu6": Activation(lambda x: _cut(x, 0.0, 6.0)),
    "elu": Activation(partial(_celu, inside=False), 1, 2),
    "celu": Activation(_celu, 2, 2),
    "selu": Activation(_selu),
    "leaky_relu": Activation(lambda x, slope=0.01: _where(apply("gt", x, 0.0), x, slope * x), 1, 2),
    "softsign": Activation(lambda x: x / (1.0 + apply("abs", x))),
    "mish": Activation(lambda x: x * apply("tanh", apply("softplus", x))),
    "safe_sqrt": Activation(_safe_sqrt, 1, 2),
    "rsqrt": Activation(lambda x: 1.0 / apply("sqrt", x)),
    "exp2": Activation(lambda x: power(number(2.0), x)),
    "log10": Activation(lambda x: apply("log2", x) * math.log10(2.0)),
    "tan": Activation(lambda x: apply("sin", x) / apply("cos", x)),
    "sinh": Activation(_sinh),
    "cosh": Activation(lambda x: (apply("exp", x) + apply("exp", -x)) * 0.5),
    "ceil": Activation(_ceil),
    "trunc": Activation(lambda x: _where(apply("lt", x, 0.0), _ceil(x), apply("floor", x))),
    "mod": Activation(_mod, 2, 2),
    "lgamma": Activation(_lgamma),
    "digamma": Activation(_digamma),
}


def expanded_call(name: str, args: list[Value]) -> Value:
    """The function of that name applied to the arguments."""
    return ACTIVATIONS[name].make(*map(real, args))
