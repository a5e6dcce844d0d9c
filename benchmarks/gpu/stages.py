"""What a campaign does with one emitted file, stage by stage: compile, compare, repeat, capture, time.

In: a loaded emitted file, its spec and size, a machine. Out: facts for rows of the results. Results are compared with the
file's own plain torch form in float64 on the same device, which takes another path from the first line on: step by step or
in blocks, without one line of Triton.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.machine import Cuda, Machine, milliseconds, watched
from benchmarks.gpu.shapes import Grid, arguments
from benchmarks.timing import quartiles

Facts = dict[str, object]
CASES = ("plain", "states", "reverse", "hard", "pack")
WARM = 1  # calls before those that are timed: all is compiled by then
ALLOWED = {torch.bfloat16: 4 * 2.0**-8, torch.float32: 2.0**-13}
"""Of the largest element. bfloat16: four roundings of 2^-8 on the way through two products and storage. float32: sums of
exponents over 257 steps lose 8 of 24 bits, products of three tf32 parts three more."""


def tensors(module: ModuleType, spec: str, D: int, steps: int, case: str, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """The arguments of a call by name, and its keywords. hard: gates that close, repeated keys, rates at the end of their
    range; states: given, and their gradients wanted; pack: three sequences in one row, one of them empty."""
    given: dict[str, Any] = dict(arguments(spec, Grid(1 if case == "pack" else 2, steps, 2, D), dtype, device))
    if dtype == torch.float32:
        given = {k: x.detach().float().requires_grad_() for k, x in given.items()}
    if case == "hard":
        with torch.no_grad():
            for name in ("g", "f"):
                if name in given:
                    given[name][:, ::7] = -torch.inf if name == "g" else -40.0
            if "beta" in given:
                given["beta"].fill_(2.0)
                given["k"].copy_(given["k"][:, :1].expand_as(given["k"]))
    if case == "states":
        sizes = {a: n for k, x in given.items() for a, n in zip(module._AXES[k].split(), x.shape, strict=True)}
        generator = torch.Generator(device).manual_seed(2)
        for name, axes in module._AXES.items():
            if name.endswith("_0") and name not in given:
                shape = [sizes[a] for a in axes.split()]
                given[name] = torch.randn(shape, generator=generator, device=device).requires_grad_()
    if case == "reverse":
        given["reverse"] = True
    if case == "pack":
        given["cu_seqlens"] = torch.tensor([0, steps // 3, steps // 3, steps], device=device)
    return given


def results(module: ModuleType, spec: str, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Outputs, final states and gradients of all floating arguments, for fixed cotangents."""
    leaves = {k: x for k, x in given.items() if isinstance(x, Tensor) and x.is_floating_point()}
    made = getattr(module, spec)(**given)._asdict()
    generator = torch.Generator(next(iter(leaves.values())).device).manual_seed(1)
    cotangents = [torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype) for x in made.values()]
    gradients = torch.autograd.grad(list(made.values()), list(leaves.values()), cotangents)
    return {k: x.detach() for k, x in made.items()} | {f"d_{k}": x for k, x in zip(leaves, gradients, strict=True)}


def worst(module: ModuleType, spec: str, given: Mapping[str, Any]) -> tuple[float, str]:
    """(the largest relative error of any result, its name), against float64."""
    exact = dict(given)
    for name, x in given.items():
        if isinstance(x, Tensor) and x.is_floating_point():
            exact[name] = x.detach().double().requires_grad_()
    want, got = results(module, spec, exact), results(module, spec, given)
    errors = {}
    for name, x in want.items():
        far = float((got[name].double() - x).abs().max() / x.abs().max().clamp_min(1e-30)) if x.numel() else 0.0
        errors[name] = far if far == far else float("inf")  # what is no number on one side only
    name = max(errors, key=lambda one: errors[one])
    return errors[name], name


def ways(path: Path) -> dict[int, str]:
    """The ways in which a file can do its work, by number."""
    several = "def _way(" in path.read_text(encoding="utf-8")
    return {0: "one walk", **({1: "states first"} if several else {})}


def taking(module: ModuleType, way: int) -> Callable[[], None]:
    """Make the file take a way, the last one where a function has fewer; what it gives undoes that."""
    own = getattr(module, "_way", None)
    if own is None:  # it has one
        return lambda: None
    module._way = lambda x, blocks, *ways: min(way, len(ways) - 1)
    return lambda: setattr(module, "_way", own)


def warm(path: Path, stub: bool) -> Facts:
    """Compile all kernels of a file in a process of its own."""
    done = _small(path, stub, ())
    return {} if done.returncode == 0 else {"failed": done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]}


def sanitized(path: Path, stub: bool, tool: str) -> Facts:
    """One small call under compute-sanitizer."""
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if found is None or stub:
        return {"absent": "compute-sanitizer is not installed" if not stub else "there is no device"}
    done = _small(path, stub, (found, "--tool", tool, "--error-exitcode", "9"))
    return {"clean": True} if done.returncode == 0 else {"failed": done.stdout.strip().splitlines()[-5:]}


def _small(path: Path, stub: bool, before: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "benchmarks.gpu.small", str(path), *(["--stub"] if stub else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def numerics(module: ModuleType, spec: str, D: int, case: str, dtype: torch.dtype, machine: Machine) -> Facts:
    """The worst error over the lengths, in every way."""
    found = []
    for way, words in ways(Path(str(module.__file__))).items():
        undo = taking(module, way)
        for steps in machine.lengths:
            machine.poison()
            error, name = worst(module, spec, tensors(module, spec, D, steps, case, dtype, machine.device))
            found.append((error, f"{name}, {steps} steps, {words}"))
        undo()
    error, where = max(found)
    allowed = ALLOWED[dtype]
    return {"error": error, "allowed": allowed, "where": where, **({} if error <= allowed else {"failed": where})}


def repeated(module: ModuleType, spec: str, D: int, machine: Machine) -> Facts:
    """Whether many calls give the same bits, whatever free memory holds."""
    given = tensors(module, spec, D, machine.lengths[-1], "plain", machine.dtype, machine.device)
    first = results(module, spec, given)
    for i in range(machine.calls):
        machine.poison()
        again = results(module, spec, given)
        other = [k for k, x in first.items() if not torch.equal(x.view(torch.uint8), again[k].view(torch.uint8))]
        if other:
            return {"failed": f"call {i + 2}: other bits in {', '.join(other)}"}
    return {"calls": machine.calls + 1}


def captured(module: ModuleType, spec: str, D: int, machine: Machine) -> Facts:
    """Whether a CUDA graph of a call, replayed on new values, gives what the call gives."""
    if not isinstance(machine, Cuda):
        return {"absent": "there is no device"}
    given = tensors(module, spec, D, machine.lengths[-1], "plain", machine.dtype, machine.device)
    given = {k: x.detach() for k, x in given.items()}
    run = getattr(module, spec)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run(**given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            held = run(**given)
        for x in given.values():
            x.mul_(0.5)
        graph.replay()
        want = run(**given)
    same = all(torch.equal(a, b) for a, b in zip(held, want, strict=True))
    return {"same": same} if same else {"failed": "the replayed graph gives something else"}


def kernel_times(module: ModuleType, spec: str, D: int, grid: Grid, way: int, machine: Machine) -> Facts:
    """By kernel: programs, launches a call, and quartiles of milliseconds a launch, of a call with gradients."""
    given = arguments(spec, grid, machine.dtype, machine.device)
    undo = taking(module, way)
    try:
        with watched(module, machine) as launches:
            seen: dict[str, list[Any]] = {}
            for i in range(machine.timed + WARM):
                machine.cool()
                made = getattr(module, spec)(**given)
                torch.autograd.grad(list(made), list(given.values()), [torch.ones_like(x) for x in made])
                with torch.no_grad():
                    getattr(module, spec)(**given)
                for one in launches() if i >= WARM else launches()[:0]:
                    seen.setdefault(one.kernel, []).append(one)
    finally:
        undo()
    times = {}
    for name, ones in seen.items():
        taken = quartiles([x.milliseconds for x in ones])
        times[name] = {"programs": ones[0].programs, "launches": len(ones) / machine.timed, "milliseconds": taken}
    return {"steps": grid.T, "units": machine.units, "kernels": times}


def decoded(module: ModuleType, spec: str, D: int, grid: Grid, machine: Machine) -> Facts:
    """Quartiles of milliseconds of one step of a batch."""
    given = arguments(spec, grid, machine.dtype, machine.device)
    one = {k: x[:, 0].detach() if "T" in module._AXES[k].split() else x.detach() for k, x in given.items()}
    step = getattr(module, f"{spec}_step")
    with torch.no_grad():
        times = [milliseconds(machine, lambda: step(**one)) for _ in range(machine.timed + WARM)][WARM:]
    return {"milliseconds": quartiles(times)}
