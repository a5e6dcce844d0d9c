"""How values lie: the order of axes in a function, typical sizes, and the lines of the spec to quote.

In: a block. Out: a `Layout`. Order: blocks, batch, in a chunk the dims that every state has (heads), rows, columns, then the
declared order. Where nothing is recurrent and a block is a step, the batch comes first: sequences stay as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.analysis.phases import BLOCK, stages
from seqc.analysis.workload import PRODUCTS
from seqc.ir.block import Block, free_dims, rows_of_a_step
from seqc.ir.graph import BATCH, COL, ROW, Node
from seqc.ir.program import Program

TYPICAL = {BATCH: PRODUCTS.batch, BLOCK: PRODUCTS.length}


@dataclass(frozen=True)
class Layout:
    """See the file's docstring. `time` is the axis of time inside a block, if there is one."""

    order: tuple[str, ...]
    extent: Mapping[str, int]
    time: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def at(self) -> int:
        """The place of the block axis among the first two."""
        return self.order.index(BLOCK)

    def cut(self, rows: str) -> str:
        """A subscript of the block axis."""
        return f"[{':, ' * self.at}{rows}]"


def layout_of(block: Block) -> Layout:
    """The layout of a block's values."""
    program = block.program
    heads: list[str] = []
    if block.form == "chunkwise":
        free = free_dims(block.forward)
        states = [s.dims for s in program.states.values()]
        inputs = [x.dims for x in program.inputs.values()]
        heads = [
            d for d in program.dims
            if d in free and all(d in s for s in states) and 2 * sum(d in x for x in inputs) > len(inputs)
        ]
    extent = {d.name: d.default or PRODUCTS.dim for d in program.dims.values()}
    extent |= {f"{d}'": n for d, n in extent.items()} | TYPICAL
    extent |= {ROW: block.rows, COL: block.rows, f"{COL}'": block.rows}
    for b in (1 << k for k in range(block.rows.bit_length() - 1)):
        extent |= {f"%m{b}": block.rows // (2 * b), f"%u{b}": b, f"%l{b}": b}
    looped = block.form != "step" or any(not stage.stream for stage in stages(block.forward, program.carried))
    lead = (BLOCK, BATCH) if looped else (BATCH, BLOCK)
    rows = rows_of_a_step(block)
    order = (*lead, *heads, ROW, *rows, COL, *(d for d in _dims(program) if d not in (*heads, *rows)))
    return Layout(order, extent, () if block.form == "step" else (ROW,), tuple(heads))


def _dims(program: Program) -> list[str]:
    """All dims, those of the largest states first, so that states keep their declared order wherever they can."""
    states = sorted(program.states.values(), key=lambda s: -len(s.dims))
    given = [*program.inputs.values(), *program.output_decls.values()]  # may have primed dims that no state has
    return list(dict.fromkeys([*(d for s in states for d in s.dims), *program.dims, *(d for x in given for d in x.dims)]))


def step_layout(program: Program) -> Layout:
    """The layout of one step's values."""
    extent = {d.name: d.default or PRODUCTS.dim for d in program.dims.values()} | TYPICAL | {ROW: 1}
    return Layout((BATCH, *_dims(program)), extent, (), ())


def quotes_of(program: Program, names: Mapping[Node, str]) -> dict[Node, str]:
    """Node -> the line of the spec that it comes from, by its span or by its name."""
    lines: dict[str, str] = {}
    out: dict[Node, str] = {}
    for n, span in program.spans.items():
        line = " ".join(span.source.line(span.line).split("#")[0].split())
        if n in program.definitions:
            lines.setdefault(program.definitions[n], line)
            out[n] = line
    for n, name in names.items():
        if name in lines:
            out.setdefault(n, lines[name])
    return out
