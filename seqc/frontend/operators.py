"""The signs of the language, `-x` and `a + b`, as functions of values; of two constants, the number."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from seqc.frontend.values import Misuse, Value, apply, constant_of, number, power, real, truth


def prefix(op: str, x: Value) -> Value:
    """-x, as a constant where x is one; `not x` of a condition."""
    if op == "not":
        return apply("not", truth(x))
    constant = constant_of(x)
    return number(-constant) if constant is not None else apply("neg", real(x))


_BINARY = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,
}
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def infix(op: str, a: Value, b: Value) -> Value:
    """a op b for every sign of the language but `@`; arithmetic of two constants is done at once."""
    if op in ("and", "or"):
        return apply(op, truth(a), truth(b))
    a, b = real(a), real(b)
    if op in _COMPARE and (a.imag is not None or b.imag is not None):
        raise Misuse(f"`{op}` compares no complex values", "complex numbers have no order", "compare `re`, `im` or `abs`")
    if op in _COMPARE:
        return apply(_COMPARE[op], a, b)
    x, y = constant_of(a), constant_of(b)
    if x is not None and y is not None:
        folded = arithmetic(op, x, y)
        if folded is None:
            raise Misuse(f"`{x:g} {op} {y:g}` is no number")
        return number(folded)
    return power(a, b) if op == "^" else apply(_BINARY[op], a, b)


def arithmetic(op: str, a: float, b: float) -> float | None:
    """a op b for a sign of arithmetic, or None where that is no real number."""
    try:
        result = ARITHMETIC[op](a, b)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return None if math.isnan(result) else result
