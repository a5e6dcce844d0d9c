"""Whole cell layers beside torch.nn.LSTM and torch.nn.GRU: the input's projection is part of the work on both sides.

In: extents. Out: an entry. u[B, T, H, D] is projected by W[H, G D, D] to the gates of H independent heads with recurrent
matrices R[H, G D, D]. torch.nn knows no heads: H modules run one after the other. The truth is theirs in float64.
The projection stands outside of the spec, as a matrix product of torch, or inside, where the compiler takes it out again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.ceilings import Work, work
from benchmarks.contender import FORWARD, TRAIN, Absent, Contender, Results
from benchmarks.entry import Entry
from benchmarks.ours import calls, module_of
from benchmarks.tasks import Task, task
from seqc.diagnostics import Refusal
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted


@dataclass(frozen=True)
class Cell:
    """How torch.nn and the spec name the same cell."""

    module: type[torch.nn.LSTM] | type[torch.nn.GRU]
    gates: str


CELLS = {"lstm": Cell(torch.nn.LSTM, "ifzo"), "gru": Cell(torch.nn.GRU, "rzn")}


def entry(spec: str, given: Mapping[str, int] | None = None, quick: bool = False) -> Entry:
    """The layer of a cell."""
    core = task(spec, given, quick)
    cell = CELLS[spec]
    tensors, cotangents = draw(core, len(cell.gates))
    contenders: list[Contender | Absent] = [ours(core, cell, backend, tensors, cotangents) for backend in ("cpu", "torch")]
    contenders.insert(1, inside(core, cell, tensors, cotangents))
    contenders.append(theirs(cell, tensors, cotangents, torch.float32))
    truth = theirs(cell, tensors, cotangents, torch.float64)
    works = {part: with_projection(work(core, part), tensors, part) for part in (FORWARD, TRAIN)}
    return Entry(f"{spec} layer", core.sizes, contenders, truth, works)


def draw(core: Task, gates: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """u, W, R and the cotangent of h."""
    B, T, H, D = (core.sizes[name] for name in "BTHD")
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(B, T, H, D, generator=generator)
    W, R = (torch.randn(H, gates * D, D, generator=generator) / D**0.5 for _ in range(2))
    return {"u": u, "W": W, "R": R}, {"h": torch.randn(B, T, H, D, generator=generator)}


def ours(
    core: Task, cell: Cell, backend: str, tensors: dict[str, Tensor], cotangents: dict[str, Tensor]
) -> Contender | Absent:
    """The projection as a matrix product, then the emitted function."""
    try:
        function: Callable[..., Any] = getattr(module_of(core, backend), core.name)
    except Refusal as refusal:
        return Absent(f"seqc {backend}", "; ".join(d.message for d in refusal.diagnostics))
    given = {k: x.clone().requires_grad_() for k, x in tensors.items()}
    biases = {k: torch.zeros_like(x) for k, x in core.params.items() if k.startswith("b_")}

    def run(u: Tensor, W: Tensor, R: Tensor) -> Results:
        a = torch.einsum("bthj,hij->bthi", u, W).chunk(len(cell.gates), -1)
        inputs = {f"x_{gate}": x for gate, x in zip(cell.gates, a, strict=True)}
        matrices = {f"R_{gate}": x for gate, x in zip(cell.gates, R.chunk(len(cell.gates), 1), strict=True)}
        return {"h": function(**inputs, **matrices, **biases).h}

    return Contender(f"seqc {backend}", calls(run, given, cotangents))


def layer_text(core: Task) -> str:
    """The spec of the layer: that of the cell, with `W_i @ u` in the place of each input x_i."""
    text = core.program.source.replace(f"spec {core.name}\n", f"spec {core.name}_layer\n", 1)
    weights = ", ".join(f"W_{name[2:]}[H, D, D]" for name in core.program.inputs)
    head, given, rest = re.split(r"^(input .*\n)", text, maxsplit=1, flags=re.MULTILINE)
    assert all(name in given for name in core.program.inputs), given
    return f"{head}input u[H, D]\nparam {weights}\n" + re.sub(r"\bx_(\w)\b", r"W_\1 @ u", rest)


def inside(core: Task, cell: Cell, tensors: dict[str, Tensor], cotangents: dict[str, Tensor]) -> Contender | Absent:
    """The emitted function of the whole layer."""
    name = "seqc cpu, projection in the spec"
    try:
        made = compile_spec(layer_text(core), Options("cpu"))
    except Refusal as refusal:
        return Absent(name, "; ".join(d.message for d in refusal.diagnostics))
    function: Callable[..., Any] = getattr(load_emitted(made.text, made.signature.spec), made.signature.spec)
    given = {k: x.clone().requires_grad_() for k, x in tensors.items()}
    biases = {k: torch.zeros_like(x) for k, x in core.params.items() if k.startswith("b_")}

    def run(u: Tensor, W: Tensor, R: Tensor) -> Results:
        count = len(cell.gates)
        weights = {f"W_{gate}": x for gate, x in zip(cell.gates, W.chunk(count, 1), strict=True)}
        matrices = {f"R_{gate}": x for gate, x in zip(cell.gates, R.chunk(count, 1), strict=True)}
        return {"h": function(u=u, **weights, **matrices, **biases).h}

    return Contender(name, calls(run, given, cotangents))


def theirs(cell: Cell, tensors: dict[str, Tensor], cotangents: dict[str, Tensor], dtype: torch.dtype) -> Contender:
    """One module of torch.nn a head."""
    given = {k: x.to(dtype, copy=True).requires_grad_() for k, x in tensors.items()}
    _, _, H, D = given["u"].shape
    modules = [cell.module(D, D, batch_first=True, dtype=dtype) for _ in range(H)]
    with torch.no_grad():
        for h, module in enumerate(modules):
            module.weight_ih_l0.copy_(given["W"][h])
            module.weight_hh_l0.copy_(given["R"][h])
            module.bias_ih_l0.zero_()
            module.bias_hh_l0.zero_()
    u, cotangent = given["u"], cotangents["h"].to(dtype)
    weights = [x for m in modules for x in (m.weight_ih_l0, m.weight_hh_l0)]

    def run() -> Tensor:
        return torch.stack([module(u[:, :, h])[0] for h, module in enumerate(modules)], 2)

    def forward() -> Results:
        with torch.no_grad():
            return {"h": run()}

    def train() -> Results:
        du, *dw = torch.autograd.grad(run(), [u, *weights], cotangent)
        return {"u": du, "W": torch.stack(dw[::2]), "R": torch.stack(dw[1::2])}

    name = f"torch.nn.{cell.module.__name__}" + (f", {H} of them" if H > 1 else "")
    return Contender(name, {FORWARD: forward, TRAIN: train})


def with_projection(core: Work, tensors: Mapping[str, Tensor], part: str) -> Work:
    """The work of the cell, plus the projection's; what it gives needs no trip to memory, so bytes are those of u, h, W, R."""
    B, T = tensors["u"].shape[:2]
    times = 3 if part == TRAIN else 1
    rows = 4 * tensors["u"].numel()
    weights = 4 * (tensors["W"].numel() + tensors["R"].numel())
    return Work(core.flops + times * 2 * B * T * tensors["W"].numel(), times * weights + (5 if part == TRAIN else 2) * rows)
