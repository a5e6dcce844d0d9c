"""Sizes in the launchers of kernels: of the dims at a call, of tiles, of arrays, and the number of programs.

In: a `Schedule`, its printed kernels, and the tiles. Out: Python expressions and statements for `launcher`, whose functions
take their names of locals from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from seqc.backends.triton_gpu.kernel import ALL_BLOCKS, ALL_SPANS, BLOCKS, PIECES, SCRATCH, SPANS, STEPS, TURN, Array
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.roles import rank_tile
from seqc.backends.triton_gpu.schedule import AGAIN_KERNEL, Schedule
from seqc.backends.triton_gpu.spans import CALL, SPAN
from seqc.diagnostics import SeqcBug
from seqc.emit.names import safe_name
from seqc.emit.sizes import shape_reads
from seqc.emit.text import lay
from seqc.ir.arguments import argument_table
from seqc.ir.block import BATCH
from seqc.ir.dims import PIECE, base, is_rank, is_time, rank_size, unprimed
from seqc.ir.intervals import ANY
from seqc.ir.keys import slope_of
from seqc.ir.program import HANDED

TAB = "    "
KEPT = "N_KEPT"  # states that forward keeps for backward
EXTENTS = '''
def _extents(B, T, rows, cu_seqlens):
    """(sequences, blocks of one, entries for all blocks, what makes an array with an entry per step, bounds) of a call.

    rows: of a block. A pack is cu_seqlens.shape[0] - 1 sequences in one row of T steps, of lengths that the host does not know:
    blocks are those of a mean one, entries a bound, and zeros stand where no sequence has any.
    """
    if cu_seqlens is None:
        NT = -(-T // rows)
        return B, NT, B * NT, torch.empty, None
    B = cu_seqlens.shape[0] - 1
    return B, -(-T // (rows * max(B, 1))), T // rows + B, torch.zeros, cu_seqlens.contiguous()
'''


@dataclass(frozen=True)
class Tiles:
    """Choices of the tile solver for one kernel: at most so many elements of each blocked dim, warps and stages; of a team, how
    many pieces of its matrices a program holds, and of how many it takes at once what it is told."""

    blocks: Mapping[str, int]
    warps: int = 4
    stages: int = 2
    held: int = 0
    at_once: int = 1


def by_block(array: Array) -> bool:
    """Whether the array is a gradient of which every block leaves a part."""
    return array.role == "grad" and BLOCKS in array.axes


def by_step(array: Array) -> bool:
    """Whether the array has an entry per step that a caller sees, or a sum takes: zero where a pack has no sequence."""
    return array.role in ("output", "grad", "factor") and STEPS in array.axes


class Extents:
    """The sizes of one schedule. printed: kernel name ("forward", ...) -> its text; open_: dims whose sizes at a call limit
    what fits a program (`room`); enough: programs of the kernel `again` (`Pacing`)."""

    def __init__(
        self, schedule: Schedule, printed: Mapping[str, Printed], tiles: Mapping[str, Tiles], open_: Sequence[str] = (),
        enough: int = 1,
    ) -> None:
        self.schedule, self.printed, self.tiles, self.open, self.enough = schedule, printed, tiles, open_, enough
        self.program, self.roles = schedule.block.program, schedule.roles
        program = self.program
        self.table = argument_table(program)
        self.arguments = [a.name for a in self.table]
        self.taken = {safe_name(a) for a in self.arguments} | {"B", "T", "NT", "N_BLOCKS", "torch", "math", "tl", "x"}
        self.taken |= {f"d_{safe_name(a)}" for a in self.arguments} | {"empty", "cu_seqlens", "reverse", "STEP", "N_STEPS"}
        self.taken |= {"N_SPANS", "way", "io", "kept", "kernel", "key", "loads", "most", "need", "room", "stays"}  # of `room`
        self.taken |= {"needs", "_", "EVERY", KEPT}
        self.save = self.fresh("save")  # the switch that says whether a gradient follows
        self.dims = {BATCH: "B", **{d: self.fresh(safe_name(d)) for d in program.dims}}
        ranks = dict.fromkeys(base(d) for d in self.roles.order if is_rank(d))
        self.dims |= {d: str(rank_size(d)) for d in ranks}
        self.blocks = {d: self.fresh(f"B{self.dims[d]}") for d in (BATCH, *program.dims)}
        self.blocks |= {d: str(rank_tile(d)) for d in ranks}
        self.counts = {d: self.fresh(f"N{self.dims[d]}") for d in (BATCH, *program.dims)}
        self.any = safe_name(self.arguments[0]) if self.table else "x"
        self.real = next((safe_name(a.name) for a in self.table if not a.whole), self.any)  # its type is that of outputs
        plain = [x for x, decl in program.inputs.items() if decl.range == ANY and not decl.places]
        self.main = safe_name(plain[0]) if plain else self.real
        self.helpers: set[str] = set()  # what the functions call of the file's own
        self.joined = False  # whether the function has the switch `save`
        self.quiet: dict[str, Printed] = {}  # what then runs in a kernel's place without it

    def fresh(self, wanted: str) -> str:
        """A local name that nothing else has."""
        name = wanted
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def helper(self, name: str) -> str:
        """The name of a function of the file's own, for a text that calls it."""
        self.helpers.add(name)
        return name

    # ---- shapes ----

    def unpack(self, kernels: Sequence[Printed], saves: bool, rows: int, chooses: bool = False) -> list[str]:
        """`B, T, H, K = q.shape`, and so on until every dim has its size; then what a pack and a direction change.

        saves: whether the function allocates what has an entry per block; rows: of a block; chooses: whether it asks `_way`.
        """
        lines = shape_reads({safe_name(a.name): [self.length(unprimed(d)) for d in a.axes] for a in self.table})
        known = {unprimed(d) for a in self.table for d in a.axes}
        for d, dim in self.program.dims.items():
            if d not in known:
                if dim.default is None:
                    raise SeqcBug("the Triton launcher", f"no tensor has the dim {d}, and it has no default")
                lines.append(f"{self.dims[d]} = {dim.default}")
        saves = saves and rows > 1 and any(a.role == "saved" for k in kernels for a in k.arrays)
        apart = any(k.kernel.block_in_grid for k in kernels)
        if any("N_STEPS" in k.runtime for k in kernels):
            lines.append("N_STEPS = B * T")
        spans = self.schedule.spans if any(SPANS in a.axes for k in kernels for a in k.arrays) else 1
        lines += [f"{ALL_SPANS} = _extents(B, T, {rows * spans}, cu_seqlens)[2]"] if spans > 1 else []
        blocks = ", ".join([
            "NT" if chooses else "_", "N_BLOCKS" if saves or apart else "_",
            "empty" if any(by_block(a) or by_step(a) for k in kernels for a in k.arrays) else "_",
        ])
        lines.append(f"B, {blocks}, cu_seqlens = _extents(B, T, {rows}, cu_seqlens)")
        if spans == CALL:
            count = ALL_SPANS if any(k.kernel.span_in_grid for k in kernels) else "_"
            call = f"EVERY, {count}, {KEPT} = {self.helper(SPAN)}("
            lines += [line[4:] for line in lay(call, self.spans(self.dims, "cu_seqlens is not None"), ")", 4).split("\n")]
        backwards = self.program.direction == "backward"
        lines.append(f"STEP = {'1 if reverse else -1' if backwards else '-1 if reverse else 1'}")
        return lines

    def spans(self, dims: Mapping[str, str], packed: str) -> list[str]:
        """The arguments of `_spans`. dims: the size of each, by name; packed: whether the call is of a pack."""
        again = self.printed[AGAIN_KERNEL]
        programs = " * ".join(self.grid_size(one, again, dims) for one in again.grid if one != ALL_SPANS)
        return ["B", "T", str(self.rows_per_block()), programs or "1", f"enough={self.enough}", f"packed={packed}"]

    def grid_size(self, one: str, kernel: Printed, dims: Mapping[str, str]) -> str:
        """How many programs a kernel has along one axis of its grid."""
        if not one.startswith(PIECES):
            return dims.get(one, one)
        size = dims[one[1:]]
        return f"-(-{size} // {self.size_of(one[1:], [kernel], size)[0][1]})"

    def rows_per_block(self) -> int:
        """Steps between two saved states."""
        return self.schedule.block.rows if self.schedule.block.rows > 1 else self.schedule.every

    def length(self, axis: str) -> str:
        """An axis of an array as a Python expression."""
        if axis in (STEPS, TURN):
            return axis
        if axis == SCRATCH or is_time(axis):
            return str(self.rows_per_block())
        if axis.startswith(PIECES):
            dim = axis[1:]
            return self.dims[dim] if dim in self.roles.grid else self.pieces(dim)
        return self.dims[axis if axis == BATCH else base(axis)]

    def allocate(self, array: Array) -> str:
        """`o = torch.empty(...)`."""
        axes: list[str] = []
        for axis in array.axes:
            if axis in (STEPS, BLOCKS, SPANS):
                every = axis == STEPS or self.rows_per_block() == 1
                entries = ALL_BLOCKS if axis == BLOCKS else KEPT if self.schedule.spans == CALL else ALL_SPANS
                axes[-1] = f"*{self.any}.shape[:2]" if every else entries
            else:
                axes.append(self.length(axis))
        shape = ", ".join(axes)
        rounded = array.role == "output" and self.program.output_decls[array.name].role != HANDED
        kind = f"{self.real}.dtype" if rounded else "torch.float32"
        if array.role in ("kept", "saved", "told") and array.dtype == "io":
            kind = f"{self.main}.dtype"  # that of matrix products' operands
        kind = f"{self.helper('_state_type')}({self.main}.dtype)" if array.dtype == "state" else kind
        if array.role == "grad" and array.dtype == "io":
            source = slope_of(array.source).name
            kind = f"{safe_name(source)}.dtype"
        make = "" if by_block(array) or by_step(array) else "torch."
        return f"{self.local(array.name)} = {make}empty(({shape}{',' if len(axes) == 1 else ''}), " \
            f"dtype={kind}, device={self.any}.device)"

    def local(self, name: str) -> str:
        """The local variable of an array."""
        return safe_name(name)

    # ---- tiles and programs ----

    def either(self, what: Callable[[Printed], str], one: Printed) -> str:
        """What a launch of a kernel says, where a gradient follows and where none does."""
        return self.one_of(what(one), what(self.quiet.get(one.kernel.name, one)))

    def one_of(self, saving: str, other: str) -> str:
        """The value where a gradient follows, or the one where none does."""
        return saving if saving == other else f"({saving} if {self.save} else {other})"

    def sizes(self, kernels: Sequence[Printed]) -> list[str]:
        """`BK = _pad(K, 16)` for every tile length of some kernels."""
        return [line for d in (BATCH, *self.program.dims) for line in self.size(d, kernels)]

    def resized(self, kernels: Sequence[Printed], before: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """By dim, the tile lengths of kernels that differ from those that are known."""
        found = {d: self.size(d, kernels) for d in (BATCH, *self.program.dims)}
        return {d: lines for d, lines in found.items() if lines and lines != before.get(d)}

    def size(self, d: str, kernels: Sequence[Printed]) -> list[str]:
        """The tile length of one dim and the number of pieces, where the kernels take either."""
        saving, other = (self.size_of(d, ks) for ks in (kernels, [self.quiet.get(k.kernel.name, k) for k in kernels]))
        return [f"{name} = {self.one_of(code, quiet)}" for (name, code), (_, quiet) in zip(saving, other, strict=True)]

    def size_of(self, d: str, kernels: Sequence[Printed], size: str = "") -> list[tuple[str, str]]:
        """(variable, its value)s of a dim, of the tiles that these very kernels have. size: how the dim's size is written."""
        size = size or self.dims[d]
        wanted = {dim for k in kernels for dim, _ in k.tiles}
        split = {one[1:] for k in kernels for one in k.grid if one.startswith(PIECES)}
        if d not in wanted | split:
            return []
        code, least = self.length_of_tile(d, kernels, size), 16 if any(d in k.in_dots for k in kernels) else 1
        if d not in split:
            return [(self.blocks[d], code)]
        most = min(self.tiles[k.kernel.name].blocks[d] for k in kernels if PIECES + d in k.grid)
        tile = self.blocks[d], f"min({code}, {max(most, least)})"
        return [tile, (self.counts[d], f"B if cu_seqlens is not None else -(-B // {tile[0]})")] if d == BATCH else [tile]

    def length_of_tile(self, d: str, kernels: Iterable[Printed], size: str = "") -> str:
        """The length of a tile that holds a dim whole. size: how the dim's size is written."""
        kernels = list(kernels)
        if any(d in self.schedule.of(k.kernel.name).pieces for k in kernels):
            return str(PIECE)
        code = f"_pad({size or self.dims[d]}{', 16' if any(d in k.in_dots for k in kernels) else ''})"
        return f"min({code}, {PIECE})" if any(d in self.schedule.of(k.kernel.name).roles.passed for k in kernels) else code

    def pieces(self, d: str) -> str:
        """How many pieces of a dim there are, of the tile that launches take just then."""
        return self.counts[d] if d == BATCH else f"-(-{self.dims[d]} // {self.blocks[d]})"

    def grid(self, printed: Printed) -> str:
        """The number of programs."""
        counts = [self.pieces(one[1:]) if one.startswith(PIECES) else self.dims.get(one, one) for one in printed.grid]
        return " * ".join(counts) or "1"

    def ways(self, what: str) -> list[list[list[Printed]]]:
        """The ways to do "forward", "infer" or "backward": each its kernels in their order, those together that have the same
        tile lengths."""
        ways = self.schedule.ways[what]
        return [[[self.printed[name] for name in names] for names in self.schedule.alike(way)] for way in ways]

    def kernels_of(self, what: str) -> list[Printed]:
        """All kernels that do so, in any way."""
        names = dict.fromkeys([*self.schedule.before.get(what, ()), *chain(*self.schedule.ways[what])])
        return [self.printed[name] for name in names]

    def programs(self, one: Printed, whole: Printed, phases: Sequence[Printed]) -> str:
        """How many programs a phase has for each block, or for all, before the sizes are those of the phases."""
        counts = []
        for axis in one.grid:
            size, before = (self.size(axis[1:], kernels) if axis.startswith(PIECES) else [] for kernels in (phases, [whole]))
            here = size[0].partition(" = ")[2] if size != before else ""
            if here:
                counts.append(f"-(-{self.dims[axis[1:]]} // {here})")
            elif axis.startswith(PIECES):
                counts.append(self.pieces(axis[1:]))
            else:
                counts.append(self.length(BATCH if axis == ALL_BLOCKS else axis))
        return " * ".join(counts) or "1"
