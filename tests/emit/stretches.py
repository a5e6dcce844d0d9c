"""What each process of `test_context_parallel.py` does: the same calls over its own steps, written to a file.

In: `python -m tests.emit.stretches FOLDER RANK WORLD`. Out: FOLDER/RANK.pt: of each case the results and gradients.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import seqc

SPECS = {
    "gates": """spec gates
dim H, K, V
input q[H, K], k[H, K], v[H, V], g[H, K] in [-inf, 0]
state S[H, K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
""",
    "delta": """spec delta
dim H, K, V
input q[H, K], k[H, K], v[H, V], beta[H]
state S[H, K, V] = 0
S = S[t-1] + beta * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S)
""",
    "lags": """spec lags
dim D, L = 3
input x[D], m
param a[L, D], w[D]
state y[D] lag 2 = 0.5, c[D] = w
y = 0.4 * y[t-1] - 0.3 * y[t-2] + sum[L](a * x[t + 1 - index[L]]) + 0.1 * c[t-1]
c = where(m > 0, 0, 0.9 * c[t-1] + w)
output y, e = c
""",
    "dense": """spec dense
dim N
scan backward
input u
param A[N, N], b[N]
state h[N] = 0
h = A @ h[t-1] + b * u
output h
""",
}
SIZES = {"H": 2, "K": 3, "V": 2, "D": 3, "N": 3, "L": 3}
STEPS = {2: (7, 5), 4: (4, 1, 0, 7)}
BOUNDS = [0, 2, 8, 8, 11]
CASES = [(name, packed, reverse) for name in SPECS for packed in (False, True) for reverse in (False, True)]


def arguments(f: Any, name: str, packed: bool) -> dict[str, torch.Tensor]:
    """Of the whole run."""
    make = torch.Generator().manual_seed(len(name))
    given = {}
    for argument, axes in f.module._AXES.items():
        batch = (4 if "T" not in axes else 1) if packed else 2
        shape = [12 if d == "T" else batch if d == "B" else SIZES[d.rstrip("'")] for d in axes.split()]
        x = torch.randn(shape, generator=make, dtype=torch.float64) * 0.4
        given[argument] = (-x.abs() if argument == "g" else x).requires_grad_()
    if name == "lags":  # one that nobody gives
        del given["c_0"]
    return given


def weights(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """A cotangent of a result of the whole run."""
    return torch.cos(torch.arange(shape.numel(), dtype=dtype)).view(shape)


def main(folder: Path, rank: int, world: int) -> None:
    """One process."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    found = {}
    low = sum(STEPS[world][:rank])
    own = slice(low, low + STEPS[world][rank])
    compiled = {name: seqc.compile(text, "torch") for name, text in SPECS.items()}
    for case in CASES:
        name, packed, reverse = case
        f = compiled[name]
        given = arguments(f, name, packed)
        timed = [n for n, axes in f.module._AXES.items() if "T" in axes]
        local = {n: x.detach()[:, own].requires_grad_() if n in timed else x for n, x in given.items()}
        how = {"cu_seqlens": torch.tensor(BOUNDS)} if packed else {}
        r = f.context_parallel()(**local, **how, reverse=reverse)
        outputs = [n for n in r._fields if not n.endswith("_T")]
        last = world - 1 if (name == "dense") is reverse else 0  # the process with the last steps of the recurrence
        loss = torch.zeros((), dtype=torch.float64)
        for n in outputs:
            shape = torch.Size((r._asdict()[n].shape[0], 12, *r._asdict()[n].shape[2:]))
            loss = loss + (getattr(r, n) * weights(shape, torch.float64)[:, own]).sum()
        for n in set(r._fields) - set(outputs):
            x = getattr(r, n)
            loss = loss + (x * weights(x.shape, x.dtype)).sum() * (rank == last)
        slopes = torch.autograd.grad(loss, list(local.values()), allow_unused=True)
        values = {n: x.detach() for n, x in r._asdict().items()}
        found[case] = values, {n: d for n, d in zip(local, slopes, strict=True) if d is not None}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
