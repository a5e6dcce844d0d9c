"""What the compiler decided for a spec, and why, as data: dicts, lists and words. `text` makes lines of it, `page` HTML.

In: a compiled spec. Out: `facts`. Costs are those of the model that chose the forms, for one token at the extents that it
assumed; figures of the toolchain come from the committed table, never from the machine at hand.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from seqc.analysis.cost import cost, volume
from seqc.analysis.reach import endless, reach
from seqc.analysis.unread import for_their_ends
from seqc.backends.triton_gpu.spans import CALL, blocks_between_saved, saved_bytes
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Compiled
from seqc.driver.convolution import operations, sources, why_none
from seqc.driver.explain.gradients_asked_for import asked
from seqc.driver.explain.phrases import amount, microseconds
from seqc.driver.signature_of import gate_inputs
from seqc.emit.names import safe_name
from seqc.ir.block import Block
from seqc.ir.graph import BATCH, COL, ROW, topological
from seqc.ir.program import Program, TensorDecl
from seqc.ir.support import mask
from seqc.ir.views import bare

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.report.figures import Chosen

LONG, MANY = 4096, 32  # steps and sequences at which a convolution is counted
NATIVE = ("step: a core holds the states in its registers and caches, where the step is the least work; blocks do more, to "
          "fill a wider machine")
PLANNED = ("taps", "parallel", "pruned", "ends", "rates")  # topics of what is decided for a whole call
DECIDED = ("form", "newton", "numerics", "tiles", "phases", "memory")  # topics that belong to a part of the file, in this order


def facts(compiled: Compiled, targets: Iterable[str] = ()) -> dict[str, Any]:
    """Everything that is told, as data. targets: GPUs to tell of beside the one that the file is for."""
    program = compiled.program
    from seqc.backends.triton_gpu.report.figures import extents

    sizes = extents(program)
    reasons = compiled.blocks["torch"].reasons
    told = {r.subject: r.text for r in reasons if r.topic == "eigenvalues"}
    claims = {r.subject: r.text for r in reasons if r.topic == "claim"}
    decls = {name: d for block in compiled.stages["torch"].values() for name, d in block.program.states.items()}
    components = []
    for reason in reasons:
        if reason.topic == "class":
            names = reason.subject.split(", ")
            components.append(
                {
                    "states": [shape(decls[name]) for name in names],
                    "class": reason.text + for_their_ends(program, names, sizes),
                    "transition": {name: told[name] for name in names if name in told},
                    "claims": {name: claims[name] for name in names if name in claims},
                }
            )
    return {
        "spec": program.name,
        "file": program.path,
        "about": textwrap.dedent(program.doc).strip().split("\n")[0],
        "direction": program.direction,
        "joined": f"{', outputs added' * program.added}{', params shared' * program.shared}",
        "components": components,
        "invariant": invariant(program, sizes),
        "stream": "" if endless(program) else reach(program).text,
        **{topic: {r.subject: r.text for r in compiled.plan.told if r.topic == topic} for topic in PLANNED},
        "sparse": sparsity(compiled, sizes),
        "derivatives": derivatives(compiled),
        "parts": {name: recurrences(name, found, sizes) for name, found in compiled.stages.items()},
        "cpu": on_cpus(compiled),
        "gpu": on_gpus(compiled, targets),
        "missing": dict(compiled.missing),
        "gates": sorted(gate_inputs(program, compiled.core)),
        "extents": {d: sizes[d] for d in program.dims},
        "assumed": [d.name for d in program.dims.values() if d.default is None],
        **({"closed loop": _closed_loop(compiled)} if compiled.loop else {}),
    }


def _closed_loop(compiled: Compiled) -> dict[str, Any]:
    """What is fed back, the form of each part, and the parts that are missing."""
    assert compiled.loop is not None and compiled.program.loop is not None
    forms = {name: block.form for name, block in compiled.loop.blocks.items()}
    return {"fed back": list(compiled.program.loop.fed), "forms": forms, "missing": dict(compiled.loop.missing)}


def sparsity(compiled: Compiled, sizes: Mapping[str, int]) -> dict[str, str]:
    """Of every sparse parameter: what is kept, and what that saves."""
    told = {}
    for name, decl in compiled.program.params.items():
        support = decl.support
        if support is None:
            continue
        whole = volume(decl.dims, sizes)
        words = [support.words]
        share = float(mask(support, decl.dims, sizes).mean())
        if support.rules:
            words.append(f"rules keep {amount(round(share * whole))} of {amount(round(whole))} elements ({100 * share:.3g}%)")
        if support.pruning is not None:
            own = "`Module.prune` finds the mask" if support.pruning.by == "magnitude" else "the caller gives the mask"
            words.append(f"{own}, the argument and buffer {support.mask}")
            n, m = support.pruning.pattern or (1, 1)
            share *= (1.0 if support.pruning.keep is None else support.pruning.keep) * n / m
        words.append("what is left out counts as 0 and has gradient 0")
        told[name] = "; ".join([*words, _skipped(compiled, name, 2 * whole, share)])
    return told


def _skipped(compiled: Compiled, name: str, operations: float, share: float) -> str:
    """What a product with a sparse parameter saves. operations: of the dense one, a token; share: of elements that are kept."""
    if name not in compiled.core.params:
        return "its product runs over all steps at once, before or after the recurrence, and multiplies by the zeros"
    if "cpu" not in compiled.blocks:
        return "a product multiplies by the zeros: native code for CPUs would skip them"
    if not _alone(compiled, name):
        return "it stands in no product by itself, and all backends multiply by the zeros"
    left = f", {amount(round((1 - share) * operations))} of {amount(round(operations))} operations a token"
    saves = left if share < 1 else ""
    return (f"a product with the state skips it in native code, forward, backward and in the parameter's gradient{saves}; "
            "plain torch and Triton multiply by the zeros")


def _alone(compiled: Compiled, name: str) -> bool:
    """Whether a parameter is a factor of a sum of products, under whatever names of its dims."""
    for n in topological(compiled.core.graph.values()):
        for factor in map(bare, n.args[0].args if n.op == "sum" and n.args[0].op == "mul" else ()):
            if factor.op == "leaf" and (factor.text("kind"), factor.text("name")) == ("param", name):
                return True
    return False


def invariant(program: Program, sizes: Mapping[str, int]) -> str:
    """Of a linear time-invariant system: what its convolution costs beside the recurrence. "" of any other."""
    if why_none(program):
        return ""
    runs = sum(s.impulses(sizes) for s in sources(program) if s.argument.timed)
    one, other = operations(program, sizes, LONG, MANY)
    return (
        f"linear and time-invariant: `{safe_name(program.name)}_convolution` gives the same by FFT, from {runs} impulse "
        f"response{'s' * (runs > 1)}{_asked(program)}; at T = {LONG} and a batch of {MANY}, {amount(round(other))} operations "
        f"a step forward, and {amount(round(one))} of the recurrence"
    )


def _asked(program: Program) -> str:
    asked = ", and a call takes it where the model of its sizes says so (`CONVOLUTION = False` in the file: never)"
    other = ", where it is called (`schedule convolution`: where it is cheaper, by sizes)"
    return asked if program.wishes.convolution else other


def derivatives(compiled: Compiled) -> list[str]:
    """What runs for each derivative, and what a call leaves out that asks for some gradients alone."""
    if compiled.signature.no_plain:
        return ["first ones: derived by the compiler", f"others: refused: {compiled.signature.no_plain}", *asked(compiled)]
    results = [*(o.name for o in compiled.signature.outputs), *(f"{s}_T" for s in compiled.signature.unread)]
    watched = "one of " * (len(results) > 1) + ", ".join(results)
    return [
        "first ones: derived by the compiler; second ones and forward mode: by autograd over single steps in plain torch",
        f"where a loss does not use {watched} and gradients come out infinite or NaN, they are taken again from single "
        "steps in plain torch, without what leads there alone (a GPU is waited for)",
        *asked(compiled),
    ]


def shape(decl: TensorDecl) -> str:
    """`S[H, K, V]`."""
    return f"{decl.name}[{', '.join(decl.dims)}]" if decl.dims else decl.name


def checkpoints(name: str, block: Block, sizes: dict[str, int]) -> list[str]:
    """What a part of the file keeps for the backward pass, and what it makes of the spec's `checkpoint`."""
    if name == "triton" and block.form == "chunkwise" and block.program.states:
        every = blocks_between_saved(block) * block.rows
        state, inputs = saved_bytes(block.program, sizes)
        if every == CALL:
            return [
                "checkpoint: no state is kept, and the backward pass computes all again from the initial ones; where too few "
                f"programs would then walk, a call keeps as few as keep the GPU busy, each of {state} bytes a sequence, beside "
                f"{inputs} bytes of inputs a step in bfloat16"
            ]
        again = "" if every == block.rows else ", and the backward pass computes those between again"
        bytes = f"{state / every:.0f} bytes a step, beside {inputs} of inputs in bfloat16"
        return [f"checkpoint: states are kept every {every} steps{again}: {bytes}"]
    steps = block.program.wishes.checkpoint
    if steps is None or not block.program.states:
        return []
    if name in ("cpu", "triton") and block.form == "step":
        return [f"checkpoint: states are kept every {steps} steps, and the backward pass computes those between again"]
    each = "every step" if block.rows == 1 else f"each block of {block.rows} steps"
    return [f"checkpoint: without effect here: states are kept as {each} begins, and none between is computed again"]


def recurrences(name: str, found: Mapping[str, Block], sizes: dict[str, int]) -> dict[str, Any]:
    """One part of the file; where it has several recurrences, the sums of their tokens, and each."""
    parts = [{"states": list(block.states), **part(name, block, sizes)} for block in found.values()]
    main = dict(max(parts, key=lambda one: one["rows"]))
    del main["states"]
    if len(parts) == 1:
        return main
    token = {key: sum(one["token"][key] for one in parts) for key in main["token"] if not key.startswith("share")}
    return {**main, "decisions": {}, "token": main["token"] | token, "recurrences": parts}


def part(name: str, block: Block, sizes: dict[str, int]) -> dict[str, Any]:
    """One part of the file: its form, what was decided on the way, and what a token costs."""
    decided = {topic: [f"{r.subject}: {r.more or r.text}" for r in block.reasons if r.topic == topic] for topic in DECIDED}
    decided["memory"] += checkpoints(name, block, sizes)
    beside = [f"{r.subject}: {r.text}" for r in block.reasons if r.topic == "form" and r.subject != "step"]
    decided["form"] = [NATIVE, *beside] if name == "cpu" else decided["form"]
    known = {**sizes, BATCH: 1, ROW: block.rows, COL: block.rows}
    forward, backward = (cost(g.values(), known) for g in (block.forward, block.backward))
    program = block.program
    moved = sum(volume((BATCH, *d.dims), known) for d in (*program.inputs.values(), *program.output_decls.values()))
    state = sum(volume(d.axes, known) for d in program.states.values())
    return {
        "form": block.form,
        "rows": block.rows,
        "decisions": {topic: lines for topic, lines in decided.items() if lines},
        "token": {
            "operations forward": round(forward.flops / block.rows),
            "operations backward": round(backward.flops / block.rows),
            "share in matrix products": round(forward.matrix / forward.flops, 2) if forward.flops else 0.0,
            "bytes in and out": round(4 * moved),
            "bytes of state": round(4 * state),
        },
    }


def on_cpus(compiled: Compiled) -> dict[str, str]:
    """What builds of the native part choose, by kind of processor."""
    if "cpu" not in compiled.blocks:
        return {}
    from seqc.backends.native_cpu.tiles import choices
    from seqc.backends.triton_gpu.report.figures import extents

    block = compiled.blocks["cpu"]
    return choices(block, extents(block.program))


def on_gpus(compiled: Compiled, targets: Iterable[str]) -> dict[str, Any]:
    """Rows, tiles and the toolchain's figures by target: that of the compiled file first, then the others asked for."""
    if not compiled.chosen:
        return {}
    from seqc.backends.triton_gpu.report.figures import tiles_of
    from seqc.driver.pipeline import lowerings

    told = {compiled.options.target: on_gpu(compiled.chosen.values())}
    for name in targets:
        if name not in told:
            try:
                blocks = [lowerings(one.block.program, compiled.options.form, compiled.options.rows)
                          for one in compiled.chosen.values()]
                told[name] = on_gpu([tiles_of(lowered, name) for lowered in blocks])
            except Unsupported as clash:
                told[name] = {"clash": "; ".join(d.cause or d.message for d in clash.diagnostics)}
    return told


def on_gpu(recurrences: Iterable[Chosen]) -> dict[str, Any]:
    """What was chosen for one target."""
    from seqc.backends.triton_gpu.report.figures import figures
    from seqc.backends.triton_gpu.schedule import STEPS_KERNEL
    from seqc.backends.triton_gpu.tuning.pacing import few_steps

    every = list(recurrences)
    kernels = [{**one.data(), "tiles": one.tiles(), "words": one.words()} for chosen in every for one in figures(chosen)]
    spent = [
        f"{'step by step' if one.block.rows == 1 else f'{one.block.rows} rows'}: {microseconds(one.trained)} us forward and "
        "backward by the model" for one in every]
    others = [f"{rows} rows: {told}" for one in every for rows, told in one.others().items()]
    few = [few_steps(one) for one in every if STEPS_KERNEL in one.kernels]
    told = {"rows": max(one.block.rows for one in every), "why": "; ".join([*spent, *others]), "kernels": kernels}
    return told | ({"one by one": min(few)} if few else {})
