"""Kernels in which several programs share out one head of a cell, whose matrices are too large for one program.

In: a block in form "step" whose product contracts a state's dim with a parameter's matrix, and its graphs in pairs. Out: a
`Schedule` of kernels `team_forward`, `team_infer` and `team_backward`; None where a step cannot be shared out (`team_graph`
says what can). In every step each program tells the others its piece of what they contract, meets them, and loads all of it.

What two neighbouring steps tell lies apart (TURN): a program that has met the others in step t may write what it tells in
step t + 1 while a slower one still reads step t, and nobody reads step t - 1 any more, for all have told step t.
Loads of the next step are sent for before the programs meet, so that they are on their way while the program waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from seqc.backends.triton_gpu.arrays import Arrays, steps_between_saved
from seqc.backends.triton_gpu.bodies import moving
from seqc.backends.triton_gpu.gradients import Gradients
from seqc.backends.triton_gpu.kernel import (
    PIECES,
    TEAMS,
    TURN,
    Advance,
    Array,
    Fetch,
    Item,
    Kernel,
    Let,
    Load,
    Loop,
    Meet,
    Note,
    Store,
    StoreSum,
    walk,
)
from seqc.backends.triton_gpu.outer import Outer
from seqc.backends.triton_gpu.roles import ALL, Roles, team_roles
from seqc.backends.triton_gpu.team_graph import TOLD, NotShared, TeamGraph, Told, shared_dim
from seqc.backends.triton_gpu.team_pieces import Pieces, sums_together, taken
from seqc.backends.triton_gpu.uses import Uses
from seqc.emit.names import safe_name
from seqc.ir.block import BATCH, Block
from seqc.ir.graph import Node, topological
from seqc.ir.keys import next_key, result_of, slope_of

FORWARD, INFER, BACKWARD = "team_forward", "team_infer", "team_backward"
MET = "met"
UNITS = 16  # of a program: the fewest columns of a product on a matrix unit
DOCS = {
    FORWARD: "Outputs, final states, and what the gradient needs, by several programs for each head.",
    BACKWARD: "All gradients, from the last step to the first, by several programs for each head.",
}


def team_bodies(
    block: Block, roles: Roles, forward: Mapping[str, Node], backward: Mapping[str, Node], names: Mapping[Node, str],
    lines: Mapping[Node, str], values: Mapping[str, Node], outer: Mapping[str, tuple[Outer, ...]],
) -> TeamBodies | None:
    """What makes the kernels of a team; None where no team can do the step. The arguments are those of one program's bodies."""
    shared = block.form == "step" and roles.blocked == (BATCH,) and steps_between_saved(block, roles) == 1
    dim = shared_dim(forward, roles) if shared else None
    if dim is None:
        return None
    graph = TeamGraph(dim)
    try:
        ahead = {key: graph.own(n) for key, n in forward.items()}
        back, parts = graph.gradients(sums_together({k: n for k, n in backward.items() if slope_of(k).name not in outer}))
        mine = {name: tuple(_own(term, graph) for term in terms) for name, terms in outer.items()}
        kept = {name: graph.own(n) for name, n in values.items()}
    except NotShared:
        return None
    dims = {**block.program.dims, dim + ALL: block.program.dims[dim]}
    block = replace(block, program=replace(block.program, dims=dims), forward=ahead, backward=back)
    done = {n: graph.done[n] for n in {*names, *lines} & graph.done.keys()}
    made = TeamBodies(
        block, team_roles(roles, dim), ahead, back, {done[n]: x for n, x in names.items() if n in done},
        {done[n]: x for n, x in lines.items() if n in done and done[n].op != "leaf"}, kept,
    )
    made.join(graph, parts, mine)
    return made


def _own(term: Outer, graph: TeamGraph) -> Outer:
    """A product of factors of which a program has its own units."""
    left, right = (replace(f, node=graph.own(f.node)) if f.stored else f for f in term.factors)
    return replace(term, factors=(left, right))


class TeamBodies(Gradients):
    """Makes the items of a team's kernels. parts: results of backward of which each program leaves a part."""

    graph: TeamGraph
    parts: frozenset[str]

    def join(self, graph: TeamGraph, parts: frozenset[str], outer: Mapping[str, tuple[Outer, ...]]) -> None:
        """Take what the programs tell each other into the bodies."""
        self.graph, self.parts, self.outer = graph, parts, dict(outer)
        told = [one.piece for one in graph.told.values()]
        factors = [f.node for terms in self.outer.values() for t in terms for f in t.factors if f.stored]
        self.moving = moving([*self.forward.values(), *self.backward.values(), *told, *factors])

    def save_as(self, arrays: Arrays) -> None:
        """Save the states that one program's kernels save: products of what was stored take them too."""
        self.arrays.saved = arrays.saved

    # ---- what programs tell each other ----

    def steps(
        self, needed: Iterable[Node], known: set[Node], reverse: bool
    ) -> tuple[list[Item], list[Item], tuple[Load, ...]]:
        """(what is loaded and computed before the steps, what a step begins with, what it sends for as it ends): loads, and
        whatever is told for the needed values. Where products are done four at once, a step sends for what it loads itself as
        it begins, and has it once the programs have met."""
        needed = list(needed)
        rounds = self.graph.rounds(needed)
        every = [*needed, *(one.piece for told in rounds for one in told)]
        pieces = Pieces(self, every, self.graph.all, not reverse)
        setup = pieces.setup(self.setup(every, known))
        loads = [i for i in self.loads(every, known) if isinstance(i, Load) and i.node not in pieces.inside]
        known.difference_update(pieces.inside)
        sent = tuple(item for item in loads if not item.offset)
        late: list[Item] = [replace(item, ahead=True) if item in sent else item for item in loads]
        body: list[Item] = [Fetch(sent, False, reverse, 0)] if pieces.fours and sent else []
        body += [] if pieces.fours else [late.pop(0) for _ in loads]
        body += pieces.loops({}, known, late)
        uses = Uses([Let(n) for n in topological(every)], self.roles)
        for nth, told in enumerate(rounds):
            body += taken(late, [one.piece for one in told])
            for one in told:
                body += self.compute([one.piece], known, inside=True)
            arrays = {one: self.told(one, uses) for one in told}
            body += [Store(one.piece, array) for one, array in arrays.items()]
            body.append(Meet(Array(MET, (TEAMS,), "met", MET, "count"), self.graph.dim, nth, len(rounds), reverse))
            there = {one.leaf: replace(array, axes=(TURN, *self.axes(one.leaf))) for one, array in arrays.items()}
            body += pieces.loops(there, known, late)
        return setup, [*body, *late], () if pieces.fours else sent

    def told(self, one: Told, uses: Uses) -> Array:
        """Where a program tells its piece: [2, B, dims], in the type of products' operands if they alone take it."""
        label = self.names.get(one.piece) or self.labels.get(one.piece) or one.leaf.text("name")
        if one.piece.op == "leaf":
            label = result_of(one.piece.text("name"))
        taken = {n: name for n, name in self.names.items() if n.op == "leaf" and n.text("kind") == TOLD and n is not one.leaf}
        wanted = f"{safe_name(label)}_all"
        name = wanted if wanted not in taken.values() else f"{wanted}_{one.leaf.text('name')}"
        self.names[one.leaf] = name
        narrow = uses.is_operand_under_any_name(one.leaf)
        return Array(name, (TURN, *self.axes(one.piece)), "told", name, "io" if narrow else "carry")

    def axes(self, n: Node) -> tuple[str, ...]:
        """The axes of what is told, without the first: each team has its own, whatever the value lacks."""
        inside = tuple(d for d in self.roles.order if d in n.dims and d != BATCH)
        return (BATCH if BATCH in n.dims else PIECES + BATCH, *(d for d in self.roles.grid if d != BATCH), *inside)

    # ---- kernels ----

    def forward_items(self) -> list[Item]:
        """Outputs, final states, and what the gradient needs."""
        program, graph = self.program, self.forward
        following = {d.leaf(): graph[next_key(s)] for s, d in program.states.items()}
        needed = [*(graph[k] for k in program.outputs), *following.values()]
        known: set[Node] = set(following)
        setup, body, sent = self.steps(needed, known, reverse=False)
        first, final = self.ends_of_forward()
        body += self.outputs({k: graph[k] for k in program.outputs}, known)
        body += self.compute(following.values(), known, inside=True)
        for s, decl in program.states.items():
            if s in self.arrays.saved:
                body.append(Store(decl.leaf(), self.arrays.saved_state(s), self.arrays.missing(decl.axes), saves=True))
        body += self.stores_of_values()
        return [*setup, *first, *_loop(body, sent, False, Advance(tuple(following.items()))), *final]

    def pieces(self, needed: Iterable[Node]) -> list[Node]:
        """What is told for these values."""
        return [one.piece for told in self.graph.rounds(needed) for one in told]

    def backward_items(self) -> list[Item]:
        """All gradients, from the last step to the first."""
        program, following = self.program, self.carried_cotangents()
        factors, grads = self.stored_factors(), self.gradient_roots()
        needed = [*grads.values(), *factors.values(), *following.values()]
        known: set[Node] = {*(d.leaf() for d in program.states.values()), *following}
        setup, body, sent = self.steps(needed, known, reverse=True)
        states = [n for n in topological([*needed, *self.pieces(needed)]) if n in {d.leaf() for d in program.states.values()}]
        saved = tuple(Load(n, self.arrays.saved_state(n.text("name"))) for n in states)
        body = [*(replace(item, ahead=True) for item in saved), *body]
        first: list[Item] = []
        final: list[Item] = []
        for s, n in zip(program.states, following, strict=True):
            axes = self.arrays.state_axes(s)
            first.append(Load(n, Array(f"d_{s}_T", axes, "cot", f"{s}_T"), first_only=self.arrays.once(axes)))
            pieces = tuple(PIECES + d for d in self.arrays.missing(axes) if d != self.graph.dim)
            same = (self.graph.dim,) if self.graph.dim not in axes else ()  # every program has it
            final.append(Store(n, Array(f"d_{s}_0", (*pieces, *axes), "grad", f"{s}_0"), same))
        body += self.add_gradients(grads, known, first, final)
        for name, root in factors.items():
            body += self.compute([root], known, inside=True)
            array = self.arrays.factor(name, root)
            body.append(Store(root, array, self.arrays.missing(array.axes)))
        body.append(Note("cotangents of the states, for what comes before", result=True))
        body += self.compute(following.values(), known, inside=True)
        advance = Advance(tuple(following.items()))
        return [*setup, *first, *_loop(body, (*saved, *sent), True, advance), *final]

    def gradient_array(self, key: str) -> tuple[Array, tuple[str, ...]]:
        """Where a gradient is stored, and the dim of whose pieces the first alone does it, where all have the same."""
        dim = self.graph.dim
        array = self.arrays.gradient(key, False)
        if dim not in array.partial or key in self.parts:
            return array, ()
        return self.arrays.gradient(key, False, (dim,)), (dim,)

    def kernel(self, what: str, items: Iterable[Item]) -> Kernel:
        """A kernel and its arrays, in the order in which they are met."""
        items = tuple(items)
        arrays: dict[str, Array] = {}
        for item in walk(items):
            if isinstance(item, Load | Store | StoreSum | Meet):
                arrays.setdefault(item.array.name, item.array)
        return Kernel(what, DOCS[what], tuple(arrays.values()), items, rows=1)


def _loop(body: list[Item], sent: tuple[Load, ...], reverse: bool, advance: Advance) -> list[Item]:
    """The loop over the steps. The next step's loads are sent for as a step ends: they are on their way while the program tells
    and waits. Sent for before a step's products, they would have every warp compute all that follows: of the layouts of what
    a value is made of, Triton 3.7 takes the one that it comes by first."""
    send = [Fetch(sent, False, reverse)] if sent else []
    before: list[Item] = [Fetch(sent, True, reverse)] if sent else []
    return [*before, Loop("steps", reverse, (*body, *send, advance))]
