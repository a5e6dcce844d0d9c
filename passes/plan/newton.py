"""A nonlinear recurrence, where the spec says `schedule newton` -> a walk around it that runs all steps at once, and
corrects them.

    h = tanh(R @ h[t-1] + x)    ->    newton: that recurrence inside, for calls in which iterations do not settle

Needs: the step graph. Gives: a plan with what is known of the contraction, or None where the spec does not ask for it.
Recurrences beside it that are linear stay as they are. Raises Unsupported where the spec asks and no recurrence of it can
be run so.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.analysis.newton import newton_of
from seqc.diagnostics import Label, Unsupported
from seqc.ir.block import Reason
from seqc.ir.plan import Plan, Stage


def newton(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    program = stage.program
    if not program.wishes.newton:
        return None
    found = newton_of(program)
    states = ", ".join(program.states)
    if isinstance(found, str):
        return Plan(program, (stage,), (Reason("newton", states, f"not run so: {found}"),))
    wide = [f"{name} by {' x '.join(dims)}" for name, dims in found.mixed.items() if dims]
    shape = f"a Jacobian with dense places ({', '.join(wide)})" if wide else "an elementwise Jacobian"
    text = (
        f"all steps at once, corrected by scans over {shape}; the gradient by one scan back; step by step where a "
        f"call's iterations do not settle, with a warning. {found.contraction[0].upper()}{found.contraction[1:]}"
    )
    inner = replace(stage, program=replace(program, wishes=replace(program.wishes, newton=False)), form="step")
    around = Stage(f"newton_{stage.name}", "newton", program, Plan(inner.program, (inner,)))
    return Plan(program, (around,), (Reason("newton", states, text),))


def served(plan: Plan) -> Plan:
    """The plan. Raises Unsupported where its program asks for Newton's method and no recurrence takes it."""
    wishes = plan.program.wishes
    if not wishes.newton or any(stage.walk == "newton" for stage in plan.every()):
        return plan
    why = "; ".join(f"{r.subject}: {r.text.partition(': ')[2]}" for r in plan.told if r.topic == "newton")
    labels = () if wishes.span is None else (Label(wishes.span, "asked for here"),)
    message = f"{plan.program.name} cannot run by Newton's method"
    raise Unsupported.of("no-newton", message, labels, why, "leave the form to the compiler")
