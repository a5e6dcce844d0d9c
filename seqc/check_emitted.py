"""Is an emitted file right? It is loaded, run and compared with the oracle, with finite differences and with itself.

In: a compiled spec. Out: `Finding`s, one per comparison: values and gradients at the lengths where blocks begin and end,
in float64 and float32, with ordinary and with extreme inputs; a directional derivative; a split run, a loop of steps, and
causality, which must hold to the bit. This module owns torch: it is imported when the first finding is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from seqc.compiled import Compiled
from seqc.emit.names import safe_name
from seqc.graph import leaves, topological
from seqc.load_emitted import load_emitted
from seqc.program import Program
from seqc.reference import gradients, run
from seqc.sampling import sample, sample_sizes

ROUNDINGS = 64  # of one element on one step's way to a result
NUDGE = 1e-9  # relative change of the inputs by which the oracle's own sensitivity is measured
DIFFERENCE = 1e-6  # step of a central difference in float64
DIFFERENCE_ERROR = 1e-6  # relative: the square of the step, times third derivatives, plus roundoff over the step


@dataclass(frozen=True)
class Finding:
    """One comparison: what, at how many steps, the error relative to the largest element, and what is allowed."""

    what: str
    steps: int
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the error is allowed; a NaN is not."""
        return bool(self.error <= self.allowed)


def tolerance(dtype: str, steps: int, sensitivity: float = 1.0) -> float:
    """Unit roundoff, times the length of the longest path (every step adds a few roundings to what it carries), times
    the factor by which the recurrence itself amplifies a relative error of its inputs."""
    unit = {"float64": 2.0**-53, "float32": 2.0**-24}[dtype]
    return unit * ROUNDINGS * (steps + 8) * max(sensitivity, 1.0)


def lengths(rows: int) -> tuple[int, ...]:
    """Where blocks of `rows` steps begin and end; for single steps, a few lengths."""
    c = rows if rows > 1 else 4
    return tuple(sorted({0, 1, c - 1, c, c + 1, 2 * c + 1}))


def count(compiled: Compiled) -> int:
    """How many findings there will be, for a progress bar."""
    return sum(2 if how in (against_oracle, parts_and_steps) else 1 for how, *_ in _plan(compiled))


def check(compiled: Compiled, given: Mapping[str, int] | None = None, device: str = "cpu") -> Iterator[Finding]:
    """The findings, one by one. given: extents of dims; the others are small and odd. device: torch's name of it."""
    module = load_emitted(compiled.text, compiled.signature.spec)
    sizes = sample_sizes(compiled.program, given=given)
    for how, steps, dtype, hard in _plan(compiled):
        yield from how(Case(compiled.program, module, sizes, steps, dtype, hard, device))


@dataclass(frozen=True)
class Case:
    """One run: the emitted module, extents, a length, a dtype, whether inputs are extreme, and where it runs."""

    program: Program
    module: ModuleType
    sizes: Mapping[str, int]
    steps: int
    dtype: str
    hard: bool
    device: str = "cpu"

    def sample(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and cotangents, rounded to the dtype, so that the oracle sees what the emitted code sees."""
        parts = sample(self.program, self.sizes, self.steps, hard=self.hard, seed=self.steps)
        arrays, cotangents = ({k: x.astype(self.dtype).astype("float64") for k, x in part.items()} for part in parts)
        return arrays, cotangents

    def call(self, arrays: Mapping[str, Any], name: str = "") -> Any:
        """The emitted function on arrays or tensors by their names in the spec."""
        function = getattr(self.module, safe_name(self.program.name) + name)
        return function(**{emitted_name(self.program, key): x for key, x in self.tensors(arrays).items()})

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays as tensors of the dtype; tensors as they are."""
        import torch

        dtype = getattr(torch, self.dtype)
        tensors = {k: torch.tensor(x, dtype=dtype, device=self.device) for k, x in arrays.items() if not is_tensor(x)}
        return {k: tensors.get(k, x) for k, x in arrays.items()}

    def result(self, results: Any, key: str) -> Any:
        """One result by its name in the spec."""
        return getattr(results, emitted_name(self.program, key))

    def finding(self, what: str, pairs: Mapping[str, tuple[Any, Any]], moved: Mapping[str, Any]) -> Finding:
        """The worst of several comparisons, (found, wanted) by name. moved: what is wanted for nudged inputs."""
        rows = []
        for key, (got, want) in pairs.items():
            allowed = tolerance(self.dtype, self.steps, relative(moved[key], want) / NUDGE if key in moved else 1.0)
            error = relative(got, want)
            rows.append((error / allowed if error == error else float("inf"), key, error, allowed))
        _, key, error, allowed = max(rows)
        words = f"{what} (nearest: {key}), {self.dtype}" + (", extreme inputs" if self.hard else "")
        return Finding(words, self.steps, error, allowed)

    def weighed(self, arrays: Mapping[str, Any], cotangents: Mapping[str, Any]) -> Any:
        """The sum of results times cotangents, whose derivative is what cotangents mean."""
        results, weights = self.call(arrays), self.tensors(cotangents)
        return sum((self.result(results, k) * weights[k]).sum() for k in weights)


def emitted_name(program: Program, key: str) -> str:
    """`NAME_0` and `NAME_T` with the emitted name of the state; other names as they are emitted."""
    stem, mark = key[:-2], key[-2:]
    return safe_name(stem) + mark if mark in ("_0", "_T") and stem in program.states else safe_name(key)


def is_tensor(x: Any) -> bool:
    """Whether x is torch's and not numpy's."""
    return hasattr(x, "detach")


def relative(got: Any, want: Any) -> float:
    """Largest difference over the largest element; infinite where shapes differ."""
    got, want = (x.detach().cpu().double().numpy() if is_tensor(x) else np.asarray(x) for x in (got, want))
    if got.shape != want.shape:
        return float("inf")
    if not want.size:
        return 0.0
    return float(np.max(np.abs(got - want)) / max(float(np.max(np.abs(want))), 1.0))


def nudged(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays with every element changed by a relative error of at most NUDGE."""
    rng = np.random.default_rng(2)
    return {k: x * (1.0 + NUDGE * rng.uniform(-1.0, 1.0, x.shape)) for k, x in arrays.items()}


# ---- the comparisons ----


def _plan(compiled: Compiled) -> Iterator[tuple[Any, int, str, bool]]:
    rows = max(block.rows for block in compiled.blocks.values())
    for steps in lengths(rows):
        yield against_oracle, steps, "float64", False
    longest = lengths(rows)[-1]
    yield against_oracle, longest, "float64", True
    yield against_oracle, longest, "float32", False
    yield against_oracle, longest, "float32", True
    if not any(n.op in ("surrogate", "stopgrad") for n in topological(compiled.program.graph.values())):
        yield against_differences, lengths(rows)[-2], "float64", False
    if compiled.program.direction == "forward":
        if not any(n.number("offset") for n in leaves(compiled.program.graph.values(), "input")):
            yield parts_and_steps, longest, "float64", False
        yield causality, longest, "float32", False


def against_oracle(case: Case) -> Iterator[Finding]:
    """Every result and every gradient; gradients together are one finding."""
    arrays, cotangents = case.sample()
    want, want_gradients = gradients(case.program, arrays, cotangents)
    moved, moved_gradients = gradients(case.program, nudged(arrays), cotangents)
    tensors = {k: x.requires_grad_() for k, x in case.tensors(arrays).items()}
    results = case.call(tensors)
    yield case.finding("results", {k: (case.result(results, k), want[k]) for k in want}, moved)
    case.weighed(tensors, cotangents).backward()
    found = {k: np.zeros(x.shape) if x.grad is None else x.grad for k, x in tensors.items()}
    yield case.finding("gradients", {k: (found[k], want_gradients[k]) for k in found}, moved_gradients)


def against_differences(case: Case) -> Iterator[Finding]:
    """The derivative in a random direction: central difference against the gradients."""
    arrays, cotangents = case.sample()
    rng = np.random.default_rng(1)
    direction = {k: rng.standard_normal(x.shape) for k, x in arrays.items()}

    def value(sign: float) -> float:
        return float(case.weighed({k: x + sign * DIFFERENCE * direction[k] for k, x in arrays.items()}, cotangents))

    tensors = {k: x.requires_grad_() for k, x in case.tensors(arrays).items()}
    case.weighed(tensors, cotangents).backward()
    slope = sum(float((x.grad.cpu().numpy() * direction[k]).sum()) for k, x in tensors.items() if x.grad is not None)
    difference = (value(1.0) - value(-1.0)) / (2 * DIFFERENCE)
    size = np.sqrt(sum(float((x.grad**2).sum()) for x in tensors.values() if x.grad is not None))
    error = abs(slope - difference) / max(size, 1.0)
    yield Finding(f"directional derivative, {case.dtype}", case.steps, error, DIFFERENCE_ERROR)


def parts_and_steps(case: Case) -> Iterator[Finding]:
    """A run split in two, and a loop of single steps, against the whole run."""
    import torch

    arrays, _ = case.sample()
    whole, moved = case.call(arrays), run(case.program, nudged(arrays))
    cut = case.steps // 3 + 1
    parts = [case.call(_cut(case.program, arrays, slice(0, cut)))]
    parts.append(case.call(_cut(case.program, arrays, slice(cut, None)) | _carried(case, parts[0])))
    now: dict[str, Any] = {k: x for k, x in arrays.items() if k.endswith("_0")}
    single = []
    for t in range(case.steps):
        given = {k: arrays[k][:, t] for k in case.program.inputs} | {k: arrays[k] for k in case.program.params}
        single.append(case.call(given | now, "_step"))
        now = _carried(case, single[-1])
    for what, pieces, join in (("a split run", parts, torch.cat), ("a loop of steps", single, torch.stack)):
        last = [f"{name}_T" for name in case.program.states]
        pairs = {k: (join([case.result(p, k) for p in pieces], 1), case.result(whole, k)) for k in case.program.outputs}
        pairs |= {k: (case.result(pieces[-1], k), case.result(whole, k)) for k in last}
        yield case.finding(what, pairs, moved)


def causality(case: Case) -> Iterator[Finding]:
    """Outputs before a step, after every input from it on has changed: equal to the bit."""
    import torch

    arrays, _ = case.sample()
    arrays = {k: x.astype(case.dtype) for k, x in arrays.items()}
    other, _ = sample(case.program, case.sizes, case.steps, hard=True, seed=case.steps + 1)
    ahead = max((-n.number("offset") for n in leaves(case.program.graph.values(), "input")), default=0)
    before = case.call(arrays)
    failed = 0
    for t in sorted({1, case.steps // 2, case.steps - 1}):
        changed = dict(arrays)
        for name in case.program.inputs:
            changed[name] = np.concatenate([arrays[name][:, :t], other[name][:, t:].astype(case.dtype)], axis=1)
        after = case.call(changed)
        until = max(t - max(ahead, 0), 0)
        pairs = [(case.result(before, k)[:, :until], case.result(after, k)[:, :until]) for k in case.program.outputs]
        failed += not all(torch.equal(a, b) for a, b in pairs)
    yield Finding("outputs that see the future (to the bit)", case.steps, float(failed), 0.0)


def _cut(program: Program, arrays: Mapping[str, Any], steps: slice) -> dict[str, Any]:
    return {k: x[:, steps] if k in program.inputs else x for k, x in arrays.items()}


def _carried(case: Case, results: Any) -> dict[str, Any]:
    return {f"{name}_0": case.result(results, f"{name}_T").detach() for name in case.program.states}
