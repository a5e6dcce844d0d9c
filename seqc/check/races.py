"""Times of one spec on this machine: the eager step loop beside what seqc emits. In: a compiled spec, extents, a device.
Out: rows.

The loop is the step graph in plain torch, one step after the other under autograd: what one would write by hand. Every
contender gets the same arguments and takes its turn in every round. What a contender gives is first compared with the
plain torch form in float64, so that no wrong result is ever timed without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import quantiles
from types import ModuleType
from typing import Any

import numpy as np

from seqc.check.emitted_case import tolerance, whole
from seqc.check.sampling import sample
from seqc.check.timing import race, seconds
from seqc.diagnostics import Unsupported, near_miss
from seqc.driver.compile import Compiled
from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import safe_name
from seqc.ir.arguments import argument_table
from seqc.ir.dims import is_primed
from seqc.ir.graph import topological
from seqc.ir.program import Program
from seqc.semantics.reference import initial_states

FORWARD, TRAIN = "forward", "forward+backward"
LOOP = "eager loop"
SAMPLE, PATIENCE = 0.02, 40.0  # seconds of one sample at least, and of all rounds of a part at most
LOOSE = 1e-2  # what the loop's own error, where the recurrence amplifies roundings, excuses in others at most
Results = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One contender in one part. seconds: (lower quartile, median, upper quartile) of a call; None where it does not run, and
    `words` then say why. error: relative to float64. good: whether the error is one that float32 explains."""

    name: str
    part: str
    seconds: tuple[float, float, float] | None
    error: float
    good: bool
    words: str = ""


def sizes_of(program: Program, given: Mapping[str, int], quick: bool) -> dict[str, int]:
    """Extents of all dims, "B" and "T": those given, defaults, else usual ones. Raises Unsupported for an unknown name."""
    known = {"B", "T", *program.dims}
    for name in given:
        if name not in known:
            help = near_miss(name, known) or f"the sizes are {', '.join(sorted(known))}"
            raise Unsupported.of("no-such-dim", f"`{program.name}` has no size `{name}`", help=help)
    wide = max((len(decl.dims) for decl in program.states.values()), default=1)
    usual = {"B": 2, "T": 48 if quick else 1024, "H": 2 if quick else 4}
    sizes = {name: given.get(name, usual[name]) for name in ("B", "T")}
    for name, decl in program.dims.items():
        told = decl.default or (min(decl.choices) if decl.choices else None)
        sizes[name] = given.get(name) or told or usual.get(name) or (8 if quick else 64 if wide > 1 else 512)
    return sizes


def rows(compiled: Compiled, sizes: Mapping[str, int], device: str = "cpu", rounds: int = 5) -> Iterator[Row]:
    """The rows of both parts, as they come."""
    course = Course(compiled, sizes, device)
    for part in (FORWARD, TRAIN):
        yield from _part(course, part, rounds)


def _part(course: Course, part: str, rounds: int) -> Iterator[Row]:
    calls = {name: partial(course.run, form, part == TRAIN) for name, form in course.contenders(part).items()}
    want = course.run("_TORCH", part == TRAIN, double=True)
    absent, errors = dict(course.absent(part)), {}
    for name, call in list(calls.items()):
        try:
            errors[name] = _error(call(), want)
        except _NotItself as reason:
            absent[name] = str(reason)
            del calls[name]
    allowed = max(min(10 * errors.get(LOOP, 0.0), LOOSE), tolerance("float32", course.sizes["T"]))
    each = {name: seconds(course.waited(call), 1) for name, call in calls.items()}
    rounds = max(1, min(rounds, int(PATIENCE / max(sum(max(s, SAMPLE) for s in each.values()), 1e-9))))
    times = race({name: course.waited(call) for name, call in calls.items()}, rounds, SAMPLE).seconds
    for name, taken in times.items():
        low, middle, high = quantiles(taken if len(taken) > 1 else taken * 2, n=4, method="inclusive")
        yield Row(name, part, (low, middle, high), errors[name], errors[name] <= allowed)
    for name, words in absent.items():
        yield Row(name, part, None, float("nan"), True, words)


class _NotItself(Exception):
    """A contender that took another form than its own, and why."""


@dataclass(frozen=True)
class Course:
    """Arguments and contenders of one spec at one size, in float32."""

    compiled: Compiled
    sizes: Mapping[str, int]
    device: str

    @cached_property
    def program(self) -> Program:
        """The spec."""
        return self.compiled.program

    @cached_property
    def module(self) -> ModuleType:
        """The emitted file."""
        return load_emitted(self.compiled.text, self.compiled.signature.spec)

    @cached_property
    def _sampled(self) -> tuple[Results, Results]:
        arrays, cotangents = sample(self.program, self.sizes, self.sizes["T"])
        for name, decl in self.program.params.items():  # a matrix neither lets a cell die nor explode
            if any(is_primed(d) for d in decl.dims) and not np.isfinite([decl.range.lo, decl.range.hi]).any():
                arrays[name] = arrays[name] * 2.5 / arrays[name].shape[-1] ** 0.5
        starts = initial_states(self.program, {name: arrays[name] for name in self.program.params}, self.sizes)
        arrays |= {f"{name}_0": x for name, x in starts.items()}
        return arrays, cotangents

    def arguments(self, dtype: Any) -> Results:
        """Inputs, params and initial states by emitted name; inputs and params ask for gradients."""
        import torch

        arrays = self._sampled[0]
        moved = {a.name for a in argument_table(self.program) if a.gradient and a.kind != "state"}
        found = {}
        for name, x in arrays.items():
            if whole(x):
                found[self._emitted(name)] = torch.tensor(x, dtype=torch.int64, device=self.device)
                continue
            tensor = torch.tensor(x, dtype=torch.float32, device=self.device).to(dtype)
            found[self._emitted(name)] = tensor.requires_grad_(name in moved)
        return found

    def _emitted(self, name: str) -> str:
        stem = name.removesuffix("_0")
        return f"{safe_name(stem)}_0" if stem != name and stem in self.program.states else safe_name(name)

    @cached_property
    def single(self) -> Results:
        """The arguments in float32."""
        import torch

        return self.arguments(torch.float32)

    @cached_property
    def weights(self) -> Results:
        """Cotangents of the outputs, or of the final states where there is no output."""
        import torch

        found = self._sampled[1]
        names = list(self.program.output_decls) or list(found)
        return {self._result(n): torch.tensor(found[n], dtype=torch.float32, device=self.device) for n in names}

    def _result(self, name: str) -> str:
        stem = name.removesuffix("_T")
        return f"{safe_name(stem)}_T" if stem != name and stem in self.program.states else safe_name(name)

    def contenders(self, part: str) -> dict[str, str]:
        """Those that can run here: name -> the emitted file's form, "" for the loop."""
        found = {} if self._no_loop(part) else {LOOP: ""}
        found["plain torch"] = "_TORCH"
        if self.device == "cpu" and "cpu" in self.compiled.blocks:
            found["native"] = "_CPU"
        if self.device != "cpu" and "triton" in self.compiled.blocks:
            found["triton"] = "_TRITON"
        return found

    def absent(self, part: str) -> Iterator[tuple[str, str]]:
        """Those that cannot, and why."""
        if reason := self._no_loop(part):
            yield LOOP, reason
        name, part = ("native", "cpu") if self.device == "cpu" else ("triton", "triton")
        if part not in self.compiled.blocks:
            yield name, self.compiled.missing.get(part, f"the backend `{self.compiled.options.backend}` leaves it out")

    def _no_loop(self, part: str) -> str:
        """Why there is no eager loop; "" where there is one."""
        own = any(n.op in ("surrogate", "stopgrad", "gradclip") for n in topological(self.program.graph.values()))
        words = "the spec states a gradient of its own, which plain autograd of a step would miss"
        return self.program.no_step or (words if own and part == TRAIN else "")

    @contextmanager
    def _taking(self, form: str) -> Iterator[None]:
        """Calls of the emitted function take one form. Raises _NotItself where that form lets another one answer."""
        module, taken = self.module, []
        usual, own = vars(module)["_form"], getattr(module, form, None)

        def chosen(*tensors: Any, **asked: Any) -> Any:
            taken.append(own if form == "_TORCH" else usual(*tensors, **asked))
            return taken[-1]

        vars(module)["_form"] = chosen
        try:
            yield
        finally:
            vars(module)["_form"] = usual
        if any(one is not own for one in taken):
            raise _NotItself("it does not run here, and plain torch answers instead: `seqc doctor` tells more")

    def called(self, given: Results) -> Results:
        """The emitted function."""
        results = getattr(self.module, self.compiled.signature.spec)(**given)
        return {name: getattr(results, name) for name in self.weights}

    def loop(self, given: Results) -> Results:
        """The eager step loop."""
        import torch

        program, step = self.program, self.module._step_torch
        params = [given[safe_name(a.name)] for a in argument_table(program) if a.kind == "param"]
        lines = [given[safe_name(name)].unbind(1) for name in program.inputs]
        made, states = stepped(step, list(map(list, zip(*lines, strict=True))), params,
                               [given[f"{safe_name(name)}_0"] for name in program.states], program.direction == "backward")
        outputs = zip(*made, strict=True)
        found = {self._result(n): torch.stack(x, 1) for n, x in zip(program.output_decls, outputs, strict=True)}
        return found | {self._result(f"{n}_T"): x for n, x in zip(program.states, states, strict=True)}

    def run(self, form: str, train: bool, double: bool = False) -> Results:
        """Results, or with `train` the gradients of inputs and params."""
        import torch

        given = self.arguments(torch.float64) if double else self.single
        if not form:
            return self._run(self.loop, given, train)
        with self._taking(form):
            return self._run(self.called, given, train)

    def _run(self, contender: Callable[[Results], Results], given: Results, train: bool) -> Results:
        import torch

        if not train:
            with torch.no_grad():
                return contender(given)
        wanted = {name: x for name, x in given.items() if x.requires_grad}
        results = contender(given)
        outputs = [results[name] for name in self.weights]
        seeds = [x.to(outputs[0].dtype) for x in self.weights.values()]
        found = torch.autograd.grad(outputs, list(wanted.values()), seeds, allow_unused=True)
        return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(wanted.items(), found, strict=True)}

    def waited(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """A call that ends when its work does."""
        if self.device == "cpu":
            return call
        import torch

        def run() -> None:
            call()
            torch.cuda.synchronize()

        return run


def stepped(
    step: Callable[..., Any], rows: list[list[Any]], params: Sequence[Any], states: list[Any], backward: bool = False
) -> tuple[list[Any], list[Any]]:
    """Steps one after the other: rows holds a list of inputs for each. (outputs of each step in time's order, last states)."""
    made = []
    for row in reversed(rows) if backward else rows:
        results = step(*row, *params, *states)
        made.append(results[: len(results) - len(states)])
        states = list(results[len(results) - len(states) :])
    return (made[::-1] if backward else made), states


def _error(got: Results, want: Results) -> float:
    """The largest difference over the largest element, of the worst tensor."""
    worst = 0.0
    for name in want:
        a, b = got[name].detach().double(), want[name].detach().double()
        if a.numel():
            difference = float((a - b).abs().max() / (b.abs().max() + 1e-30))
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def table(found: Sequence[Row]) -> str:
    """Rows as lines: medians, quartiles in brackets, and how many times as fast as the loop."""
    lines = []
    for part in dict.fromkeys(row.part for row in found):
        these = [row for row in found if row.part == part]
        base = next((row.seconds[1] for row in these if row.name == LOOP and row.seconds), None)
        lines.append(f"  {part}")
        for row in these:
            if row.seconds is None:
                lines.append(f"    {row.name:<12} not run: {row.words}")
                continue
            low, middle, high = (1e3 * s for s in row.seconds)
            against = f"{base / row.seconds[1]:.1f}x" if base else ""
            wrong = "" if row.good else "   WRONG: float32 does not explain this error"
            times = f"{middle:9.3f} ms ({low:.3f} to {high:.3f})"
            lines.append(f"    {row.name:<12}{times:<36}{against:>8}   error {row.error:.0e}{wrong}")
    return "\n".join(lines)


__all__ = ["FORWARD", "LOOP", "TRAIN", "Row", "rows", "sizes_of", "stepped", "table"]
