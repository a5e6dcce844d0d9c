"""Integer expressions over a problem's variables: built with +, * and a few functions, evaluated on numbers or arrays.

Comes in: variables by name, integers. Goes out: immutable trees that the solver encodes, the enumeration evaluates on
whole grids at once, and a reader can be shown. Division only rounds up, and only what is exact in integers exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

Value = Any
"""An int, or an int64 array; one evaluation uses arrays that broadcast together."""


class Expr:
    """An integer-valued expression."""

    __slots__ = ()

    def __add__(self, other: Expr | int) -> Expr:
        return Sum((self, lift(other)))

    def __radd__(self, other: int) -> Expr:
        return lift(other) + self

    def __mul__(self, other: Expr | int) -> Expr:
        return Product((self, lift(other)))

    def __rmul__(self, other: int) -> Expr:
        return lift(other) * self


@dataclass(frozen=True)
class Const(Expr):
    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Name(Expr):
    """A variable of the problem."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Sum(Expr):
    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.parts)


@dataclass(frozen=True)
class Product(Expr):
    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return " * ".join(f"({part})" if isinstance(part, Sum) else str(part) for part in self.parts)


@dataclass(frozen=True)
class CeilDiv(Expr):
    """The least integer that is no less than dividend / divisor; the divisor is positive."""

    dividend: Expr
    divisor: Expr

    def __str__(self) -> str:
        return f"ceil({self.dividend} / ({self.divisor}))"


@dataclass(frozen=True)
class Most(Expr):
    """The greatest of its parts."""

    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return f"max({', '.join(str(part) for part in self.parts)})"


@dataclass(frozen=True)
class Chosen(Expr):
    """1 where every variable named has the value named, otherwise 0."""

    values: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"[{', '.join(f'{name} = {value}' for name, value in self.values)}]"


@dataclass(frozen=True)
class Case(Expr):
    """An expression for each value of a variable, and 0 at values that are not listed."""

    variable: str
    cases: tuple[tuple[int, Expr], ...]

    def __str__(self) -> str:
        return f"[{'; '.join(f'{self.variable} = {value}: {expr}' for value, expr in self.cases)}]"


def lift(value: Expr | int) -> Expr:
    """An integer as an expression; an expression as it is."""
    return value if isinstance(value, Expr) else Const(value)


def ceil_div(dividend: Expr | int, divisor: Expr | int) -> Expr:
    """dividend / divisor, rounded up."""
    return CeilDiv(lift(dividend), lift(divisor))


def most(*parts: Expr | int) -> Expr:
    """The greatest of the parts."""
    return Most(tuple(lift(part) for part in parts))


def names(expr: Expr) -> frozenset[str]:
    """The variables that occur in an expression."""
    match expr:
        case Name(name):
            return frozenset((name,))
        case Sum(parts) | Product(parts) | Most(parts):
            return frozenset().union(*(names(part) for part in parts))
        case CeilDiv(dividend, divisor):
            return names(dividend) | names(divisor)
        case Chosen(values):
            return frozenset(name for name, _ in values)
        case Case(variable, cases):
            return frozenset((variable,)).union(*(names(expr) for _, expr in cases))
    return frozenset()


def evaluate(expr: Expr, values: Mapping[str, Value]) -> Value:
    """The value of an expression where each variable has the value, or the array of values, that `values` gives it."""
    match expr:
        case Const(value):
            return value
        case Name(name):
            return values[name]
        case Sum(parts):
            return reduce(lambda a, b: a + b, (evaluate(part, values) for part in parts))
        case Product(parts):
            return reduce(lambda a, b: a * b, (evaluate(part, values) for part in parts))
        case CeilDiv(dividend, divisor):
            return -(-evaluate(dividend, values) // evaluate(divisor, values))
        case Most(parts):
            return reduce(np.maximum, (evaluate(part, values) for part in parts))
        case Chosen(chosen):
            return reduce(lambda a, b: a * b, (np.equal(values[name], value) * 1 for name, value in chosen))
        case Case(variable, cases):
            at = values[variable]
            return reduce(lambda a, b: a + b, (np.equal(at, value) * evaluate(one, values) for value, one in cases), 0)
    raise TypeError(f"no integer expression: {expr!r}")
