"""Elementwise functions of emitted Triton kernels that hold at both ends of the number line, as source texts.

Comes in: nothing. Goes out: `ELEMENTWISE`, name -> text of a `@triton.jit` function of one fp32 tile or scalar, callees
before callers. They use only `tl.exp`, `tl.log`, `tl.abs`, `tl.floor`, `tl.where`, `tl.maximum`, `tl.minimum` and
arithmetic, so every target and the interpreter give the same value to a few units in the last place: no exponent is ever
positive in a sigmoid, tanh or softplus, and no difference cancels. NaN in is NaN out.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.texts import each

ELEMENTWISE = each('''
@triton.jit
def log1p(x):
    """log(1 + x) without cancellation: for -1/2 <= x <= 1 the series of 2 atanh(s), s = x / (2 + x), |s| <= 1/3."""
    near = (x >= -0.5) & (x <= 1.0)
    u = tl.where(near, x, 0.0)
    s = u / (2.0 + u)
    z = s * s
    series = 1.0 / 13.0 + z * (1.0 / 15.0)
    series = 1.0 / 9.0 + z * (1.0 / 11.0 + z * series)
    series = 1.0 / 5.0 + z * (1.0 / 7.0 + z * series)
    series = 2.0 * s + 2.0 * s * z * (1.0 / 3.0 + z * series)
    return tl.where(near, series, tl.log(tl.where(near, 1.0, 1.0 + x)))


@triton.jit
def log1p_of_fraction(x):
    """log(1 + x) for 0 <= x <= 1: the polynomial of degree 10 whose relative error is least, 5e-9."""
    series = 0.019851262693026138 - x * 0.003243980875996087
    series = 0.10603616885256173 + x * (x * series - 0.05695915921240852)
    series = 0.1967593146701278 + x * (x * series - 0.1530557012660943)
    series = 0.33329962268054725 + x * (x * series - 0.24954132136320856)
    return x * (0.9999999952868712 + x * (x * series - 0.49999902417180414))


@triton.jit
def expm1(x):
    """exp(x) - 1 without cancellation: for |x| <= 1/2 its Taylor polynomial of degree 9."""
    near = tl.abs(x) <= 0.5
    u = tl.where(near, x, 0.0)
    series = 1.0 / 40320.0 + u * (1.0 / 362880.0)
    series = 1.0 / 720.0 + u * (1.0 / 5040.0 + u * series)
    series = 1.0 / 24.0 + u * (1.0 / 120.0 + u * series)
    series = 0.5 + u * (1.0 / 6.0 + u * series)
    return tl.where(near, u + u * u * series, tl.exp(x) - 1.0)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) with the exponent kept <= 0, so that small values keep their relative accuracy."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def logsigmoid(x):
    """log(sigmoid(x)), finite for every finite x."""
    return tl.minimum(x, 0.0) - log1p_of_fraction(tl.exp(-tl.abs(x)))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), equal to x for large x and to exp(x) for very negative x."""
    return tl.maximum(x, 0.0) + log1p_of_fraction(tl.exp(-tl.abs(x)))


@triton.jit
def tanh(x):
    """tanh from expm1(-2 |x|), which never overflows and is accurate for tiny x."""
    e = expm1(-2.0 * tl.abs(x))
    t = -e / (2.0 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def silu(x):
    """x * sigmoid(x); 0 at -inf."""
    return tl.maximum(x, -3.0e38) * sigmoid(x)


@triton.jit
def atan(x):
    """The angle whose tangent is x, odd: of 1 / x above 1, of (x - 1) / (x + 1) above tan(pi / 8), else its series."""
    a = tl.abs(x)
    far = a > 1.0
    u = tl.where(far, 1.0 / tl.where(far, a, 1.0), a)
    middle = u > 0.4142135623730950
    v = tl.where(middle, (u - 1.0) / (u + 1.0), u)
    z = v * v
    series = 0.0805374449538 * z - 0.138776856032
    series = (series * z + 0.199777106478) * z - 0.333329491539
    y = v + v * z * series
    y = tl.where(middle, 0.785398163397448 + y, y)
    y = tl.where(far, 1.570796326794897 - y, y)
    return tl.where(x < 0, -y, y)


@triton.jit
def nearest(x):
    """The nearest whole number, the even one of two that are as near."""
    near = tl.abs(x) < 8388608.0
    u = tl.where(near, x, 0.0)
    low = tl.floor(u)
    rest = u - low
    odd = low - 2.0 * tl.floor(low * 0.5)
    up = (rest > 0.5) | ((rest == 0.5) & (odd == 1.0))
    return tl.where(near, tl.where(up, low + 1.0, low), x)
''')
"""Name -> source text, callees before callers."""
