"""What a spec means, computed by an evaluator of its own: step by step, in torch, float64, with torch's gradients.

In: the text of a spec, and arrays. Out: every result and every gradient. Written from `docs/language.md` alone. It reads the
syntax tree, in which nothing is derived, and shares nothing else with the compiler: no scope, no graph, no operators, no
derivatives. It is slow and simple on purpose, and takes valid specs only: what is wrong in a spec is the builder's to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqc import syntax
from seqc.parse import parse
from tests.fuzz.values import BATCH, ELEMENTWISE, ONE_OF_TWO, SIGNS, Value, each, matmul, number, over, power, real, truth

Tensors = Mapping[str, Tensor]


@dataclass
class Spec:
    """The statements of a text, sorted by what they declare."""

    dims: dict[str, syntax.DimItem] = field(default_factory=dict)
    inputs: dict[str, syntax.Decl] = field(default_factory=dict)
    params: dict[str, syntax.Decl] = field(default_factory=dict)
    consts: dict[str, syntax.Decl] = field(default_factory=dict)
    states: dict[str, syntax.Decl] = field(default_factory=dict)
    defined: dict[str, syntax.Define] = field(default_factory=dict)
    outputs: dict[str, syntax.Output] = field(default_factory=dict)
    every: dict[str, syntax.Every] = field(default_factory=dict)
    axis: str = "t"
    scan: str = "forward"
    name: str = "spec"

    def fixed(self) -> dict[str, int]:
        """The sizes that the text gives."""
        return {n: d.default if d.default is not None else (d.sizes or (d.lo,))[0]  # type: ignore[misc]
                for n, d in self.dims.items() if d.default is not None or d.sizes or d.lo is not None}

    def every_expression(self) -> list[syntax.Expr]:
        """All that is computed in a step."""
        found = [d.expr for d in self.defined.values()] + [o.expr for o in self.outputs.values() if o.expr is not None]
        return found + [e.body.expr for e in self.every.values()]


@lru_cache(maxsize=8)
def read(text: str) -> Spec:
    """The spec of a text."""
    spec = Spec()
    kinds = {"input": spec.inputs, "param": spec.params, "const": spec.consts, "state": spec.states}
    for s in parse(text).statements:
        match s:
            case syntax.SpecName():
                spec.name = s.name.id
            case syntax.Dims():
                spec.dims |= {d.name.id: d for d in s.items}
            case syntax.Axes():
                spec.axis = s.names[0].id
            case syntax.Scan():
                spec.scan = s.direction.id
            case syntax.Declare():
                kinds[s.kind].update({d.name.id: d for d in s.items})
            case syntax.Define():
                spec.defined[s.name.id] = s
            case syntax.Output():
                spec.outputs[s.name.id] = s
            case syntax.Every():
                spec.every[s.body.name.id] = s
            case _:  # claims and wishes change no number
                pass
    return spec


def own_dims(decl: syntax.Decl) -> tuple[str, ...]:
    """The dims of a declaration."""
    return squared(decl.dims)


def squared(dims: tuple[syntax.Name, ...]) -> tuple[str, ...]:
    """Dims as they are written; one that is repeated is the column of a square."""
    seen: list[str] = []
    for d in dims:
        name = d.id
        while name in seen:
            name += "'"
        seen.append(name)
    return tuple(seen)


def deepest(spec: Spec, sizes: Mapping[str, int]) -> dict[str, int]:
    """The longest lag of each state and definition that is read at one."""
    found: dict[str, int] = {}
    for whole in spec.every_expression():
        for e in syntax.walk(whole):
            if isinstance(e, syntax.Subscript) and e.name.id in (*spec.states, *spec.defined):
                for item in e.items:
                    if not isinstance(item, syntax.Renaming | syntax.Position) and _mentions(item, spec.axis):
                        long = max(_lags(item, spec.axis, sizes))
                        found[e.name.id] = max(long, found.get(e.name.id, 0))
    return found


def _mentions(e: syntax.Expr, name: str) -> bool:
    return any(isinstance(part, syntax.Name) and part.id == name for part in syntax.walk(e))


def _lags(e: syntax.Expr, axis: str, sizes: Mapping[str, int]) -> list[int]:
    """Every lag that `t - index[L]` stands for."""
    dims = _indexed(e)
    ends = [dict.fromkeys(dims, 0), {d: sizes[d] - 1 for d in dims}]
    return [-_whole(e, {**sizes, axis: 0}, at) for at in ends]


def _indexed(e: syntax.Expr) -> list[str]:
    """The dims L of every `index[L]` in an expression."""
    places = [p for p in syntax.walk(e) if isinstance(p, syntax.Subscript)]
    return [i.id for p in places for i in p.items if isinstance(i, syntax.Name)]


def _whole(e: syntax.Expr, names: Mapping[str, int], at: Mapping[str, int]) -> int:
    match e:
        case syntax.Number(text=text):
            return int(text)
        case syntax.Name(id=name):
            return names[name]
        case syntax.Unary(x=x):
            return -_whole(x, names, at)
        case syntax.Subscript(items=(syntax.Name(id=dim),)):
            return at[dim]
        case syntax.Binary(op=op, left=left, right=right):
            a, b = _whole(left, names, at), _whole(right, names, at)
            return {"+": a + b, "-": a - b, "*": a * b, "^": a**b if op == "^" else 0}[op]
    raise NotImplementedError(e)


class Step:
    """Everything that is computed at one step of one sequence (or before the first: `now` is None).

    past: of states and lagged definitions, the values one, two, .. steps ago. sheltered: whether gradients of 0 stay 0.
    """

    def __init__(self, run: Run, now: int | None, past: Mapping[str, Callable[[int], Value | None]]) -> None:
        self.run, self.spec, self.now, self.past = run, run.spec, now, past
        self.memo: dict[str, Value] = {}

    # ---- names

    def named(self, name: str, lag: int, at: Mapping[str, int]) -> Value:
        """The value of a name, so many steps ago, at the positions that a fold holds."""
        value = self._named(name, lag)
        for dim, position in at.items():
            value = _at(value, dim, position) if dim in value.dims else value
        return value

    def _named(self, name: str, lag: int) -> Value:
        run = self.run
        if name in self.spec.inputs:
            assert self.now is not None
            return run.input_at(name, self.now - lag * run.ahead)
        if name in self.spec.params:
            return run.params[name]
        if name in self.spec.consts:
            if name not in self.memo:
                decl = self.spec.consts[name]
                assert decl.value is not None
                self.memo[name] = run.spread(self.value(decl.value, {}, {}), own_dims(decl))
            return self.memo[name]
        if lag:
            past = self.past[name](lag)
            if past is None:  # a definition before the first step
                now = self._named(name, 0)
                past = Value(torch.zeros_like(real(now.x)), now.dims)
            return past
        if name not in self.memo:
            statement = self.spec.defined.get(name) or self.spec.outputs[name]
            assert statement.expr is not None
            value = self.value(statement.expr, {}, {})
            if name in self.spec.states:
                value = run.spread(value, (BATCH, *own_dims(self.spec.states[name])))
            elif statement.dims is not None:
                value = _ordered(value, squared(statement.dims), run.sizes)
            self.memo[name] = value
        return self.memo[name]

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
                return self._placed(self.value(x, at, bound), items)
            case syntax.Binary():
                return self._binary(e, self.value(e.left, at, bound), self.value(e.right, at, bound))
            case syntax.Subscript():
                return self._subscript(e, at, bound)
            case syntax.Call():
                return self._call(e, at, bound)
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
        places = (syntax.Renaming, syntax.Position)
        times = [i for i in e.items if not isinstance(i, places)]
        value = self._read(name, times[0], at, bound) if times else self.value(e.name, at, bound)
        return self._placed(value, tuple(i for i in e.items if isinstance(i, places)))

    def _placed(self, value: Value, items: tuple[syntax.Expr, ...]) -> Value:
        """The value with dims renamed, all at once, or at one position of them."""
        for item in items:
            if isinstance(item, syntax.Position):
                dim, size = item.dim.id, self.run.sizes[item.dim.id.rstrip("'")]
                value = _at(value, dim, _whole(item.at, self.run.sizes, {}) % size)
        names = {i.old.id: i.new.id for i in items if isinstance(i, syntax.Renaming)}
        return Value(value.x, tuple(names.get(d, d) for d in value.dims))

    def _index(self, name: str, dim: str, at: Mapping[str, int]) -> Value:
        size = self.run.sizes[dim.rstrip("'")]
        if name == "eye":
            return Value(torch.eye(size, dtype=torch.float64), (dim, dim + "'"))
        if dim in at:
            return number(float(at[dim]))
        return Value(torch.arange(size, dtype=torch.float64), (dim,))

    def _read(self, name: str, time: syntax.Expr, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        """`x[t - 2]`, or `x[t - index[L]]`, one value for each position of L."""
        free = [d for d in dict.fromkeys(_indexed(time)) if d not in at]
        if free:
            taps = [self._read(name, time, {**at, free[0]: j}, bound) for j in range(self.run.sizes[free[0]])]
            return Value(torch.stack([tap.x for tap in taps]), (free[0], *taps[0].dims))
        lag = -_whole(time, {**self.run.sizes, self.spec.axis: 0}, at)
        return self.named(name, lag, at)

    def _call(self, e: syntax.Call, at: Mapping[str, int], bound: Mapping[str, Value]) -> Value:
        name, dims = e.name.id, tuple(d.id for d in e.dims or ())
        if name == "fold":
            start, body = e.args
            assert isinstance(body, syntax.Bound)
            value = self.value(start, at, bound)
            for j in range(self.run.sizes[dims[0]]):
                value = self.value(body.body, {**at, dims[0]: j}, {**bound, body.name.id: value})
            return value
        if name == "withgrad":
            return self._withgrad(e, at, bound)
        if name == "sum" and len(e.args) == 1 and (taps := [d for d in dims if d in self._tap_dims(e.args[0], at)]):
            return self._sum_of_taps(e, taps[0], tuple(d for d in dims if d != taps[0]), at, bound)
        args = [self.value(arg, at, bound) for arg in e.args]
        sheltered = self.run.sheltered
        if name == "where":
            return each(torch.where, Value(truth(args[0].x), args[0].dims), *(Value(real(a.x), a.dims) for a in args[1:]))
        args = [Value(real(a.x), a.dims) for a in args]
        if name == "stopgrad":
            return Value(args[0].x.detach(), args[0].dims)
        if name in ("max", "min") and not dims:
            f = torch.maximum if name == "max" else torch.minimum
            value = args[0]
            for other in args[1:]:
                value = each(f, value, other, sheltered=sheltered)
            return value
        if dims:
            return over(name, args, dims)
        f = ONE_OF_TWO.get((name, len(args))) or ELEMENTWISE[name]  # type: ignore[assignment]
        return each(f, *args, sheltered=sheltered and not any(a.x.is_complex() for a in args))

    def _tap_dims(self, e: syntax.Expr, at: Mapping[str, int]) -> set[str]:
        places = [p for p in syntax.walk(e) if isinstance(p, syntax.Subscript) and p.name.id not in ("index", "eye")]
        times = [item for p in places for item in p.items if _mentions(item, self.spec.axis)]
        return {dim for time in times for dim in _indexed(time) if dim not in at}

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


def _ordered(value: Value, dims: tuple[str, ...], sizes: dict[str, int]) -> Value:
    """The value with just these dims, the batch first if it has one."""
    order = (*(d for d in (BATCH,) if d in value.dims), *dims)
    return Value(real(value.to(order, sizes)), order)


def _at(value: Value, dim: str, position: int) -> Value:
    """The value at one position of a dim."""
    return Value(value.x.select(value.dims.index(dim), position), tuple(d for d in value.dims if d != dim))


class Run:
    """One run over sequences of one length: all steps, from the first to the last or from the last to the first.

    ahead: 1 where the run goes forward, else -1. arrays: inputs, params, and initial values by the names of a call.
    """

    def __init__(self, spec: Spec, arrays: Tensors, sizes: Mapping[str, int], how: How) -> None:
        back = (spec.scan == "backward") != how.reverse
        self.spec, self.arrays, self.sheltered, self.axes = spec, arrays, how.sheltered, how.axes
        self.sizes = dict(sizes)
        self.ahead = -1 if back else 1
        self.steps = sizes["T"]
        self.inputs = {n: self._array(n, d) for n, d in spec.inputs.items()}
        self.params = {n: Value(self._array(n, d), (BATCH,) * d.per_batch + own_dims(d)) for n, d in spec.params.items()}
        self.lags = deepest(spec, sizes)

    def _array(self, name: str, d: syntax.Decl) -> Tensor:
        return torch.complex(self.arrays[f"{name}_re"], self.arrays[f"{name}_im"]) if d.is_complex else self.arrays[name]

    def input_at(self, name: str, t: int) -> Value:
        """An input at a step: zero outside of the sequence."""
        x = self.inputs[name]
        row = x[:, t] if 0 <= t < self.steps else torch.zeros_like(x[:, 0])
        return Value(row, (BATCH, *own_dims(self.spec.inputs[name])))

    def spread(self, value: Value, dims: tuple[str, ...]) -> Value:
        """The value with exactly these dims."""
        return Value(real(value.to(dims, self.sizes)), dims)

    # ---- before the first step

    def _initial(self, name: str, lag: int, before: Step) -> Value | None:
        """What a call passes as the value so many steps before the first; or what the spec gives; None: zero."""
        stem = f"{name}_0" if lag == 1 and name in self.spec.states else f"{name}_lag{lag}_0"
        decl = self.spec.states.get(name)
        if decl is None:
            x = self.arrays.get(stem)
            return None if x is None else Value(x, (BATCH, *self.axes[stem]))
        dims = (BATCH, *own_dims(decl))
        parts = [stem.replace(name, f"{name}_{p}", 1) for p in ("re", "im")] if decl.is_complex else [stem]
        if parts[0] in self.arrays:
            given = [self.arrays[p] for p in parts]
            return Value(torch.complex(*given) if decl.is_complex else given[0], dims)
        value = number(0.0) if decl.value is None else before.value(decl.value, {}, {})
        found = self.spread(value, dims)
        return Value(found.x.to(torch.complex128), dims) if decl.is_complex else found

    # ---- all steps

    def run(self) -> dict[str, Any]:
        """Outputs as a value for each step (in the order of the sequence), and NAME_T of states and lagged definitions."""
        before = Step(self, None, {})
        kept: dict[str, list[Value | None]] = {}
        for name in dict.fromkeys([*self.spec.states, *self.lags]):
            long = max(self.lags.get(name, 1), 1)
            kept[name] = [self._initial(name, lag, before) for lag in range(long, 0, -1)]
        counts = {e.steps: self._count(e.steps) for e in self.spec.every.values()}
        rows: dict[str, dict[int, Value]] = {name: {} for name in self.spec.outputs}
        for t in range(self.steps) if self.ahead > 0 else range(self.steps - 1, -1, -1):
            step = Step(self, t, {n: self._reader(kept, n) for n in kept})
            self._one(step, t, kept, counts, rows)
        last = {f"{n}_T" if k == 1 and n in self.spec.states else f"{n}_lag{k}_T": past[-k]
                for n, past in kept.items() for k in range(1, max(self.lags.get(n, 1), 1) + 1)}
        last |= {f"every_{n}_T": Value(c, (BATCH,)) for n, c in counts.items()}
        return {**rows, **last}

    def _one(self, step: Step, t: int, kept: dict[str, list[Value | None]], counts: dict[int, Tensor],
             rows: dict[str, dict[int, Value]]) -> None:
        for name, o in self.spec.outputs.items():
            rows[name][t] = step.value(o.expr, {}, {}) if o.expr is not None and name not in self.spec.states and (
                name not in self.spec.defined) else step.named(name, 0, {})
        carried: dict[str, Value | None] = {}
        for name in kept:
            value = step.named(name, 0, {})
            if name in self.spec.every:
                e = self.spec.every[name]
                due = Value(counts[e.steps] + 1 >= e.steps, (BATCH,))
                replacement = self.spread(step.value(e.body.expr, {}, {}), (BATCH, *own_dims(self.spec.states[name])))
                value = self.spread(each(torch.where, due, replacement, value), replacement.dims)
            carried[name] = value
        for name, value in carried.items():
            kept[name].append(value)
        for n, count in counts.items():
            counts[n] = torch.where(count + 1 >= n, torch.zeros_like(count), count + 1)

    def _count(self, n: int) -> Tensor:
        given = self.arrays.get(f"every_{n}_0")
        return torch.zeros(self.sizes[BATCH], dtype=torch.float64) if given is None else given.detach()

    def _reader(self, kept: Mapping[str, list[Value | None]], name: str) -> Callable[[int], Value | None]:
        return lambda lag: kept[name][-lag]


def outputs_of(spec: Spec, run: Run, name: str, rows: Mapping[int, Value]) -> Tensor:
    """An output as `[B, T, dims]`: dims as declared, as the state has them, or in the order of the `dim` statements.

    Where no order is written, the language asks the declarations behind the value: a spec to be judged writes it.
    """
    o = spec.outputs[name]
    found = {d for v in rows.values() for d in v.dims if d != BATCH}
    if o.dims is not None:
        dims = squared(o.dims)
    elif name in spec.states:
        dims = own_dims(spec.states[name])
    elif name in spec.defined and (written := spec.defined[name].dims) is not None:
        dims = squared(written)
    else:
        places = list(spec.dims)
        dims = tuple(sorted(found, key=lambda d: (places.index(d.rstrip("'")), d)))
    return torch.stack([real(rows[t].to((BATCH, *dims), run.sizes)) for t in sorted(rows)], 1)


@dataclass(frozen=True)
class How:
    """How a call runs. bounds: of a pack's sequences. reverse: from the last step to the first.

    sheltered: gradients of 0 stay 0 through infinite derivatives, for arguments that are not finite. axes: the dims of the
    initial values of lagged definitions, which no declaration tells.
    """

    bounds: tuple[int, ...] | None = None
    reverse: bool = False
    sheltered: bool = False
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def judge(
    text: str, arrays: Tensors, sizes: Mapping[str, int], cotangents: Tensors | None = None, how: How = How()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(results, gradients) of a call. arrays: float64, by the names of a call. sizes: of every dim, of "B" and "T"."""
    spec = read(text)
    tensors = {n: x.detach().clone().requires_grad_(x.is_floating_point()) for n, x in arrays.items()}
    results = _whole_call(spec, tensors, dict(sizes), how)
    if cotangents is None:
        return {n: x.detach() for n, x in results.items()}, {}
    used = [(results[n], c) for n, c in cotangents.items() if results[n].requires_grad]
    loss = torch.stack([(x * c).sum() for x, c in used]).sum() if used else torch.zeros((), requires_grad=True)
    slopes = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    found = {n: torch.zeros_like(x) if s is None else s for (n, x), s in zip(tensors.items(), slopes, strict=True)}
    return {n: x.detach() for n, x in results.items()}, found


def _whole_call(spec: Spec, tensors: Tensors, sizes: dict[str, int], how: How) -> dict[str, Tensor]:
    if how.bounds is not None:
        parts = []
        for i, (start, end) in enumerate(pairwise(how.bounds)):
            own = {n: x[:, start:end] if _plain(spec, n) in spec.inputs else x if _shared(spec, n) else x[i : i + 1]
                   for n, x in tensors.items()}
            parts.append(_whole_call(spec, own, {**sizes, "T": end - start, BATCH: 1}, replace(how, bounds=None)))
        names = dict.fromkeys(n for p in parts for n in p)  # a sequence without steps has no outputs
        return {n: torch.cat([p[n] for p in parts if n in p], 0 if n.endswith("_T") else 1) for n in names}
    if spec.scan != "both":
        return _one_run(spec, tensors, sizes, how)
    own = {n: x for n, x in tensors.items() if "_reverse" not in n}
    first = _one_run(spec, own, sizes, how)
    twins = {n: tensors.get(_twin(spec, n), x) for n, x in own.items()}
    second = _one_run(spec, twins, sizes, replace(how, reverse=not how.reverse))
    joined = {}
    for n, x in first.items():
        if n.endswith("_T"):
            joined[n], joined[_twin(spec, n)] = x, second[n]
        else:
            joined[n] = torch.cat([x, second[n]], -1) if x.ndim > 2 else torch.stack([x, second[n]], -1)
    return joined


def _plain(spec: Spec, name: str) -> str:
    """The declared name behind a part of a complex value."""
    return name[:-3] if name not in spec.inputs and name.endswith(("_re", "_im")) else name


def _shared(spec: Spec, name: str) -> bool:
    """Whether the sequences of a pack have a value in common."""
    decls = (spec.params.get(n) for n in (name, _plain(spec, name), name.replace("_reverse", "")))
    return any(decl is not None and not decl.per_batch for decl in decls)


def _twin(spec: Spec, name: str) -> str:
    """What is called `name` in the run from the first step on, in the other."""
    if name.endswith(("_0", "_T")):
        return f"{name[:-2]}_reverse{name[-2:]}"
    return f"{name}_reverse" if _plain(spec, name) in spec.params or name in spec.params else name


def _one_run(spec: Spec, tensors: Tensors, sizes: dict[str, int], how: How) -> dict[str, Tensor]:
    run = Run(spec, tensors, sizes, how)
    found: dict[str, Tensor] = {}
    for name, x in run.run().items():
        if x is None or x == {}:
            continue
        if isinstance(x, dict):
            value = outputs_of(spec, run, name, x)
        else:  # of a lagged definition, in the order that the caller tells
            value = real(x.to((BATCH, *how.axes.get(f"{name[:-2]}_0", x.dims[1:])), run.sizes))
        if value.is_complex():
            stem, end = (name[:-2], name[-2:]) if name.endswith("_T") else (name, "")
            found |= {f"{stem}_re{end}": value.real, f"{stem}_im{end}": value.imag}
        else:
            found[name] = value
    return found


__all__ = ["How", "Spec", "deepest", "judge", "own_dims", "read"]
