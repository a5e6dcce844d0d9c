"""Program -> the text of the emitted file: lowered once per backend, for what suits one need not suit another.

In: a program and options. Out: `Compiled`, the text and the block behind each of its parts. It loads nothing that runs:
torch, Triton and a C++ compiler are needed by who uses the file, not by who writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqc.analysis.matrices import MOST, counted, small
from seqc.backends.triton_gpu.tuning.targets import TARGETS
from seqc.diagnostics import Diagnostic, Label, SeqcBug, Unsupported, near_miss
from seqc.driver.compose import compose
from seqc.driver.compose_inside import compose_inside
from seqc.driver.compose_once import compose_once
from seqc.driver.compose_runs import compose_runs
from seqc.driver.compose_tables import compose_tables
from seqc.driver.compose_waves import compose_waves
from seqc.driver.in_pieces import in_pieces
from seqc.driver.options import DEFAULTS, Options
from seqc.driver.pipeline import Watch, blamed, fix_dims, lower, lowerings
from seqc.driver.signature_of import closed_loop, signature
from seqc.emit import Kernels, Signature, emit
from seqc.frontend.elaborate import load
from seqc.ir.block import Block
from seqc.ir.both_ways import one_run
from seqc.ir.graph import topological
from seqc.ir.inside import exposed
from seqc.ir.ops.dense import SYSTEMS
from seqc.ir.outside import Outside
from seqc.ir.program import Program
from seqc.ir.two_axes import lowered
from seqc.passes.blocks.choose import EAGER
from seqc.passes.plan.chosen_rows import chosen_rows, numbered
from seqc.passes.plan.outside_of_time import outside_of_time
from seqc.passes.plan.products_outside import Split, split_parallel
from seqc.passes.plan.tables import Tables, tables_of

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.report.figures import Chosen

__all__ = ["BACKENDS", "Compiled", "Options", "compile_program", "compile_spec", "header", "parallel_blocks"]

BACKENDS = ("auto", "triton", "cpu", "torch")
PARTS = {"auto": ("torch", "cpu", "triton"), "triton": ("torch", "triton"), "cpu": ("torch", "cpu"), "torch": ("torch",)}
DOCS = {
    "before_core": "What the recurrence reads of products, for all steps at once.",
    "after_core": "Outputs, from what the recurrence gave, for all steps at once.",
}


@dataclass(frozen=True)
class Compiled:
    """An emitted file: its text, its signature, the block behind each part ("torch", "cpu", "triton"), and why the
    parts that it could have had are missing."""

    program: Program
    options: Options
    text: str
    signature: Signature
    blocks: Mapping[str, Block]
    missing: Mapping[str, str]
    gpu: Chosen | None
    """Rows and tiles of the Triton part, where there is one."""
    split: Split
    """What native code and Triton leave to torch; their blocks are of its core."""
    loop: Compiled | None = None
    """The closed loop of a spec with `feedback`, as a file of its own; its text stands in this one too."""


def compile_spec(path_or_text: str | Path, options: Options = DEFAULTS, watch: Watch | None = None) -> Compiled:
    """The emitted file of a spec. Raises SpecError and Unsupported."""
    return compile_program(load(path_or_text), options, watch)


def compile_program(program: Program, options: Options = DEFAULTS, watch: Watch | None = None) -> Compiled:
    """The emitted file of a program. watch: sees each stage on the way to the first part, plain torch."""
    if options.backend not in BACKENDS:
        help = near_miss(options.backend, BACKENDS) or f"one of {', '.join(BACKENDS)}"
        message = f"there is no backend `{options.backend}`"
        raise Unsupported(Diagnostic("no-such-backend", message, help=help, kind="unsupported"))
    if options.target not in TARGETS:
        help = near_miss(options.target, TARGETS) or f"one of {', '.join(TARGETS)}"
        message = f"there is no target `{options.target}`"
        raise Unsupported(Diagnostic("no-such-target", message, help=help, kind="unsupported"))
    program = saving(fix_dims(program, options.dims), options.save_states)
    blocks: dict[str, Block] = {}
    kernels: dict[str, Kernels] = {}
    missing: dict[str, str] = {}
    gpu: Chosen | None = None
    program = program if options.backend == "torch" else counted(program)
    one, flat = one_run(program), lowered(program)
    tables = tables_of(one) if one.plane is None else None
    base = flat if tables is None else tables.core
    told = exposed(base)
    once = outside_of_time(told) if options.backend != "torch" else None
    rest = numbered(told if once is None else once.rest) if options.backend != "torch" else told
    split = split_parallel(rest)
    split = replace(split, core=chosen_rows(split.core))
    beside = parallel_blocks(split) if options.backend != "torch" else {}
    for part in PARTS[options.backend]:
        try:
            if part != "torch":
                _refuse_large(split.core)
                _without_places(split.core)
            if part == "triton":
                _without_tables(tables)
                gpu, made = _triton_part(split.core, options)
                blocks[part] = gpu.block
            else:
                own = told if part == "torch" else split.core
                whole = told is program and not beside and once is None
                blocks[part], made = _part(part, own, beside, once, options, watch if part == "torch" else None, whole)
            made = made if part == "torch" or not beside else _joined(part, rest, split, beside, made)
            made = made if part == "torch" or once is None else compose_once(told, once, made, part)
            made = made if told is base else compose_inside(base, made, part)
            made = made if one.plane is None else compose_waves(one, flat, made, part)
            if tables is not None:
                made = compose_tables(one, tables, made, part)
                blocks[part] = replace(blocks[part], reasons=(*blocks[part].reasons, *tables.reasons))
            kernels[part] = made if one is program else compose_runs(program, made, part)
        except Unsupported as refusal:
            if part in ("torch", options.backend):
                raise
            missing[part] = "; ".join(f"{d.message}: {d.cause}" if d.cause else d.message for d in refusal.diagnostics)
    sig = signature(program, split, blocks, kernels, header(program, options))
    loop = None if program.loop is None else compile_program(program.loop.program, replace(options, form=None, rows=None))
    if loop is not None and program.loop is not None:
        sig = replace(sig, loop=closed_loop(program.loop, loop.signature))
    return Compiled(program, options, emit(sig), sig, blocks, missing, gpu, split, loop)


def saving(program: Program, steps: int | None) -> Program:
    """The program as if its spec said `checkpoint STEPS`; as it is where steps is None."""
    if steps is None:
        return program
    if steps < 1:
        message = f"states are saved every {steps} steps: it is at least 1"
        raise Unsupported(Diagnostic("save-states", message, help="1 keeps a state each step or block", kind="unsupported"))
    return replace(program, wishes=replace(program.wishes, checkpoint=steps))


def _without_tables(tables: Tables | None) -> None:
    """Raise Unsupported where each step of a kernel would be a launch of its own."""
    if tables is not None:
        names = ", ".join(f"`{one.state}`" for one in tables.tables)
        message = f"rows of {names} are read and written between the steps: a GPU takes plain torch"
        cause = "a kernel holds the states of a sequence for all of its steps, and no table of rows"
        raise Unsupported(Diagnostic("no-gpu-table", message, cause=cause, help="use the backend `torch`", kind="unsupported"))


def _without_places(core: Program) -> None:
    """Raise Unsupported where what an index tells is left for kernels to read."""
    read = [n for n in topological(core.graph.values()) if n.op in ("gather", "scatter", "put", "as_real")]
    if read:
        span = core.spans.get(read[0])
        message = "kernels read and write no rows by an index: plain torch does, before the recurrence"
        cause = "there is no recurrence beside what is read by an index here"
        labels = (Label(span),) if span else ()
        help = "use the backend `torch`"
        raise Unsupported(Diagnostic("no-indexed-kernel", message, labels, cause, help, kind="unsupported"))


def _part(
    part: str, program: Program, beside: Mapping[str, Block], once: Outside | None, options: Options, watch: Watch | None,
    whole: bool,
) -> tuple[Block, Kernels]:
    """The block of one part of the file, and its text. beside: what plain torch holds for the other parts; whole: whether the
    program is all that there is."""
    match part:
        case "torch":
            from seqc.backends import torch_eager

            block = lower(program, options.form, options.rows, EAGER, watch)
            with blamed("the torch backend"):
                texts = {name: (one, DOCS[name]) for name, one in beside.items()}
                cut = in_pieces(program, block, lambda b: torch_eager.emit(b, texts, once)) if options.form is None else None
                return cut or (block, torch_eager.emit(block, texts, once))
        case "cpu":
            from seqc.backends import native_cpu

            if options.form not in (None, "step"):
                help = "leave the form open, or use another backend"
                message = f"the native form runs step by step, not as {options.form}"
                raise Unsupported(Diagnostic("no-native-form", message, help=help, kind="unsupported"))
            block = lower(program, "step")
            with blamed("the native CPU backend"):
                return block, native_cpu.emit(block, options.backend == "cpu", whole)
    raise SeqcBug("the driver", f"no backend makes the part {part}")


def _refuse_large(core: Program) -> None:
    """Raises Unsupported where a kernel would need an exponential of a matrix, or a system that is not written out."""
    large = next((n for n in topological(core.graph.values()) if not small(n, core)), None)
    if large is None:
        return
    if large.op in SYSTEMS:
        dim = large.text("row").rstrip("'")
        cause = f"a kernel solves at most {MOST} equations, and a number of them that is known when it is compiled"
        help = f"give the size of `{dim}` where it is declared, `dim {dim} = 4`, or use the torch backend"
        message = f"a system of `{dim}` equations that depends on the recurrence is not written out"
    else:
        cause, help = "only a library computes one, outside of the recurrence", "use the torch backend for this spec"
        message = "an exponential of a matrix depends on the recurrence"
    raise Unsupported(Diagnostic("dense-operator", message, cause=cause, help=help, kind="unsupported"))


def parallel_blocks(split: Split) -> dict[str, Block]:
    """The blocks of what runs before and after the core, for all steps at once."""
    return {name: lower(p, "step") for name, p in (("before_core", split.before), ("after_core", split.after)) if p is not None}


def _joined(part: str, program: Program, split: Split, beside: Mapping[str, Block], core: Kernels) -> Kernels:
    """The kernels of the whole program, from those of the core."""
    from seqc.backends.torch_eager import saved

    return compose(program, split, core, saved(beside["before_core"]) if "before_core" in beside else (), part)


def _triton_part(program: Program, options: Options) -> tuple[Chosen, Kernels]:
    """The GPU's block with its tiles, and the text of its kernels."""
    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.backends.triton_gpu.report.figures import tiles_of
    from seqc.backends.triton_gpu.tuning.pacing import pacing

    lowered = lowerings(program, options.form, options.rows)
    with blamed("the Triton backend"):
        chosen = tiles_of(lowered, options.target)
        return chosen, triton_kernels(chosen.block, chosen.tiles, chosen.plan, pacing(chosen))


def header(program: Program, options: Options) -> str:
    """The words of the comment line at the top of the file."""
    sizes = "".join(f", {name} = {size}" for name, size in sorted(options.dims.items()))
    sizes += f", states saved every {options.save_states} steps" if options.save_states else ""
    return f"Made by seqc from the spec `{program.name}`{sizes}. Edit the spec, not this file."
