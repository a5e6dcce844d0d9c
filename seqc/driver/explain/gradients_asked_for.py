"""What a call leaves out of its backward pass that asks for some gradients alone, in words.

In: a compiled spec. Out: sentences for `explain`.
"""

from __future__ import annotations

from seqc.driver.compile import Compiled
from seqc.ir.arguments import argument_table


def asked(compiled: Compiled) -> list[str]:
    """Which arguments have no gradient, and which stages run for some gradients alone."""
    table = compiled.signature.table
    none = [f"{a.name} ({a.role})" for a in table if not a.gradient]
    told = [f"none at all: of {', '.join(none)}"] if none else []
    behind: dict[str, frozenset[str]] = {a.of: frozenset({a.of}) for a in table if a.gradient}
    every = frozenset(behind)
    for stage in compiled.plan.stages if len(compiled.plan.stages) > 1 else ():
        own = [a.of for a in argument_table(stage.program) if a.gradient]
        serves = frozenset(x for name in own for x in behind.get(name, ()))
        behind |= dict.fromkeys(stage.program.outputs, serves)
        if serves and serves < every:
            names = ", ".join(a.of for a in table if a.of in serves)
            told.append(f"the stage `{stage.name}` runs backward only where a call asks for a gradient of {names}")
    return [*told, "what a call does not ask for (`requires_grad`) is left out, with all that serves nothing else"]
