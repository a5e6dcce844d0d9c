"""What is to be computed: a spec, extents, and one set of inputs that every contender gets.

The shapes: batch 2, 2048 steps; matrix states of 4 heads of 64 x 64; 1024 elements or channels; cells of 4 heads of 128.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqc.check.sampling import sample
from seqc.emit.names import safe_name
from seqc.frontend.elaborate import load
from seqc.ir.program import Program

SPECS = Path(__file__).resolve().parent.parent / "specs"
DEFAULT = ("linear_attention", "retention", "gla", "delta_rule", "gated_delta_rule", "hgrn", "mamba", "lstm", "gru", "lif",
           "garch")
SHAPE = {"B": 2, "T": 2048}
EXTENTS = {"H": 4, "K": 64, "V": 64, "M": 64, "P": 64, "N": 16, "G": 1}
QUICK = {"B": 2, "T": 48, "H": 2, "K": 8, "V": 8, "M": 8, "P": 8, "N": 4, "G": 1, "D": 16}


def corner(x: Tensor) -> Tensor:
    """1 at the first place of both axes, 0 elsewhere."""
    found = torch.zeros_like(x)
    found[:, 0, 0] = 1
    return found


GIVEN: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {  # arguments that no random numbers stand for
    "lfilter": {"a": lambda x: 0.4 * torch.tanh(x)},  # poles inside of the unit circle
    "rnnt": {"first": corner, "A_u_0": lambda x: torch.full_like(x, -torch.inf)},
}


@dataclass(frozen=True)
class Task:
    """A program with extents of all dims, "B" and "T". Tensors are float32, by emitted name."""

    program: Program
    sizes: Mapping[str, int]

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.program.name

    @cached_property
    def _sampled(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return sample(self.program, self.sizes, self.sizes["T"], seed=0)

    def _filled(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same, where arguments that no random numbers stand for are as in `GIVEN`."""
        return drawn | {name: fill(drawn[name]) for name, fill in GIVEN.get(self.name, {}).items() if name in drawn}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Inputs [B, T, dims], drawn within their ranges."""
        arrays, _ = self._sampled
        found = {safe_name(name): torch.tensor(arrays[name]).float() for name in self.program.inputs}
        return self._filled(found)

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """Parameters [dims]; matrices are scaled so that a nonlinear cell neither dies nor explodes."""
        arrays, _ = self._sampled
        out = {}
        for name, decl in self.program.params.items():
            matrix = any(d.endswith("'") for d in decl.dims)
            out[safe_name(name)] = torch.tensor(arrays[name]).float() / (arrays[name].shape[-1] ** 0.5 if matrix else 1)
        return self._filled(out)

    @cached_property
    def cotangents(self) -> dict[str, Tensor]:
        """Cotangents [B, T, dims] of the outputs; none on final states."""
        _, arrays = self._sampled
        return {safe_name(name): torch.tensor(arrays[name]).float() for name in self.program.output_decls}

    @property
    def zeros(self) -> dict[str, Tensor]:
        """Initial states by emitted NAME_0, as the spec has them where that is a number."""
        from seqc.semantics.reference import initial_states

        arrays = {**{k: x.numpy() for k, x in zip(self.program.params, self.params.values(), strict=True)}}
        states = initial_states(self.program, arrays, dict(self.sizes))
        return {f"{safe_name(name)}_0": torch.tensor(x).float() for name, x in states.items()}


def path_of(spec: str) -> Path:
    """A spec by name or path."""
    if spec.endswith(".seq"):
        return Path(spec)
    return next(SPECS.rglob(f"{spec}.seq"), SPECS / f"{spec}.seq")


def every() -> list[str]:
    """The names of all specs."""
    return sorted(path.stem for path in SPECS.rglob("*.seq"))


def task(spec: str, given: Mapping[str, int] | None = None, quick: bool = False) -> Task:
    """The task of a spec. given: extents that replace the usual ones, "B" and "T" too."""
    program = load(path_of(spec))
    square = any(d.endswith("'") for p in program.params.values() for d in p.dims)
    usual = QUICK if quick else {**SHAPE, **EXTENTS, "D": (128 if "H" in program.dims else 512) if square else 1024}
    sizes = {name: usual[name] for name in ("B", "T")}
    for name, decl in program.dims.items():
        sizes[name] = decl.default or (min(decl.choices) if decl.choices else usual.get(name, 16))
    return Task(program, {**sizes, **{k: n for k, n in (given or {}).items() if k in sizes}})
