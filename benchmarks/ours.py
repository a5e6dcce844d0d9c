"""The eager step loop, and the forms that seqc emits. In: a task. Out: contenders.

The loop is what the step graph says, one step after the other under autograd: `_step` of the emitted file in a Python
loop, without the checks of the public function. In float64 it is the truth that all others are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import DECODE, FORWARD, TRAIN, Absent, Call, Contender, Results
from benchmarks.tasks import Task, path_of
from seqc.check.races import stepped
from seqc.diagnostics import Refusal
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted

UNROLLED = 16  # steps in one compiled piece of the loop


@cache
def compiled(path: Path, backend: str) -> Compiled:
    """The emitted file of a spec."""
    return compile_spec(path, Options(backend))


def module_of(task: Task, backend: str) -> ModuleType:
    """The emitted module of a task's spec."""
    made = compiled(path_of(task.name), backend)
    return load_emitted(made.text, made.signature.spec)


def leaves(task: Task, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Fresh copies of inputs and parameters, which ask for gradients."""
    return {k: x.to(dtype, copy=True).requires_grad_() for k, x in {**task.inputs, **task.params}.items()}


def calls(run: Callable[..., Results], given: dict[str, Tensor], cotangents: dict[str, Tensor]) -> dict[str, Call]:
    """The parts "forward" and "forward+backward" of a torch function of named tensors."""

    def forward() -> Results:
        with torch.no_grad():
            return run(**given)

    def train() -> Results:
        results = run(**given)
        outputs = [results[name] for name in cotangents]
        moved, weights = list(given.values()), list(cotangents.values())
        return dict(zip(given, torch.autograd.grad(outputs, moved, weights, materialize_grads=True), strict=True))

    return {FORWARD: forward, TRAIN: train}


def emitted(task: Task, backend: str, dtype: torch.dtype = torch.float32) -> Contender | Absent:
    """What seqc emits for one backend, "torch" or "cpu"."""
    name = f"seqc {backend}"
    try:
        module = module_of(task, backend)
    except Refusal as refusal:
        return Absent(name, "; ".join(d.message for d in refusal.diagnostics))
    if backend == "cpu" and module._native_compiler() is None:
        return Absent(name, "no C++ compiler was found")
    spec = compiled(path_of(task.name), backend).signature.spec
    function, step = getattr(module, spec), getattr(module, f"{spec}_step")
    given = leaves(task, dtype)
    token = {k: given[k].detach()[:, 0].contiguous() for k in task.inputs}
    rest = {k: given[k].detach() for k in task.params} | {k: x.to(dtype) for k, x in task.zeros.items()}
    cotangents = {k: x.to(dtype) for k, x in task.cotangents.items()}

    def run(**tensors: Tensor) -> Results:
        results = function(**tensors)
        return {k: getattr(results, k) for k in task.cotangents}

    @torch.no_grad()
    def decode() -> Results:
        results = step(**token, **rest)
        return {k: getattr(results, k) for k in task.cotangents}

    return Contender(name, {**calls(run, given, cotangents), DECODE: decode})


def loop(task: Task, dtype: torch.dtype = torch.float32) -> Contender:
    """The eager step loop."""
    step = module_of(task, "torch")._step_torch
    return _loop(task, "eager loop", dtype, partial(stepped, step), 1)


def truth(task: Task, by_loop: bool) -> Contender:
    """The same work in float64: by the loop, or by the plain torch form where the loop would take too long."""
    if by_loop:
        return loop(task, torch.float64)
    made = emitted(task, "torch", torch.float64)
    assert isinstance(made, Contender)
    return made


def compiled_loop(task: Task) -> Contender:
    """The same loop in pieces of some steps, each compiled by torch.compile."""
    step = module_of(task, "torch")._step_torch
    piece = torch.compile(partial(stepped, step), dynamic=False)
    return _loop(task, f"torch.compile, {UNROLLED} steps", torch.float32, piece, UNROLLED)


def _loop(task: Task, name: str, dtype: torch.dtype, piece: Callable[..., Any], size: int) -> Contender:
    given = leaves(task, dtype)
    starts = [x.to(dtype) for x in task.zeros.values()]
    cotangents = {k: x.to(dtype) for k, x in task.cotangents.items()}

    def run(**tensors: Tensor) -> Results:
        params = [tensors[k] for k in task.params]
        rows = list(map(list, zip(*(tensors[k].unbind(1) for k in task.inputs), strict=True)))
        order = rows if task.program.direction == "forward" else rows[::-1]
        made: list[Any] = []
        states = starts
        for start in range(0, len(rows), size):
            more, states = piece(order[start : start + size], params, states)
            made += more
        made = made if task.program.direction == "forward" else made[::-1]
        return {k: torch.stack(column, 1) for k, column in zip(cotangents, zip(*made, strict=True), strict=True)}

    @torch.no_grad()
    def decode() -> Results:
        params = [given[k] for k in task.params]
        made, _ = piece([[given[k][:, 0] for k in task.inputs]], params, starts)
        return dict(zip(cotangents, made[0], strict=True))

    parts = calls(run, given, cotangents)
    return Contender(name, {**parts, DECODE: decode} if size == 1 else parts)
