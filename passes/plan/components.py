"""program -> several recurrences, one after the other, each with the form that suits it.

    h = tanh(R @ h[t-1] + x)                      core_1   h = tanh(R @ h[t-1] + x);  output h
    S = exp(g) * S[t-1] + k * h           ->      core_2   S = exp(g) * S[t-1] + k * h;  output o,  h an input
    output o = sum[K](q * S)

where states that take no block form (nonlinear ones, those that a matrix mixes) stand beside states that take one: in one
recurrence all would go step by step. States of both kinds that feed each other are one component, and stay together.

Needs: the step graph. Gives: stages in order, or None where one recurrence does as well. Components are taken in the order in
which they can be computed, all of one kind that are ready before any of the other. What one recurrence hands to a later one is
the smallest set of values that the later one can be computed from: a minimal cut (networkx), counted in elements a step.
A counter or a position, which sees no input, is a recurrence of its own by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from seqc.analysis.component import Component
from seqc.analysis.cost import volume
from seqc.analysis.workload import nominal_sizes
from seqc.ir.block import Reason
from seqc.ir.graph import Node, topological
from seqc.ir.ops import TABLE
from seqc.ir.plan import Plan, Rule, Stage
from seqc.ir.program import HANDED, Program, TensorDecl
from seqc.passes.plan.cutting import axes_of, fresh, names_of, part_of, plain, sized, told

BLOCKS = ("diagonal", "low rank", "coupled", "maximum")  # components that a block may be made of
BESIDE = ("taps", "counter", "constant")  # those that stand in no way


def components(classify: Callable[[Program], tuple[Component, ...]], steps: Callable[[Program], bool]) -> Rule:
    """The rule for a machine. classify: the pass; steps: whether a recurrence goes step by step there even alone, or is to."""

    def apart(stage: Stage, taken: frozenset[str]) -> Plan | None:
        program = stage.program
        if program.wishes.form == "step":
            return None
        found = classify(program)
        single = {c.states for c in found if c.kind not in (*BLOCKS, *BESIDE)}
        while single and any(c.kind in BLOCKS and c.states not in single for c in found):
            stages = Cut(stage, _groups(program, found, single), taken).stages()
            if stages is None:
                return None
            lost = [s for s in stages if s.form is None and steps(s.program)]
            if not lost:
                return Plan(program, stages, _reasons(stages))
            single |= {c.states for c in found for s in lost if c.states[0] in s.program.states}
        return None

    return apart


def _reasons(stages: Iterable[Stage]) -> tuple[Reason, ...]:
    text = {"step": "a recurrence of its own, step by step", None: "a recurrence of its own, in blocks"}
    return tuple(Reason("form", ", ".join(s.program.states), text[s.form]) for s in stages)


def _groups(
    program: Program, found: tuple[Component, ...], single: set[tuple[str, ...]]
) -> list[tuple[bool, tuple[str, ...]]]:
    """(step by step, states) of each recurrence. What stands in no way goes with the first that can have it."""
    leaf_of = {d.leaf(): name for name, d in program.states.items()}
    first = {name: c.states for c in found for name in c.states}
    needs: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for c in found:
        below = topological([program.updates[s] for s in c.states])
        needs[c.states] = {first[leaf_of[n]] for n in below if n in leaf_of} - {c.states}

    def ordered(steps: bool) -> list[tuple[bool, tuple[str, ...]]]:
        out: list[tuple[bool, tuple[str, ...]]] = []
        left = list(found)
        while left:
            taken: list[Component] = []
            for c in left:
                fits = c.kind in BESIDE or (c.states in single) == steps
                if fits and not any(needs[c.states] & {x.states} for x in left if x not in taken):
                    taken.append(c)
            if taken:
                names = {name for c in taken for name in c.states}
                out.append((steps, tuple(name for name in program.states if name in names)))
                left = [c for c in left if c not in taken]
            steps = not steps
        return out

    return min(ordered(False), ordered(True), key=len)


class Cut:
    """The stages of some groups of states. again: what it counts to hand over a value that is written anyway."""

    def __init__(
        self, stage: Stage, groups: Sequence[tuple[bool | str, tuple[str, ...]]], taken: frozenset[str], again: float = 0.5
    ) -> None:
        self.stage, self.program, self.groups, self.again = stage, stage.program, groups, again
        self.order = topological(self.program.graph.values())
        group = self.group = {name: i for i, (_, states) in enumerate(groups) for name in states}
        leaf_of = {d.leaf(): group[name] for name, d in self.program.states.items()}
        self.level: dict[Node, int] = {}  # the last group whose states a node depends on, -1 for none
        for n in self.order:
            self.level[n] = leaf_of[n] if n in leaf_of else max((self.level[a] for a in n.args), default=-1)
        self.sizes = nominal_sizes(self.program)
        self.taken = {*names_of(self.program), *taken}

    def stages(self) -> tuple[Stage, ...] | None:
        """See the file's docstring."""
        program, last = self.program, len(self.groups) - 1
        outputs: list[dict[str, Node]] = [{} for _ in self.groups]
        for name, y in program.outputs.items():
            outputs[self._place(y)][name] = y
        made: dict[Node, TensorDecl] = {}
        read: list[dict[Node, Node]] = [{} for _ in self.groups]
        for i in range(last, -1, -1):
            updates = [program.updates[name] for name in self.groups[i][1]]
            cut = self._handed(i, [*outputs[i].values(), *updates], {*made, *program.outputs.values()})
            if cut is None:
                return None
            for n in cut:
                decl = made.get(n) or self._decl(n)
                outputs[self.level[n]].setdefault(decl.name, n)
                made[n] = decl
                read[i][n] = self._given(decl).leaf()
        return self._parts(outputs, read, {d.name: d for d in made.values()})

    def _place(self, y: Node) -> int:
        """The group that gives an output."""
        return max(self.level[y], 0)

    def _handed(self, i: int, roots: list[Node], written: set[Node]) -> list[Node] | None:
        """What group i takes of the groups before it; None where no tensor can hold it. written: what is in memory anyway."""
        import networkx

        order = topological(roots)
        early = {n for n in order if 0 <= self.level[n] < i}
        ends = [a for n in order if n not in early for a in n.args if a in early] + [n for n in roots if n in early]
        if not early:
            return []
        place = {n: k for k, n in enumerate(order)}
        graph = networkx.DiGraph()
        for n in early:
            cost = volume(n.dims, self.sizes) * (self.again if n in written else 1)
            limit = {"capacity": cost} if plain(n) else {}
            graph.add_edge((place[n], "in"), (place[n], "out"), **limit)
            if n.op == "leaf":
                graph.add_edge("states", (place[n], "in"))
            graph.add_edges_from(((place[a], "out"), (place[n], "in")) for a in n.args if a in early)
        graph.add_edges_from(((place[a], "out"), "group") for a in ends)
        try:
            _, (below, _) = networkx.minimum_cut(graph, "states", "group")  # of equal cuts the last, so that little runs twice
        except networkx.NetworkXUnbounded:
            return None
        cut = [n for n in order if n in early and (place[n], "in") in below and (place[n], "out") not in below]
        return list(dict.fromkeys(self._named(n, early) for n in cut))

    def _named(self, n: Node, early: set[Node]) -> Node:
        """What n is made of element by element, up to a value that the spec names: it costs no more to hand over."""
        known = {*self.program.updates.values(), *self.program.definitions}
        while n not in known and TABLE[n.op].elementwise:
            args = [a for a in n.args if a in early]
            if len(args) != 1 or args[0].dims != n.dims or not plain(args[0]):
                break
            n = args[0]
        return n

    def _decl(self, n: Node) -> TensorDecl:
        """A value that is handed over, as an output: one that the program has already, or a new one."""
        program = self.program
        for name, y in program.outputs.items():
            if y is n and set(program.output_decls[name].axes) == set(n.dims):
                return replace(program.output_decls[name], role=HANDED)
        state = next((x for x, made in program.updates.items() if made is n and self.group[x] <= self.level[n]), "")
        if state and state not in program.outputs:
            return TensorDecl(state, "output", axes_of(program, n), role=HANDED)
        wish = program.definitions.get(n) or (f"{n.text('name')}_before" if n.op == "leaf" else f"{state or 'value'}_read")
        return TensorDecl(fresh(wish, self.taken), "output", axes_of(program, n), role=HANDED)

    def _given(self, made: TensorDecl) -> TensorDecl:
        """A value that is handed over, as an input."""
        return replace(made, kind="input", role="")

    def _parts(
        self, outputs: list[dict[str, Node]], read: list[dict[Node, Node]], made: Mapping[str, TensorDecl]
    ) -> tuple[Stage, ...] | None:
        program, found = self.program, list[Stage]()
        given = [self._given(d) for d in made.values()]
        for i, (_, states) in enumerate(self.groups):
            updates = {name: program.updates[name] for name in states}
            if not updates and not outputs[i]:
                continue
            part = part_of(program, outputs[i], updates, read[i], given, {**program.output_decls, **made})
            name = f"{self.stage.name}_{i + 1}"
            one = replace(self.stage, name=name, program=replace(part, name=f"{program.name}_{name}"))
            one = self._walked(i, one, outputs[i], read[i])
            if not sized(one.program):
                return None
            found.append(one)
        return tuple(found)

    def _walked(self, i: int, one: Stage, outputs: Mapping[str, Node], read: Mapping[Node, Node]) -> Stage:
        """The stage of group i as it is run. outputs: nodes of the whole program; read: those that the group is given."""
        own = told(one.program, self.program)
        if not self.groups[i][0]:
            return replace(one, program=own, form=None)
        return replace(one, program=replace(own, wishes=replace(own.wishes, form=None, chunks=())), form="step")
