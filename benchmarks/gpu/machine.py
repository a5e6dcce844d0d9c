"""Where kernels run: a CUDA device, or a stand-in without one, so that all that runs there can be tried anywhere.

In: emitted modules and calls. Out: milliseconds of calls and of single launches. `Cuda` takes times with events. `Stub` runs
the same kernels in Triton's interpreter on the CPU: its results are real, its times are those of the interpreter.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from benchmarks.gpu.shapes import Grid

Call = Callable[[], object]
POISONED = 8 << 30  # bytes of free memory that are filled, at most


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: how many programs it had, and what it took."""

    kernel: str
    programs: int
    milliseconds: float


class Machine(Protocol):
    """What a campaign asks of a device."""

    device: str
    dtype: torch.dtype
    """Of inputs, in what is timed."""
    dtypes: tuple[torch.dtype, ...]
    """Of inputs, in what is compared."""
    units: int
    """Multiprocessors."""
    lengths: tuple[int, ...]
    """Steps of a sequence for which results are compared."""
    calls: int
    """How often a call is repeated where its results must be the same bits."""
    timed: int
    """In how many calls a kernel is timed."""

    def facts(self) -> dict[str, object]:
        """What figures are taken on."""

    def choose(self, module: ModuleType) -> None:
        """Make an emitted file run its Triton kernels here."""

    def grid(self, grid: Grid) -> Grid:
        """The grid that is timed for one of the benchmark's."""

    def mark(self) -> Any:
        """A point in time, in the order of launches."""

    def between(self, begin: Any, end: Any) -> float:
        """Milliseconds between two points in time that are over."""

    def wait(self) -> None:
        """Until all launches are done."""

    def cool(self) -> None:
        """Empty the second-level cache."""

    def poison(self) -> None:
        """Fill free memory with numbers that are none, so that what is read before it is written shows."""


class Cuda:
    """The first CUDA device."""

    device = "cuda"
    dtype = torch.bfloat16
    dtypes = (torch.bfloat16, torch.float32)
    lengths = (1, 2, 15, 16, 17, 63, 64, 65, 257)
    calls = 50
    timed = 10

    def __init__(self) -> None:
        self.units = torch.cuda.get_device_properties(0).multi_processor_count
        self.cache = torch.empty(1 << 26, dtype=torch.float32, device="cuda")  # more than any second-level cache holds

    def facts(self) -> dict[str, object]:
        """What figures are taken on."""
        import triton

        capability, units = list(torch.cuda.get_device_capability()), self.units
        return {
            "gpu": torch.cuda.get_device_name(), "capability": capability, "multiprocessors": units,
            "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
            "date": date.today().isoformat(),
        }  # fmt: skip

    def choose(self, module: ModuleType) -> None:
        """CUDA tensors choose them; Triton is imported at once, so that launches can be watched."""
        module._load_triton()

    def grid(self, grid: Grid) -> Grid:
        """As it is."""
        return grid

    def mark(self) -> Any:
        """An event of the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        """By the device's clock."""
        return float(begin.elapsed_time(end))

    def wait(self) -> None:
        """Until the device is idle."""
        torch.cuda.synchronize()

    def cool(self) -> None:
        """Write more than it holds."""
        self.cache.zero_()

    def poison(self) -> None:
        """Half of the free memory, which goes back to the allocator."""
        free = torch.cuda.mem_get_info()[0]
        torch.full((min(free // 2, POISONED) // 4,), float("nan"), device="cuda")


class Stub:
    """No device: Triton's interpreter, on the CPU. It must be chosen before Triton is imported. Grids are small ones."""

    device = "cpu"
    dtype = torch.float32  # the interpreter multiplies bfloat16 wrongly
    dtypes = (torch.float32,)
    units = 4
    lengths = (1, 17)
    calls = 1
    timed = 1

    def __init__(self) -> None:
        os.environ["TRITON_INTERPRET"] = "1"

    def facts(self) -> dict[str, object]:
        """That these are no figures of a device."""
        import triton

        found = {"gpu": "none: Triton's interpreter", "capability": [0, 0], "multiprocessors": self.units}
        return {**found, "torch": torch.__version__, "triton": triton.__version__, "date": date.today().isoformat()}

    def choose(self, module: ModuleType) -> None:
        """By hand: nothing of a CPU tensor asks for Triton."""
        module._load_triton()

        def form(*tensors: torch.Tensor, **asked: object) -> object:
            return module._TORCH if tensors[0].dtype == torch.float64 else module._TRITON

        vars(module).update(_form=form, _form_alone=form)

    def grid(self, grid: Grid) -> Grid:
        """One sequence and one head of two blocks."""
        return Grid(1, 33, 1, grid.D)

    def mark(self) -> Any:
        """Of this process's clock."""
        return time.perf_counter()

    def between(self, begin: Any, end: Any) -> float:
        """Of the interpreter."""
        return float(1000 * (end - begin))

    def wait(self) -> None:
        """Nothing runs in the background."""

    def cool(self) -> None:
        """There is no cache of a device."""

    def poison(self) -> None:
        """A few pages."""
        torch.full((1 << 16,), float("nan"))


def called(kernel: str, save: bool, outputs: bool) -> str:
    """What a launch of a kernel is called, by the switches of its text: its tiles and its work depend on them."""
    own = "forward" if save and outputs else "infer" if outputs else "states"
    return kernel.removesuffix("_forward_kernel") + f"_{own}_kernel" if kernel.endswith("_forward_kernel") else kernel


class _Watched:
    """A kernel whose launches are noted: `kernel[grid](..)`."""

    def __init__(self, kernel: Any, name: str, machine: Machine, found: list[tuple[str, int, Any, Any]]) -> None:
        self.kernel, self.name, self.machine, self.found = kernel, name, machine, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        run = self.kernel[grid]

        def launch(*arguments: object, **more: object) -> object:
            begin = self.machine.mark()
            result = run(*arguments, **more)
            name = called(self.name, bool(more.get("SAVE", True)), bool(more.get("OUTPUTS", True)))
            self.found.append((name, prod(grid), begin, self.machine.mark()))
            return result

        return launch


@contextmanager
def watched(module: ModuleType, machine: Machine) -> Iterator[Callable[[], list[Launch]]]:
    """Within it, launches of an emitted module's kernels are noted; what it gives returns those since it was asked last."""
    kernels = {name: x for name, x in vars(module).items() if name.endswith("_kernel")}
    found: list[tuple[str, int, Any, Any]] = []

    def launches() -> list[Launch]:
        machine.wait()
        seen = [Launch(name, programs, machine.between(begin, end)) for name, programs, begin, end in found]
        found.clear()
        return seen

    vars(module).update({name: _Watched(x, name, machine, found) for name, x in kernels.items()})
    try:
        yield launches
    finally:
        vars(module).update(kernels)


def milliseconds(machine: Machine, call: Call) -> float:
    """What one call takes from a cold second-level cache."""
    machine.cool()
    begin = machine.mark()
    call()
    end = machine.mark()
    machine.wait()
    return machine.between(begin, end)


def loaded(path: Path) -> ModuleType:
    """An emitted file as a module."""
    found = spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = sys.modules[path.stem] = module_from_spec(found)
    found.loader.exec_module(module)
    return module
