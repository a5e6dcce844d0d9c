"""The grids of the GPU benchmark, and inputs for them. In: a spec's name and a grid. Out: tensors by emitted name.

Nothing here knows seqc: the arguments of each emitted function are written out, with values in their declared ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STATE = 128  # N of mamba2
SLOTS = 64  # M of gsa
SLOW = 16.0  # log decays are divided by this


@dataclass(frozen=True)
class Grid:
    """Batch, steps, heads, and the size of a head's keys and values."""

    B: int
    T: int
    H: int
    D: int

    def __str__(self) -> str:
        return f"B{self.B} T{self.T} H{self.H} D{self.D}"


GRIDS = (
    Grid(1, 8192, 96, 128),
    Grid(2, 16384, 16, 128),
    Grid(4, 2048, 16, 128),
    Grid(8, 1024, 8, 64),
    Grid(8, 2048, 32, 256),
)
SPECS = (
    "linear_attention", "retention", "simple_gla", "gla", "delta_rule", "gated_delta_rule", "kda", "gsa", "mlstm",
    "mamba2", "hgrn", "mamba",
)  # fmt: skip
GATES = ("g", "beta", "i", "f")  # kept in float32


def dims(spec: str, grid: Grid) -> dict[str, int]:
    """The extents that the file of a spec is emitted for."""
    if spec == "mamba2":
        return {"G": 1, "P": grid.D, "N": STATE}
    slots = {"M": SLOTS} if spec == "gsa" else {}
    return {} if spec in ("hgrn", "mamba") else {"K": grid.D, "V": grid.D, **slots}


def file_name(spec: str, grid: Grid, rows: int | None = None) -> str:
    """`gla_d128.py`; of a variant with its own number of rows, `gla_d128_r64.py`."""
    return f"{spec}_d{grid.D}{'' if rows is None else f'_r{rows}'}.py"


def parsed(name: str) -> tuple[str, int]:
    """(spec, size of a head) of the file of that name."""
    spec, _, rest = name.removesuffix(".py").rpartition("_d")
    return spec, int(rest.partition("_")[0])


def arguments(spec: str, grid: Grid, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Inputs [B, T, ...] and parameters, with gradients; the same at every call."""
    generator = torch.Generator(device).manual_seed(0)
    B, T, H, D = grid.B, grid.T, grid.H, grid.D

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    if spec == "mamba":
        D, N = H * D, 16
        x = {"u": normal(B, T, D), "z": normal(B, T, D), "delta": normal(B, T, D) - 3}
        x |= {"Bt": normal(B, T, N), "Ct": normal(B, T, N)}
        rates = torch.log(1 + torch.arange(N, device=device, dtype=torch.float32)).expand(D, N)
        params = {"A_log": rates.contiguous(), "skip": torch.ones(D, device=device), "bias": torch.zeros(D, device=device)}
    elif spec == "hgrn":
        x, params = {"x": normal(B, T, H * D), "g": F.logsigmoid(normal(B, T, H * D))}, {}
    elif spec == "mamba2":
        x = {"x": normal(B, T, 1, H, D), "delta": normal(B, T, 1, H) - 3}
        x |= {"Bt": normal(B, T, 1, STATE), "Ct": normal(B, T, 1, STATE)}
        params = {"A_log": normal(1, H), "bias": torch.zeros(1, H, device=device), "skip": torch.ones(1, H, device=device)}
    else:
        x, params = {"q": normal(B, T, H, D), "k": normal(B, T, H, D), "v": normal(B, T, H, D)}, {}
        if spec in ("delta_rule", "gated_delta_rule", "kda"):
            x["k"] = F.normalize(x["k"], dim=-1)
            x["beta"] = torch.sigmoid(normal(B, T, H))
        if spec in ("gla", "kda"):
            x["g"] = F.logsigmoid(normal(B, T, H, D)) / SLOW
        if spec == "gsa":
            x["g"] = F.logsigmoid(normal(B, T, H, SLOTS)) / SLOW
            x["s"] = 1 - torch.exp(x["g"])
        if spec == "mlstm":
            x["i"], x["f"] = normal(B, T, H), normal(B, T, H) + 3
        if spec in ("simple_gla", "gated_delta_rule"):
            x["g"] = F.logsigmoid(normal(B, T, H)) / SLOW
    x = {name: t if name in GATES else t.to(dtype) for name, t in x.items()}
    return {name: t.requires_grad_() for name, t in {**x, **params}.items()}


def output(spec: str) -> str:
    """The name of the spec's output."""
    return "y" if spec in ("mamba", "mamba2") else "h" if spec == "mlstm" else "o"


def inputs(spec: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that have a time axis."""
    return {name: x for name, x in given.items() if name not in ("A_log", "bias", "skip")}
