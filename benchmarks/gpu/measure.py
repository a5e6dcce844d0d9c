"""Races on a GPU: alternating contenders, the second-level cache emptied before each call.

In: functions from named tensors to an output. Out: milliseconds by name, and errors against the step loop in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu.machine import Machine, milliseconds
from benchmarks.gpu.shapes import Grid, arguments, inputs, output

Function = Callable[[Mapping[str, Tensor]], Tensor]

CHECKED = 257  # steps that are compared: more than one chunk of anyone's
ROUNDINGS = 4  # of bf16 (2^-8 relative to the largest element) on the way through two matrix products and storage


def truth(module: ModuleType, spec: str, given: Mapping[str, Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    """The output and all gradients, by the emitted file's step function in a float64 loop."""
    exact = {k: x.detach().double().requires_grad_() for k, x in given.items()}
    timed = inputs(spec, exact)
    params = {k: x for k, x in exact.items() if k not in timed}
    step, name = getattr(module, f"{spec}_step"), output(spec)
    states: dict[str, Tensor] = {}
    rows = []
    for row in zip(*(x.unbind(1) for x in timed.values()), strict=True):
        result = step(**dict(zip(timed, row, strict=True)), **params, **states)._asdict()
        rows.append(result.pop(name))
        states = {k.removesuffix("_T") + "_0": x for k, x in result.items()}
    out = torch.stack(rows, 1)
    gradients = torch.autograd.grad(out, list(exact.values()), cotangent.double())
    return {"output": out.detach()} | dict(zip(exact, gradients, strict=True))


def errors(
    contenders: Mapping[str, Function], module: ModuleType, spec: str, grid: Grid, device: str,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, float]:
    """The worst relative error of each contender, of its output and all its gradients, on a short piece of the grid."""
    short = Grid(1, min(grid.T, CHECKED), grid.H, grid.D)
    given = arguments(spec, short, dtype, device)
    cotangent = None
    found = {}
    want: dict[str, Tensor] = {}
    for name, run in contenders.items():
        out = run(given)
        if cotangent is None:
            cotangent = torch.randn(out.shape, device=device, dtype=out.dtype, generator=torch.Generator(device).manual_seed(1))
            want = truth(module, spec, given, cotangent)
        gradients = torch.autograd.grad(out, list(given.values()), cotangent.to(out.dtype))
        got = {"output": out.detach()} | dict(zip(given, gradients, strict=True))
        found[name] = max(float((got[k].double() - x).abs().max() / x.abs().max().clamp_min(1e-30)) for k, x in want.items())
    return found


def race(
    contenders: Mapping[str, Function], given: Mapping[str, Tensor], backward: bool, rounds: int, machine: Machine
) -> dict[str, list[float]]:
    """Milliseconds per call by name and round."""
    calls = {name: call(run, given, backward) for name, run in contenders.items()}
    for run in calls.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for i in range(rounds):
        for name in order[i % len(order) :] + order[: i % len(order)]:
            times[name].append(milliseconds(machine, calls[name]))
    return times


def call(run: Function, given: Mapping[str, Tensor], backward: bool) -> Callable[[], object]:
    """A call without arguments; the cotangent is made once."""
    if not backward:
        return torch.no_grad()(lambda: run(given))
    with torch.no_grad():
        cotangent = torch.randn_like(run(given))
    leaves = list(given.values())
    return lambda: torch.autograd.grad(run(given), leaves, cotangent, allow_unused=True)


def emitted(module: ModuleType, spec: str) -> Function:
    """The emitted function, as the others are called."""
    function, name = getattr(module, spec), output(spec)
    return lambda x: getattr(function(**x), name)
