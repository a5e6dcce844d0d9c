"""What a spec means, computed by an evaluator of its own: step by step, in torch, float64, with torch's gradients.

In: the text of a spec, and arrays. Out: every result and every gradient. Written from `docs/language.md` alone. It reads the
syntax tree, in which nothing is derived, and shares nothing else with the compiler: no scope, no graph, no operators, no
derivatives. It is slow and simple on purpose, and takes valid specs only: what is wrong in a spec is the builder's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqc.frontend import syntax
from tests.fuzz.between_rates import Groups
from tests.fuzz.one_step import Step
from tests.fuzz.reading import Spec, deepest, own_dims, read, squared
from tests.fuzz.threefry import ONCE
from tests.fuzz.values import BATCH, Value, each, kept_by_place, number, real

Tensors = Mapping[str, Tensor]


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
        self.prompts, self.opened = how.prompts, False
        self.used: dict[tuple[str, int], Value] = {}  # of inputs that are fed back, by step
        self.sites = spec.sites()
        self.inputs = {n: self._array(n, d) for n, d in spec.inputs.items()}
        self.params: dict[str, Value] = {}
        before = Step(self, None, {})
        for n, d in spec.params.items():
            self.params[n] = self._param(n, d, before)
        self.lags = deepest(spec, sizes, () if how.prompts is None else spec.feedback.values())
        self.keys = self._keys(0)
        self.groups = Groups(spec, arrays, sizes[BATCH])

    def _array(self, name: str, d: syntax.Decl) -> Tensor:
        return torch.complex(self.arrays[f"{name}_re"], self.arrays[f"{name}_im"]) if d.is_complex else self.arrays[name]

    def _param(self, name: str, d: syntax.Decl, before: Step) -> Value:
        """A param or a buffer: what a call passes, else its initial value; 0 where nothing is kept of it."""
        if name not in self.arrays and f"{name}_re" not in self.arrays:
            assert d.value is not None
            return self.spread(before.value(d.value, {}, {}), own_dims(d))
        value = Value(self._array(name, d), (BATCH,) * d.per_batch + own_dims(d))
        if name in self.spec.sparse:
            kept, mask = kept_by_place(self.spec.sparse[name], own_dims(d), self.sizes), self.arrays.get(f"{name}_mask")
            if mask is not None:
                kept = each(torch.logical_and, kept, Value(mask != 0, own_dims(d)))
            value = self.spread(each(torch.where, kept, value, number(0.0)), value.dims)
        return value

    def _keys(self, done: int) -> tuple[Tensor, ...]:
        """The two words of each sequence's key, and the step's number, after so many steps."""
        nothing = torch.zeros(self.sizes[BATCH], dtype=torch.float64)
        low, high, clock = (self.arrays.get(f"noise_{n}_0", nothing).detach() for n in ("low", "high", "clock"))
        return low, high, (clock + done) % ONCE

    def input_at(self, name: str, t: int, step: Step | None) -> Value:
        """An input at a step: zero outside of the sequence, or what a call says of the steps before the first one."""
        x, dims = self.inputs[name], (BATCH, *own_dims(self.spec.inputs[name]))
        if 0 <= t < self.steps:
            if name not in self.spec.feedback or self.prompts is None or self.opened:
                return Value(x[:, t], dims)
            if (name, t) not in self.used:
                assert step is not None and step.now == t
                given, fed = Value(self.prompts[:, t], (BATCH,)), step.value(self.spec.feedback[name], {}, {})
                self.used[name, t] = self.spread(each(torch.where, given, Value(x[:, t], dims), fed), dims)
            return self.used[name, t]
        back = -t if self.ahead > 0 else t - self.steps + 1
        before = self.arrays.get(f"{name}_lag{back}_0") if name in self.spec.history else None
        return Value(torch.zeros([self.sizes[d.rstrip("'")] for d in dims], dtype=x.dtype) if before is None else before, dims)

    def _history(self) -> dict[str, Value]:
        """What the next call needs of inputs whose history is an argument."""
        last = self.steps - 1 if self.ahead > 0 else 0
        return {f"{n}_lag{k}_T": self.input_at(n, last - self.ahead * (k - 1), None)
                for n, long in self.spec.history.items() for k in range(1, long + 1)}

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
        if all(p in self.arrays for p in parts):
            given = [self.arrays[p] for p in parts]
            return Value(torch.complex(*given) if decl.is_complex else given[0], dims)
        value = number(0.0) if decl.value is None else before.value(decl.value, {}, {})
        found = self.spread(value, dims)
        if not decl.is_complex:
            return found
        own = torch.view_as_real(found.x.to(torch.complex128)).unbind(-1)
        return Value(torch.complex(*(self.arrays.get(p, x) for p, x in zip(parts, own, strict=True))), dims)

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
        for done, t in enumerate(range(self.steps) if self.ahead > 0 else range(self.steps - 1, -1, -1)):
            self.keys = self._keys(done)
            step = Step(self, t, {n: self._reader(kept, n) for n in kept})
            self._one(step, t, kept, counts, rows)
            self.groups.step()
        last = {f"{n}_T" if k == 1 and n in self.spec.states else f"{n}_lag{k}_T": past[-k]
                for n, past in kept.items() for k in range(1, max(self.lags.get(n, 1), 1) + 1)}
        last |= {f"every_{n}_T": Value(c, (BATCH,)) for n, c in counts.items()} | self.groups.last()
        if self.sites:
            words = zip(("low", "high", "clock"), self._keys(self.steps), strict=True)
            last |= {f"noise_{n}_T": Value(x, (BATCH,)) for n, x in words}
        last |= self._history()
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


def outputs_of(spec: Spec, run: Run, name: str, rows: Mapping[Any, Value]) -> Tensor:
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
    rows_of = torch.stack([real(rows[t].to((BATCH, *dims), run.sizes)) for t in sorted(rows)], 1)
    return rows_of.unflatten(1, (run.steps, -1)) if spec.second else rows_of  # of two axes, places are in order too


@dataclass(frozen=True)
class How:
    """How a call runs. bounds: of a pack's sequences. reverse: from the last step to the first.

    sheltered: gradients of 0 stay 0 through infinite derivatives, for arguments that are not finite. axes: the dims of the
    initial values of lagged definitions, which no declaration tells. prompts: [B, T], of a closed loop: whether the inputs that
    are fed back are given at a step.
    """

    bounds: tuple[int, ...] | None = None
    reverse: bool = False
    sheltered: bool = False
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Tensor | None = None


def judge(
    text: str, arrays: Tensors, sizes: Mapping[str, int], cotangents: Tensors | None = None, how: How = How()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(results, gradients) of a call. arrays: float64, by the names of a call. sizes: of every dim, of "B" and "T"."""
    spec = read(text)
    tensors = {n: x.detach().clone().requires_grad_(x.is_floating_point()) for n, x in arrays.items()}
    lines = _lines(spec, sizes, how)
    apart = {n: tensors[key].select(1, at) for key, names in lines.items() if key in tensors for at, n in enumerate(names)}
    axes = {**how.axes, **{n: how.axes[key][1:] for key, names in lines.items() for n in names}}
    results = _whole_call(spec, {**tensors, **apart}, dict(sizes), replace(how, axes=axes))
    for key, names in lines.items():
        results[f"{key[:-2]}_T"] = torch.stack([results.pop(f"{n[:-2]}_T") for n in names], 1)
    if cotangents is None:
        return {n: x.detach() for n, x in results.items()}, {}
    used = [(results[n], c) for n, c in cotangents.items() if results[n].requires_grad]
    loss = torch.stack([(x * c).sum() for x, c in used]).sum() if used else torch.zeros((), requires_grad=True)
    moved = {n: x for n, x in tensors.items() if x.requires_grad}
    slopes = torch.autograd.grad(loss, list(moved.values()), allow_unused=True)
    found = {n: torch.zeros_like(x) if s is None else s for (n, x), s in zip(moved.items(), slopes, strict=True)}
    return {n: x.detach() for n, x in results.items()}, found


def _lines(spec: Spec, sizes: Mapping[str, int], how: How) -> dict[str, list[str]]:
    """The arguments that hold many earlier values of a name, `y_lags_0`, with the names of these, the oldest first."""
    more = () if how.prompts is None else spec.feedback.values()
    deep, found = {**deepest(spec, sizes, more), **spec.history}, {}
    for n, lag in deep.items():
        for back in ("", "_reverse"):
            if (key := f"{n}_lags{back}_0") in how.axes:
                found[key] = [f"{n}_lag{k}{back}_0" for k in range(lag, n in spec.states, -1)]
    return found


def _whole_call(spec: Spec, tensors: Tensors, sizes: dict[str, int], how: How) -> dict[str, Tensor]:
    if how.bounds is not None:
        parts = []
        for i, (start, end) in enumerate(pairwise(how.bounds)):
            own = {n: x[:, start:end] if _timed(spec, n) else x if _shared(spec, n) else x[i : i + 1]
                   for n, x in tensors.items()}
            prompts = None if how.prompts is None else how.prompts[:, start:end]
            alone = replace(how, bounds=None, prompts=prompts)
            parts.append(_whole_call(spec, own, {**sizes, "T": end - start, BATCH: 1}, alone))
        names = dict.fromkeys(n for p in parts for n in p)  # a sequence without steps has no outputs
        return {n: torch.cat([p[n] for p in parts if n in p], int(not n.endswith("_T") or _timed(spec, n))) for n in names}
    if spec.scan != "both":
        return _one_run(spec, tensors, sizes, how)
    own = {n: x for n, x in tensors.items() if "_reverse" not in n}
    first = _one_run(spec, own, sizes, how)
    twins = {n: tensors.get(_twin(spec, n), x) for n, x in own.items() if not n.endswith("_0")}
    twins |= {n.replace("_reverse", ""): x for n, x in tensors.items() if n.endswith("_0") and "_reverse" in n}
    second = _one_run(spec, twins, sizes, replace(how, reverse=not how.reverse))
    joined = {}
    for n, x in first.items():
        if n.endswith("_T"):
            joined[n], joined[_twin(spec, n)] = x, second[n]
        elif "sum" in spec.joined:
            joined[n] = x + second[n]
        else:
            joined[n] = torch.cat([x, second[n]], -1) if x.ndim > 2 else torch.stack([x, second[n]], -1)
    return joined


def _plain(spec: Spec, name: str) -> str:
    """The declared name behind a part of a complex value."""
    return name[:-3] if name not in spec.inputs and name.endswith(("_re", "_im")) else name


def _timed(spec: Spec, name: str) -> bool:
    """Whether an argument or a state's end has all steps: inputs, and of two axes what is beside the second."""
    return _plain(spec, name) in spec.inputs or (bool(spec.second) and name[:-2] in {f"{s}_{spec.second}" for s in spec.states})


def _shared(spec: Spec, name: str) -> bool:
    """Whether the sequences of a pack have a value in common."""
    if name.removesuffix("_mask").removesuffix("_mask_reverse") in spec.sparse:
        return True
    bare = name.replace("_reverse", "")
    decls = (spec.params.get(n) for n in (name, _plain(spec, name), bare, _plain(spec, bare)))
    return any(decl is not None and not decl.per_batch for decl in decls)


def _twin(spec: Spec, name: str) -> str:
    """What is called `name` in the run from the first step on, in the other."""
    if name.endswith(("_0", "_T")):
        return f"{name[:-2]}_reverse{name[-2:]}"
    of_param = _plain(spec, name) in spec.params or name in spec.params or name.removesuffix("_mask") in spec.sparse
    return f"{name}_reverse" if of_param else name


def _one_run(spec: Spec, tensors: Tensors, sizes: dict[str, int], how: How) -> dict[str, Tensor]:
    from tests.fuzz.planes import PlaneRun

    run = (PlaneRun if spec.second else Run)(spec, tensors, sizes, how)
    found: dict[str, Tensor] = {}
    for name, x in run.run().items():
        if x is None and f"{name[:-2]}_0" in how.axes:  # a definition before any step
            x = Value(torch.zeros((), dtype=torch.float64))
        if x is None or x == {}:
            continue
        if isinstance(x, dict):
            value = outputs_of(spec, run, name, x)
        else:  # of a lagged definition, in the order that the caller tells
            value = x.x if spec.second else real(x.to((BATCH, *how.axes.get(f"{name[:-2]}_0", x.dims[1:])), run.sizes))
        if value.is_complex():
            stem, end = (name[:-2], name[-2:]) if name.endswith("_T") else (name, "")
            found |= {f"{stem}_re{end}": value.real, f"{stem}_im{end}": value.imag}
        else:
            found[name] = value
    return found


__all__ = ["How", "judge"]
