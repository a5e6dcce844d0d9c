"""The kernels of forward: all of it, in phases, and the states between those that are kept once more.

In: `Walks`. Out: `Kernel`s. What the walk from block to block needs of pairs of steps alone, a kernel of its own computes
before, for all blocks (`pairs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seqc.backends.triton_gpu.kernel import Advance, Item, Kernel, Let, Load, Loop, Outputs, Store, in_three
from seqc.backends.triton_gpu.pairs import is_costly, operands, pairs
from seqc.backends.triton_gpu.roles import without_pieces
from seqc.backends.triton_gpu.uses import consumed, taken
from seqc.backends.triton_gpu.walks import AGAIN_KERNEL, PAIRS_KERNEL, Walks
from seqc.ir.graph import Node, leaves, topological
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

    def forward_kernel(self, save: bool = True) -> Kernel:
        """Everything but pairs of steps. Where blocks are tiles, what outputs alone need stands apart."""
        graph, states = self.forward, self.program.states
        following = {states[s].leaf(): graph[next_key(s)] for s in states}
        roots = {k: graph[k] for k in self.program.outputs}
        needed = [*roots.values(), *following.values()]
        known: set[Node] = set(following)
        body: list[Item] = self.loads_kept(self.pairs_of("forward"), needed, known)
        setup = self.setup(needed, known)
        first, final = self.ends_of_forward()
        body += [*self.loads(needed, known), *self.outputs(roots, known), *self.compute(following.values(), known, inside=True)]
        body += self.stores_of_values() if save else []
        if states:
            body.append(Advance(tuple(following.items())))
        loop = self.time_loop(self.kept_here(save), body, reverse=False, nested=save and self.nested)
        kernel = self.kernel("forward" if save else "infer", [*setup, *first, loop, *final])
        if self.step or not states:
            return kernel
        apart = (replace(item, body=outputs_apart(item.body)) if isinstance(item, Loop) else item for item in kernel.body)
        return replace(kernel, body=tuple(apart))

    def kept_here(self, save: bool) -> list[Item]:
        """Stores of states: of those that the gradient reads, and of those that a kernel of outputs reads."""
        out: list[Item] = []
        for s, decl in self.program.states.items():
            saves, hands = save and s in self.arrays.saved and self.spans == 1, not self.step and s in self.phase_states()
            missing = self.arrays.missing(decl.axes)
            if saves or hands:
                out.append(Store(decl.leaf(), self.arrays.saved_state(s), missing, saves and not self.nested, hands))
            if self.spans != 1 and s in self.kept_states:
                out.append(Store(decl.leaf(), self.arrays.span_state(s), missing, saves=True))
        return out

    def outputs_kernel(self) -> Kernel:
        """The outputs of all blocks at once, from the states."""
        roots = {k: self.forward[k] for k in self.program.outputs}
        known = {decl.leaf() for decl in self.program.states.values()}
        body: list[Item] = self.loads_kept(self.pairs_of("outputs"), roots.values(), known)
        setup = self.setup(roots.values(), known)
        body += [Load(n, self.arrays.saved_state(n.text("name"))) for n in leaves(roots.values(), "state")]
        body += [*self.loads(roots.values(), known), *self.outputs(roots, known)]
        return self.kernel("outputs", [*setup, *body], block_in_grid=True)

    def again_kernel(self) -> Kernel:
        """The states of every block, from those that are kept of every span."""
        following = {self.program.states[s].leaf(): self.forward[next_key(s)] for s in self.kept_states}
        known = set(following)
        body: list[Item] = self.loads_kept(self.pairs_of(AGAIN_KERNEL), following.values(), known)
        setup = self.setup(following.values(), known)
        first: list[Item] = [Load(n, self.arrays.span_state(n.text("name"))) for n in following]
        for s in self.arrays.saved:
            array, missing = self.arrays.saved_state(s), self.arrays.missing(self.arrays.state_axes(s))
            body.append(Store(self.program.states[s].leaf(), array, missing))
        body += self.loads(following.values(), known)
        body += self.compute(following.values(), known, inside=True)
        body += [*self.tell(AGAIN_KERNEL, known), Advance(tuple(following.items()))]
        kernel = self.kernel(AGAIN_KERNEL, [*setup, *first, self.time_loop([], body, reverse=False, nested=False)])
        return replace(kernel, span_in_grid=True)


def outputs_apart(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items of a loop: what outputs share with the states, what they alone need, what the states alone need."""
    listed = list(items)
    made = {item.node: item for item in listed if isinstance(item, Let | Load)}

    def behind(roots: Iterable[Node]) -> set[Node]:
        return {n for n in topological(roots) if n in made}

    def is_output(item: Item) -> bool:
        return isinstance(item, Store) and item.array.role == "output"

    states = behind(n for item in listed if not is_output(item) for n in consumed(item))
    alone = [item for item in listed if is_output(item) or (isinstance(item, Let | Load) and item.node not in states)]
    shared = behind(n for item in alone for n in taken(item)) & states
    shared |= behind(n for item in listed if isinstance(item, Store) and not is_output(item) for n in consumed(item))

    def place(item: Item) -> int:
        early = isinstance(item, Store) or (isinstance(item, Let | Load) and item.node in shared)
        return 1 if item in alone else 0 if early else 2

    first, outputs, last = in_three(listed, place)
    return (*first, Outputs(outputs), *last) if outputs else tuple(listed)
