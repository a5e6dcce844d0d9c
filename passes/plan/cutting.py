"""What cutting a step graph in parts needs to know of its nodes, and the parts as programs.

In: nodes, programs. Out: nodes, answers, programs. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from seqc.diagnostics import Span
from seqc.ir.dims import is_primed, unprimed
from seqc.ir.graph import BATCH, RESERVED, Node, leaves, rebuild, topological
from seqc.ir.keys import next_key
from seqc.ir.program import Program, TensorDecl
from seqc.ir.traverse import reached
from seqc.ir.windows import mirrored as reflected


def plain(n: Node) -> bool:
    """Whether a tensor can be declared for n."""
    return n.dtype == "real" and BATCH in n.dims and not any(is_primed(d) for d in n.dims)


def sized(part: Program) -> bool:
    """Whether each dim of a part has a size: a default, or a tensor that has the dim."""
    tensors = (*part.inputs.values(), *part.params.values())
    known = {unprimed(d) for tensor in tensors for d in tensor.dims}
    return all(d.default is not None or name in known for name, d in part.dims.items())


def down_to(roots: Iterable[Node], stops: set[Node]) -> set[Node]:
    """Everything below the roots, but nothing below `stops`."""
    return set(reached(roots, lambda n: () if n in stops else n.args))


def replaced(
    outputs: Mapping[str, Node], table: Mapping[Node, Node], mirrored: bool
) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(the roots, node -> what it has become). mirrored: what was a step ago is a step ahead."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        if n in table:
            done[n] = table[n]
        elif mirrored and n.op == "leaf" and n.text("kind") == "input":
            done[n] = reflected(n)
        else:
            done[n] = rebuild(n, tuple(done[a] for a in n.args))
    return {name: done[n] for name, n in outputs.items()}, done


def image(program: Program, done: Mapping[Node, Node]) -> Program:
    """The program with each node as what it has become: what a step gives, and the places and names of what is left of it."""
    updates = {name: done[n] for name, n in program.updates.items()}
    outputs = {name: done[n] for name, n in program.outputs.items()}
    present = set(topological([*updates.values(), *outputs.values()]))
    plain = {n: x for n, x in done.items() if x in present and x.op not in ("leaf", "const")}
    spans = {plain[n]: span for n, span in program.spans.items() if n in plain}
    called = {plain[n]: name for n, name in program.definitions.items() if n in plain}
    return replace(program, updates=updates, outputs=outputs, spans=spans, definitions=called)


def part_of(
    program: Program, outputs: Mapping[str, Node], updates: Mapping[str, Node], table: Mapping[Node, Node],
    given: Iterable[TensorDecl], output_decls: Mapping[str, TensorDecl], mirrored: bool = False, masks: bool = True,
) -> Program:
    """The program of some of the roots, with the nodes in `table` replaced. It declares what it reads of the inputs and params.

    given: inputs and params beside the program's own. masks: whether it has the masks of sparse params, so that kernels skip
    what these leave out. mirrored: what was a step ago is a step ahead.
    """
    graph, image = replaced({**outputs, **{next_key(n): x for n, x in updates.items()}}, table, mirrored)
    states = {n: d for n, d in program.states.items() if n in updates}
    used = leaves([*graph.values(), *(d.init for d in states.values() if d.init is not None)])
    read = {(n.text("kind"), n.text("name")) for n in used}
    read |= {("param", d.support.mask) for n, d in program.params.items() if masks and d.support and ("param", n) in read}
    definitions: dict[Node, str] = {}
    spans: dict[Node, Span] = {}
    order = topological(graph.values())
    present = {n for n in order if n.op != "leaf"}
    for old, new in image.items():
        if new in present and old in program.definitions:
            definitions.setdefault(new, program.definitions[old])
        if new in present and old in program.spans:
            spans.setdefault(new, program.spans[old])
    dims = {unprimed(d) for n in order for d in n.dims} | {n.text("dim") for n in order if n.op == "size"}
    more = list(given)
    inputs = [*program.inputs.values(), *(d for d in more if d.kind == "input")]
    params = [*program.params.values(), *(d for d in more if d.kind == "param")]
    return replace(
        program, claims=(), spans=spans, definitions=definitions, states=states,
        dims={n: d for n, d in program.dims.items() if n in dims},
        inputs={d.name: d for d in inputs if ("input", d.name) in read},
        params={d.name: d for d in params if ("param", d.name) in read},
        updates={n: graph[next_key(n)] for n in updates}, outputs={n: graph[n] for n in outputs},
        output_decls={n: output_decls[n] for n in outputs}, direction="forward" if mirrored else program.direction,
    )  # fmt: skip


def told(part: Program, whole: Program) -> Program:
    """The part with arguments of the whole that tell its number of steps, the dtype of its values and the sizes of its dims,
    where none of those that it reads does."""
    while (one := _teller(part, whole)) is not None:
        own = {*part.dims, *(unprimed(d) for d in one.dims)}
        part = replace(part, dims={name: d for name, d in whole.dims.items() if name in own})
        if one.kind == "input":
            part = replace(part, inputs={**part.inputs, one.name: one})
        else:
            part = replace(part, params={**part.params, one.name: one})
    return part


def _teller(part: Program, whole: Program) -> TensorDecl | None:
    """What is to be added next."""
    if not part.inputs:
        return min(whole.inputs.values(), key=lambda d: (d.leaf_type != "real", len(d.dims)))
    tensors = (*part.inputs.values(), *part.params.values())
    if all(d.leaf_type != "real" for d in tensors):
        return next((d for d in (*whole.inputs.values(), *whole.params.values()) if d.leaf_type == "real"), None)
    known = {unprimed(x) for d in tensors for x in d.dims}
    lacking = [name for name, d in part.dims.items() if len(d.choices) != 1 and name not in known]  # defaults are no promise
    tellers = (*whole.params.values(), *whole.inputs.values())
    return next((d for name in lacking for d in tellers if name in {unprimed(x) for x in d.dims}), None)


def axes_of(program: Program, n: Node) -> tuple[str, ...]:
    """The dims that an array of a node's values has, in the order of the program's dims."""
    places = {dim: i for i, dim in enumerate(program.dims)}
    return tuple(sorted((d for d in n.dims if d != BATCH), key=lambda d: (places[unprimed(d)], d)))


def names_of(program: Program) -> set[str]:
    """The names that nothing new of a program may have."""
    taken = {*program.inputs, *program.params, *program.states, *program.outputs, *program.dims, *RESERVED}
    return taken | {f"{name}{mark}" for name in program.states for mark in ("_0", "_T", "_all")}


def fresh(wish: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on."""
    name, i = wish, 1
    while taken & {name, name.replace(".", "_")}:  # a dot is an underscore in emitted text
        i += 1
        name = f"{wish}_{i}"
    taken |= {name, name.replace(".", "_")}
    return name
