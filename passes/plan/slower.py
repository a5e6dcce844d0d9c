"""program -> recurrences at several rates, one after the other: slow states (`down 4: g = ..`) run over the groups alone.

    y = x + h                                         core_2    y = x + h;  output y, y.lag1, ..          every step
    down 4: g = s * g[t-1] + W @ down[P](y)    ->     core_3    g = s * g + W @ y;  output g              every 4th step
    k = q * k[t-1] + y + g                            core_4    k = q * k + y + g                         every step

Needs: the step graph. Gives: stages in order, or None where there is no slow state. The first of them counts the steps of
groups (`clocks`). A slow state that feeds faster ones and is fed by them stays with them: it is computed at every step, and
held. What a slow recurrence is given is a state, an output, or a value that the spec names and that is read at every step; what
leads from there to a slow state is computed once for each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from seqc.analysis.boundaries import counter, counters
from seqc.ir.block import Reason
from seqc.ir.graph import Node, leaves, node, topological
from seqc.ir.inside import INSIDE
from seqc.ir.intervals import Interval
from seqc.ir.plan import Groups, Plan, Stage
from seqc.ir.program import Program, TensorDecl
from seqc.passes.plan.components import Cut
from seqc.passes.plan.cutting import down_to, fresh, names_of, part_of, plain, told

FAST, CLOCK = "", "clock"


def slower(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    program = stage.program
    slow = slow_states(program)
    if not slow or program.plane is not None or any(n.text("name") == INSIDE for n in leaves(program.graph.values(), "input")):
        return None
    apart = _apart(program, slow)
    kept = [name for name in slow if all(name not in states or not kind for kind, states in apart)]
    text = "feeds faster states and is fed by them: computed at every step, and held"
    reasons = [Reason("rates", name, text) for name in kept]
    stages = _Rates(stage, apart, taken).stages() if len(kept) < len(slow) else (stage,)
    for one in stages or ():
        if one.groups:
            count = one.groups.steps
            text = f"a recurrence of its own, over groups of {count} steps: T / {count} of a call's T"
            reasons.append(Reason("rates", ", ".join(one.program.states), text))
    return Plan(program, stages, tuple(reasons)) if stages else None


def slow_states(program: Program) -> dict[str, str]:
    """The slow states, with what counts the steps of their groups."""
    due = {counter(period, name).due: name for name, period in counters(program).items()}
    found = {}
    for name, n in program.updates.items():
        if n.op == "where" and n.args[0] in due and n.args[2] is program.states[name].leaf():
            found[name] = due[n.args[0]]
    return found


def _apart(program: Program, slow: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """(what counts its groups, states) of each recurrence, in an order in which they can run; the clocks first, and a fast one,
    if only for outputs, last."""
    import networkx

    clocks = tuple(name for name in program.states if name in slow.values())
    leaf_of = {d.leaf(): name for name, d in program.states.items()}
    graph = networkx.DiGraph()
    graph.add_nodes_from(name for name in program.states if name not in clocks)
    for name in graph.nodes:
        read = (leaf_of.get(n) for n in topological([program.updates[name]]))
        graph.add_edges_from((one, name) for one in list(read) if one in graph)
    whole = networkx.condensation(graph)
    kinds = {}
    for c in whole.nodes:
        found = {slow.get(name, FAST) for name in whole.nodes[c]["members"]}
        kinds[c] = found.pop() if len(found) == 1 else FAST
    groups: list[tuple[str, tuple[str, ...]]] = [(CLOCK, clocks)]
    left = list(networkx.lexicographical_topological_sort(whole))
    while left:
        for kind in (FAST, *clocks):
            taken: list[int] = []
            for c in left:
                if kinds[c] == kind and not any(p in left and p not in taken for p in whole.predecessors(c)):
                    taken.append(c)
            names = {name for c in taken for name in whole.nodes[c]["members"]}
            if names:
                groups.append((kind, tuple(name for name in program.states if name in names)))
                left = [c for c in left if c not in taken]
    return [*groups, *([(FAST, ())] if groups[-1][0] != FAST else [])]


class _Rates(Cut):
    """The stages of groups of states, each of one rate."""

    def __init__(self, stage: Stage, groups: Sequence[tuple[str, tuple[str, ...]]], taken: frozenset[str]) -> None:
        super().__init__(stage, groups, taken)
        program = self.program
        self.periods = counters(program)
        slow = {program.updates[name] for kind, names in groups for name in names if kind not in (FAST, CLOCK)}
        self.fast = down_to([n for n in program.graph.values() if n not in slow], slow)  # what is made at every step
        self.counted: dict[str, Interval] = {}  # of each count that is handed over, its range
        self.kinds = [kind for kind, _ in groups]
        self.states = {n: d.dims for name, d in program.states.items() for n in (program.updates[name], d.leaf())}

    def _place(self, y: Node) -> int:
        """Slow recurrences give their states alone; what is made of these is made where they are read."""
        least = self.level[y]
        if least > 0 and self.kinds[least] and self._is(y):
            return least
        return next(i for i, kind in enumerate(self.kinds) if i >= least and kind == FAST)

    def _is(self, y: Node) -> bool:
        """Whether an output is a state, dim by dim."""
        decl = next(self.program.output_decls[name] for name, n in self.program.outputs.items() if n is y)
        return plain(y) and self.states.get(y) == decl.dims

    def _handed(self, i: int, roots: list[Node], written: set[Node]) -> list[Node] | None:
        """What group i takes of the groups before it: the first values on the way that are made anyway."""
        ends = {n for n in self.order if 0 <= self.level[n] < i and self._told(n, written)}
        first = ends & down_to(roots, ends)
        return [n for n in self.order if n in first] if all(plain(n) for n in first) else None

    def _told(self, n: Node, written: set[Node]) -> bool:
        """Whether a value of an earlier group is handed over, and not what it is made of."""
        kind = self.kinds[self.level[n]]
        if kind == CLOCK:
            return n.op == "leaf"
        named = n in written or (n in self.program.definitions and n in self.fast)
        return n in self.states or (kind == FAST and plain(n) and named)

    def _given(self, made: TensorDecl) -> TensorDecl:
        """A count has no gradient."""
        given = super()._given(made)
        counted = made.name in self.counted
        return replace(given, role="place", range=self.counted[made.name]) if counted else given

    def _decl(self, n: Node) -> TensorDecl:
        made = super()._decl(n)
        if self.kinds[self.level[n]] and made.dims != self.states[n]:  # slow stages give states as they are
            made = replace(made, name=fresh(f"{made.name}_held", self.taken), dims=self.states[n])
        if n.op == "leaf" and n.text("name") in self.periods:
            self.counted[made.name] = self.program.states[n.text("name")].range
        return made

    def _walked(self, i: int, one: Stage, outputs: Mapping[str, Node], read: Mapping[Node, Node]) -> Stage:
        kind = self.kinds[i]
        if kind == CLOCK:
            return replace(one, walk="clocks")
        one = replace(one, program=told(one.program, self.program))
        if kind == FAST:
            return one
        counts = next(n.text("name") for leaf, n in read.items() if leaf.op == "leaf" and leaf.text("name") == kind)
        return _grouped(one, counts, self.periods[kind], outputs, self.program)


def _grouped(stage: Stage, counts: str, steps: int, outputs: Mapping[str, Node], whole: Program) -> Stage:
    """The stage of slow states around the recurrence of its groups. counts: an input; outputs: nodes of `whole`."""
    program = stage.program
    taken = names_of(program)
    mask = TensorDecl(fresh("whole", taken), "input", (), role="place")
    due = next(n.args[0] for n in program.updates.values() if n.op == "where")
    table: dict[Node, Node] = {due: node("gt", mask.leaf(), node("const", value=0.0))}
    picked: dict[str, tuple[str, int]] = {}
    given = [mask]
    ends = {name: program.updates[name] for name in program.states}
    for n in reversed(leaves(ends.values(), "input", [due])):
        name, back = n.text("name"), n.number("offset")
        own = name if not back else fresh(f"{name}.{str(back).replace('-', '_')}", taken)
        decl = replace(program.inputs[name], name=own)
        picked[own], table[n] = (name, back), decl.leaf()
        given += [decl] if back else []
    made = {name: fresh(f"{name}_rows", taken) for name in program.states}
    decls = {made[name]: TensorDecl(made[name], "output", d.dims) for name, d in program.states.items()}
    rows = {made[name]: ends[name] for name in program.states}
    inner = replace(part_of(program, rows, ends, table, given, decls), direction="forward", name=f"{program.name}_rows")
    inner = told(inner, program)
    picked |= {name: (name, 0) for name in inner.inputs if name not in picked and name != mask.name}
    picked = {name: picked[name] for name in inner.inputs if name != mask.name}
    held = {}
    for name, n in outputs.items():
        state = next(s for s in program.states if n in (whole.states[s].leaf(), whole.updates[s]))
        held[name] = state, n is whole.states[state].leaf()
    groups = Groups(steps, counts, mask.name, picked, made, held)
    core = replace(stage, program=inner)
    return replace(stage, name=f"slow_{stage.name}", walk="groups", inner=Plan(inner, (core,)), groups=groups)
