"""What a stage of the pipeline gave, as text: graphs in the text form of `seqc.ir.graph_text`, everything else as comments.

In: a value of the pipeline and the program. Out: text, whose graphs `read` gives back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from seqc.analysis.component import Component
from seqc.ir.block import Block, Reason
from seqc.ir.graph import Node
from seqc.ir.graph_text import parse, show
from seqc.ir.intervals import Interval
from seqc.ir.keys import next_key
from seqc.ir.plan import Plan
from seqc.ir.program import Program
from seqc.passes.blocks.choose import Candidate, Offers

TITLES = ("step", "forward", "backward", "graph", r"stage \S+")  # of the graphs in a dump


def graphs(value: object) -> dict[str, Mapping[str, Node]]:
    """The graphs in a value, each by a title: of a program, a candidate or a block, or the value itself."""
    match value:
        case Program():
            return {"step": value.graph}
        case Plan():
            return {f"stage {stage.name}": stage.program.graph for stage in value.every()}
        case Candidate():
            return {"forward": value.forward}
        case Block():
            return {"forward": value.forward, "backward": value.backward}
        case Mapping() if value and all(isinstance(n, Node) for n in value.values()):
            return {"graph": {str(key): n for key, n in value.items()}}
    return {}


def facts(value: object, program: Program) -> list[str]:
    """What a value says beside its graphs, a line each."""
    match value:
        case Program():
            return [f"{program.path}: {len(program.states)} states, {len(program.outputs)} outputs"]
        case Plan():
            stages = [f"stage {s.name}: {s.walk}: {', '.join(s.reads)} -> {', '.join(s.writes)}" for s in value.every()]
            return [*stages, *facts(value.told, program)]
        case Component():
            return [f"{', '.join(value.states)}: {value.kind}: {value.why}"]
        case Reason():
            return [f"{value.topic} {value.subject}: {value.text}"]
        case Candidate():
            head = f"{value.form} form, {value.rows} rows a block: modelled time {value.time:.4g} a token"
            return [head, *(f"    {line}" for line in facts(value.reasons, program))]
        case Offers():
            refused = [f"refused: {why}" for why in value.refused]
            return [*facts((value.step, *value.blocks), program), *refused]
        case Block():
            return [f"{value.form} form, {value.rows} rows a block", *facts(value.reasons, program)]
        case tuple():
            return [line for part in value for line in facts(part, program)]
        case Mapping() if value and all(isinstance(x, Interval) for x in value.values()):
            named = {n: next_key(name) for name, n in program.updates.items()} | dict(program.definitions)
            return [f"{name} in {value[n]}" for n, name in named.items() if n in value]
    return []


def text_of(stage: str, value: object, program: Program) -> str:
    """The dump of one stage."""
    lines = [f"# {program.name} after {stage}", *(f"# {line}" for line in facts(value, program))]
    parts = ["\n".join(lines) + "\n"]
    parts += [f"# {title}\n{show(graph, program.definitions)}" for title, graph in graphs(value).items()]
    return "\n".join(parts)


def read(text: str) -> dict[str, dict[str, Node]]:
    """The graphs of a dump by their titles, as `graphs` gave them. Raises `seqc.ir.graph_text.IrError`."""
    parts = re.split(rf"^# ({'|'.join(TITLES)})$", text, flags=re.MULTILINE)[1:]
    return {title: parse(graph) for title, graph in zip(parts[::2], parts[1::2], strict=True)}
