"""Numbers of finite fields that stand for real numbers: an identity that holds for them at random points holds exactly.

In: integers, rational constants, random values. Out: the same. A number has a residue in each of four prime fields. Additions,
multiplications and divisions are those of the fields. The fields are chosen so that functions keep their laws:

    P = 2 Q + 1, Q = 2 R + 1    exp takes the residue of Q to a power in the field of P, and that of R to one in the field of Q:
                                exp(a + b) = exp(a) exp(b), and log undoes it (its sign is kept aside)
    TURN divides P + 1          cos and sin of a residue of TURN are a point of the circle in the field of P: angles add up

sigmoid, softplus, tanh and others are made of exp and log. What has no law here (erf, the residue of an exponential in TURN) is
a number drawn for its argument: the same for the same argument. Comparisons order the residues of P around 0: small whole
numbers, positions of rows among them, compare as they should, and the order is total. infinities are marks.
An identity of polynomials of degree d that does not hold is taken for one at a random point with a chance below d / P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

P, Q, R, TURN = 1222967, 611483, 305741, 50957
FIELDS = (P, Q, R, TURN)
NICE = 10**6  # denominators up to which a constant is taken for a rational number


@dataclass(frozen=True)
class Number:
    """Arrays of residues in each field, of signs that a logarithm lost, and of marks for infinities, all of one shape."""

    residues: tuple[Any, ...]
    odd: Any  # for logarithms: whether the number was minus a square
    far: Any  # -1: -inf, 1: inf, 0: a number

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape."""
        return tuple(self.residues[0].shape)

    def each(self, change: Any) -> Number:
        """The same change of every array: of its axes or positions."""
        return Number(tuple(change(x) for x in self.residues), change(self.odd), change(self.far))


def number(residues: Any, odd: Any = None, far: Any = None) -> Number:
    """A number of arrays that may be broadcast."""
    given = (*residues, np.False_ if odd is None else odd, np.int8(0) if far is None else far)
    arrays = np.broadcast_arrays(*given)
    return Number(tuple(arrays[:4]), arrays[4], arrays[5])


def drawn(rng: Any, shape: tuple[int, ...]) -> Number:
    """Random numbers."""
    return Number(tuple(rng.integers(0, m, shape) for m in FIELDS), np.zeros(shape, bool), np.zeros(shape, np.int8))


# ---- constants ----


@cache
def constant(value: float) -> Number:
    """A constant: a rational number where one is near, the root or the logarithm of one; else drawn for its digits."""
    if math.isnan(value):  # what no point should come to: equal to nothing but itself
        return symbol("not a number", number((0, 0, 0, 0)))
    if math.isinf(value):
        return number((0, 0, 0, 0), far=np.int8(1 if value > 0 else -1))
    if value == round(value) and abs(value) > P // 2:  # beyond the order of P: the largest number there is stands for it
        return number(((P // 2 if value > 0 else P - P // 2),) * 4)
    fraction = _nice(value)
    if fraction is not None:
        return number(tuple(fraction.numerator * pow(fraction.denominator, -1, m) % m for m in FIELDS))
    if (square := _nice(value * value)) is not None:
        root = sqrt(constant(float(square)))
        return root if value > 0 else negative(root)
    if abs(value) < 50 and (power := _nice(math.exp(value))) is not None:
        return log(constant(float(power)))
    return symbol("constant", number((np.int64(hash(round(value, 12)) % P),) * 4))


def _nice(value: float) -> Fraction | None:
    near = Fraction(value).limit_denominator(NICE)
    close = abs(float(near) - value) <= 4e-16 * abs(value)
    return near if close and all(near.denominator % m for m in FIELDS) and (near or value == 0) else None


# ---- arithmetic ----


def add(a: Number, b: Number) -> Number:
    """a + b"""
    sums = ((x + y) % m for x, y, m in zip(a.residues, b.residues, FIELDS, strict=True))
    return number(tuple(sums), a.odd ^ b.odd, np.sign(a.far + b.far))


def negative(a: Number) -> Number:
    """-a"""
    return Number(tuple(-x % m for x, m in zip(a.residues, FIELDS, strict=True)), a.odd, -a.far)


def subtract(a: Number, b: Number) -> Number:
    """a - b; two marks of one infinity cancel"""
    return add(a, negative(b))


def multiply(a: Number, b: Number) -> Number:
    """a b. Of a logarithm whose sign was kept aside, whole multiples keep it."""
    products = tuple(x * y % m for x, y, m in zip(a.residues, b.residues, FIELDS, strict=True))
    return number(products, _multiple(a, b) | _multiple(b, a), np.where(a.far != 0, a.far, b.far))


def _multiple(a: Number, b: Number) -> Any:
    """Whether a is an odd multiple, by the whole number b, of a logarithm of minus a square."""
    whole = np.where(b.residues[0] > P // 2, b.residues[0] - P, b.residues[0])
    return a.odd & (np.abs(whole) <= 64) & (whole % 2 == 1) & (whole % R == b.residues[2])


def inverse(a: Number) -> Number:
    """1 / a, and 0 for 0 and infinities"""
    return number(tuple(np.where(a.far != 0, 0, _power(x, m - 2, m)) for x, m in zip(a.residues, FIELDS, strict=True)))


def divide(a: Number, b: Number) -> Number:
    """a / b"""
    return multiply(a, inverse(b))


def _power(x: Any, n: int, m: int) -> Any:
    result, base = np.ones_like(x), x % m
    while n:
        result = result * base % m if n & 1 else result
        base, n = base * base % m, n >> 1
    return result


def total(a: Number, axes: tuple[int, ...]) -> Number:
    """The sum over axes."""
    sums = tuple(x.sum(axes) % m for x, m in zip(a.residues, FIELDS, strict=True))
    return number(sums, np.bitwise_xor.reduce(a.odd, axes) if axes else a.odd, np.sign(a.far.sum(axes)))


# ---- functions ----


@cache
def _tables() -> dict[str, Any]:
    """exp of every residue of Q and R, its inverses, and the points of the circle."""
    found: dict[str, Any] = {}
    for name, modulus, order in (("P", P, Q), ("Q", Q, R)):
        powers = np.ones(order, np.int64)
        filled = 1
        while filled < order:  # 4 is a square, and generates all squares
            more = min(filled, order - filled)
            powers[filled : filled + more] = powers[:more] * pow(4, filled, modulus) % modulus
            filled += more
        logs = np.zeros(modulus, np.int64)
        logs[powers] = np.arange(order)
        square = np.zeros(modulus, bool)
        square[powers] = True
        logs[-powers % modulus] = np.arange(order)
        found[name] = powers, logs, square
    x, y = _power_of_pair((3, 1), P - 1)
    x, y = _power_of_pair((x, y), (P + 1) // TURN)
    cos, sin = np.zeros(TURN, np.int64), np.zeros(TURN, np.int64)
    here = (1, 0)
    for i in range(TURN):
        cos[i], sin[i] = here
        here = (here[0] * x - here[1] * y) % P, (here[0] * y + here[1] * x) % P
    found["circle"] = cos, sin
    return found


def _power_of_pair(z: tuple[int, int], n: int) -> tuple[int, int]:
    """z^n in the field of P with a root of -1."""
    result = (1, 0)
    while n:
        if n & 1:
            result = (result[0] * z[0] - result[1] * z[1]) % P, (result[0] * z[1] + result[1] * z[0]) % P
        z, n = ((z[0] * z[0] - z[1] * z[1]) % P, 2 * z[0] * z[1] % P), n >> 1
    return result


def _mixed(name: str, x: Any, modulus: int) -> Any:
    """A residue drawn for a name and a residue."""
    seed = np.uint64(sum(ord(c) * 131**i for i, c in enumerate(name)) % 2**61)
    with np.errstate(over="ignore"):
        z = (x.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + seed
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) % np.uint64(modulus)).astype(np.int64)


def exp(a: Number) -> Number:
    """exp(a), 0 for -inf"""
    tables = _tables()
    first = tables["P"][0][a.residues[1]]
    first = np.where(a.odd, -first % P, first)
    second = tables["Q"][0][a.residues[2]]
    made = (first, second, _mixed("exp R", first, R), _mixed("exp TURN", first, TURN))
    return number(tuple(np.where(a.far < 0, 0, x) for x in made), far=np.maximum(a.far, 0))


def log(a: Number) -> Number:
    """log(a): that of |a|, with the sign kept aside; -inf for 0. log(1 / a) = -log(a)."""
    (_, logs, square), (_, logs_of_q, _) = _tables()["P"], _tables()["Q"]
    x = a.residues[0]
    other = _power(x, P - 2, P)
    turned = other < x
    least = np.where(turned, other, x)

    def symbol(m: int) -> Any:
        drawn_for = _mixed(f"log {m}", least, m)
        return np.where(turned, -drawn_for % m, drawn_for)

    made = (symbol(P), logs[x] % Q, logs_of_q[a.residues[1]] % R, symbol(TURN))
    return number(made, ~square[x] & (x != 0), np.where(x == 0, np.int8(-1), np.int8(0)))


def cos_sin(a: Number) -> tuple[Number, Number]:
    """(cos a, sin a)"""
    cos, sin = _tables()["circle"]
    made = []
    for name, table in (("cos", cos), ("sin", sin)):
        first = table[a.residues[3]]
        made.append(number((first, *(_mixed(f"{name} {m}", first, m) for m in FIELDS[1:]))))
    return made[0], made[1]


def sqrt(a: Number) -> Number:
    """The root of |a| that is a square itself."""
    powers, logs, _ = _tables()["P"]
    powers_of_q, logs_of_q, _ = _tables()["Q"]
    x, half = a.residues[0], (Q + 1) // 2
    first = np.where(x == 0, 0, powers[logs[x] * half % Q])
    second = np.where(a.residues[1] == 0, 0, powers_of_q[logs_of_q[a.residues[1]] * ((R + 1) // 2) % R])
    return number((first, second, _mixed("sqrt R", first, R), _mixed("sqrt TURN", first, TURN)))


def sigmoid(a: Number) -> Number:
    """1 / (1 + exp(-a))"""
    return inverse(add(constant(1.0), exp(negative(a))))


def tanh(a: Number) -> Number:
    """(e - 1) / (e + 1) for e = exp(2 a)"""
    e = exp(add(a, a))
    return divide(subtract(e, constant(1.0)), add(e, constant(1.0)))


def power(a: Number, b: Number) -> Number:
    """a^b: a product for a small whole b, else exp(b log a)"""
    whole = {int(x) for x in np.unique(np.where(b.residues[0] > P // 2, b.residues[0] - P, b.residues[0]))}
    if len(whole) == 1 and abs(n := whole.pop()) <= 16:
        base = inverse(a) if n < 0 else a
        result = constant(1.0)
        for _ in range(abs(n)):
            result = multiply(result, base)
        return result
    return exp(multiply(b, log(a)))


def symbol(name: str, a: Number) -> Number:
    """A function that has no law here."""
    return number(tuple(_mixed(f"{name} {m}", a.residues[0], m) for m in FIELDS))


def mixed(name: str, several: Sequence[Number]) -> Number:
    """A function of several numbers that has no law here."""
    out = several[0]
    for i, a in enumerate(several[1:]):
        out = symbol(f"{name} {i}", add(symbol(f"{name} {i} before", out), a))
    return out


# ---- order ----


def around(a: Number) -> Any:
    """The residues of P as whole numbers around 0; infinities beyond all."""
    x = a.residues[0]
    return np.where(a.far != 0, a.far.astype(np.int64) * (2 * P), np.where(x > P // 2, x - P, x))


def choose(c: Any, a: Number, b: Number) -> Number:
    """a where c holds, else b"""
    made = tuple(np.where(c, x, y) for x, y in zip(a.residues, b.residues, strict=True))
    return number(made, np.where(c, a.odd, b.odd), np.where(c, a.far, b.far))


def same(a: Number, b: Number) -> Any:
    """Where two numbers are equal, in the field of P."""
    return around(a) == around(b)


__all__ = [
    "FIELDS", "Number", "P", "add", "around", "choose", "constant", "cos_sin", "divide", "drawn", "exp", "inverse", "log",
    "multiply", "negative", "number", "power", "same", "sigmoid", "sqrt", "subtract", "symbol", "tanh", "total",
]
