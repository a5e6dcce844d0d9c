"""The loop tree of one kernel: what is loaded, computed and stored where. Plain data.

Made by `schedule` from a block's graph, printed by `print_kernel`, measured by `summary`. Time runs in blocks of `rows`
steps (form "scan" and "chunkwise", where a block is a tile axis) or step by step (form "step", where a block is what
lies between two saved states).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from seqc.backends.triton_gpu.roles import Roles
from seqc.ir.block import ROW
from seqc.ir.graph import Node
from seqc.ir.keys import slope_of

# Axes of arrays that are no dims of the graph.
STEPS = "T"  # the sequence
BLOCKS = "NT"  # one entry per block; the batch stands before it, and both are one axis in memory
ALL_BLOCKS = "N_BLOCKS"  # in a grid: one program per entry of the batch and the blocks together
SPANS = "NS"  # one entry per span of blocks, after the batch likewise
ALL_SPANS = "N_SPANS"  # in a grid: one program per entry of the batch and the spans together
SCRATCH = "BT"  # one entry per step of a block
TURN = "2"  # one entry for even steps, one for odd ones
TEAMS = "N_TEAMS"  # one entry per team: the programs that share out one head of a cell
PIECES = "#"  # "#V": one entry per piece of the blocked dim V, or per index of the grid dim V: partial results


@dataclass(frozen=True)
class Array:
    """A kernel argument. axes: dims of the spec, "B", those above, and "t" and "s", the rows of a block. role: what the
    launcher makes of it.

    role: "input" | "param" | "state" (NAME_0) | "output" | "final" (NAME_T) | "saved" | "cot" | "grad" | "scratch" |
    "factor" (of an outer product that is summed up afterwards) | "kept" (a value of every block, which one kernel of a
    function stores and others load) | "told" (what programs of a team tell each other) | "met" (how many have told).
    dtype: "io" as the inputs, "carry" fp32, "state" bf16 for bf16 inputs and else fp32, "count" whole numbers.
    """

    name: str
    axes: tuple[str, ...]
    role: str
    source: str  # the name or the block's key that it belongs to
    dtype: str = "carry"

    def of(self, inputs: Collection[str]) -> bool:
        """Whether it is one of these inputs, or the gradient of one."""
        return self.source in inputs if self.role == "input" else self.role == "grad" and slope_of(self.source).name in inputs

    @property
    def partial(self) -> tuple[str, ...]:
        """Dims along which the programs leave partial results."""
        return tuple(a[1:] for a in self.axes if a.startswith(PIECES))


@dataclass(frozen=True)
class Load:
    """node <- array, where the sequence has the step (shifted by `offset`), else 0. first_only: 0 but in piece 0."""

    node: Node
    array: Array
    offset: int = 0
    first_only: tuple[str, ...] = ()
    ahead: bool = False  # it was sent for a step before (`Fetch`)


@dataclass(frozen=True)
class Note:
    """A comment: the line of the spec, or the gradient, that the next items compute. result: it names what is stored."""

    text: str
    result: bool = False


@dataclass(frozen=True)
class Let:
    """Compute the node."""

    node: Node


@dataclass(frozen=True)
class Store:
    """array <- node. first_only: only the programs of piece 0 of these dims, since all hold the same; saves: only where a
    gradient follows; hands: only where another kernel computes outputs; both: where either is so."""

    node: Node
    array: Array
    first_only: tuple[str, ...] = ()
    saves: bool = False
    hands: bool = False


@dataclass(frozen=True)
class Advance:
    """All carried values take their next values at once: pairs of (carried leaf, node)."""

    pairs: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True)
class Zero:
    """An accumulator of this node's tile, of zeros."""

    name: str
    node: Node


@dataclass(frozen=True)
class Add:
    """accumulator += node."""

    name: str
    node: Node


@dataclass(frozen=True)
class StoreSum:
    """array <- accumulator, times factors and a sign."""

    name: str
    node: Node
    array: Array
    first_only: tuple[str, ...] = ()
    factors: tuple[Node, ...] = ()
    sign: int = 1


@dataclass(frozen=True)
class Barrier:
    """What the program's threads wrote to memory is seen by all of them."""


@dataclass(frozen=True)
class Fetch:
    """Send for what the step loads that is so many ahead. start: for the first ones, before the loop; through: of all steps of
    the sequence, and not only of those of the loop at hand, before all loops."""

    loads: tuple[Load, ...]
    start: bool
    reverse: bool
    ahead: int = 1
    through: bool = True


@dataclass(frozen=True)
class Meet:
    """Wait until every program of the team has told what it has to tell: the `nth` of so many times in a step."""

    array: Array
    dim: str
    nth: int
    times: int
    reverse: bool


@dataclass(frozen=True)
class Plus:
    """A term of a sum that is added up piece by piece."""

    total: Node
    node: Node
    sign: int


@dataclass(frozen=True)
class Function:
    """What is added to sums at each level, as it is at level `block`: of values given, by the items in their order."""

    block: int
    totals: tuple[Node, ...]
    given: tuple[Node, ...]
    items: tuple[Let | Plus, ...]


@dataclass(frozen=True)
class Levels:
    """The sums of a function, at one level after the other."""

    function: Function
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Four:
    """Four products of the same vector, or three, done as one of four matrices, one below the other."""

    sums: tuple[Node, ...]
    matrices: tuple[Node, ...]


@dataclass(frozen=True)
class Loop:
    """over: "blocks", "steps" of the block at hand, or a dim, piece by piece. sums: those over the dim, begun before it.

    Of a team, which has operands of products in pieces: keeps: values of each piece that are there after the loop; held: of as
    many pieces as there is room for; some: the loop takes AT_ONCE pieces a turn, through which the loops in it go; totals: what
    it adds up, each with the sums that it adds; fours: sums that are made together.
    """

    over: str
    reverse: bool
    body: tuple[Item, ...]
    sums: tuple[Node, ...] = ()
    keeps: tuple[Node, ...] = ()
    held: bool = False
    some: bool = False
    totals: tuple[tuple[Node, tuple[Node, ...]], ...] = ()
    fours: tuple[Four, ...] = ()


@dataclass(frozen=True)
class Held:
    """Values of a piece that are held from step to step; of pieces for which there is no room, the items make them again."""

    nodes: tuple[Node, ...]
    items: tuple[Load | Let, ...]
    fours: tuple[Four, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What outputs alone need: left out where another kernel computes them."""

    body: tuple[Item, ...]


Item: TypeAlias = (
    "Load | Note | Let | Store | Advance | Zero | Add | StoreSum | Barrier | Fetch | Meet | Held | Plus | Levels | Loop"
    " | Outputs"
)


@dataclass(frozen=True)
class Mode:
    """One of the kernels that a text with switches stands for. save: a gradient follows; outputs: it computes them."""

    save: bool
    outputs: bool

    def stores(self, item: Store) -> bool:
        """Whether it has a store that not all have."""
        return not (item.saves or item.hands) or (item.saves and self.save) or (item.hands and not self.outputs)


WHOLE = Mode(save=True, outputs=True)  # `forward`
MODES = {"infer": Mode(save=False, outputs=True), "states": Mode(save=True, outputs=False)}  # its text, switches set so


@dataclass(frozen=True)
class Kernel:
    """One kernel. block_in_grid: each program does one block; span_in_grid: the blocks of one span. rows: steps of a block as a
    tile axis, 1 in form "step".

    every: form "step": steps between two saved states (1: no inner loop). spans: blocks between two that are kept.
    """

    name: str
    doc: str
    arrays: tuple[Array, ...]
    body: tuple[Item, ...]
    rows: int
    every: int = 1
    block_in_grid: bool = False
    spans: int = 1
    span_in_grid: bool = False
    results: tuple[Array, ...] = field(default=())

    def as_in(self, mode: Mode, name: str, doc: str) -> Kernel:
        """The kernel that the text is with its switches set so."""
        body = _in_mode(self.body, mode)
        gone = _arrays(self.body) - _arrays(body)
        return replace(self, name=name, doc=doc, arrays=tuple(a for a in self.arrays if a.name not in gone), body=body)

    @property
    def in_fours(self) -> bool:
        """Whether products are done four at once: then no warp has a part of its own of what is summed."""
        return any(loop.fours for loop in self.loops())

    def loops(self) -> list[Loop]:
        """Every loop of the tree, outer before inner."""
        return [item for item in walk(self.body) if isinstance(item, Loop)]


def tile_axes(array: Array, roles: Roles, rows: int) -> tuple[str, ...]:
    """The tile axes of an array in the global order. rows: steps of a block."""
    return roles.axes((*array.axes, *((ROW,) if rows > 1 and STEPS in array.axes else ())))


def walk(items: Iterable[Item]) -> list[Item]:
    """All items, those of loops after the loop."""
    out: list[Item] = []
    for item in items:
        out.append(item)
        if isinstance(item, Loop | Outputs):
            out += walk(item.body)
    return out


def in_three(items: Iterable[Item], place: Callable[[Item], int]) -> tuple[tuple[Item, ...], ...]:
    """Three runs of items, each in their order. place: which of the three has an item; notes go with what follows."""
    runs: tuple[list[Item], list[Item], list[Item]] = [], [], []
    notes: list[Item] = []
    for item in items:
        if isinstance(item, Note):
            notes.append(item)
            continue
        runs[place(item)].extend([*notes, item])
        notes = []
    return tuple(map(tuple, runs))


def _arrays(items: Iterable[Item]) -> set[str]:
    return {item.array.name for item in walk(items) if isinstance(item, Load | Store)}


def _in_mode(items: Iterable[Item], mode: Mode) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Outputs):
            out += _in_mode(item.body, mode) if mode.outputs else ()
        elif isinstance(item, Loop):
            out.append(replace(item, body=_in_mode(item.body, mode)))
        elif not isinstance(item, Store) or mode.stores(item):
            out.append(item)
    return tuple(out)
