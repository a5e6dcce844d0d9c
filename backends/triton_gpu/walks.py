"""What all kernels of a block share: the states that are kept, the loop over time, the list of arrays.

In: a block's graphs and roles. Out: `Walks`, from which the kernels of forward (`forward_kernels`) and of backward
(`backward_kernels`) are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from seqc.backends.triton_gpu.gradients import Gradients
from seqc.backends.triton_gpu.kernel import Array, Item, Kernel, Load, Loop, Store, StoreSum, walk
from seqc.backends.triton_gpu.spans import blocks_between_saved, with_sources
from seqc.ir.block import Block
from seqc.ir.dims import is_piece, unpieced
from seqc.ir.graph import Node, leaves

PAIRS_KERNEL, AGAIN_KERNEL, COTANGENTS = "pairs", "again", "cotangents"
DOCS = {
    "forward": "Outputs, final states, and the states that the gradient needs.",
    "infer": "Outputs and final states.",
    "pairs": "Before the states, or their cotangents: what these need of pairs of steps, for all blocks at once.",
    "states": "First phase: the states as each block begins.",
    "outputs": "Second phase: the outputs of all blocks at once.",
    "again": "Before the gradients: the states as each block begins, from those that forward kept, all spans at once.",
    "backward": "All gradients, from the last block to the first.",
    "cotangents": "First phase: the cotangents of the states as each block ends.",
}


class Walks(Gradients):
    """Makes the kernels of one block. whole: the block with no dim in pieces."""

    whole: Block
    pairs_forward = False  # whether kernels of forward load values that `pairs` keeps
    told: Mapping[str, tuple[Store, ...]] = MappingProxyType({})  # by walk, what it stores of its values for gradients

    def pairs_of(self, what: str) -> Mapping[Node, Array]:
        """Those that a kernel may load: in forward none, where the walk needs none."""
        forward = what in ("forward", "outputs", AGAIN_KERNEL) and self.pairs_forward
        return {**self.pairs, **self.operands} if forward or what == "cotangents" else {}

    @property
    def spans(self) -> int:
        """Blocks between two states that are kept; `CALL` where each call says how many."""
        return blocks_between_saved(self.whole)

    @property
    def kept_states(self) -> tuple[str, ...]:
        """The states that forward keeps for backward."""
        saved = self.arrays.saved
        return with_sources(saved, self.forward, self.program.states) if self.spans != 1 else saved

    def tell(self, what: str, known: set[Node]) -> list[Item]:
        """Stores of what a walk has that are gradients, or that other gradients need."""
        return [x for store in self.told.get(what, ()) for x in (*self.compute([store.node], known, inside=True), store)]

    @property
    def nested(self) -> bool:
        """Whether the loop over the steps lies in one over the blocks whose states are saved."""
        return bool(self.arrays.saved) and self.arrays.every > 1

    def phase_states(self) -> tuple[str, ...]:
        """States that the second phases read."""
        read = {n.text("name") for n in leaves(self.forward[k] for k in self.program.outputs) if n.text("kind") == "state"}
        return tuple(s for s in self.program.states if s in read or s in self.arrays.saved)

    def time_loop(self, per_block: list[Item], body: list[Item], reverse: bool, nested: bool) -> Loop:
        if nested:
            body = [Loop("steps", reverse, tuple(body))]
        return Loop("steps" if self.step and not nested else "blocks", reverse, (*per_block, *body))

    def kernel(self, what: str, body: list[Item], block_in_grid: bool = False) -> Kernel:
        doc = DOCS.get(what) or self.gradients_doc()
        body = [_whole_arrays(item) for item in self.sparing(body, block_in_grid)]
        arrays: dict[str, Array] = {}
        for item in walk(body):
            if isinstance(item, Load | Store | StoreSum):
                arrays.setdefault(item.array.name, item.array)
        rows, every = self.block.rows, self.arrays.every
        return Kernel(what, doc, tuple(arrays.values()), tuple(body), rows, every, block_in_grid, self.spans)


def _whole_arrays(item: Item) -> Item:
    """The item on arrays by their own names: pieces of a dim lie in one array."""
    if isinstance(item, Loop):
        return replace(item, body=tuple(map(_whole_arrays, item.body)))
    if isinstance(item, Load | Store | StoreSum) and is_piece(item.array.name):
        array = replace(item.array, name=unpieced(item.array.name), source=unpieced(item.array.source))
        return replace(item, array=array)
    return item
