"""One channel over a long time: the sequence is cut in pieces, and each lane of a vector runs one of them.

In: a `Plan` whose states, inputs and outputs are numbers, and which is linear in its states (`seqc.analysis.pieces`).
Out: C++: namespaces `lanes_forward` and `lanes_backward`, which run one long sequence, and the condition under which they do;
nothing where the plan is another. A sequence is read twice. First every piece runs from zero, which gives its end; its span
(what it makes of the states before it) runs beside it, or is a power of the step's matrix where that is the same at all
steps. Then the states before the pieces follow, one after the other, and every piece runs again. Rows of W steps of W pieces
are turned in registers, so that memory is read along the steps; a stretch that stays in the cache is done before the next.
How a sequence is cut depends on its length alone.

Backward is a recurrence of the same kind, which runs from the last step back: its states are the cotangents of the states,
its inputs what the step reads, what was saved of the states, and the cotangents of the outputs. Gradients of parameters are
sums over its steps, one for each lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from seqc.analysis.pieces import Pieces, pieces_of
from seqc.backends.native_cpu.narrow import channels, narrowed
from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.plan import Plan
from seqc.ir.graph import BATCH, Node, const, leaf, leaves, rebuild, substitute, topological
from seqc.ir.keys import next_key, prev_key, slope_key, slope_of
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE, holds
from seqc.ir.ops.structure import at_position
from seqc.ir.program import Program, TensorDecl

FEW = 8  # states, and links that are run beside them: more would not stay in registers
LAGS = 4  # how far back an input is read: a vector has 4 lanes or more, but for float64 without AVX
SUMS = 16  # numbers that parameters have together, where backward runs in lanes


@dataclass(frozen=True)
class Lanes:
    """What runs in lanes.

    forth: forward, or backward; cut: of its program, a recurrence in the order of the run. arrays: input -> (array,
    steps before a place that it is read there); backs: how many steps back the run reads an input; early: (input, steps
    back) -> the array that holds it where that is before the first step. results: array -> value of a step; kept: those
    that only backward needs; firsts: (array, step, array of starts): what is saved of a state that is an earlier value
    of another, which backward reads of the other. sums: (array, place in it, what is summed). sizes: dim -> the size
    that it must have. joined: arrays that are not written, for what they would hold is added to the gradient of the
    same input, by states of the run's own. channels: dims that lie side by side in a step, with their sizes; laid: the dims of
    each parameter as it lies in memory.
    """

    forth: bool
    cut: Pieces
    arrays: Mapping[str, tuple[str, int]]
    backs: Mapping[str, int]
    results: Mapping[str, Node]
    kept: tuple[str, ...] = ()
    sums: tuple[tuple[str, str, Node], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    joined: tuple[str, ...] = ()
    firsts: tuple[tuple[str, int, str], ...] = ()
    early: Mapping[tuple[str, int], str] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    laid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """The recurrence."""
        return self.cut.whole

    @property
    def links(self) -> Mapping[str, Node]:
        """The spans' states, and what they become."""
        return self.cut.spans.updates

    @property
    def beside(self) -> int:
        """How many links run beside the states."""
        return 0 if self.cut.fixed else len(self.links)

    @property
    def instead(self) -> tuple[str, str]:
        """When a sequence runs in lanes, and how."""
        space = "lanes_forward" if self.forth else "lanes_backward"
        way, back = ("true", "false") if self.forth else ("false", "true")
        run = f"{space}::run_lanes<{{}}, {{}}>(a, call, rest, threads)"
        when = f"{space}::lane_long(call.steps(rest))"
        ways = [f"(way > 0 ? {run.format(way, x)} : {run.format(back, x)})" for x in ("true", "false")]
        if not self.forth:
            return when, ways[0]
        if not self.kept:
            return f"!save && {when}", ways[1]
        sized = "".join(f" && (!save || n_{ident(d)} == {size})" for d, size in self.sizes)
        return when + sized, f"save ? {ways[0]} : {ways[1]}"


@found_once
def lanes_of(plan: Plan) -> Lanes | None:
    """What runs in lanes forward; None where the plan is another."""
    found = _forth(plan)
    behind = lanes_back(plan) if found and found.kept else None
    taps = _taps(narrowed(plan)) if behind else {}
    if found is None or behind is None or not taps:
        return found
    skipped = {f"{x}_kept" for x in taps}
    chain = {(state, back): x for x, (state, back) in taps.items()}
    chain |= {(state, 0): state for state, _ in taps.values()}
    firsts = tuple((f"{x}_kept", t, f"{chain[state, back - t]}_0") for x, (state, back) in taps.items() for t in range(back))
    kept = tuple(x for x in found.kept if x not in skipped)
    results = {x: n for x, n in found.results.items() if x not in skipped}
    return replace(found, results=results, kept=kept, firsts=firsts, sizes=behind.sizes)


def _taps(plan: Plan) -> dict[str, tuple[str, int]]:
    """State -> (the state that it is an earlier value of, so many steps back), where both are saved."""
    found: dict[str, tuple[str, int]] = {}
    for x in plan.program.states:
        update, back, last = plan.forward[next_key(x)], 0, x
        while update.op == "leaf" and update.text("kind") == "state" and back < LAGS:
            last, back = update.text("name"), back + 1
            update = plan.forward[next_key(last)]
        if back and update.op != "leaf" and {x, last} <= set(plan.saved_states):
            found[x] = last, back
    return {x: y for x, y in found.items() if all((y[0], k) in found.values() for k in range(1, y[1]))}


@found_once
def _forth(plan: Plan) -> Lanes | None:
    beside, laid = channels(plan), {x: d.dims for x, d in plan.program.params.items()}
    plan = narrowed(plan)
    program = plan.program
    if not _fits(program):
        return None
    roots = [plan.forward[x] for x in (*program.outputs, *(next_key(s) for s in program.states))]
    read = leaves(roots, "input")
    if any(not 0 <= n.number("offset") <= LAGS for n in read):
        return None
    cut = _cut(program, roots)
    if cut is None:
        return None
    back = {x: max([n.number("offset") for n in read if n.text("name") == x], default=0) for x in program.inputs}
    results = {x: plan.forward[x] for x in program.outputs}
    saved = plan.every == 1 and not plan.kept
    kept = {f"{s}_kept": program.states[s].leaf() for s in plan.saved_states} if saved else {}
    kept = {x: n for x, n in kept.items() if n.dims == (BATCH,)}
    arrays = {x: (x, 0) for x in program.inputs}
    cut = replace(cut, whole=replace(program, updates={s: plan.forward[next_key(s)] for s in program.states}))
    whole = saved and len(kept) == len(plan.saved_states)
    given = {**results, **(kept if whole else {})}
    return Lanes(True, cut, arrays, back, given, tuple(kept) if whole else (), channels=beside, laid=laid)


@found_once
def lanes_back(plan: Plan) -> Lanes | None:
    """What runs in lanes backward; None where the plan is another."""
    within = _forth(plan)
    plan = narrowed(plan)
    if within is None or plan.kept or plan.products or plan.factors or plan.every != 1:
        return None
    program, names = plan.program, dict[Node, Node]()
    states = {s: TensorDecl(s, "state", (), init=const(0.0)) for s in program.states}
    read = [n for n in leaves(plan.backward.values()) if n.text("kind") != "param"]
    taps = _taps(plan)
    first = {("input", x): max([n.number("offset") for n in read if n.text("name") == x], default=0) for x in program.inputs}
    told = [taps[n.text("name")] for n in read if n.text("kind") == "state" and n.text("name") in taps]
    first |= {("state", x): max(back for y, back in told if y == x) for x, _ in told}
    arrays, backs, alts = dict[str, tuple[str, int]](), dict[str, int](), dict[tuple[str, int], str]()
    for n in read:
        kind, name = n.text("kind"), n.text("name")
        if kind == "cot" and name not in program.output_decls:
            names[n] = leaf("state", next(s for s in states if next_key(s) == name), (BATCH,))
            continue
        offset = n.number("offset") if kind == "input" else 0
        if kind == "state" and name in taps:
            name, offset = taps[name]
        array = {"input": name, "state": f"{name}_kept", "cot": f"d_{name}"}.get(kind, "")
        if not array or n.dims != (BATCH,):
            return None
        ahead = first.get((kind, name), 0)
        back = ahead - offset
        if kind == "state" and offset:
            alts[array, back] = f"{n.text('name')}_kept"
        arrays[array], backs[array] = (array, ahead), max(backs.get(array, 0), back)
        names[n] = leaf("input", array, (BATCH,), back)
    graph = substitute(dict(plan.backward), names)
    found = _sums(program, graph)
    if found is None or not arrays:
        return None
    updates = {x: graph.get(prev_key(x), const(0.0)) for x in states}
    inputs = {x: TensorDecl(x, "input", ()) for x in arrays}
    turned = replace(program, inputs=inputs, outputs={}, output_decls={}, definitions={}, spans={})
    for join in (True, False):
        own, due, results = _given(program, graph, join)
        held = {x: TensorDecl(x, "state", (), init=const(0.0)) for x in (*states, *due)}
        roots = [*updates.values(), *due.values(), *results.values(), *found[0].values()]
        cut = _cut(replace(turned, states=held, updates=updates | due), roots)
        if cut and len(held) <= FEW:
            sums = tuple((*x, n) for x, n in found[0].items())
            return Lanes(False, cut, arrays, backs, results, (), sums, found[1], own, (), alts, within.channels, within.laid)
    return None


Sums = dict[tuple[str, str], Node]  # (array, place in it) -> what is summed


def _sums(program: Program, graph: Mapping[str, Node]) -> tuple[Sums, tuple[tuple[str, int], ...]] | None:
    """The sums of the gradients of parameters, and the sizes of their dims; None where they are too many."""
    sums, sizes = Sums(), dict[str, int]()
    for name, d in program.params.items():
        if (whole := graph.get(slope_key(name))) is None:
            continue
        extents = [program.dims[x].default for x in d.dims]
        if len(extents) > 1 or None in extents or d.per_batch:
            return None
        for x, size in zip(d.dims, extents, strict=True):
            sizes[x] = size or 0
            sums |= {(f"d_{name}", str(k)): _folded(at_position(whole, x, k)) for k in range(size or 0)}
        sums |= {} if d.dims else {(f"d_{name}", "0"): whole}
    return (sums, tuple(sizes.items())) if len(sums) <= SUMS else None


def _given(
    program: Program, graph: Mapping[str, Node], join: bool
) -> tuple[tuple[str, ...], dict[str, Node], dict[str, Node]]:
    """(arrays that are not written, states that hold what earlier steps are due, arrays) of the gradients of inputs.

    What step t gives to the input k steps before is due when the run comes there: `due.k` becomes it, and `due.k+1`.
    """
    joined, due, results = list[str](), dict[str, Node](), dict[str, Node]()
    for x in program.inputs:
        slopes = {slope_of(key).offset: n for key, n in graph.items() if slope_of(key)[::2] == (x, False)}
        arrays = {k: f"d_{x}_at_{k}" if k else f"d_{x}" for k in slopes}
        if not join or 0 not in slopes or len(slopes) == 1:
            results |= {arrays[k]: n for k, n in slopes.items()}
            continue
        old = {k: leaf("state", f"{x}.due{k}", (BATCH,)) for k in range(1, max(slopes) + 1)}
        for k in old:
            terms = [n for n in (slopes.get(k), old.get(k + 1)) if n is not None]
            due[f"{x}.due{k}"] = terms[0] + terms[1] if len(terms) > 1 else terms[0]
        results[f"d_{x}"] = slopes[0] + old[1]
        joined += [arrays[k] for k in slopes if k]
    return tuple(joined), due, results


def _fits(program: Program) -> bool:
    decls = [*program.inputs.values(), *program.states.values(), *program.output_decls.values()]
    if any(d.dims for d in decls) or any(d.plays != "input" for d in program.inputs.values()) or not program.inputs:
        return False
    return program.direction != "both" and len(program.states) <= FEW


def _cut(program: Program, roots: Iterable[Node]) -> Pieces | None:
    """How the program is cut in pieces that lanes can run."""
    cut = pieces_of(replace(program, direction="forward"))  # in the order of the run
    if isinstance(cut, str) or cut.algebra != "sum" or cut.selects or not cut.links or (not cut.fixed and len(cut.links) > FEW):
        return None
    return cut if all(_plain(n) for n in topological([*roots, *cut.spans.updates.values()])) else None


def _folded(root: Node) -> Node:
    """A value whose choices between constants are made."""
    done: dict[Node, Node] = {}
    for n in topological([root]):
        new = rebuild(n, tuple(done[a] for a in n.args))
        if new.op == "where" and new.args[0].op == "eq" and all(a.op == "const" for a in new.args[0].args):
            new = new.args[1] if new.args[0].args[0] is new.args[0].args[1] else new.args[2]
        zero = [a.op == "const" and a.attr("value") == 0.0 for a in new.args]
        if new.op == "add" and any(zero):
            new = new.args[zero[0]]
        done[n] = new
    return done[root]


def _plain(n: Node) -> bool:
    """Whether a value is a number of parameters, or one of each sequence by operators that vectors have."""
    if n.op == "expand":
        return set(n.dims) <= {BATCH}
    if set(n.dims) <= {BATCH} and (holds(n, "lanes") or n.op in ("leaf", "const")):
        return True
    if n.op == "take":
        return n.args[0].op == "leaf" and len(n.args[0].dims) == 1 and n.args[0].text("kind") == "param"
    if n.op == "leaf":
        return n.text("kind") == "param"
    return BATCH not in n.dims and not n.dims and TABLE[n.op].elementwise
