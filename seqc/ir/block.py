"""The contract between the middle of the compiler and every backend: a block, its gradient, and why it looks so.

A block maps (states as it begins, inputs of `rows` steps) to (states as it ends, outputs of `rows` steps).
- form "step": rows is 1 and no value has the time dim `t`; a backend loops over time.
- form "scan" and "chunkwise": values of a step carry the dim `t` of extent `rows` (a power of two); a second time index
  is `s`. A sequence whose length `rows` does not divide ends in a block whose last rows lie outside: there inputs are
  loaded as the last row inside (so that whatever is derived from them is as finite as a row inside), cotangents as zero,
  and the leaf ("mask", "valid", [t]) is false; the graph itself keeps such rows from touching any state.

Leaves of `forward`: inputs (axes B, t, dims; offset k reads k steps earlier, zero outside the sequence), params, states
(as the block begins), the mask. Keys of `forward`: output names, and "NAME.next" for states.
Leaves of `backward`: those of `forward`, and ("cot", KEY, axes) for every key of `forward`: dims (B, t, ...) for outputs
and (B, ...) for the carried cotangent of a state. Keys of `backward`: "d.NAME" for inputs (at offset k "d.NAME@k") and
params (the contribution of this block, summed over batch and rows; a backend adds up the blocks), "d.NAME.prev" for states
(carried to the block before; after the first block it is the gradient of NAME_0). A value may lack dims of what it is
stored to: it is constant along them. `backward` is linear in the cotangent leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seqc.ir.dims import is_rank, unprimed
from seqc.ir.graph import BATCH, COL, ROW, Node, along, leaf, leaves, topological
from seqc.ir.keys import next_key, prev_key, slope_key
from seqc.ir.ops import TABLE
from seqc.ir.program import Program

VALID = leaf("mask", "valid", (ROW,), dtype="bool")


@dataclass(frozen=True)
class Reason:
    """One line of `seqc explain`: what was decided, and why, in terms of the source. more: what it says instead of text."""

    topic: str  # "class" | "form" | "newton" | "numerics" | "eigenvalues" | "cost" | "claim" | "rates"
    subject: str  # a state or component
    text: str
    more: str = ""


@dataclass(frozen=True)
class Block:
    """See the file's docstring. `names`: node -> the name that the spec (or a pass) gives it, for readable output.

    single: of a block of many rows, the recurrence in form "step" without its gradient: for sequences too short for a block.
    """

    program: Program
    form: str
    rows: int
    forward: Mapping[str, Node]
    backward: Mapping[str, Node]
    reasons: tuple[Reason, ...] = ()
    names: Mapping[Node, str] = field(default_factory=dict)
    single: Block | None = None

    @property
    def states(self) -> tuple[str, ...]:
        """Names of all carried states, hidden ones too."""
        return tuple(self.program.states)


def gradient_key(n: Node) -> str:
    """The key under which a leaf's gradient stands in `Block.backward`."""
    kind, name = n.text("kind"), n.text("name")
    if kind == "state":
        return prev_key(name)
    offset = n.number("offset")
    return slope_key(name, offset)


def cotangent_leaves(program: Program, form: str) -> dict[str, Node]:
    """The leaves that carry the cotangents of a block's results, by the block's keys."""
    time = () if form == "step" else (ROW,)
    given = {name: leaf("cot", name, (BATCH, *time, *d.dims)) for name, d in program.output_decls.items()}
    for name, d in program.states.items():
        given[next_key(name)] = leaf("cot", next_key(name), d.axes)
    return given


def rows_of_a_step(block: Block) -> list[str]:
    """The spec's dims that are the rows of a step: they lie beside its steps."""
    every = topological([*block.forward.values(), *block.backward.values()])
    return list(dict.fromkeys(
        unprimed(n.text("old")) for n in every if n.op == "rename" and is_rank(n.text("new")) and not is_rank(n.text("old"))
    ))


def free_dims(forward: Mapping[str, Node]) -> tuple[str, ...]:
    """Dims that the block never mixes: never reduced, renamed, scanned over or taken from. Sorted.

    Each index of such a dim may be computed by its own program. Backward, which is linear in the cotangents, may then
    reduce over the dim by adding up the programs' partial results; where an operator is not linear backward, the dims that its
    value lacks are mixed, for its cotangent must be whole.
    """
    order = topological(forward.values())
    mixed = {ROW, COL}
    for n in order:
        if n.op not in ("index", "size", "block_index"):
            mixed.update(along(n))
        if n.op != "expand" and any(key == "over" for key, _ in n.attrs):
            mixed.update(n.names("over"))
    mixed |= {unprimed(d) for d in mixed}
    every = {d for n in leaves(forward.values()) for d in n.dims if "'" not in d}
    for n in order:
        mixed |= set() if TABLE[n.op].linear_backward else every - set(n.dims)
    return tuple(sorted(every - mixed))


__all__ = [
    "BATCH", "Block", "COL", "ROW", "Reason", "VALID", "cotangent_leaves", "free_dims", "gradient_key",
]
