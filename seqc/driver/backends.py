"""The backends, a record each: how a program is cut for it, which stages it serves, and how a recurrence is made.

In: a program, options, stages. Out: a plan; why a stage is refused; blocks and kernels. What a backend refuses is served by
plain torch, which serves every stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seqc.analysis.matrices import MOST, small
from seqc.analysis.ranges import interval_of
from seqc.diagnostics import Label, Unsupported
from seqc.driver.options import DEFAULTS, Options
from seqc.driver.pipeline import Watch, blamed, lower, lowerings
from seqc.emit import Kernels
from seqc.emit.beside import reaching
from seqc.ir.block import Block
from seqc.ir.dims import unprimed
from seqc.ir.graph import topological
from seqc.ir.ops.dense import SYSTEMS
from seqc.ir.plan import Plan, Rule, Stage, planned
from seqc.ir.program import Program
from seqc.passes.blocks.choose import EAGER, GPU, Machine, block_forms, choose_form
from seqc.passes.classify import classify
from seqc.passes.plan.chosen_rows import chosen_rows, numbered, told_rows
from seqc.passes.plan.components import BLOCKS, components
from seqc.passes.plan.ends import ends
from seqc.passes.plan.newton import newton, served
from seqc.passes.plan.outside_of_time import once
from seqc.passes.plan.products_outside import products, split_parallel
from seqc.passes.plan.pruned import idle
from seqc.passes.plan.slower import slower
from seqc.passes.plan.tables import rows, tables
from seqc.passes.plan.taps import tap_weights, taps
from seqc.passes.plan.walks import both, ones, over_diagonals

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.report.figures import Chosen


def _rewriting(change: Callable[[Program], Program]) -> Rule:
    """The rule that rewrites a recurrence and cuts nothing."""

    def rewritten(stage: Stage, taken: frozenset[str]) -> Plan | None:
        new = change(stage.program)
        return None if new is stage.program else Plan(stage.program, (replace(stage, program=new),))

    return rewritten


def _beside_tables(stage: Stage, taken: frozenset[str]) -> Plan | None:
    """What needs no table, and what only outputs see: for all steps at once, and not in each step of a loop over events."""
    if not tables(stage.program):
        return None
    plan = products(replace(stage, name="events"), taken)
    return replace(plan, stages=tuple(replace(x, name=stage.name) if x.name == "events" else x for x in plan.stages))


ENDS = ends(classify)
RUNS: tuple[Rule, ...] = (both, tap_weights, taps, ENDS, slower)
PLACES: tuple[Rule, ...] = (rows, over_diagonals, idle, ones)
WALKS: tuple[Rule, ...] = (*RUNS, *PLACES)
OUTSIDE: tuple[Rule, ...] = (
    *RUNS, _beside_tables, *PLACES, once, _rewriting(numbered), products, _rewriting(chosen_rows),
)  # fmt: skip


@dataclass(frozen=True)
class Core:
    """A recurrence as a backend made it. chosen: rows and tiles of a GPU's."""

    block: Block
    kernels: Kernels
    chosen: Chosen | None = None


@dataclass(frozen=True)
class Backend:
    """See the file's docstring. alone: whether the recurrence is all that there is, the last argument of `make`; step: the
    kernels of single steps of a recurrence that is all that there is; finish: leaves out of a part what it has no use for."""

    suffix: str
    rules: Callable[[Options], tuple[Rule, ...]]
    refuses: Callable[[Stage, Options], Unsupported | None]
    make: Callable[[Stage, Options, bool], Core]
    step: Callable[[Stage, Options], Kernels]
    finish: Callable[[Kernels], Kernels] = lambda kernels: kernels

    def whole(self, program: Program, options: Options) -> Kernels | None:
        """A single step keeps nothing for a gradient, so it takes all states in one recurrence: its kernels, where the whole
        program is one that the backend serves. None elsewhere: then a step goes through the stages."""
        plan = planned(program, tuple(rule for rule in self.rules(options) if rule is not ENDS))
        if program.no_step or len([*plan.every()]) > 1 or self.refuses(plan.stages[0], options):
            return None
        return self.step(plan.stages[0], options)

    def plan(self, program: Program, options: Options) -> Plan:
        """The plan of a program for this backend."""
        return planned(program, self.rules(options))


def torch_block(stage: Stage, options: Options, watch: Watch | None = None) -> Block:
    """The block of a stage that torch serves. watch: sees each pass on the way."""
    if stage.walk == "all":
        return lower(stage.program, "step")
    return lower(stage.program, stage.form or options.form, None if stage.form else options.rows, EAGER, watch)


def _native(stage: Stage, options: Options, alone: bool) -> Core:
    from seqc.backends import native_cpu

    block = lower(stage.program, "step")
    with blamed("the native CPU backend"):
        source = native_cpu.native_source(block)
        block = replace(block, reasons=(*block.reasons, *native_cpu.reasons(source)))
        return Core(block, native_cpu.kernels(source, options.backend == "cpu", alone))


def _native_step(stage: Stage, options: Options) -> Kernels:
    from seqc.backends import native_cpu

    with blamed("the native CPU backend"):
        return native_cpu.kernels(native_cpu.native_source(lower(stage.program, "step"), steps=True), options.backend == "cpu")


def _native_finished(kernels: Kernels) -> Kernels:
    from seqc.backends import native_cpu

    return native_cpu.finished(kernels)


def _triton_step(stage: Stage, options: Options) -> Kernels:
    kernels = _triton(stage, options, True).kernels
    return replace(kernels, text=reaching(kernels.text, ["_step_triton", "_ready_triton"]))


def _triton(stage: Stage, options: Options, alone: bool) -> Core:
    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.backends.triton_gpu.report.figures import tiles_of
    from seqc.backends.triton_gpu.tuning.pacing import pacing

    blocks = lowerings(stage.program, stage.form or options.form, options.rows)
    with blamed("the Triton backend"):
        chosen = tiles_of(blocks, options.target)
        kernels = triton_kernels(chosen.block, chosen.tiles, chosen.plan, pacing(chosen), chosen.printed)
        return Core(chosen.block, kernels, chosen)


def _no_kernel(stage: Stage, options: Options) -> Unsupported | None:
    """What kernels have no word for: a large system or an exponential of a matrix, and rows read by an index."""
    if stage.walk != "steps":
        return None
    core = stage.program
    if core.wishes.newton:
        message = "Newton's method runs in plain torch alone"
        cause = "its scans and steps at all places are calls of torch: no kernel holds them yet"
        return Unsupported.of("no-newton-kernel", message, cause=cause, help="leave out `schedule newton`")
    order = topological(core.graph.values())
    large = next((n for n in order if not small(n, core)), None)
    if large is not None and large.op in SYSTEMS:
        dim = unprimed(large.text("row"))
        cause = f"a kernel solves at most {MOST} equations, and a number of them that is known when it is compiled"
        help = f"give the size of `{dim}` where it is declared, `dim {dim} = 4`, or use the torch backend"
        message = f"a system of `{dim}` equations that depends on the recurrence is not written out"
        return Unsupported.of("dense-operator", message, cause=cause, help=help)
    if large is not None:
        cause, help = "only a library computes one, outside of the recurrence", "use the torch backend for this spec"
        message = "an exponential of a matrix depends on the recurrence"
        return Unsupported.of("dense-operator", message, cause=cause, help=help)
    read = next((n for n in order if n.op in ("gather", "scatter", "put", "as_real")), None)
    if read is not None:
        span = core.spans.get(read)
        message = "kernels read and write no rows by an index: plain torch does, before the recurrence"
        cause = "there is no recurrence beside what is read by an index here"
        labels = (Label(span),) if span else ()
        return Unsupported.of("no-indexed-kernel", message, labels, cause, "use the backend `torch`")
    return None


def _no_native(stage: Stage, options: Options) -> Unsupported | None:
    """And native code takes each step in its turn."""
    found = _no_kernel(stage, options)
    if found is None and stage.walk == "steps" and options.form not in (None, "step"):
        message = f"the native form runs step by step, not as {options.form}"
        return Unsupported.of("no-native-form", message, help="leave the form open, or use another backend")
    return found


def _no_gpu(stage: Stage, options: Options) -> Unsupported | None:
    """And where rows are read and written between the steps, each step of a kernel would be a launch of its own."""
    if stage.walk == "rows":
        names = ", ".join(f"`{one.state}`" for one in stage.tables)
        message = f"rows of {names} are read and written between the steps: a GPU takes plain torch"
        cause = "a kernel holds the states of a sequence for all of its steps, and no table of rows"
        return Unsupported.of("no-gpu-table", message, cause=cause, help="use the backend `torch`")
    return _no_kernel(stage, options)


def _components(machine: Machine, options: Options) -> Rule:
    """Recurrences of their own, where one takes blocks on a machine, and these cost less than its work at each step of another.

    Products that leave it for kernels are left out. Plain torch has a loop for each recurrence anyhow, and saves that too.
    """

    def steps(program: Program) -> bool:
        core = split_parallel(program).core if machine.programs else program
        offers = block_forms(core, classify(core), interval_of(core), options.form, options.rows, machine)
        chosen = choose_form(core, offers, options.form)
        waiting = machine.step_latency if machine.programs else 0.0
        wished = options.form is not None or options.rows is not None
        return chosen.form == "step" or (not wished and chosen.time > offers.step.time - waiting)

    return (lambda stage, taken: None) if options.form == "step" else components(classify, steps)


def _rows_in_blocks(stage: Stage, taken: frozenset[str]) -> Plan | None:
    """Rows at positions that are told become sums and selections where more states can take blocks then."""
    old, new = stage.program, told_rows(stage.program)
    if old.wishes.form == "step" or new is old or len(_in_blocks(new)) <= len(_in_blocks(old)):
        return None
    return Plan(old, (replace(stage, program=new),))


def _in_blocks(program: Program) -> set[str]:
    """The states that a block may be made of."""
    return {name for c in classify(program) if c.kind in BLOCKS for name in c.states}


def _inner_products(stage: Stage, taken: frozenset[str]) -> Plan | None:
    """Products with what another recurrence hands over."""
    return None if stage.name == "core" else products(stage, taken)


KERNELS = {
    "cpu": Backend("cpu", lambda options: OUTSIDE, _no_native, _native, _native_step, _native_finished),
    "triton": Backend(
        "triton", lambda options: (*OUTSIDE, _components(GPU, options), _inner_products), _no_gpu, _triton, _triton_step),
}


LOWERED = {"torch": ("hoist",), "cpu": ("along", "regroup", "unroll_steps"), "triton": ("pieces",)}
"""Which of `seqc.passes.LOWERINGS` each part of a file asks for."""


def gpu_cores(program: Program) -> tuple[Stage, ...]:
    """The recurrences that kernels of a GPU walk."""
    return KERNELS["triton"].plan(program, DEFAULTS).cores


def torch_plan(program: Program, options: Options) -> Plan:
    """The plan for plain torch alone."""
    return served(planned(program, (*WALKS, _rows_in_blocks, _components(EAGER, options), newton)))
