"""Program -> the text of the emitted file: lowered once per backend, for what suits one need not suit another.

In: a program and options. Out: `Compiled`, the text and the block behind each of its parts. It loads nothing that runs:
torch, Triton and a C++ compiler are needed by who uses the file, not by who writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from seqc.block import Block
from seqc.build import load
from seqc.describe import signature
from seqc.diagnostics import Diagnostic, Unsupported, near_miss
from seqc.driver import Watch, blamed, fix_dims, lower
from seqc.emit import Kernels, Signature, emit
from seqc.passes.blocks.choose import EAGER
from seqc.program import Program

BACKENDS = ("auto", "torch")


@dataclass(frozen=True)
class Options:
    """What a caller may wish; None leaves a choice to the compiler. dims: extents that are fixed at compile time."""

    backend: str = "auto"
    target: str = "sm_90"
    dims: Mapping[str, int] = field(default_factory=dict)
    form: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Compiled:
    """An emitted file: its text, its signature, and the block behind each part ("torch", "triton", "cpu")."""

    program: Program
    options: Options
    text: str
    signature: Signature
    blocks: Mapping[str, Block]

    @property
    def block(self) -> Block:
        """The block of the fastest part."""
        return self.blocks[max(self.blocks, key=("torch", "cpu", "triton").index)]


def compile_spec(path_or_text: str | Path, options: Options = Options(), watch: Watch | None = None) -> Compiled:
    """The emitted file of a spec. Raises SpecError and Unsupported."""
    return compile_program(load(path_or_text), options, watch)


def compile_program(program: Program, options: Options = Options(), watch: Watch | None = None) -> Compiled:
    """The emitted file of a program. watch: sees each stage on the way to the part that the backend is named for."""
    if options.backend not in BACKENDS:
        help = near_miss(options.backend, BACKENDS) or f"one of {', '.join(BACKENDS)}"
        message = f"there is no backend `{options.backend}`"
        raise Unsupported(Diagnostic("no-such-backend", message, help=help, kind="unsupported"))
    program = fix_dims(program, options.dims)
    blocks: dict[str, Block] = {}
    kernels: dict[str, Kernels] = {}
    from seqc.backends import torch_eager

    blocks["torch"] = lower(program, options.form, options.rows, EAGER, watch)
    with blamed("the torch backend"):
        kernels["torch"] = torch_eager.emit(blocks["torch"])
    sig = signature(blocks["torch"], kernels, header(program, options))
    return Compiled(program, options, emit(sig), sig, blocks)


def header(program: Program, options: Options) -> str:
    """The words of the comment line at the top of the file."""
    sizes = "".join(f", {name} = {size}" for name, size in sorted(options.dims.items()))
    return f"Made by seqc from the spec `{program.name}`{sizes}. Edit the spec, not this file."
