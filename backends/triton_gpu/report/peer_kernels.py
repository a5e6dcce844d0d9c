"""Kernels of flash-linear-attention and mamba-ssm beside ours: their machine code, priced by the model that prices ours.

In: `peer_kernels.json`, which `python -m benchmarks.gpu.peer_code` writes. Out: `PeerCall`s. Nothing of it ran on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from seqc.backends.triton_gpu.tuning.multiprocessor import MEMORY, Code, Spent, spent
from seqc.backends.triton_gpu.tuning.pace import LAUNCH
from seqc.backends.triton_gpu.tuning.targets import Target

TABLE = Path(__file__).with_name("peer_kernels.json")
FLOAT32 = ("g",)
"""Inputs that these calls get in float32, beside others in bf16: log decays."""


@dataclass(frozen=True)
class PeerKernel:
    """One launch of a call, priced. data: its row of the table; torch's own kernels have no machine code there."""

    name: str
    backward: bool
    nanoseconds: float
    data: Mapping[str, Any]
    spent: Spent | None


@dataclass(frozen=True)
class PeerCall:
    """One system's call at a shape. saved: bytes kept for backward beside the inputs."""

    system: str
    saved: int
    kernels: tuple[PeerKernel, ...]

    def launches(self, backward: bool) -> int:
        """Of forward, or of forward and backward."""
        return sum(1 for _ in self.of(backward))

    def nanoseconds(self, backward: bool) -> float:
        """Modelled time with launches, of forward, or of forward and backward."""
        return sum(one.nanoseconds + LAUNCH for one in self.of(backward))

    def of(self, backward: bool) -> Iterable[PeerKernel]:
        """The kernels of forward, or of forward and backward."""
        return (one for one in self.kernels if backward or not one.backward)


@cache
def table() -> Mapping[str, Any]:
    """By target, spec and shape."""
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    return found


def peer_call(spec: str, shape: str, target: Target) -> PeerCall | None:
    """What is known of others' kernels for a spec's recurrence at a shape; None where nothing is."""
    row = table().get(f"{target.name} {spec} {shape}")
    if row is None:
        return None
    kernels = [_kernel(one, target) for one in row["kernels"]]
    for one in row["torch"]:
        took = one["bytes"] / (MEMORY * target.bytes_per_ns)
        kernels.append(PeerKernel(f"torch {one['op']}", one["pass"] == "backward", took, one, None))
    package = "mamba-ssm" if spec == "mamba2" else "flash-linear-attention"
    system = f"{package} {row['versions'][package]}, Triton {row['versions']['triton']}"
    return PeerCall(system, row["saved"], tuple(kernels))


def _kernel(row: Mapping[str, Any], target: Target) -> PeerKernel:
    work = {kind: (0.0, amount) for kind, amount in row["work"].items()}
    code = Code(row["registers"], row["shared"], row["warps"], work)
    took = spent(code, target, row["programs"], 0, row["bytes"])
    return PeerKernel(row["kernel"], row["pass"] == "backward", took.nanoseconds, row, took)
