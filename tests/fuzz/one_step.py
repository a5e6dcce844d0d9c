"""One step of a recurrence, by the judge: what every expression of the language means. In: a run, the past. Out: values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from seqc.frontend import syntax
from seqc.frontend.trees import walk
from tests.fuzz.between_rates import last_values, part_of_now
from tests.fuzz.inner_slopes import slope
from tests.fuzz.matrices import OF_MATRICES
from tests.fuzz.places import at_places, with_rows
from tests.fuzz.reading import DRAWS, folded, indexed, mentions, own_dims, squared, whole
from tests.fuzz.threefry import ONCE, fractions, normal
from tests.fuzz.values import (
    BATCH,
    ELEMENTWISE,
    ONE_OF_TWO,
    SIGNS,
    Value,
    each,
    matmul,
    number,
    over,
    power,
    real,
    shifted,
    truth,
)

if TYPE_CHECKING:
    from tests.fuzz.judge import Run

PLACES = (syntax.Renaming, syntax.Position)


class Step:
    """Everything that is computed at one step of one sequence (or before the first: `now` is None).

    past: of states and lagged definitions, the values one, two, .. steps ago. sheltered: whether gradients of 0 stay 0.
    """

    def __init__(self, run: Run, now: Any, past: Mapping[str, Callable[[Any], Value | None]]) -> None:
        self.run, self.spec, self.now, self.past = run, run.spec, now, past
        self.memo: dict[str, Value] = {}
        self.swapped: dict[tuple[str, Any], Value] = {}  # what stands for a name, so many steps ago
        self.origin = self  # the step without what is swapped

    def with_another(self, name: str, lag: Any, value: Value) -> Step:
        """The same step, in which a name has another value wherever it is read so many steps ago."""
        other = type(self)(self.run, self.now, self.past)
        other.swapped, other.origin = {**self.swapped, (name, lag): value}, self.origin
        return other

    # ---- times

    def back(self, times: Sequence[syntax.Expr], at: Mapping[str, int]) -> Any:
        """How many steps ago a read is; 0 without times."""
        return -whole(times[0], {**self.run.sizes, self.spec.axis: 0}, at) if times else 0

    def input(self, name: str, lag: Any) -> Value:
        """An input so many steps ago."""
        assert self.now is not None
        return self.run.input_at(name, self.now - lag * self.run.ahead, self.origin)

    # ---- names

    def named(self, name: str, lag: Any, at: Mapping[str, int]) -> Value:
        """The value of a name, so many steps ago, at the positions that a fold holds."""
        value = self._named(name, lag)
        for dim, position in at.items():
            value = _at(value, dim, position) if dim in value.dims else value
        return value

    def _named(self, name: str, lag: Any) -> Value:
        run = self.run
        if (name, lag) in self.swapped:
            return self.swapped[name, lag]
        if name in self.spec.inputs:
            x = self.input(name, lag)
            return x if x.x.is_floating_point() or x.x.is_complex() else Value(x.x.double(), x.dims)
        if name in self.spec.params:
            return run.params[name]
        if name in self.spec.consts:
            if name not in self.memo:
                decl = self.spec.consts[name]
                assert decl.value is not None
                self.memo[name] = run.spread(self.value(decl.value, {}, {}), own_dims(decl))
            return self.memo[name]
        if lag and isinstance(lag, int) and lag < 0:
            return self._later(name, -lag)
        if lag:
            past = self.past[name](lag)
            if past is None:  # a definition before the first step
                run.opened = True  # its dims alone are asked for, which no feedback changes
                now = type(self)(run, self.now, self.past)._named(name, 0)
                run.opened = False
                past = Value(torch.zeros_like(real(now.x)), now.dims)
            return past
        if name not in self.memo:
            statement = self.spec.defined.get(name) or self.spec.outputs[name]
            assert statement.expr is not None
            value = self.value(statement.expr, {}, {})
            if indices := self.spec.written_rows(name):
                dims = (BATCH, *own_dims(self.spec.states[name]))
                places = [(self.input(index, 0), of.id) for index in indices if (of := self.spec.inputs[index].places)]
                value = with_rows(run.spread(self._named(name, 1), dims), places, value)
            elif name in self.spec.states:
                value = run.spread(value, (BATCH, *own_dims(self.spec.states[name])))
                if name in self.spec.down:
                    value = run.spread(each(torch.where, run.groups.due(name), value, self._named(name, 1)), value.dims)
            elif statement.dims is not None:
                value = _ordered(value, squared(statement.dims), run.sizes)
            self.memo[name] = value
        return self.memo[name]

    def _later(self, name: str, by: int) -> Value:
        """A definition so many steps ahead, made of what those steps are given; 0 behind the last step."""
        assert self.now is not None
        place, run = self.now + by * self.run.ahead, self.run

        def reader(other: str) -> Callable[[int], Value | None]:
            return lambda lag: self.past[other](lag - by) if lag > by else self._named(other, lag - by)

        there = type(self)(run, place, {other: reader(other) for other in self.past})
        found = there.value(self.spec.defined[name].expr, {}, {})
        outside = not 0 <= place < run.steps
        return Value(torch.zeros_like(real(found.x)), found.dims) if outside else found

    # ---- expressions

    def value(self, e: syntax.Expr, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        """The value of an expression. at: positions of dims that are held; bound: running values of folds."""
        match e:
            case syntax.Number():
                return number(complex(0, e.value) if e.imaginary else e.value)
            case syntax.Name(id=name):
                if name in bound:
                    return bound[name]
                if name in ("pi", "inf"):
                    return number(math.pi if name == "pi" else math.inf)
                if name in self.spec.dims:
                    return number(float(self.run.sizes[name]))
                return self.named(name, 0, at)
            case syntax.Unary(op=op, x=x):
                inner = self.value(x, at, bound)
                return Value(~truth(inner.x) if op == "not" else -real(inner.x), inner.dims)
            case syntax.Placed(x=x, items=items):
                return self._at_items(self.value(x, at, bound), items, at, bound)
            case syntax.Binary():
                return self._binary(e, self.value(e.left, at, bound), self.value(e.right, at, bound))
            case syntax.Subscript():
                return self._subscript(e, at, bound)
            case syntax.Call():
                return self._call(e, at, bound)
            case syntax.Taken(whole=whole, place=place):
                return self._folded(whole, at, bound)[place]
        raise NotImplementedError(type(e).__name__)

    def _binary(self, e: syntax.Binary, a: Value, b: Value) -> Value:
        if e.op in ("and", "or"):
            both = torch.logical_and if e.op == "and" else torch.logical_or
            return each(both, Value(truth(a.x), a.dims), Value(truth(b.x), b.dims))
        a, b = Value(real(a.x), a.dims), Value(real(b.x), b.dims)
        if e.op == "@":
            return matmul(a, b)
        if e.op == "^":
            return power(a, b, self.run.sheltered)
        comparison = e.op in ("<", "<=", ">", ">=", "==", "!=")
        return each(SIGNS[e.op], a, b, sheltered=self.run.sheltered and not comparison)

    def _subscript(self, e: syntax.Subscript, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        name = e.name.id
        if name in ("index", "eye"):
            (item,) = e.items
            assert isinstance(item, syntax.Name)
            return self._index(name, item.id, at)
        times = [i for i in e.items if not isinstance(i, PLACES) and not self._tells(i)]
        value = self._read(name, times, at, bound) if times else self.value(e.name, at, bound)
        return self._at_items(value, e.items, at, bound)

    def _tells(self, item: syntax.Expr) -> bool:
        """Whether an item of brackets tells positions."""
        return self.spec.index(item) is not None or self.spec.choice(item) is not None

    def _at_items(
        self, value: Value, items: tuple[syntax.Expr, ...], at: Mapping[str, int], bound: Mapping[str, Value]
    ) -> Value:
        """The value at the positions that items of brackets tell, with dims renamed."""
        for item in filter(self._tells, items):
            dim = self.spec.choice(item)
            value = self._at_index(value, item, at) if dim is None else self._at_choice(value, item, dim, at, bound)
        return self._placed(value, tuple(i for i in items if isinstance(i, PLACES)))

    def _at_index(self, value: Value, item: syntax.Expr, at: Mapping[str, int]) -> Value:
        """The value at the positions that an index tells, now or some steps away."""
        name = self.spec.index(item)
        assert name is not None
        place = self.input(name, self.back(item.items if isinstance(item, syntax.Subscript) else (), at))
        for dim, position in at.items():
            place = _at(place, dim, position) if dim in place.dims else place
        of = self.spec.inputs[name].places
        assert of is not None
        return at_places(value, place, of.id)

    def _at_choice(
        self, value: Value, item: syntax.Expr, dim: str, at: Mapping[str, int], bound: Mapping[str, Value]
    ) -> Value:
        """The value at positions that this step or an earlier one has chosen: rounded down, and cut to those there are."""
        place = self.value(item, at, bound)
        last = value.x.shape[value.dims.index(dim)] - 1
        return at_places(value, Value(place.x.detach().floor().clamp(0, last).long(), place.dims), dim)

    def _draw(self, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        """Noise: what the key of the sequence, the step, the draw and the place make."""
        once = bool(e.args) and isinstance(e.args[-1], syntax.Name) and e.args[-1].id == "once"
        dims, run = squared(e.dims or ()), self.run
        place = number(0.0)
        for dim in dims:
            size = run.sizes[dim.rstrip("'")]
            here = number(float(at[dim])) if dim in at else Value(torch.arange(size).double(), (dim,))
            place = each(torch.add, each(torch.mul, place, number(float(size))), here)
        low, high, clock = run.keys
        step = torch.full_like(clock, ONCE) if once else clock
        counts = [*(Value(x, (BATCH,)) for x in (low, high, step)), place, number(float(run.sites[id(e)]))]
        made = [each(lambda *x, i=i: fractions(*x)[i], *counts) for i in (0, 1)]
        given = [self.value(arg, at, bound) for arg in (e.args[:-1] if once else e.args)]
        if e.name.id == "bernoulli":
            return each(torch.lt, made[0], *given)
        drawn = each(normal, *made) if e.name.id == "normal" else made[0]
        if not given:
            return drawn
        first, second = given  # a mean and a deviation, or both ends
        width = second if e.name.id == "normal" else each(torch.sub, second, first)
        return each(torch.add, each(torch.mul, drawn, width), first)

    def _placed(self, value: Value, items: tuple[syntax.Expr, ...]) -> Value:
        """The value with dims renamed, all at once, or at one position of them."""
        for item in items:
            if isinstance(item, syntax.Position):
                dim, size = item.dim.id, self.run.sizes[item.dim.id.rstrip("'")]
                value = _at(value, dim, whole(item.at, self.run.sizes, {}) % size)
        names = {i.old.id: i.new.id for i in items if isinstance(i, syntax.Renaming)}
        return Value(value.x, tuple(names.get(d, d) for d in value.dims))

    def _index(self, name: str, dim: str, at: Mapping[str, int]) -> Value:
        if name == "index" and dim in at:
            return number(float(at[dim]))
        size = self.run.sizes[dim.rstrip("'")]
        if name == "eye":
            return Value(torch.eye(size, dtype=torch.float64), (dim, dim + "'"))
        return Value(torch.arange(size, dtype=torch.float64), (dim,))

    def _read(
        self, name: str, times: Sequence[syntax.Expr], at: Mapping[str, int], bound: Mapping[str, Value]
    ) -> Value:
        """`x[t - 2]`, or `x[t - index[L]]`, one value for each position of L."""
        free = [d for d in dict.fromkeys(d for time in times for d in indexed(time)) if d not in at]
        if free:
            taps = [self._read(name, times, {**at, free[0]: j}, bound) for j in range(self.run.sizes[free[0]])]
            return _rows(free[0], taps)
        return self.named(name, self.back(times, at), at)

    def _folded(self, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> list[Value]:
        """Every running value of a fold at its end, or of a scan after each step."""
        assert e.dims is not None
        dim, parts, rows = e.dims[0].id, folded(e), []
        values = [self.value(start, at, bound) for start in parts.starts]
        for j in range(self.run.sizes[dim]):
            running, here = {**bound, **dict(zip(parts.names, values, strict=True))}, {**at, dim: j}
            for own in parts.own:
                running[own.name.id] = self.value(own.start, here, running)
            values = [self.value(body, here, running) for body in parts.bodies]
            rows.append(values)
        return values if e.name.id == "fold" else [_rows(dim, list(column)) for column in zip(*rows, strict=True)]

    def _call(self, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        name, dims = e.name.id, tuple(d.id for d in e.dims or ())
        if name in DRAWS:
            return self._draw(e, at, bound)
        if name in ("fold", "scan"):
            return self._folded(e, at, bound)[0]
        if name == "withgrad":
            return self._withgrad(e, at, bound)
        if name == "grad":
            return slope(self, e, at, bound)
        if name in ("down", "up"):
            return (last_values if name == "down" else part_of_now)(self, e, at)
        if name == "sum" and len(e.args) == 1 and (taps := [d for d in dims if d in self._tap_dims(e.args[0], at)]):
            return self._sum_of_taps(e, taps[0], tuple(d for d in dims if d != taps[0]), at, bound)
        apart = {d: j for d, j in at.items() if d not in dims}  # an operator over a dim sees all of its positions
        args = [self.value(arg, apart, bound) for arg in e.args]
        sheltered = self.run.sheltered
        if name == "where":
            return each(torch.where, Value(truth(args[0].x), args[0].dims), *(Value(real(a.x), a.dims) for a in args[1:]))
        args = [Value(real(a.x), a.dims) for a in args]
        if name == "shift":
            return shifted(args[0], dims[0], int(args[1].x), args[2] if len(args) > 2 else number(0.0))
        if name == "position":
            largest = self.run.sizes[dims[0]] - 1
            return Value(torch.where(args[0].x > 0, args[0].x.detach().clamp(max=largest).floor(), 0.0), args[0].dims)
        if name in OF_MATRICES and (found := OF_MATRICES[name](args)) is not None:
            return found
        if name == "gradclip":
            return Value(_Clipped.apply(args[0].x, float(args[1].x)), args[0].dims)
        if name == "stopgrad":
            return Value(args[0].x.detach(), args[0].dims)
        if name in ("max", "min") and not dims:
            f = torch.maximum if name == "max" else torch.minimum
            value = args[0]
            for other in args[1:]:
                value = each(f, value, other, sheltered=sheltered)
            return value
        if dims:
            value = over(name, args, dims)
            for d in set(dims) & set(at) & set(value.dims):
                value = _at(value, d, at[d])
            return value
        f = ONE_OF_TWO.get((name, len(args))) or ELEMENTWISE[name]  # type: ignore[assignment]
        return each(f, *args, sheltered=sheltered and not any(a.x.is_complex() for a in args))

    def _tap_dims(self, e: syntax.Expr, at: Mapping[str, int]) -> set[str]:
        places = [p for p in walk(e) if isinstance(p, syntax.Subscript) and p.name.id not in ("index", "eye")]
        times = [item for p in places for item in p.items if any(mentions(item, axis) for axis in self.spec.axes)]
        return {dim for time in times for dim in indexed(time) if dim not in at}

    def _sum_of_taps(
        self, e: syntax.Call, taps: str, rest: tuple[str, ...], at: Mapping[str, int], bound: Mapping[str, Value]
    ) -> Value:
        """A sum over taps, with everything at one position of them after the other."""
        total: Value | None = None
        for j in range(self.run.sizes[taps]):
            term = self.value(e.args[0], {**at, taps: j}, bound)
            term = over("sum", [term], rest) if rest else term
            total = term if total is None else each(torch.add, total, term)
        assert total is not None
        return total

    def _withgrad(self, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        """A truth value whose derivative with respect to a - b of `a > b` is the slope."""
        comparison = e.args[0]
        assert isinstance(comparison, syntax.Binary)
        a, b = self.value(comparison.left, at, bound), self.value(comparison.right, at, bound)
        slope = self.value(e.args[1], at, bound)
        signed = 1.0 if comparison.op in (">", ">=") else -1.0
        difference = each(lambda x, y: signed * (real(x) - real(y)), a, b)
        truth = each(SIGNS[comparison.op], a, b)
        return each(lambda c, d, s: real(c) + s.detach() * (d - d.detach()), truth, difference, slope)


class _Clipped(torch.autograd.Function):
    """A value whose cotangent is cut to [-c, c] before it goes on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, c: float) -> torch.Tensor:
        ctx.c = c
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        return cotangents[0].clamp(-ctx.c, ctx.c), None


def _ordered(value: Value, dims: tuple[str, ...], sizes: dict[str, int]) -> Value:
    """The value with just these dims, the batch first if it has one."""
    order = (*(d for d in (BATCH,) if d in value.dims), *dims)
    return Value(real(value.to(order, sizes)), order)


def _rows(dim: str, values: list[Value]) -> Value:
    """One value with the dim, from one for each of its positions."""
    axes = tuple(dict.fromkeys(d for value in values for d in value.dims))
    rows = [value.x.permute([value.dims.index(d) for d in axes if d in value.dims]) for value in values]
    rows = [x if x.is_complex() else real(x) for x in rows]
    rows = [x[tuple(slice(None) if d in value.dims else None for d in axes)] for x, value in zip(rows, values, strict=True)]
    return Value(torch.stack(torch.broadcast_tensors(*rows)), (dim, *axes))


def _at(value: Value, dim: str, position: int) -> Value:
    """The value at one position of a dim."""
    return Value(value.x.select(value.dims.index(dim), position), tuple(d for d in value.dims if d != dim))


__all__ = ["Step"]
