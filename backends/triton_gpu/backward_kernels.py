"""The kernels of backward that walk from the last block to the first: all gradients, or the cotangents of states alone.

In: `Walks`. Out: `Kernel`s. Gradients of all blocks at once are `gradients`'s.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.gradients import gradient_note
from seqc.backends.triton_gpu.kernel import (
    PIECES,
    Add,
    Advance,
    Array,
    Barrier,
    Item,
    Kernel,
    Load,
    Loop,
    Note,
    Store,
    StoreSum,
    Zero,
)
from seqc.backends.triton_gpu.walks import Walks
from seqc.ir.graph import Node, leaf, leaves
from seqc.ir.keys import is_next, next_key, prev_key, slope_of


class BackwardKernels(Walks):
    """See the file's docstring."""

    def carried_cotangent(self, state: str) -> Node:
        """The leaf of the cotangent that a state carries."""
        return leaf("cot", next_key(state), self.arrays.state_axes(state))

    def backward_kernel(self, what: str) -> Kernel:
        """what: "backward" (everything), or "cotangents" (of the states alone)."""
        program, graph = self.program, self.backward
        carried = list(program.states)
        following = {self.carried_cotangent(s): graph[prev_key(s)] for s in carried}
        grads = {} if what == "cotangents" else self.gradient_roots()
        outer = self.outer if what != "cotangents" else {}
        factors = {f.array: f.node for terms in outer.values() for t in terms for f in t.factors if f.stored}
        needed = [*grads.values(), *factors.values(), *following.values()]
        known: set[Node] = {program.states[s].leaf() for s in program.states}
        known |= {self.carried_cotangent(s) for s in program.states}
        body: list[Item] = self.loads_kept(self.pairs_of(what), needed, known)
        setup = self.setup(needed, known)
        first: list[Item] = []
        final: list[Item] = []
        for s in carried:
            axes, n = self.arrays.state_axes(s), self.carried_cotangent(s)
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
        body += self.loads(needed, known)
        for key, root in grads.items():
            body.append(gradient_note(key))
            array = self.arrays.gradient(key, False)
            total, still, sign = self.added_up(root) if slope_of(key).name in program.params else (root, (), 1)
            body += self.compute([total], known, inside=True)
            if slope_of(key).name in program.params:
                first.append(Zero(array.name, total))
                body.append(Add(array.name, total))
                final.append(StoreSum(array.name, total, array, factors=still, sign=sign))
            else:
                body.append(Store(root, array))
        for name, root in factors.items():
            body += self.compute([root], known, inside=True)
            array = self.arrays.factor(name, root)
            body.append(Store(root, array, self.arrays.held_once(array, root)))
        body += self.tell(what, known)
        if carried:
            body.append(Note("cotangents of the states, for what comes before", result=True))
            body += self.compute(following.values(), known, inside=True)
            body.append(Advance(tuple(following.items())))
        if self.arrays.every == 1 or not read:
            return self.kernel(what, [*setup, *first, self.time_loop([], body, True, False), *final])
        again = Loop("blocks", True, (*self.recompute(), Loop("steps", True, tuple(body)), Barrier()))
        return self.kernel(what, [*self.setup([*needed, *self.recomputed().values()]), *first, again, *final])

    def added_up(self, root: Node) -> tuple[Node, tuple[Node, ...], int]:
        """(what is added up over the steps, factors of params alone, a sign) of a param's gradient: these wait for the sum."""
        n, sign, factors = root, 1, list[Node]()
        while n.op in ("neg", "mul") and self.block.form != "chunkwise":
            still = [a for a in n.args if all(x.text("kind") == "param" for x in leaves([a]))] if n.op == "mul" else []
            if n.op == "mul" and len(still) != 1:
                break
            factors, sign = factors + still, -sign if n.op == "neg" else sign
            n = next(a for a in n.args if a not in still)
        same = self.roles.axes(n.dims) == self.roles.axes(root.dims)
        return (n, tuple(factors), sign) if factors and same else (root, (), 1)

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
