"""One run of an emitted file: its arguments, its results, and how far these are from what they should be.

In: an emitted module and its program. Out: `Finding`s, one per comparison. This module owns torch: it is imported when a
run is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from seqc.check.sampling import sample
from seqc.emit.names import safe_name
from seqc.ir.arguments import argument_table
from seqc.ir.graph import BATCH
from seqc.ir.intervals import Interval
from seqc.ir.program import Program
from seqc.semantics.reference import gradients

ROUNDINGS = 64  # of one element on one step's way to a result
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}  # roundoff
NUDGE = 1e-9  # relative change of the inputs by which the oracle's own sensitivity is measured


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
    if not np.isfinite(sensitivity):  # what is infinite or undefined beside the inputs says nothing about roundings
        sensitivity = 1.0
    return UNIT[dtype] * ROUNDINGS * (steps + 8) * max(sensitivity, 1.0)


@dataclass(frozen=True)
class Case:
    """One run: the emitted module, extents, a length, a dtype, whether inputs are extreme, and where it runs.

    bounds: of the sequences, where the run is a pack. reverse: whether it runs from the last step to the first.
    """

    program: Program
    module: ModuleType
    sizes: Mapping[str, int]
    steps: int
    dtype: str
    hard: bool
    device: str = "cpu"
    bounds: tuple[int, ...] | None = None
    reverse: bool = False

    def sample(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and cotangents, rounded to the dtype, so that the oracle sees what the emitted code sees."""
        sizes = self.sizes if self.bounds is None else {**self.sizes, BATCH: len(self.bounds) - 1}
        rows = None if self.bounds is None else 1
        parts = sample(self.program, sizes, self.steps, hard=self.hard, seed=self.steps, rows=rows)
        arrays, cotangents = ({k: rounded(x, self.dtype).astype("float64") for k, x in part.items()} for part in parts)
        return arrays | {k: x for k, x in parts[0].items() if whole(x)}, cotangents

    def call(self, arrays: Mapping[str, Any], name: str = "") -> Any:
        """The emitted function on arrays or tensors by their names in the spec."""
        function = getattr(self.module, safe_name(self.program.name) + name)
        given = {emitted_name(self.program, key): x for key, x in self.tensors(arrays).items()}
        return function(**given, **({} if name else self.how()))

    def how(self) -> dict[str, Any]:
        """The keywords of the call that are no tensors of the spec."""
        import torch

        bounds = None if self.bounds is None else torch.tensor(self.bounds, device=self.device)
        return {"cu_seqlens": bounds, "reverse": self.reverse}

    def truth(self, arrays: Mapping[str, Any], cotangents: Mapping[str, Any] | None = None) -> Any:
        """Results and gradients of the oracle."""
        return gradients(self.program, arrays, cotangents, self.bounds, self.reverse)

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays as tensors of the dtype; tensors as they are."""
        import torch

        own = getattr(torch, self.dtype)
        given = {k: (x, torch.int64 if whole(x) else own) for k, x in arrays.items() if not is_tensor(x)}
        tensors = {k: torch.tensor(x, dtype=dtype, device=self.device) for k, (x, dtype) in given.items()}
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
            rows.append((error / allowed, key, error, allowed))
        _, key, error, allowed = max(rows)
        said = [f"{k}: {words}" for k, (got, want) in pairs.items() if (words := undefined(got, want))]
        pack = "" if self.bounds is None else ", a pack"
        words = f"{what} (nearest: {key}), {self.dtype}{pack}" + (", reversed" if self.reverse else "")
        words += ", extreme inputs" if self.hard else ""
        return Finding("; ".join((words, *said)), self.steps, error, allowed)

    @cached_property
    def ran(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Results and gradients of the sample, by the spec's names."""
        return self.with_gradients(*self.sample())

    def with_gradients(
        self, arrays: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Results, and gradients, by the spec's names."""
        import torch

        everything = self.tensors(arrays)
        moved = {a.name for a in argument_table(self.program) if a.gradient}
        tensors = {k: x.requires_grad_() for k, x in everything.items() if k in moved}
        results = self.call(everything)
        found = {k: self.result(results, k) for k in cotangents}
        weights = self.tensors(cotangents)
        loss = torch.stack([(found[k] * weights[k]).sum() for k in found]).sum()
        slopes = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
        zeros = (torch.zeros_like(x) for x in tensors.values())
        return found, {k: z if x is None else x for k, x, z in zip(tensors, slopes, zeros, strict=True)}

    def weighed(self, arrays: Mapping[str, Any], cotangents: Mapping[str, Any]) -> Any:
        """The sum of results times cotangents, in float64: its derivative is what cotangents mean."""
        results, weights = self.call(arrays), self.tensors(cotangents)
        return sum((self.result(results, k).double() * weights[k].double()).sum() for k in weights)


@contextmanager
def phases(module: ModuleType, taken: int) -> Iterator[None]:
    """Within, Triton's kernels work in the way of this number wherever they may (the last where there are fewer), 0 for one
    kernel. Without other ways nothing changes."""
    rule = vars(module).get("_way")
    vars(module).update({"_way": lambda x, blocks, *ways: min(taken, len(ways) - 1)} if rule else {})
    try:
        yield
    finally:
        vars(module).update({"_way": rule} if rule else {})


def emitted_name(program: Program, key: str) -> str:
    """`NAME_0` and `NAME_T` with the emitted name of the state; other names as they are emitted."""
    stem, mark = key[:-2], key[-2:]
    return safe_name(stem) + mark if mark in ("_0", "_T") and stem in program.states else safe_name(key)


def whole(x: Any) -> bool:
    """Whether x is an array of whole numbers."""
    return bool(np.issubdtype(x.dtype, np.integer))


def rounded(x: Any, dtype: str) -> Any:
    """x in a dtype; whole numbers as they are."""
    return x if whole(x) else x.astype(dtype)


def is_tensor(x: Any) -> bool:
    """Whether x is torch's and not numpy's."""
    return hasattr(x, "detach")


def relative(got: Any, want: Any) -> float:
    """Largest difference over the largest finite element. Infinite where shapes differ, and where one side alone is NaN
    or infinite; elements that are NaN on both sides, or the same infinity, agree."""
    got, want = array(got), array(want)
    if got.shape != want.shape:
        return float("inf")
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(got - want))
    if not np.isfinite(off).all():
        return float("inf")
    size = np.max(np.abs(want), initial=0.0, where=np.isfinite(want))
    return float(np.max(off, initial=0.0) / max(float(size), 1.0))


def undefined(got: Any, want: Any) -> str:
    """What is said of NaN: on both sides, or on one alone; "" where there is none."""
    got, want = (np.isnan(array(x)) for x in (got, want))
    if got.shape != want.shape or not (got | want).any():
        return ""
    counts = {"on both sides": got & want, "in the emitted code alone": got & ~want, "in the oracle alone": want & ~got}
    return ", ".join(f"NaN {place}: {int(n.sum())} of {n.size}" for place, n in counts.items() if n.any())


def array(x: Any) -> Any:
    """A tensor as a float64 array; an array as it is."""
    return x.detach().cpu().double().numpy() if is_tensor(x) else np.asarray(x)


def nudged(
    arrays: Mapping[str, Any], allowed: Mapping[str, Interval] = {}, fixed: Collection[str] = ()
) -> dict[str, Any]:
    """The arrays with every element changed by a relative error of at most NUDGE, within their domains; but for those fixed."""
    rng = np.random.default_rng(2)
    fixed = {k for k, x in arrays.items() if k in fixed or whole(x)}
    moved = {k: x if k in fixed else x * (1.0 + NUDGE * rng.uniform(-1.0, 1.0, x.shape)) for k, x in arrays.items()}
    return {k: np.clip(x, allowed[k].lo, allowed[k].hi) if k in allowed and k not in fixed else x for k, x in moved.items()}
