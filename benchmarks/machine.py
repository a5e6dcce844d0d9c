"""What the figures were taken on. Out: plain data for the report."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "jax", "jaxlib", "mambapy", "accelerated-scan", "numpy")


def machine() -> dict[str, object]:
    """CPU model, cores, threads, vector instructions that torch uses, versions, date, and what else ran.

    load: mean number of processes that wanted to run in the minute before; above 0 the machine was not idle.
    """
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "compiler": compiler(),
        "load": round(os.getloadavg()[0], 2),
        "packages": {name: installed(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def cpu() -> str:
    """The CPU's own name, with family and model where the name is short."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    return f"{facts.get('model name', 'unknown')} (family {facts.get('cpu family')}, model {facts.get('model')})"


def compiler() -> str:
    """The first line that the system's C++ compiler says of itself."""
    path = shutil.which("c++")
    if path is None:
        return "none"
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def installed(name: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pin(threads: int) -> None:
    """Everyone gets the same cores: this process runs on the first `threads` of those that it may use."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    torch.set_num_threads(threads)
