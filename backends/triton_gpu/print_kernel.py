"""A loop tree -> the text of one `@triton.jit` function.

In: a `Kernel` of a `Schedule`. Out: `Printed`: the text, the compile-time arguments that the launcher must give, and
which dims feed matrix products (their tiles need 16 elements).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from seqc.backends.triton_gpu.address import SEQUENCE_BLOCKS, SEQUENCE_SPANS
from seqc.backends.triton_gpu.kernel import ALL_BLOCKS, ALL_SPANS, MODES, PIECES, WHOLE, Array, Kernel, Levels, Mode
from seqc.backends.triton_gpu.print_function import FunctionPrinter
from seqc.backends.triton_gpu.print_items import OUTPUTS, SAVE, ItemPrinter
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.roles import ALL
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.segments import PRODUCT, columns
from seqc.backends.triton_gpu.texts import TAB
from seqc.backends.triton_gpu.uses import Uses
from seqc.emit.expressions import Text
from seqc.emit.names import safe_name
from seqc.emit.text import lay, wrapped
from seqc.ir.block import BATCH
from seqc.ir.graph import Node
from seqc.ir.once import found_once

# compile-time arguments that the launcher gives by name
SETTINGS = ("STEP", "DOT", "PRECISION", "STAGES", "PARTS", "COLUMNS", "HELD", "AT_ONCE")
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Printed:
    """See the file's docstring."""

    kernel: Kernel
    name: str
    text: str
    arrays: tuple[Array, ...]
    arguments: tuple[str, ...]  # the text's, in order
    runtime: tuple[str, ...]
    settings: tuple[str, ...]  # those of `SETTINGS` that it takes
    dims: tuple[tuple[str, str], ...]  # (dim, its compile-time argument)
    tiles: tuple[tuple[str, str], ...]  # (dim, the argument of its tile's length)
    scalars: tuple[tuple[str, Node], ...]  # (argument, its value)
    in_dots: tuple[str, ...]
    turned: Mapping[Node, str]  # products whose left operand is the transposed result of another -> dim of their rows
    grid: tuple[str, ...]  # what the programs are: "N_BLOCKS", a dim, or "#" + a blocked dim; the last runs fastest
    given: tuple[Array | None, ...]  # the text's arrays, None for one that this kernel does without
    places: tuple[Array, ...]  # the text's arrays in any mode
    functions: Mapping[str, str]  # device functions that it calls and that were made for it, by their names
    calls: tuple[str, ...]  # the primitives of `device` that it and these functions call
    columns: str = ""  # the dim of which a thread holds COLUMNS neighbours, with all steps of each
    switches: Mapping[str, bool] = field(default_factory=dict)  # the text's switches, and what they are

    def as_in(self, kernel: Kernel, mode: Mode) -> Printed:
        """The same text with its switches set so. kernel: what it is then."""
        names = {a.name for a in kernel.arrays}
        given = tuple(a if a.name in names else None for a in self.places)
        values = {SAVE: mode.save, OUTPUTS: mode.outputs}
        switches = {name: values[name] for name in self.switches}
        return replace(self, kernel=kernel, arrays=kernel.arrays, given=given, switches=switches)


def keeps_none(printed: Printed) -> Printed:
    """The same text where no state is kept for backward."""
    mode = Mode(save=False, outputs=printed.switches.get(OUTPUTS, True))
    kernel = printed.kernel
    return printed.as_in(kernel.as_in(mode, kernel.name, kernel.doc), mode) if SAVE in printed.switches else printed


@found_once
def print_kernel(schedule: Schedule, kernel: Kernel, taken: Mapping[str, str] = NONE) -> Printed:
    """The text of a kernel. taken: device functions that other kernels of the file have made, by their names."""
    return KernelPrinter(schedule, kernel, taken).print()


def print_named(
    schedule: Schedule, name: str, whole: Callable[[str], Printed], taken: Mapping[str, str] = NONE
) -> Printed:
    """The kernel of a name. Those that are forward without what it saves, or without outputs, are its text with a switch.

    whole: gives the printed kernel `forward`; taken: see `print_kernel`.
    """
    if name in MODES and not schedule.nested:
        return whole("forward").as_in(schedule.kernel(name), MODES[name])
    return print_kernel(schedule.of(name), schedule.kernel(name), taken)


class KernelPrinter(ItemPrinter):
    """taken: device functions that other kernels of the file have made, by their names."""

    def __init__(self, schedule: Schedule, kernel: Kernel, taken: Mapping[str, str] = NONE) -> None:
        super().__init__(schedule, kernel, Products(kernel, schedule.roles), Uses(kernel.body, schedule.roles))
        self.pointers |= {a.name: self.names.fresh(f"p_{safe_name(a.name)}") for a in kernel.arrays}
        self.taken, self.functions = taken, dict[str, str]()
        by_products = any(function.startswith(PRODUCT) for function in self.values.runs.values())
        self.addresses.columns = "" if by_products else columns(self.spans, self.uses, schedule.roles)

    # ---- the function ----

    def print(self) -> Printed:
        """Header, setup, loops."""
        self.setup_programs()
        self.body(self.kernel.body)
        names = self.names
        tile_dims = [d for d in (BATCH, *self.program.dims) if names.block[d] in names.used]
        dims = [d for d in self.program.dims if names.dims[d] in names.used and not d.endswith(ALL)]
        runtime = tuple(x for x in ("B", "T", "N_STEPS", ALL_BLOCKS, "FIRST", "EVERY") if x in names.used)
        scalars = tuple((name, n) for n, name in self.values.scalars.items())
        needs_bt = "BT" in names.used
        constants = [names.dims[d] for d in dims] + [names.block[d] for d in tile_dims] + (["BT"] if needs_bt else [])
        constants += [name for name, _ in scalars]
        switches = [x for x in (SAVE, OUTPUTS) if x in names.used]
        settings = tuple(x for x in SETTINGS if x in names.used)
        constants += [*settings, *switches]
        name = f"{safe_name(self.program.name)}_{self.kernel.name}_kernel"
        arguments = [*(self.pointers[a.name] for a in self.kernel.arrays), "p_cu_seqlens", *runtime]
        lines = [f"@triton.jit(do_not_specialize=[{', '.join(map(repr, runtime))}])", f"def {name}("]
        lines += wrapped([*arguments, *(f"{c}: tl.constexpr" for c in constants)])
        lines += ["):", f'{TAB}"""{self.kernel.doc}"""']
        lines += [f"{TAB}{line}" for line in self.scope.lines]
        in_dots = tuple(sorted(self.products.dims))
        tiles = [(d, names.block[d]) for d in tile_dims] + ([("t", "BT")] if needs_bt else [])
        printed = Printed(
            self.kernel, name, "\n".join(lines) + "\n", self.kernel.arrays, (*arguments, *constants), runtime, settings,
            tuple((d, names.dims[d]) for d in dims), tuple(tiles), scalars, in_dots,
            self.products.turned, self.grid(), self.kernel.arrays, self.kernel.arrays, self.functions,
            tuple(sorted(names.calls)), self.addresses.columns if "COLUMNS" in names.used else "",
            dict.fromkeys(switches, True),
        )
        return printed.as_in(self.kernel.as_in(WHOLE, self.kernel.name, self.kernel.doc), WHOLE)

    def at_levels(self, item: Levels) -> None:
        """sums <- function(sums, given), at each level; the function is printed when it is first called."""
        function = item.function
        made = FunctionPrinter(self, function).print()
        for total in function.totals:
            if total not in self.totals:
                zero = f"tl.zeros({self.values.shape(self.values.axes(total))}, tl.float32)"
                self.plus(total, None, Text(zero, self.values.axes(total)), 1)
        sums = [self.totals[total] for total in function.totals]
        given = [*sums, *(self.find(n).code for n in function.given), *made.borrowed]
        several = len(item.blocks) > 1
        level = f"{function.block} >> i_l" if several else str(function.block)
        indent = 4 + 4 * self.scope.rank + 4 * several
        code = lay(f"{', '.join(sums)} = {made.name}(", [*given, level, *made.constants], ")", indent)
        self.scope.lines += [f"for i_l in tl.static_range({len(item.blocks)}):"] if several else []
        self.scope.lines += [line[indent - 4 * several :] for line in code.split("\n")]

    def grid(self) -> tuple[str, ...]:
        """What the programs are, the slowest first."""
        roles = self.roles
        batch = (PIECES + BATCH,) if BATCH in roles.blocked else (BATCH,)
        first = (ALL_BLOCKS,) if self.kernel.block_in_grid else (ALL_SPANS,) if self.kernel.span_in_grid else batch
        return (*first, *(d for d in roles.grid if d != BATCH), *(PIECES + d for d in roles.blocked if d != BATCH))

    def program_id(self) -> str:
        """Which program it is."""
        return "i_p = tl.program_id(0).to(tl.int64)"

    def setup_programs(self) -> None:
        """Program id -> one index per grid dim."""
        names, lines = self.names, self.scope.lines
        grid = self.grid()
        counts = []
        for one in grid:
            if one in (ALL_BLOCKS, ALL_SPANS):
                counts.append(one)
            elif one.startswith(PIECES):
                dim = one[1:]
                count, tile = names.count[dim], names.tile(dim)
                extent = names.extent(dim)  # Triton 3.6 makes a tensor of `tl.cdiv` where all is known when it compiles
                known = f"{count}: tl.constexpr = ({extent} + {tile} - 1) // {tile}"
                batch = f"{count} = tl.cdiv({extent}, {tile}) if p_cu_seqlens is None else {extent}"
                lines.append(batch if dim == BATCH else known)
                counts.append(count)
            else:
                counts.append(names.dims[one])
        index = ["i_s" if g in (ALL_BLOCKS, ALL_SPANS) else names.program(g.strip(PIECES)) for g in grid]
        if len(grid) == 1:
            lines.append(f"{index[0]} = tl.program_id(0).to(tl.int64)")
        else:
            lines.append(self.program_id())
            names.use(*counts[1:])
            codes = []
            for i in range(len(grid)):
                inner = counts[i + 1 :]
                code = "i_p" if not inner else f"i_p // {inner[0]}" if len(inner) == 1 else f"i_p // ({' * '.join(inner)})"
                codes.append(f"{code}{f' % {counts[i]}' if i else ''}")
            lines.append(f"{', '.join(index)} = {', '.join(codes)}")
        if self.kernel.block_in_grid:
            names.use("B", "BT")
            lines.append(f"{names.program(BATCH)}, i_n = {names.call('block_of')}(p_cu_seqlens, i_s, B, T, BT)")
            lines.append("i_0 = i_n * BT")
        if self.kernel.span_in_grid:
            names.use("B", "BT", "EVERY")
            lines.append(f"{names.program(BATCH)}, i_c = {names.call('block_of')}(p_cu_seqlens, i_s, B, T, BT * EVERY)")
        self.setup_sequence()

    def setup_sequence(self) -> None:
        """Where the program's sequence begins, and its length."""
        lines, names = self.scope.lines, self.names
        names.use("T", "STEP")
        several = BATCH in self.roles.blocked  # a tile of sequences
        sequence, first_block_of = ("sequences", "first_blocks_of") if several else ("sequence", "first_block_of")
        which = names.program(BATCH)
        if several:
            which = f"{which}, {self.addresses.positions(BATCH, self.scope)}"
        lines.append(f"first, T = {names.call(sequence)}(p_cu_seqlens, {which}, T, STEP)")
        if self.kernel.block_in_grid:
            lines += ["if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here", f"{TAB}return"]
            return
        if self.kernel.span_in_grid:
            lines += ["if p_cu_seqlens is not None and i_c * EVERY * BT >= T:  # the pack has no span here", f"{TAB}return"]
        merged = [self.addresses.merged(a) for a in self.kernel.arrays]
        if self.uses_blocks() or any(SEQUENCE_BLOCKS in axes for axes in merged):
            lines.append(f"NT = tl.cdiv(T, {names.use('BT')})")
        if any(SEQUENCE_BLOCKS in axes for axes in merged):
            lines.append(f"first_block = {names.call(first_block_of)}(p_cu_seqlens, {which}, NT, {names.use('BT')})")
        if not self.kernel.span_in_grid and any(SEQUENCE_SPANS in axes for axes in merged):
            names.use("BT", "EVERY")
            lines.append(f"first_span = {names.call(first_block_of)}(p_cu_seqlens, {which}, tl.cdiv(NT, EVERY), BT * EVERY)")

    def uses_blocks(self) -> bool:
        return any(loop.over == "blocks" for loop in self.kernel.loops()) or (self.stores_blocks() and self.kernel.every > 1)

    def stores_blocks(self) -> bool:
        return any("NT" in a.axes for a in self.kernel.arrays)
