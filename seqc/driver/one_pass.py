"""One stage of the pipeline on a graph that was dumped, and perhaps edited: for whoever looks for a fault in a pass.

In: a stage's name, its spec, and the graphs of a file of `seqc compile --dump`. Out: what the stage gives. The stages before it
run on the spec as always; then the graphs of the file take the place of those that the stage reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.diagnostics import Diagnostic, Refusal, near_miss
from seqc.driver.dump import graphs
from seqc.driver.pipeline import run
from seqc.ir.block import Block
from seqc.ir.graph import Node
from seqc.ir.keys import next_key
from seqc.ir.program import Program
from seqc.passes import LOWERINGS, PIPELINE, Stage
from seqc.passes.blocks.choose import EAGER, Candidate

Graphs = Mapping[str, Mapping[str, Node]]  # the graphs of a value by their titles, as `dump.graphs` gives them


def one_pass(name: str, program: Program, given: Graphs, form: str | None = None, rows: int | None = None) -> object:
    """What the stage `name` gives on the way to plain torch, which is the way that `compile --dump` shows.

    given: the graphs that it reads; form, rows: as of `seqc.driver.pipeline.lower`. Raises Refusal where there is no such
    stage, or it reads other graphs.
    """
    stages = (*PIPELINE, *LOWERINGS)
    names = [stage.name for stage in stages]
    if name not in names:
        help = near_miss(name, names, "the stages are")
        raise Refusal(Diagnostic("no-such-pass", f"there is no stage `{name}`", help=help))
    at = names.index(name)
    known = run(PIPELINE[:at], {"program": program, "form": form, "rows": rows, "machine": EAGER})
    need = next(n for n in reversed(stages[at].needs) if graphs(known[n]))
    known[need] = exchanged(known[need], given, name, need)
    return run((Stage(name, stages[at].run, stages[at].needs, "found"),), known)["found"]


def exchanged(value: object, given: Graphs, name: str, need: str) -> object:
    """The value with other graphs."""
    before = graphs(value)
    if before.keys() != given.keys() or any(before[title].keys() != given[title].keys() for title in before):
        giver = next((stage.name for stage in PIPELINE if stage.gives == need), "spec")
        wanted = "; ".join(f"{title}: {', '.join(graph)}" for title, graph in before.items())
        raise Refusal(Diagnostic(
            "other-graphs", f"`{name}` reads the graph that `{giver}` gives, and the file holds another",
            cause=f"it has to have {wanted}", help=f"take the file that ends in `_{giver}.ir`",
        ))
    match value:
        case Program():
            new = given["step"]
            updates = {state: new[next_key(state)] for state in value.updates}
            return replace(value, updates=updates, outputs={output: new[output] for output in value.outputs})
        case Candidate():
            return replace(value, forward=given["forward"])
        case Block():
            return replace(value, forward=given["forward"], backward=given["backward"])
    return dict(given["graph"])
