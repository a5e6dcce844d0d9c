"""The functions of cells and neurons that are made of other operators, each in the form whose derivative is finite everywhere.

In: values. Out: values. A row says how many arguments a function takes at least and at most. Derivatives at a corner are those
of torch's function of that name. Reductions and matrix products are elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from seqc.frontend.values import Value, apply, number, power, real

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


@dataclass(frozen=True)
class Activation:
    """`make` from the arguments, of which there are `least` to `most`."""

    make: Callable[..., Value]
    least: int = 1
    most: int = 1


def _where(test: Value, a: Value, b: Value) -> Value:
    return apply("where", test, a, b)


def _above(x: Value, bound: float) -> Value:
    return apply("gt", x, number(bound))


def scaled(x: Value, by: float, plus: float = 0.0) -> Value:
    """x * by + plus."""
    product = apply("mul", x, number(by))
    return apply("add", product, number(plus)) if plus else product


def clamp(x: Value, low: Value, high: Value) -> Value:
    """low below low, high above high, else x; high where low is above high. NaN stays NaN."""
    raised = _where(apply("lt", x, low), low, x)
    return _where(apply("gt", raised, high), high, raised)


def _cut(x: Value, low: Value, high: Value) -> Value:
    """`clamp` with derivative 0 at the ends, as `relu` has."""
    raised = _where(apply("le", x, low), low, x)
    return _where(apply("ge", raised, high), high, raised)


def _hardtanh(x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    return _cut(x, low or number(-1.0), high or number(1.0))


def _hardsigmoid(x: Value) -> Value:
    """Between 0 at -3 and 1 at 3."""
    return _cut(scaled(x, 1 / 6, 0.5), number(0.0), number(1.0))


def _elu(x: Value, alpha: Value | None = None) -> Value:
    """x above 0, else alpha (exp(x) - 1); the exponential never sees a positive argument."""
    below = apply("expm1", _where(_above(x, 0.0), number(0.0), x))
    return _where(_above(x, 0.0), x, below if alpha is None else apply("mul", alpha, below))


def _celu(x: Value, alpha: Value) -> Value:
    below = apply("expm1", apply("div", _where(_above(x, 0.0), number(0.0), x), alpha))
    return _where(_above(x, 0.0), x, apply("mul", alpha, below))


def _selu(x: Value) -> Value:
    below = apply("expm1", _where(_above(x, 0.0), number(0.0), x))
    return _where(_above(x, 0.0), scaled(x, SELU_SCALE), scaled(below, SELU_SCALE * SELU_ALPHA))


def _leaky_relu(x: Value, slope: Value | None = None) -> Value:
    return _where(_above(x, 0.0), x, apply("mul", slope or number(0.01), x))


def _softsign(x: Value) -> Value:
    return apply("div", x, apply("add", number(1.0), apply("abs", x)))


def _mish(x: Value) -> Value:
    return apply("mul", x, apply("tanh", apply("softplus", x)))


def _ceil(x: Value) -> Value:
    return apply("neg", apply("floor", apply("neg", x)))


def _trunc(x: Value) -> Value:
    return _where(apply("lt", x, number(0.0)), _ceil(x), apply("floor", x))


def _mod(a: Value, b: Value) -> Value:
    """a - floor(a / b) b, with the sign of b: a quotient that is rounded up to a whole number is corrected."""
    rest = apply("sub", a, apply("mul", apply("floor", apply("div", a, b)), b))
    other_side = apply("lt", apply("mul", rest, b), number(0.0))
    return _where(other_side, apply("add", rest, b), rest)


def _sinh(x: Value) -> Value:
    """(exp(x) - exp(-x)) / 2 without cancellation near 0."""
    return scaled(apply("sub", apply("expm1", x), apply("expm1", apply("neg", x))), 0.5)


def _cosh(x: Value) -> Value:
    return scaled(apply("add", apply("exp", x), apply("exp", apply("neg", x))), 0.5)


def _safe_sqrt(x: Value, most: Value | None = None) -> Value:
    """The square root, whose derivative is cut to `most` (De et al. 2024, arXiv:2402.19427: 1000)."""
    most = most or number(1000.0)
    least = apply("div", number(0.25), apply("mul", most, most))  # where 1 / (2 sqrt(x)) is `most`
    slope = apply("div", number(0.5), apply("sqrt", apply("max", x, least)))
    return apply("surrogate", apply("sqrt", x), x, slope)


STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)  # B_2k / (2k (2k - 1)), k = 1, 2, ..
FAR = 8  # from there on Stirling's series has the digits of float64; below, the recurrence of the gamma function leads there


def _near(x: Value) -> tuple[Value, Value, list[Value]]:
    """Whether x > 0 is below `FAR`; an argument that is not; and x, x + 1, .. as far as they lead there, else 1, 2, .."""
    near = apply("lt", x, number(float(FAR)))
    begun = _where(near, x, number(1.0))
    return near, _where(near, apply("add", x, number(float(FAR))), x), [scaled(begun, 1.0, float(i)) for i in range(FAR)]


def _lgamma(x: Value) -> Value:
    """log gamma(x) for x > 0 (Abramowitz and Stegun 1964, 6.1.41)."""
    near, z, steps = _near(x)
    inverse, product = apply("div", number(1.0), z), steps[0]
    for step in steps[1:]:
        product = apply("mul", product, step)
    square, series = apply("mul", inverse, inverse), number(STIRLING[-1])
    for c in STIRLING[-2::-1]:
        series = apply("add", apply("mul", series, square), number(c))
    main = apply("sub", apply("mul", scaled(z, 1.0, -0.5), apply("log", z)), z)
    far = apply("add", scaled(main, 1.0, 0.5 * math.log(2 * math.pi)), apply("mul", series, inverse))
    return apply("sub", far, _where(near, apply("log", product), number(0.0)))


def _digamma(x: Value) -> Value:
    """The derivative of log gamma(x) for x > 0 (6.3.18)."""
    near, z, steps = _near(x)
    inverse, back = apply("div", number(1.0), z), number(0.0)
    for step in steps:
        back = apply("add", back, apply("div", number(1.0), step))
    square, series = apply("mul", inverse, inverse), number(0.0)
    for k in range(len(STIRLING), 0, -1):
        series = apply("mul", apply("add", series, number((2 * k - 1) * STIRLING[k - 1])), square)
    far = apply("sub", apply("sub", apply("log", z), scaled(inverse, 0.5)), series)
    return apply("sub", far, _where(near, back, number(0.0)))


ACTIVATIONS: dict[str, Activation] = {
    "clamp": Activation(clamp, 3, 3),
    "hardtanh": Activation(_hardtanh, 1, 3),
    "hardsigmoid": Activation(_hardsigmoid),
    "hardswish": Activation(lambda x: apply("mul", x, _hardsigmoid(x))),
    "relu6": Activation(lambda x: _cut(x, number(0.0), number(6.0))),
    "elu": Activation(_elu, 1, 2),
    "celu": Activation(_celu, 2, 2),
    "selu": Activation(_selu),
    "leaky_relu": Activation(_leaky_relu, 1, 2),
    "softsign": Activation(_softsign),
    "mish": Activation(_mish),
    "safe_sqrt": Activation(_safe_sqrt, 1, 2),
    "rsqrt": Activation(lambda x: apply("div", number(1.0), apply("sqrt", x))),
    "exp2": Activation(lambda x: power(number(2.0), x)),
    "log10": Activation(lambda x: scaled(apply("log2", x), math.log10(2.0))),
    "tan": Activation(lambda x: apply("div", apply("sin", x), apply("cos", x))),
    "sinh": Activation(_sinh),
    "cosh": Activation(_cosh),
    "ceil": Activation(_ceil),
    "trunc": Activation(_trunc),
    "mod": Activation(_mod, 2, 2),
    "lgamma": Activation(_lgamma),
    "digamma": Activation(_digamma),
}


def expanded_call(name: str, args: list[Value]) -> Value:
    """The function of that name applied to the arguments."""
    return ACTIVATIONS[name].make(*map(real, args))
