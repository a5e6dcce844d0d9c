"""Block -> the loop trees of its kernels.

In: a `Block`. Out: a `Schedule`: the forward kernel with and without saved states, the backward kernel, and where blocks
are tiles the same work in phases, so that blocks run in parallel once the states (or their cotangents) are known. What the
walk from block to block needs of pairs of steps alone, a kernel of its own computes for all blocks before (`pairs`); the
gradients come from one kernel or several, each of its own roles (`parting`).
Every kernel is the same walk: carried values are loaded, a loop over time loads what its roots need, computes, stores
and advances; what differs is which roots it has, which way it runs, and whether the block index is in the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from seqc.backends.triton_gpu.arrays import steps_between_saved
from seqc.backends.triton_gpu.backward_kernels import BackwardKernels
from seqc.backends.triton_gpu.fetching import with_fetches
from seqc.backends.triton_gpu.forward_kernels import ForwardKernels
from seqc.backends.triton_gpu.gradients import kernel_name, passed_through
from seqc.backends.triton_gpu.kernel import MODES, Array, Kernel, Store
from seqc.backends.triton_gpu.labels import spec_lines
from seqc.backends.triton_gpu.order import numbers
from seqc.backends.triton_gpu.outer import Outer
from seqc.backends.triton_gpu.pairing import pair
from seqc.backends.triton_gpu.parting import added_up, is_at_hand, passes
from seqc.backends.triton_gpu.roles import Roles, assign_roles, roles_along, without_pieces
from seqc.backends.triton_gpu.saved_products import read_instead, saved_products
from seqc.backends.triton_gpu.shared_products import shared
from seqc.backends.triton_gpu.sharing import Part, parted
from seqc.backends.triton_gpu.spans import CALL
from seqc.backends.triton_gpu.team import BACKWARD as TEAM_BACKWARD
from seqc.backends.triton_gpu.team import FORWARD as TEAM_FORWARD
from seqc.backends.triton_gpu.team import INFER as TEAM_INFER
from seqc.backends.triton_gpu.team import team_bodies
from seqc.backends.triton_gpu.uses import multiplied
from seqc.backends.triton_gpu.walks import AGAIN_KERNEL as AGAIN_KERNEL
from seqc.backends.triton_gpu.walks import COTANGENTS, DOCS
from seqc.backends.triton_gpu.walks import PAIRS_KERNEL as PAIRS_KERNEL
from seqc.ir.block import Block
from seqc.ir.dims import base, is_piece, unpieced
from seqc.ir.graph import Node, topological
from seqc.ir.keys import next_key, prev_key
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.passes.lower.pieces import long_dims, pieces
from seqc.passes.lower.regroup import regroup

STEPS_KERNEL = "steps"
SUMS = 12288  # numbers that programs may hold as sums while they go through a dim, at extents that stand for any
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Schedule:
    """See the file's docstring. saved: names of the states whose values are kept, each in array NAME_in; values: what else
    forward keeps for backward, of every step.

    program: the block's, long dims and what has them in pieces. single: the schedule of the same recurrence step
    by step, whose kernel without saved states is this one's "steps". team: the schedule of kernels in which several programs
    share out what one cannot hold. ways: the ways to do the work of "forward", "infer" and "backward": each the kernels that
    do it, in the order of their launches. parts: by kernel, the
    schedules of those whose programs take pieces of another dim than the block's. spans: blocks between two states that
    are kept for backward, `CALL` where each call says how many: the kernel `forward` is then that of inference too; narrow: the
    states that kernels hand on in bf16 where the inputs are that; before: by what is done, the kernels that run first,
    whichever way it is done.
    """

    block: Block
    roles: Roles
    backward_graph: Mapping[str, Node]
    names: Mapping[Node, str]
    labels: Mapping[Node, str]
    saved: tuple[str, ...]
    values: tuple[Array, ...]
    every: int
    outer: Mapping[str, tuple[Outer, ...]]
    makers: Mapping[str, Callable[[], Kernel]]
    program: Program
    ways: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    single: Schedule | None = None
    team: Schedule | None = None
    parts: Mapping[str, Schedule] = field(default_factory=dict)
    spans: int = 1
    narrow: frozenset[str] = frozenset()
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[str, Kernel] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels: forward, infer, backward; where blocks are tiles also those of the phases, and steps."""
        return tuple(self.makers)

    @property
    def phases(self) -> bool:
        """Whether there are kernels that do the work in phases."""
        return "states" in self.makers

    def way(self, kernel: str, phase: str) -> tuple[str, ...]:
        """The way to do what a kernel is called after that has a phase; empty where there is none."""
        return next((way for way in self.ways.get(kernel, ()) if phase in way), ())

    def alike(self, way: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The kernels of a way, those together that cut dims alike: they share what programs leave in parts. Not where other
        kernels take pieces of other dims: there such parts are added up between the phases."""
        apart = any(name in self.parts for name in way)
        return (tuple(way),) if not apart and self.in_parts(way) else tuple((name,) for name in way)

    def in_parts(self, way: Sequence[str]) -> bool:
        """Whether programs of these kernels leave anything in parts."""
        return any(array.partial for name in way for array in self.kernel(name).arrays)

    def kernel(self, name: str) -> Kernel:
        """One kernel, its items put in order when it is first asked for."""
        if name not in self.made:
            self.made[name] = with_fetches(self.makers[name](), self.roles)
        return self.made[name]

    @property
    def nested(self) -> bool:
        """Whether the forward kernel walks the steps within blocks whose states it saves."""
        return bool(self.saved) and self.every > 1

    @property
    def lean(self) -> frozenset[str]:
        """Arrays of states that outputs only multiply: where no gradient reads them, they are kept as products take them."""
        return multiplied(self.kernel("outputs").body, self.roles, "saved") if self.phases else frozenset()

    def hands_on(self, kernel: str) -> bool:
        """Whether the states of all blocks are for the outputs alone, and not kept, where phases do a kernel's work."""
        return kernel == "infer" or (kernel == "forward" and self.spans != 1)

    @property
    def pieces(self) -> frozenset[str]:
        """The dims that programs hold in pieces."""
        return frozenset(base(d) for d in self.program.dims if is_piece(d))

    def of(self, kernel: str) -> Schedule:
        """The schedule that a kernel belongs to."""
        if kernel == PAIRS_KERNEL:
            return replace(self, roles=without_pieces(self.roles))
        if self.team is not None and kernel in self.team.kernels:
            return self.team
        return self.single if kernel == STEPS_KERNEL and self.single is not None else self.parts.get(kernel, self)


@found_once
def schedule(block: Block) -> Schedule:
    """The kernels of a block, for any form."""
    whole, block = block, pieces(block, long_dims(block, assign_roles(block).whole))
    bodies = prepared(whole, block, assign_roles(block))
    made = replace(bodies.schedule(), team=_team(bodies))
    if whole.single is None or not made.phases:
        return made
    single = schedule(whole.single)
    return replace(made, single=single, makers={**made.makers, STEPS_KERNEL: partial(_steps, single)})


@found_once
def _steps(single: Schedule) -> Kernel:
    doc = "Outputs and final states, step by step: for sequences too short for blocks."
    return replace(single.makers["infer"](), name=STEPS_KERNEL, doc=doc)


def prepared(whole: Block, block: Block, roles: Roles) -> _Scheduler:
    """What makes the kernels of a block with these roles, its sums in pairs. whole: with no dim in pieces."""
    both = {**{f"f {k}": n for k, n in block.forward.items()}, **{f"b {k}": n for k, n in block.backward.items()}}
    both, image = regroup(both, roles.axes) if block.form != "chunkwise" else (both, {})
    paired, became = pair(both, roles)
    paired, settled = shared(paired)
    became = {n: settled[x] for n, x in became.items() if x in settled}
    moved = {**became, **{n: became[x] for n, x in image.items() if x in became}}
    forward = {k: paired[f"f {k}"] for k in block.forward}
    backward = {k: paired[f"b {k}"] for k in block.backward}
    names = {moved[n]: name for n, name in block.names.items() if n in moved}
    lines = {moved[n]: line for n, line in spec_lines(block).items() if n in moved and moved[n].op != "leaf"}
    values: dict[str, Node] = {}
    if block.form == "step" and steps_between_saved(block, roles) == 1:
        taken = (*block.program.inputs, *block.program.params, *block.program.outputs)
        values = saved_products(forward, backward, roles, names, taken)
        backward, read = read_instead(backward, values)
        names = {**{read[n]: name for n, name in names.items() if n in read}, **names}
        lines = {**{read[n]: line for n, line in lines.items() if n in read and read[n].op != "leaf"}, **lines}
    made = _Scheduler(block, roles, forward, backward, names, lines, values)
    made.whole = whole
    return made


def _team(one: _Scheduler) -> Schedule | None:
    """The kernels that several programs for each head share out; None where no team can do the step."""
    made = team_bodies(one.block, one.roles, one.forward, one.backward, one.names, one.lines, one.values, one.outer)
    if made is None:
        return None
    made.save_as(one.arrays)
    makers: dict[str, Callable[[], Kernel]] = {
        TEAM_FORWARD: lambda: made.kernel(TEAM_FORWARD, made.forward_items()),
        TEAM_INFER: lambda: made.kernel(TEAM_FORWARD, made.forward_items()).as_in(MODES["infer"], TEAM_INFER, DOCS["infer"]),
        TEAM_BACKWARD: lambda: made.kernel(TEAM_BACKWARD, made.backward_items()),
    }
    saved, values = tuple(made.arrays.saved), tuple(made.saved_values())
    return Schedule(
        made.block, made.roles, made.backward, made.names, made.labels, saved, values, 1, made.outer, makers,
        made.block.program,
    )


class _Scheduler(ForwardKernels, BackwardKernels):
    """Makes the kernels of one block, and says which do whose work."""

    def schedule(self) -> Schedule:
        """All kernels."""
        forward = cache(self.forward_kernel)
        makers: dict[str, Callable[[], Kernel]] = {
            "forward": forward,
            "infer": lambda: forward().as_in(MODES["infer"], "infer", DOCS["infer"]),
            "backward": lambda: self.backward_kernel("backward"),
        }
        if self.nested:  # without blocks to save the states of, there is one loop
            makers["infer"] = lambda: self.forward_kernel(save=False)
        ways: dict[str, tuple[tuple[str, ...], ...]] = {name: ((name,),) for name in makers}
        beside: dict[str, Schedule] = {}
        before: dict[str, tuple[str, ...]] = {}
        if not self.step and self.program.states:
            self.find_pairs()
            if self.pairs:
                makers[PAIRS_KERNEL] = self.pairs_kernel
            makers["states"] = lambda: forward().as_in(MODES["states"], "states", DOCS["states"])
            makers["outputs"] = self.outputs_kernel
            makers["cotangents"] = lambda: self.backward_kernel("cotangents")
            gradients = self.beside_walks(self.parts())
            for name, one in gradients.items():
                makers[name] = partial(one.gradients_kernel, name, any(x is not self for x in gradients.values()))
                if one is not self:
                    beside[name] = one.planned({name: makers[name]})
            first = (PAIRS_KERNEL,) if self.pairs_of("forward") else ()
            before = dict.fromkeys(("forward", "infer"), first)
            if self.spans != 1 and self.arrays.saved:
                makers[AGAIN_KERNEL] = self.again_kernel
                before["backward"] = (*first, AGAIN_KERNEL)
                if self.spans == CALL:  # forward is then inference, but for states of a few spans
                    del makers["infer"]
                    ways["infer"] = ways["forward"]
            first = (PAIRS_KERNEL,) if self.pairs and PAIRS_KERNEL not in before.get("backward", ()) else ()
            ways = {name: (*one, ("states", "outputs")) for name, one in ways.items()}
            apart = (*first, "cotangents", *gradients)
            ways["backward"] = (apart,) if self.block.form == "chunkwise" else (("backward",), apart)
            if self.block.form == "chunkwise":  # one kernel would walk with all that the gradients need
                del makers["backward"]
        return replace(self.planned(makers, ways, beside), before=before)

    def planned(
        self, makers: Mapping[str, Callable[[], Kernel]], ways: Mapping[str, tuple[tuple[str, ...], ...]] = NONE,
        parts: Mapping[str, Schedule] = NONE,
    ) -> Schedule:
        """The schedule of kernels that have these roles. ways, parts: see `Schedule`."""
        saved = tuple(dict.fromkeys(map(unpieced, self.kept_states)))
        backward = self.backward if self.block is self.whole else self.whole.backward
        return Schedule(
            self.whole, self.roles, backward, self.names, self.labels, saved, tuple(self.saved_values()),
            self.arrays.every, self.outer,
            makers, self.program, ways, parts=parts, spans=self.spans, narrow=self.arrays.narrow,
        )

    def parts(self) -> dict[str, _Scheduler]:
        """By name, what makes each kernel of the gradients of all blocks."""
        whole, roles = self.whole, assign_roles(self.whole)
        alike = not long_dims(whole, without_pieces(roles).whole)  # no kernel holds a dim in pieces: values are the same in all
        backward = self.backward if self.block is whole else pair(whole.backward, roles)[0]
        gradients = {key: backward[key] for key in dict.fromkeys(map(unpieced, self.gradient_roots()))}
        found = parted(whole, roles, gradients, self.pairs if alike else {}, keeps=alike)
        own, made = roles.blocked[0] if roles.blocked else None, {}
        for part in found:
            one = self
            if part.dim is not None:
                given = {*self.pairs, *self.operands, *part.kept} if alike else ()
                mine = [gradients[key] for key in part.keys]
                along = roles_along(whole, roles, part.dim)
                passed = tuple(
                    d for d in roles.blocked if passes(mine, d, given)
                    and sum(numbers(n, along, whole.rows) for n in added_up(mine, d, given)) <= SUMS
                )
                block = pieces(whole, long_dims(whole, roles_along(whole, roles, part.dim, passed).whole))
                one = prepared(whole, block, roles_along(block, roles, part.dim, passed))
                one.arrays.narrow = self.arrays.narrow
                one.pairs = {**self.pairs, **self.keep_for(part, gradients)} if alike else {}
            if len(found) > 1 or one is not self:
                one.take(part)
            made[kernel_name(part, own, len(found))] = one
        return made

    def beside_walks(self, made: Mapping[str, _Scheduler]) -> Mapping[str, _Scheduler]:
        """The same without the kernel of the block's own pieces, where the walks of backward have all that it would compute:
        they store it."""
        if self.part is None or self.part.dim is not None:
            return made
        roots = {key: n for key, n in self.gradient_roots().items() if unpieced(key) in self.part.keys}
        stores = [*self.stores(self.kept), *(Store(n, self.arrays.gradient(key, True)) for key, n in roots.items())]
        walks = {COTANGENTS: [self.backward[prev_key(s)] for s in self.program.states]}
        if self.spans != 1 and self.arrays.saved:
            walks[AGAIN_KERNEL] = [self.forward[next_key(s)] for s in self.kept_states]
        told: dict[str, list[Store]] = {what: [] for what in walks}
        for store in stores:
            home = next((what for what, following in walks.items() if self.has(what, following, store.node)), None)
            if home is None:
                return made
            told[home].append(store)
        self.told = {what: tuple(found) for what, found in told.items()}
        return {name: one for name, one in made.items() if one is not self}

    def has(self, what: str, following: Iterable[Node], n: Node) -> bool:
        """Whether a walk, all of which is below `following`, has a value, or all that elementwise operators make it of."""
        loaded = self.pairs_of(what)
        return is_at_hand(n, {*loaded, *topological(following, loaded)})

    def keep_for(self, part: Part, gradients: Mapping[str, Node]) -> Mapping[Node, Array]:
        """What the kernel of the block's own pieces keeps for that of a part."""
        there = (*self.pairs.values(), *self.operands.values(), *self.kept.values())
        found = self.keep(part.kept, [gradients[key] for key in part.keys], there)
        self.kept |= found
        return found

    def gradients_kernel(self, name: str, whole: bool) -> Kernel:
        """Gradients once the cotangents of the states are known. whole: these have been added up."""
        made = self.kernel(name, list(self.gradient_items(whole)), block_in_grid=True)
        return replace(made, body=passed_through(made.body, self.roles))
