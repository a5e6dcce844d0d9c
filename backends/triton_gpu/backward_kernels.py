"""The kernels of backward that walk from the last block to the first: all gradients, or the cotangents of states alone.

In: `Walks`. Out: `Kernel`s. Gradients of all blocks at once are `gradients`'s.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.kernel import PIECES, Advance, Array, Barrier, Item, Kernel, Load, Loop, Note, Store
from seqc.backends.triton_gpu.walks import Walks
from seqc.ir.graph import Node, leaves
from seqc.ir.keys import is_next, next_key


class BackwardKernels(Walks):
    """See the file's docstring."""

    def backward_kernel(self, what: str) -> Kernel:
        """what: "backward" (everything), or "cotangents" (of the states alone)."""
        states, following = self.program.states, self.carried_cotangents()
        grads, factors = ({}, {}) if what == "cotangents" else (self.gradient_roots(), self.stored_factors())
        needed = [*grads.values(), *factors.values(), *following.values()]
        known: set[Node] = {*(decl.leaf() for decl in states.values()), *following}
        body: list[Item] = self.loads_kept(self.pairs_of(what), needed, known)
        setup = self.setup(needed, known)
        first: list[Item] = []
        final: list[Item] = []
        for s, n in zip(states, following, strict=True):
            axes = self.arrays.state_axes(s)
            first.append(Load(n, Array(f"d_{s}_T", axes, "cot", f"{s}_T"), first_only=self.arrays.missing(axes)))
            pieces = tuple(PIECES + d for d in self.arrays.missing(axes))
            final.append(Store(n, Array(f"d_{s}_0", (*pieces, *axes), "grad", f"{s}_0")))
        read = leaves(needed, "state")
        if self.arrays.every == 1:
            body += [Load(n, self.arrays.saved_state(n.text("name"))) for n in read]
        else:
            body += [Load(n, self.arrays.scratch(n.text("name"))) for n in read]
        if what == "cotangents":
            ends = [n for n in self.read_ends() if n in following]
            body += [Store(n, self.arrays.cotangent(n.text("name"))) for n in ends]
        body += [*self.loads(needed, known), *self.add_gradients(grads, known, first, final)]
        for name, root in factors.items():
            body += self.compute([root], known, inside=True)
            array = self.arrays.factor(name, root)
            body.append(Store(root, array, self.arrays.held_once(array, root)))
        body += self.tell(what, known)
        if following:
            body.append(Note("cotangents of the states, for what comes before", result=True))
            body += self.compute(following.values(), known, inside=True)
            body.append(Advance(tuple(following.items())))
        if self.arrays.every == 1 or not read:
            return self.kernel(what, [*setup, *first, self.time_loop([], body, True, False), *final])
        again = Loop("blocks", True, (*self.recompute(), Loop("steps", True, tuple(body)), Barrier()))
        return self.kernel(what, [*self.setup([*needed, *self.recomputed().values()]), *first, again, *final])

    def read_ends(self) -> list[Node]:
        """Carried cotangents that the gradients of inputs and params read."""
        return [n for n in leaves(self.gradient_roots().values(), "cot") if is_next(n.text("name"))]

    def recomputed(self) -> dict[Node, Node]:
        """Saved states and their next values."""
        return {self.program.states[s].leaf(): self.forward[next_key(s)] for s in self.arrays.saved}

    def recompute(self) -> list[Item]:
        """Load the saved states of a block, and walk it forward, leaving the state before each step in scratch."""
        following = self.recomputed()
        known = set(following)
        body: list[Item] = [Store(n, self.arrays.scratch(n.text("name"))) for n in following]
        body += self.loads(following.values(), known)
        body += self.compute(following.values(), known, inside=True)
        body.append(Advance(tuple(following.items())))
        start: list[Item] = [Load(n, self.arrays.saved_state(n.text("name"))) for n in following]
        return [*start, Loop("steps", False, tuple(body)), Barrier()]
