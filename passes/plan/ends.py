"""program -> two recurrences: what outputs depend on, and the states that are kept for their last values alone.

    h = tanh(R @ h[t-1] + x)               core_1   h = tanh(R @ h[t-1] + x);  output h
    n = n[t-1] + 1                   ->    core_2   n = n[t-1] + 1
    peak = max(peak[t-1], abs(h))                   peak = max(peak[t-1], abs(h)),  h an input
    output h

where no output depends on n and peak, however many steps later. A call gives their last values, so they run forward; who
takes no gradient of these runs nothing of them backward, and forward saves nothing for it (`seqc.driver.compose.chain`).

Needs: the step graph. Gives: stages in order, or None where no state is so, where the spec asks for Newton's method, where
a state is slow, of two axes, where both would have tables or read matrices that are made once a call, and where what
had to be handed over beside the outputs costs more than these states save:
2 * elements > operations of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from seqc.analysis.component import Component
from seqc.analysis.cost import cost, volume
from seqc.analysis.unread import share_of, unread
from seqc.analysis.workload import nominal_sizes
from seqc.ir.block import Reason
from seqc.ir.graph import BATCH
from seqc.ir.plan import Plan, Rule, Stage
from seqc.ir.program import Program
from seqc.passes.plan.components import BLOCKS, Cut
from seqc.passes.plan.outside_of_time import once
from seqc.passes.plan.slower import slow_states
from seqc.passes.plan.tables import tables

BESIDE_OUTPUTS = 2.0**-10  # what it counts to hand over an output, beside another value


def ends(classify: Callable[[Program], tuple[Component, ...]]) -> Rule:
    """The rule; classify: the pass."""

    def apart(stage: Stage, taken: frozenset[str]) -> Plan | None:
        program = stage.program
        if program.direction == "both" or program.plane is not None or program.wishes.newton or slow_states(program):
            return None
        lost = unread(program)
        if not lost:
            return None
        kept, own = ([name for name in program.states if (name in lost) == late] for late in (False, True))
        stages = Cut(stage, [(False, tuple(kept)), (False, tuple(own))], taken, BESIDE_OUTPUTS).stages()
        if stages is None or not _pays(program, *stages):
            return None
        if any(all(has(one) for one in stages) for has in (lambda x: once(x, taken), lambda x: tables(x.program))):
            return None
        blocks = {name for c in classify(program) if c.kind in BLOCKS for name in c.states}
        return Plan(program, tuple(_formed(one, stages, blocks) for one in stages), (_reason(program, *stages),))

    return apart


def _pays(program: Program, core: Stage, late: Stage) -> bool:
    """See the file's docstring."""
    sizes = {**nominal_sizes(program), BATCH: 1}
    fresh = [d for name, d in core.program.output_decls.items() if name not in program.outputs]
    return 2 * sum(volume(d.dims, sizes) for d in fresh) <= cost(late.program.graph.values(), sizes).flops


def _formed(one: Stage, stages: Iterable[Stage], blocks: set[str]) -> Stage:
    """The stage, step by step where it has no block form and one beside it has: a form that is asked for is that one's."""
    step = any(blocks & {*x.program.states} for x in stages) and not blocks & {*one.program.states}
    return replace(one, form="step") if step else one


def _reason(program: Program, core: Stage, late: Stage) -> Reason:
    """What is saved, in words."""
    names = ", ".join(late.program.states)
    share = share_of(program, late.program.states, nominal_sizes(program))
    given = [name for name in late.program.inputs if name in core.program.outputs]
    read = f" (reads {', '.join(given)})" if given else ""
    results = " or ".join(f"{name}_T" for name in late.program.states)
    text = (
        f"no output depends on it: a recurrence of its own{read}. Forward keeps nothing for its gradient, and backward leaves "
        f"it out, {share:.0f}% of a step's operations, unless a loss has {results}: then it runs again, and back"
    )
    return Reason("ends", names, text)
