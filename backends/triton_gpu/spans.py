"""How many blocks lie between two states that forward keeps for backward, and which states these are.

In: a block. Out: a number of blocks, a span. Of a span, forward keeps the states as its first block begins; before the
gradients a kernel computes the states of its other blocks again, all spans at once. From forward to backward memory
therefore holds one state a span. `checkpoint N` of a spec, or the option `save_states` of a compile, says how long a span
is; otherwise a call does (`SPANS`): a span is the whole sequence, and nothing is kept, unless too few programs would then
walk to keep a GPU busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from seqc.analysis.workload import nominal_sizes
from seqc.ir.block import Block
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, leaves
from seqc.ir.keys import next_key
from seqc.ir.program import Program
from seqc.ir.traverse import reached

STATE, INPUT = 4, 2  # bytes of an element: states are fp32, inputs are counted as bf16
CALL = 0  # blocks of a span where each call says how many
SMALL = 16  # states of all blocks are kept where they are smaller than the inputs by this factor
SPAN = "_spans"
SPANS = '''
def _spans(B, T, rows, programs, enough, packed):
    """(blocks of a span, spans of B sequences, how many states forward keeps for backward): one for each span, or none where
    each sequence is one span, for a walk through it begins with the initial state.

    rows: of a block; programs: that walk one span; enough: so many that more would not be done sooner. A pack has T steps.
    """
    many, blocks = 1 + (enough - 1) // max(B * programs, 1), T // rows + 1
    every = blocks // (many * B if packed else many) + 1 if many > 1 else blocks
    spans = T // (rows * every) + B if packed else -(-T // (rows * every)) * B
    return every, spans, spans if spans > B else 0
'''


def spans_of_call(B: int, T: int, rows: int, programs: int, enough: int) -> tuple[int, int, int]:
    """What `_spans` gives for a batch."""
    names: dict[str, Callable[..., tuple[int, int, int]]] = {}
    exec(SPANS, names)
    return names[SPAN](B, T, rows, programs, enough, False)


def blocks_between_saved(block: Block) -> int:
    """Blocks of a span; 1 where each state is kept, `CALL` where a call says how many."""
    program = block.program
    if block.rows == 1 or not program.states or block.form != "chunkwise":
        return 1
    wish = program.wishes.checkpoint
    if wish is not None:
        return max(1, -(-wish // block.rows))
    state, step = saved_bytes(program, nominal_sizes(program))
    return CALL if SMALL * state > step * block.rows else 1


def saved_bytes(program: Program, sizes: Mapping[str, int]) -> tuple[int, int]:
    """(bytes of all states at one place, bytes of all inputs of one step), of one sequence."""

    def volume(dims: Iterable[str]) -> int:
        return math.prod(sizes[unprimed(d)] for d in dims)

    states = STATE * sum(volume(d.dims) for d in program.states.values())
    return states, INPUT * sum(volume(d.dims) for d in program.inputs.values())


def with_sources(saved: Iterable[str], forward: Mapping[str, Node], states: Iterable[str]) -> tuple[str, ...]:
    """These states and those that their next values depend on, in the order of all."""
    found = reached(saved, lambda state: [n.text("name") for n in leaves([forward[next_key(state)]], "state")])
    return tuple(s for s in states if s in found)
