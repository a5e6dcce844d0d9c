"""Scans of elementwise linear recurrences in plain torch, from other packages. In: a task. Out: a contender.

mambapy's `pscan` (Blelloch's scan with its own backward) takes [B, T, D, N]; the reference of accelerated-scan (a scan
over a tree, differentiated by autograd) takes [B, C, T]. What comes before and after the scan is plain torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contender import Contender, Results
from benchmarks.ours import calls, leaves
from benchmarks.tasks import Task

Scan = Callable[[Tensor, Tensor], Tensor]

SERVED = {"mambapy": ("hgrn", "mamba"), "accelerated_scan": ("hgrn", "mamba")}


def mambapy(task: Task) -> Contender:
    """mambapy's parallel scan."""
    from mambapy.pscan import pscan

    def scan(a: Tensor, b: Tensor) -> Tensor:
        return pscan(a, b) if a.dim() == 4 else pscan(a[..., None], b[..., None])[..., 0]

    return contender(task, "mambapy pscan", scan)


def accelerated(task: Task) -> Contender:
    """accelerated-scan's reference for CPUs."""
    from accelerated_scan.ref import scan as reference

    def scan(a: Tensor, b: Tensor) -> Tensor:
        flat = (x.flatten(2).transpose(1, 2).contiguous() for x in (a, b))
        return reference(*flat).transpose(1, 2).reshape(a.shape)

    return contender(task, "accelerated-scan ref", scan)


def contender(task: Task, name: str, scan: Scan) -> Contender:
    """The task around a scan of h_t = a_t h_{t-1} + b_t from zero."""
    run = {"hgrn": _hgrn, "mamba": _mamba}[task.name]
    return Contender(name, calls(lambda **x: run(scan, **x), leaves(task), task.cotangents))


def _hgrn(scan: Scan, x: Tensor, g: Tensor) -> Results:
    return {"o": scan(torch.exp(g), x)}


def _mamba(
    scan: Scan, u: Tensor, z: Tensor, delta: Tensor, Bt: Tensor, Ct: Tensor, A_log: Tensor, skip: Tensor, bias: Tensor
) -> Results:
    dt = F.softplus(delta + bias)
    h = scan(torch.exp(-dt[..., None] * torch.exp(A_log)), (dt * u)[..., None] * Bt[:, :, None, :])
    y = (h @ Ct[..., None])[..., 0] + skip * u
    return {"y": y * F.silu(z)}
