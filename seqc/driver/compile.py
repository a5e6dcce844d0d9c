"""Program -> the text of the emitted file: planned and lowered once per backend, for what suits one need not suit another.

In: a program and options. Out: `Compiled`, the text and the block behind each of its parts. It loads nothing that runs:
torch, Triton and a C++ compiler are needed by who uses the file, not by who writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seqc.analysis.matrices import counted
from seqc.backends.triton_gpu.tuning.targets import TARGETS, instead_of
from seqc.diagnostics import Unsupported, near_miss
from seqc.driver.backends import KERNELS, LOWERED, OUTSIDE, Core, torch_block, torch_plan
from seqc.driver.compose.chain import compose
from seqc.driver.compose.in_pieces import in_pieces
from seqc.driver.compose.plain_step import plain_step
from seqc.driver.compose.stages import Made, lone
from seqc.driver.compose.taps import RUNTIME, tap_functions
from seqc.driver.convolution import system
from seqc.driver.options import DEFAULTS, Options
from seqc.driver.pipeline import Watch, blamed, check, fix_dims, told_transitions
from seqc.driver.signature_of import closed_loop, signature
from seqc.emit import Kernels, Signature, emit
from seqc.emit.beside import beside
from seqc.emit.text import join
from seqc.frontend.elaborate import load
from seqc.ir.apart import apart
from seqc.ir.block import Block, Reason
from seqc.ir.plan import Plan, planned
from seqc.ir.program import Program
from seqc.passes import LOWERINGS

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.report.figures import Chosen

__all__ = ["BACKENDS", "Compiled", "Options", "compile_program", "compile_spec", "header"]

BACKENDS = ("auto", "triton", "cpu", "torch")
PARTS = {"auto": ("cpu", "triton"), "triton": ("triton",), "cpu": ("cpu",), "torch": ()}  # beside plain torch
DOCS = {
    "before": "What the recurrence reads of products, for all steps at once.",
    "after": "Outputs, from what the recurrence gave, for all steps at once.",
    "core": "A recurrence that other backends leave to plain torch.",
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
    """Of several recurrences, that of the most rows, with what was decided about all."""
    missing: Mapping[str, str]
    plan: Plan
    """What native code and Triton leave to torch; their blocks are of its core."""
    stages: Mapping[str, Mapping[str, Block]] = field(default_factory=dict)
    """Part -> recurrence -> its block."""
    chosen: Mapping[str, Chosen] = field(default_factory=dict)
    """Recurrence -> rows and tiles in the Triton part, where there is one."""
    loop: Compiled | None = None
    """The closed loop of a spec with `feedback`, as a file of its own; its text stands in this one too."""

    @property
    def core(self) -> Program:
        """The recurrence without what leaves it."""
        return self.plan.cores[0].program


def compile_spec(path_or_text: str | Path, options: Options = DEFAULTS, watch: Watch | None = None) -> Compiled:
    """The emitted file of a spec. Raises SpecError and Unsupported."""
    return compile_program(load(path_or_text, options.dims), options, watch)


def compile_program(program: Program, options: Options = DEFAULTS, watch: Watch | None = None) -> Compiled:
    """The emitted file of a program. watch: sees each pass on the way to the first recurrence of torch, then the plans."""
    if options.backend not in BACKENDS:
        gpu = "GPUs are served by `triton`" * (options.backend.lower() in ("gpu", "cuda", "hip", "nvidia"))
        help = gpu or near_miss(options.backend, BACKENDS, "one of")
        raise Unsupported.of("no-such-backend", f"there is no backend `{options.backend}`", help=help)
    if options.target not in TARGETS:
        raise Unsupported.of("no-such-target", f"there is no target `{options.target}`", help=instead_of(options.target))
    if options.form == "newton":
        program, options = replace(program, wishes=replace(program.wishes, form=None, newton=True)), replace(options, form=None)
    program = saving(fix_dims(program, options.dims), options.save_states)
    program = program if options.backend == "torch" else counted(program)
    own = apart(program)
    shared, plan = planned(own, OUTSIDE), torch_plan(own, options)
    stages = {"torch": _lowered(plan, options, watch)}
    parts: dict[str, _Part] = {}
    missing: dict[str, str] = {}
    chosen: Mapping[str, Chosen] = {}
    for name in PARTS[options.backend]:
        try:
            part = parts[name] = _part(name, own, options)
            stages[name] = part.blocks
            chosen = {x: core.chosen for x, core in part.cores.items() if core.chosen} or chosen
        except Unsupported as refusal:
            if name == options.backend:
                raise
            missing[name] = "; ".join(f"{d.message}: {d.cause}" if d.cause else d.message for d in refusal.diagnostics)
    for name, one in {"torch": plan, **{name: part.plan for name, part in parts.items()}}.items():
        if watch:
            watch(f"plan_{name}", one)
            block = next(iter(stages[name].values()))
            for lowering in LOWERINGS:
                if lowering.name in LOWERED[name]:
                    watch(f"{name}_{lowering.name}", lowering.run(block))
    kernels = {"torch": _torch(plan, stages["torch"], parts.values(), options)}
    kernels |= {name: part.kernels() for name, part in parts.items()}
    blocks = {name: _told(stages[name], part.cores, part.plan.told) for name, part in parts.items()}
    blocks = {"torch": _told(stages["torch"], stages["torch"], plan.told), **blocks}
    if len(stages["torch"]) > 1:  # each is lowered without the claims, which are about the whole
        blocks["torch"] = replace(blocks["torch"], reasons=(*_claims(plan), *blocks["torch"].reasons))
    outside = shared if own is program else planned(program, OUTSIDE)
    sig = replace(signature(program, outside, blocks, kernels, header(program, options)), system=system(program))
    loop = None if program.loop is None else compile_program(program.loop.program, replace(options, form=None, rows=None))
    if loop is not None and program.loop is not None:
        sig = replace(sig, loop=closed_loop(program.loop, loop.signature))
    return Compiled(program, options, emit(sig), sig, blocks, missing, shared, stages, chosen, loop)


def saving(program: Program, steps: int | None) -> Program:
    """The program as if its spec said `checkpoint STEPS`; as it is where steps is None."""
    if steps is None:
        return program
    if steps < 1:
        message = f"states are saved every {steps} steps: it is at least 1"
        raise Unsupported.of("save-states", message, help="1 keeps a state each step or block")
    return replace(program, wishes=replace(program.wishes, checkpoint=steps))


def _lowered(plan: Plan, options: Options, watch: Watch | None) -> dict[str, Block]:
    """The blocks of a plan that torch serves alone. watch: sees the stages on the way to the first."""
    found: dict[str, Block] = {}
    for stage in plan.cores:
        block = torch_block(stage, options, None if found else watch)
        own = (r for r in plan.told if r.topic == "newton" and r.subject == ", ".join(stage.program.states))
        found[stage.name] = replace(block, reasons=(*block.reasons, *told_transitions(stage.program), *own))
    return found


def _claims(plan: Plan) -> tuple[Reason, ...]:
    """What is said of the claims on the recurrences of a plan."""
    found = check(plan.program)["claims"]
    assert isinstance(found, tuple)
    return tuple(reason for reason in found if reason.topic == "claim")


def _told(found: Mapping[str, Block], own: Iterable[str], reasons: Iterable[Reason]) -> Block:
    """One block for a part, with all that was decided. own: the stages that the part does not leave to torch."""
    main = max((found[name] for name in own), key=lambda block: block.rows)
    decided = (reason for block in found.values() for reason in block.reasons)
    return replace(main, reasons=(*decided, *(reason for reason in reasons if reason.topic == "form")))


@dataclass(frozen=True)
class _Part:
    """One part of the file beside plain torch: what its backend made, and what it leaves to torch."""

    plan: Plan
    cores: Mapping[str, Core]
    left: Mapping[str, Block]
    suffix: str
    whole: Kernels | None = None

    @property
    def blocks(self) -> dict[str, Block]:
        """The block of each recurrence."""
        return {s.name: self.cores[s.name].block if s.name in self.cores else self.left[s.name] for s in self.plan.cores}

    def kernels(self) -> Kernels:
        """The functions of the part."""
        from seqc.backends.torch_eager import saved

        made = {name: core.kernels for name, core in self.cores.items()}
        left = {name: saved(block) for name, block in self.left.items()}
        return KERNELS[self.suffix].finish(compose(self.plan, Made(made, left, self.suffix, self.whole)))


def _part(name: str, program: Program, options: Options) -> _Part:
    """The stages that a backend serves. Raises Unsupported where it serves no recurrence, or no walk around one."""
    backend = KERNELS[name]
    plan = backend.plan(program, options)
    alone = len(list(plan.every())) == 1
    cores: dict[str, Core] = {}
    refused: list[Unsupported] = []
    for stage in plan.every():
        try:
            if (problem := backend.refuses(stage, options)) is not None:
                raise problem
            if stage.walk == "steps":
                cores[stage.name] = backend.make(stage, options, alone)
        except Unsupported as refusal:
            if stage.walk != "steps":
                raise
            refused.append(refusal)
    if not cores:
        raise refused[0]
    left = [s for s in plan.every() if s.walk == "all" or (s.walk == "steps" and s.name not in cores)]
    whole = backend.whole(program, options) if lone(plan) else None
    return _Part(plan, cores, {s.name: torch_block(s, options) for s in left}, name, whole)


def _torch(plan: Plan, blocks: dict[str, Block], parts: Iterable[_Part], options: Options) -> Kernels:
    """The plain torch part, with the stages that other parts leave to it. blocks: of its recurrences; what is decided here is
    entered."""
    from seqc.backends import torch_eager

    own = {s.name: torch_block(s, options) for s in plan.every() if s.walk == "all"}
    every = {name: block for one in (*(part.left for part in parts), own) for name, block in one.items()}
    left = {name: (block, DOCS[name.partition("_")[0]]) for name, block in every.items()}
    plans = (plan, *(part.plan for part in parts))
    once = next((s.program for one in plans for s in one.every() if s.walk == "once"), None)
    made: dict[str, Kernels] = {}
    with blamed("the torch backend"):
        for stage in plan.cores:
            printed = partial(torch_eager.emit, beside={} if made else left, once=None if made else once)
            block = blocks[stage.name]
            cut = in_pieces(stage.program, block, printed, str(len(made) or "")) if options.form is None else None
            blocks[stage.name], made[stage.name] = cut or (block, printed(block))
        kernels = compose(plan, Made(made, {name: torch_eager.saved(block) for name, block in own.items()}, "torch"))
        taps = tap_functions(s for one in plans for s in one.every() if s.walk == "taps")
        if taps:
            runtime = tuple(dict.fromkeys([RUNTIME.strip(), *kernels.runtime]))
            kernels = replace(kernels, text=join(kernels.text, taps), runtime=runtime)
        step = plain_step(replace(next(iter(blocks.values())), program=plan.program))
        return replace(kernels, text=join(kernels.text, beside(kernels.text, step, "_plain"))) if step else kernels


def header(program: Program, options: Options) -> str:
    """The words of the comment line at the top of the file."""
    sizes = "".join(f", {name} = {size}" for name, size in sorted(options.dims.items()))
    sizes += f", states saved every {options.save_states} steps" if options.save_states else ""
    return f"Made by seqc from the spec `{program.name}`{sizes}. Edit the spec, not this file."
