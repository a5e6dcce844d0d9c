"""The kernels of forward: all of it, in phases, and the states between those that are kept once more.

In: `Walks`. Out: `Kernel`s. What the walk from block to block needs of pairs of steps alone, a kernel of its own computes
before, for all blocks (`pairs`).
"""

from __future__ import annotations

from dataclasses import replace

from seqc.backends.triton_gpu.kernel import STEPS, Advance, Array, Item, Kernel, Load, Store
from seqc.backends.triton_gpu.pairs import is_costly, operands, pairs
from seqc.backends.triton_gpu.roles import without_pieces
from seqc.backends.triton_gpu.walks import AGAIN_KERNEL, PAIRS_KERNEL, Walks
from seqc.ir.block import BATCH
from seqc.ir.graph import Node, leaves
from seqc.ir.keys import next_key, prev_key
from seqc.passes.lower.pieces import long_dims


class ForwardKernels(Walks):
    """See the file's docstring."""

    def find_pairs(self) -> None:
        """The values over pairs of steps that are kept: for the walks from block to block, and for programs of pieces."""
        ahead = list(self.forward.values())
        following = [self.forward[next_key(s)] for s in self.program.states]
        back = [self.backward[prev_key(s)] for s in self.program.states]
        costly = [n for n in pairs(ahead, self.roles) if is_costly(n, self.roles)]
        found = dict.fromkeys([*pairs([*following, *back], self.roles), *costly])
        self.pairs = self.keep(found, [*ahead, *self.backward.values()])
        if found and not long_dims(self.whole, without_pieces(self.roles).whole):
            walks = [*ahead, *back]
            self.operands = self.keep(operands(walks, self.roles, found), walks, self.pairs.values())
        self.pairs_forward = bool(costly or self.loads_kept(self.pairs, following, set()))

    def pairs_kernel(self) -> Kernel:
        """All of them, of all blocks."""
        known: set[Node] = set()
        kept = {**self.pairs, **self.operands}
        setup = self.setup(kept)
        body = self.loads(kept, known)
        for n, array in kept.items():
            body += self.compute([n], known, inside=True)
            body += self.stores({n: array}, self.roles.grid)
        return self.kernel(PAIRS_KERNEL, [*setup, *body], block_in_grid=True)

    def forward_kernel(self, what: str, save: bool) -> Kernel:
        """what: "forward" or "infer" (everything), "walk" (all but pairs of steps), "states" (no outputs), "outputs" (no
        recurrence)."""
        program, graph = self.program, self.forward
        carried = [] if what == "outputs" else list(program.states)
        roots = {} if what == "states" else {k: graph[k] for k in program.outputs}
        following = {program.states[s].leaf(): graph[next_key(s)] for s in carried}
        needed = [*roots.values(), *following.values()]
        kept = self.arrays.saved if save else ()
        known: set[Node] = {program.states[s].leaf() for s in program.states}
        body: list[Item] = self.loads_kept(self.pairs_of(what), needed, known)
        setup = self.setup(needed, known)
        first: list[Item] = []
        final: list[Item] = []
        for s in carried:
            axes = self.arrays.state_axes(s)
            first.append(Load(program.states[s].leaf(), Array(f"{s}_0", axes, "state", s)))
            final.append(Store(program.states[s].leaf(), Array(f"{s}_T", axes, "final", s), self.arrays.missing(axes)))
        keep: list[Item] = []
        if what != "outputs":
            wanted = [s for s in carried if s in self.phase_states()] if what == "states" else kept
            for s in wanted:
                array, missing = self.arrays.saved_state(s), self.arrays.missing(self.arrays.state_axes(s))
                if what == "states" or self.spans == 1:
                    keep.append(Store(program.states[s].leaf(), array, missing, saves=what != "states" and not self.nested))
            for s in self.kept_states if save and self.spans > 1 else ():
                missing = self.arrays.missing(self.arrays.state_axes(s))
                keep.append(Store(program.states[s].leaf(), self.arrays.span_state(s), missing, saves=True))
        if what == "outputs":
            body += [Load(n, self.arrays.saved_state(n.text("name"))) for n in leaves(needed, "state")]
        body += self.loads(needed, known)
        for key, root in roots.items():
            body += self.compute([root], known, inside=True)
            axes = (BATCH, STEPS, *program.output_decls[key].dims)
            body.append(Store(root, Array(key, axes, "output", key, "io"), self.arrays.missing(axes)))
        body += self.compute(following.values(), known, inside=True)
        body += self.stores_of_values() if save and what == "forward" else []
        if carried:
            body.append(Advance(tuple(following.items())))
        if what == "outputs":
            return self.kernel(what, [*setup, *body], block_in_grid=True)
        loop = self.time_loop(keep, body, reverse=False, nested=save and self.nested)
        return self.kernel(what, [*setup, *first, loop, *final])

    def again_kernel(self) -> Kernel:
        """The states of every block, from those that are kept of every span."""
        following = {self.program.states[s].leaf(): self.forward[next_key(s)] for s in self.kept_states}
        known = set(following)
        body: list[Item] = self.loads_kept(self.pairs_of("states"), following.values(), known)
        setup = self.setup(following.values(), known)
        first: list[Item] = [Load(n, self.arrays.span_state(n.text("name"))) for n in following]
        for s in self.arrays.saved:
            array, missing = self.arrays.saved_state(s), self.arrays.missing(self.arrays.state_axes(s))
            body.append(Store(self.program.states[s].leaf(), array, missing))
        body += self.loads(following.values(), known)
        body += self.compute(following.values(), known, inside=True)
        body.append(Advance(tuple(following.items())))
        kernel = self.kernel(AGAIN_KERNEL, [*setup, *first, self.time_loop([], body, reverse=False, nested=False)])
        return replace(kernel, span_in_grid=True)
