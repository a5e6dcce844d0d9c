"""Values of the judge: torch tensors whose axes have names, and what every function of the language means for them.

In: float64 (or complex128) tensors. Out: the same. Written from `docs/language.md` alone: it shares no operator, no derivative
and no rule with the compiler. Gradients are torch's own, but for two things that the language says: a branch that `where` does
not take has gradient 0 whatever its derivative is, and `withgrad` has the slope that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BATCH = "B"


@dataclass(frozen=True)
class Value:
    """A tensor with an axis for each of `dims`; the batch is a dim like the others."""

    x: Tensor
    dims: tuple[str, ...] = ()

    def to(self, dims: Sequence[str], sizes: dict[str, int]) -> Tensor:
        """The tensor with exactly these axes, spread over those that it lacks."""
        own = [self.dims.index(d) for d in dims if d in self.dims]
        assert len(own) == len(self.dims), (self.dims, dims)
        moved = self.x.permute(own)
        for at, d in enumerate(dims):
            if d not in self.dims:
                moved = moved.unsqueeze(at)
        return moved.expand([sizes[d.rstrip("'")] for d in dims])


def number(x: complex) -> Value:
    """A constant."""
    return Value(torch.tensor(x, dtype=torch.complex128 if isinstance(x, complex) else torch.float64))


class _Sheltered(torch.autograd.Function):
    """An elementwise function of tensors of one shape, whose gradient is 0 wherever its cotangent is.

    So a branch that is not taken, or a result that no loss uses, passes nothing on, be its derivative infinite or undefined.
    """

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Tensor], *args: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(*args)
        return f(*args)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (cotangent,) = cotangents
        with torch.enable_grad():
            given = [x.detach().requires_grad_(x.is_floating_point() or x.is_complex()) for x in ctx.saved_tensors]
            y = ctx.f(*given)
            wanted = [x for x in given if x.requires_grad]
            slopes = torch.autograd.grad(y, wanted, cotangent, allow_unused=True)
        zero = cotangent == 0
        found = iter(torch.zeros_like(x) if s is None else torch.where(zero, torch.zeros_like(s), s)
                     for x, s in zip(wanted, slopes, strict=True))
        return None, *(next(found) if x.requires_grad else None for x in given)


def lined_up(values: Sequence[Value]) -> tuple[list[Tensor], tuple[str, ...]]:
    """The tensors with the same axes, in the order in which the dims come first; broadcast, not spread."""
    dims = tuple(dict.fromkeys(d for v in values for d in v.dims))
    out = []
    for v in values:
        x = v.x.permute([v.dims.index(d) for d in dims if d in v.dims])
        for at, d in enumerate(dims):
            if d not in v.dims:
                x = x.unsqueeze(at)
        out.append(x)
    return out, dims


def real(x: Tensor) -> Tensor:
    """Truth values as 0 and 1."""
    return x.to(torch.float64) if x.dtype == torch.bool else x


def truth(x: Tensor) -> Tensor:
    """A condition: a number holds where it is not 0."""
    return x if x.dtype == torch.bool else x != 0


def each(f: Callable[..., Tensor], *values: Value, sheltered: bool = False) -> Value:
    """f of every element."""
    tensors, dims = lined_up(values)
    if not sheltered:
        return Value(_rounded(f(*tensors)), dims)
    return Value(_Sheltered.apply(f, *torch.broadcast_tensors(*tensors)), dims)


_ROUNDING: ContextVar[tuple[float, torch.Generator] | None] = ContextVar("_ROUNDING", default=None)


@contextmanager
def rounding(size: float, seed: int) -> Iterator[None]:
    """Every value but whole numbers, and every cotangent, is changed by a random relative amount up to `size`: as by arithmetic
    of so many digits."""
    token = _ROUNDING.set((size, torch.Generator().manual_seed(seed)))
    try:
        yield
    finally:
        _ROUNDING.reset(token)


def _rounded(x: Tensor) -> Tensor:
    given = _ROUNDING.get()
    if given is None or not (x.is_floating_point() or x.is_complex()):
        return x
    size, generator = given
    there, back = (1 + size * (2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1) for _ in range(2))
    exact = ~torch.isfinite(x.detach())
    exact |= x.detach() == torch.round(x.detach()) if x.is_floating_point() else torch.zeros_like(exact)
    return _Rounded.apply(x, torch.where(exact, 1.0, there), back)


class _Rounded(torch.autograd.Function):
    """A value times one factor, its cotangent times another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return torch.where(there == 1.0, x, x * there)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return cotangents[0] * ctx.saved_tensors[0], None, None


# ---- functions of single elements


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """log(e^a + e^b): -inf of nothing but -inf, with gradient 0 there."""
    top = torch.maximum(a, b).detach()
    anchor = torch.where(top.isinf() & (top < 0), torch.zeros_like(top), top)
    total = torch.exp(a - anchor) + torch.exp(b - anchor)
    nothing = total == 0
    return torch.where(nothing, torch.full_like(top, -math.inf), anchor + torch.log(torch.where(nothing, 1.0, total)))


def _zoh(a: Tensor, dt: Tensor) -> Tensor:
    return torch.exp(dt * a)


def _zoh_weight(a: Tensor, b: Tensor, dt: Tensor) -> Tensor:
    """(exp(dt A) - 1) / A * B; its series near A = 0."""
    x = dt * a
    small = x.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(x), x)
    series = 1 + x / 2 + x * x / 6 + x**3 / 24
    whole = (torch.exp(safe) - 1) / safe if x.is_complex() else torch.expm1(safe) / safe
    return dt * torch.where(small, series, whole) * b


def _bilinear(a: Tensor, dt: Tensor) -> Tensor:
    return (1 + dt * a / 2) / (1 - dt * a / 2)


def _bilinear_weight(a: Tensor, b: Tensor, dt: Tensor) -> Tensor:
    return dt * b / (1 - dt * a / 2)


def _safe_sqrt(x: Tensor, largest: float | Tensor = 1000.0) -> Tensor:
    """The square root, whose derivative is no larger than a number."""
    plain = 4 * x * largest**2 >= 1
    tangent = torch.sqrt(x.detach()) + largest * (x - x.detach())
    return torch.where(plain, torch.sqrt(torch.where(plain, x, 1.0)), tangent)


SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)  # Klambauer et al., 2017


def _cut(x: Tensor, lo: float, hi: float) -> Tensor:
    """x between two numbers, with derivative 0 at both."""
    return torch.where(x <= lo, torch.full_like(x, lo), torch.where(x >= hi, torch.full_like(x, hi), x))


def _elu(x: Tensor, alpha: float, width: float = 1.0) -> Tensor:
    """x above 0, and alpha (exp(x / width) - 1) below. torch's own derivatives are rounded to float32 here and there."""
    return torch.where(x > 0, x, alpha * torch.expm1(torch.where(x > 0, 0.0, x) / width))


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    """What is left of a after whole multiples of b, with the sign of b; the multiple counts as a constant."""
    return a - b * torch.floor(a / b).detach()


def _digamma(x: Tensor) -> Tensor:
    """torch's, with a derivative of all digits: torch has ten of it."""
    slope = torch.special.zeta(2.0, x.detach())
    return torch.digamma(x.detach()) + slope * (x - x.detach())


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "exp": torch.exp, "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "abs": torch.abs,
    "sign": torch.sign, "cos": torch.cos, "sin": torch.sin, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "logsigmoid": lambda x: -_softplus(-x), "softplus": _softplus, "erf": torch.erf, "relu": torch.relu,
    "silu": lambda x: x * torch.sigmoid(x), "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "logaddexp": logaddexp, "re": torch.real, "im": lambda x: torch.imag(x) if x.is_complex() else torch.zeros_like(x),
    "safe_sqrt": _safe_sqrt, "conj": torch.conj, "lgamma": torch.lgamma, "digamma": _digamma,
    "exp2": torch.exp2, "log2": torch.log2, "log10": torch.log10, "rsqrt": torch.rsqrt, "tan": torch.tan, "atan": torch.atan,
    "sinh": torch.sinh, "cosh": torch.cosh, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "trunc": torch.trunc, "mod": _modulo, "clamp": torch.clamp, "hardsigmoid": lambda x: _cut(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * _cut(x + 3, 0, 6) / 6, "relu6": lambda x: _cut(x, 0, 6),
    "selu": lambda x: SELU[0] * _elu(x, SELU[1]), "softsign": lambda x: x / (1 + x.abs()),
    "mish": lambda x: x * torch.tanh(_softplus(x)), "hardtanh": lambda x, lo=-1.0, hi=1.0: _cut(x, float(lo), float(hi)),
    "elu": lambda x, alpha=1.0: _elu(x, float(alpha)), "celu": lambda x, alpha=1.0: _elu(x, float(alpha), float(alpha)),
    "leaky_relu": lambda x, slope=0.01: torch.where(x > 0, x, slope * x),
}
ONE_OF_TWO = {("zoh", 2): _zoh, ("zoh", 3): _zoh_weight, ("bilinear", 2): _bilinear, ("bilinear", 3): _bilinear_weight}
SIGNS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div, "<": torch.lt, "<=": torch.le, ">": torch.gt,
    ">=": torch.ge, "==": torch.eq, "!=": torch.ne,
}


# ---- functions over dims


def over(name: str, values: Sequence[Value], dims: Sequence[str]) -> Value:
    """`name[dims](values)`."""
    found = _over(name, values, dims)
    return Value(_rounded(found.x), found.dims)


def _over(name: str, values: Sequence[Value], dims: Sequence[str]) -> Value:
    x = values[0]
    x = Value(real(x.x), x.dims)
    axes = [x.dims.index(d) for d in dims]
    left = tuple(d for d in x.dims if d not in dims)
    match name:
        case "sum":
            return Value(x.x.sum(axes), left)
        case "mean":
            return Value(x.x.mean(axes), left)
        case "argmax" | "argmin":
            best = x.x.amax(axes, keepdim=True) if name == "argmax" else x.x.amin(axes, keepdim=True)
            return Value((x.x == best).double().argmax(axes[0]).double(), left)  # the first of those that are 1
        case "flip":
            return Value(x.x.flip(axes), x.dims)
        case "roll":
            return Value(x.x.roll(int(values[1].x), axes[0]), x.dims)
        case "prod":
            return Value(x.to((*left, *dims), dict(zip(x.dims, x.x.shape, strict=True))).flatten(len(left)).prod(-1), left)
        case "cumprod":
            return Value(x.x.cumprod(axes[0]), x.dims)
        case "max":
            return Value(x.x.amax(axes), left)
        case "min":
            return Value(x.x.amin(axes), left)
        case "logsumexp":
            return Value(_logsumexp(x.x, axes), left)
        case "norm":
            square = (x.x.abs() ** 2 if x.x.is_complex() else x.x * x.x).sum(axes)
            at_zero = square == 0
            return Value(torch.where(at_zero, torch.zeros_like(square), torch.where(at_zero, 1.0, square).sqrt()), left)
        case "var" | "std":
            square = ((x.x - _rounded(x.x.mean(axes, keepdim=True))) ** 2).mean(axes)
            at_zero = square == 0
            root = torch.where(at_zero, torch.zeros_like(square), torch.where(at_zero, 1.0, square).sqrt())
            return Value(square if name == "var" else root, left)
        case "cumsum":
            return Value(x.x.cumsum(axes[0]), x.dims)
        case "softmax":
            shifted = torch.exp(x.x - x.x.amax(axes, keepdim=True).detach())
            return Value(shifted / shifted.sum(axes, keepdim=True), x.dims)
        case "l2norm":
            square = x.x.real**2 + x.x.imag**2 if x.x.is_complex() else x.x**2
            return Value(x.x / _rounded(torch.sqrt(_rounded(square.sum(axes, keepdim=True)) + 1e-6)), x.dims)
        case "layernorm":
            centred = _rounded(x.x - _rounded(x.x.mean(axes, keepdim=True)))
            size = _rounded(torch.sqrt(_rounded((centred**2).mean(axes, keepdim=True)) + 1e-5))
            return _scaled(Value(centred / size, x.dims), values[1:])
        case "rmsnorm":
            size = _rounded(torch.sqrt(_rounded((x.x**2).mean(axes, keepdim=True)) + 1e-5))
            return _scaled(Value(x.x / size, x.dims), values[1:])
    raise NotImplementedError(name)


def shifted(x: Value, dim: str, by: int, fill: Value) -> Value:
    """The element `by` positions before each one of a dim; the fill where there is none."""
    axis = x.dims.index(dim)
    size = x.x.shape[axis]
    places = torch.arange(size) - by
    inside = (places >= 0) & (places < size)
    moved = Value(x.x.index_select(axis, places.clamp(0, max(size - 1, 0))), x.dims)
    return each(torch.where, Value(inside, (dim,)), moved, fill)


def kept_by_place(said: Sequence[Any], dims: tuple[str, ...], sizes: dict[str, int]) -> Value:
    """Where the `sparse` statements about a param keep its elements, by their place in the last two dims."""
    row, col = dims[-2:] if len(dims) > 1 else (dims[0], dims[0])
    i, j = (torch.arange(sizes[d.rstrip("'")]) for d in (row, col))
    kept = torch.ones(len(i), len(j), dtype=torch.bool)
    i, j = i[:, None], j[None, :]
    for s in said:
        word, size = s.method.id if s.method else "", int(s.size.text) if s.size else 0
        if word == "band":
            kept &= (i - j).abs() <= size
        elif word == "blocks":
            kept &= i // size == j // size
        elif word == "lower":
            kept &= j <= i
        if any(mark.kind == "diagonal" for mark in s.marks):
            kept &= i != j
    return Value(kept, (row, col)) if len(dims) > 1 else Value(torch.ones(len(i), dtype=torch.bool), (row,))


def _logsumexp(x: Tensor, axes: list[int]) -> Tensor:
    top = x.amax(axes, keepdim=True).detach()
    anchor = torch.where(top.isinf() & (top < 0), torch.zeros_like(top), top)
    total = torch.exp(x - anchor).sum(axes)
    nothing = total == 0
    logs = torch.log(torch.where(nothing, 1.0, total)) + anchor.sum(axes)
    return torch.where(nothing, torch.full_like(logs, -math.inf), logs)


def _scaled(x: Value, rest: Sequence[Value]) -> Value:
    for f, y in zip((torch.mul, torch.add), rest, strict=False):
        x = each(f, x, y)
    return x


def matmul(a: Value, b: Value) -> Value:
    """a @ b: the last dim of a (batch apart) with the like-named dim of b; the column of a square a with its dim."""
    own = [d for d in a.dims if d != BATCH]
    last = own[-1] + "'" if own[-1] + "'" in own else own[-1]
    base = last.rstrip("'")
    if last != base and base in own:  # a square: its column D' meets the D of b, and the row D is left
        spread = "column of " + a_name(last)
        left = Value(a.x, tuple(spread if d == last else d for d in a.dims))
        right = Value(b.x, tuple(spread if d == base else d for d in b.dims))
        return over("sum", [each(torch.mul, left, right)], [spread])
    assert last in b.dims, (a.dims, b.dims)
    return over("sum", [each(torch.mul, a, b)], [last])


def a_name(dim: str) -> str:
    """A dim's name inside a made-up one."""
    return dim.replace("'", " prime")


def power(a: Value, b: Value, sheltered: bool) -> Value:
    """a ^ b: a product for a small whole b."""
    if b.x.ndim == 0 and float(b.x.detach()).is_integer() and abs(float(b.x.detach())) <= 4:
        n = int(b.x.detach())
        return each(lambda x: x**n, a, sheltered=sheltered)
    return each(torch.pow, a, b, sheltered=sheltered)


__all__ = ["BATCH", "ELEMENTWISE", "ONE_OF_TWO", "SIGNS", "Value", "each", "kept_by_place", "lined_up",
           "logaddexp", "matmul", "number", "over", "power", "real", "rounding", "shifted", "truth"]
