"""A loop tree -> the text of one `@triton.jit` function.

In: a `Kernel` of a `Schedule`. Out: `Printed`: the text, the compile-time arguments that the launcher must give, and
which dims feed matrix products (their tiles need 16 elements). Lines are written scope by scope; a value that is used
once, in the scope where it is computed, and is short, is written where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from seqc.backends.triton_gpu.address import SEQUENCE_BLOCKS, SEQUENCE_SPANS, Addresses, Scope
from seqc.backends.triton_gpu.kernel import (
    ALL_BLOCKS,
    ALL_SPANS,
    PIECES,
    SPANS,
    Add,
    Advance,
    Array,
    Barrier,
    Item,
    Kernel,
    Let,
    Load,
    Loop,
    Note,
    Store,
    StoreSum,
    Zero,
)
from seqc.backends.triton_gpu.labels import Labels
from seqc.backends.triton_gpu.names import Names
from seqc.backends.triton_gpu.positions import is_position
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.roles import ALL
from seqc.backends.triton_gpu.schedule import STEPS_KERNEL, Schedule
from seqc.backends.triton_gpu.uses import Uses, used_at_once, used_inside
from seqc.backends.triton_gpu.values import Text, Values
from seqc.diagnostics import SeqcBug
from seqc.emit.names import safe_name
from seqc.ir.block import BATCH
from seqc.ir.graph import Node
from seqc.ir.ops import TABLE

SHORT = 60  # characters of an expression that is written where it is used
TAB = "    "
SETTINGS = ("STEP", "EVERY", "DOT", "PRECISION", "STAGES", "PARTS")  # compile-time arguments that the launcher gives by name
SAVING = {"infer": "forward", "infer_walk": "walk"}  # where no gradient follows, and the same kernel where one does
SAVE = "SAVE"  # the compile-time argument that says whether a gradient follows


@dataclass(frozen=True)
class Printed:
    """See the file's docstring. arguments: the kernel's, in order: arrays, run-time sizes, compile-time values."""

    kernel: Kernel
    name: str
    text: str
    arrays: tuple[Array, ...]
    runtime: tuple[str, ...]
    dims: tuple[tuple[str, str], ...]  # (dim, its compile-time argument)
    tiles: tuple[tuple[str, str], ...]  # (dim, the argument of its tile's length)
    scalars: tuple[tuple[str, Node], ...]  # (argument, its value)
    in_dots: tuple[str, ...]
    turned: Mapping[Node, str]  # products whose left operand is the transposed result of another -> dim of their rows
    grid: tuple[str, ...]  # what the programs are: "N_BLOCKS", a dim, or "#" + a blocked dim; the last runs fastest
    given: tuple[Array | None, ...]  # the text's arrays, None for one that this kernel does without
    saves: bool | None = None  # what the text's switch SAVE is, None where it has none

    def quiet(self) -> Printed:
        """The same kernel where no gradient follows."""
        return self.without_saving(self.kernel.without_saving(self.kernel.name, self.kernel.doc))

    def without_saving(self, kernel: Kernel) -> Printed:
        """The same text for a kernel that stores nothing for a gradient."""
        names = {a.name for a in kernel.arrays}
        given = tuple(a if a is not None and a.name in names else None for a in self.given)
        return replace(self, kernel=kernel, arrays=kernel.arrays, given=given, saves=None if self.saves is None else False)


def print_kernel(schedule: Schedule, kernel: Kernel) -> Printed:
    """The text of a kernel."""
    return KernelPrinter(schedule, kernel).print()


def print_named(schedule: Schedule, name: str, saving: Callable[[str], Printed]) -> Printed:
    """The kernel of a name. Where forward and inference differ in what is saved alone, they are one text with a switch.

    saving: gives the printed kernel that saves.
    """
    if name in SAVING and not schedule.nested:
        return saving(SAVING[name]).without_saving(schedule.kernel(name))
    return print_kernel(schedule.of(name), schedule.kernel(name))


class KernelPrinter:
    def __init__(self, schedule: Schedule, kernel: Kernel) -> None:
        self.schedule, self.kernel = schedule, kernel
        program, roles = schedule.block.program, schedule.roles
        self.roles, self.program = roles, program
        self.uses = Uses(kernel.body, roles)
        self.names = Names(tuple(program.dims))
        self.addresses = Addresses(kernel, roles, self.names)
        self.products = Products(kernel, roles)
        self.values = Values(self.products, self.names, self.addresses, self.find)
        self.pointers = {a.name: self.names.fresh(f"p_{safe_name(a.name)}") for a in kernel.arrays}
        self.texts: list[dict[Node, Text]] = [{}]
        self.sums: dict[str, str] = {}
        self.scope = Scope(0)
        self.near: set[Node] = set()
        self.outside: set[Node] = set()
        self.label = Labels(schedule.labels, schedule.names, self.bare).label

    # ---- the function ----

    def print(self) -> Printed:
        """Header, setup, loops."""
        self.setup_programs()
        self.body(self.kernel.body)
        names = self.names
        text = "\n".join(self.scope.lines)
        tile_dims = [d for d in (BATCH, *self.program.dims) if _word(names.block[d], text)]
        dims = [d for d in self.program.dims if _word(names.dims[d], text) and not d.endswith(ALL)]
        runtime = tuple(x for x in ("B", "T", "N_STEPS", ALL_BLOCKS, "FIRST") if _word(x, text))
        scalars = tuple((name, n) for n, name in self.values.scalars.items())
        needs_bt = _word("BT", text)
        constants = [names.dims[d] for d in dims] + [names.block[d] for d in tile_dims] + (["BT"] if needs_bt else [])
        constants += [name for name, _ in scalars]
        saves = any(isinstance(item, Store) and item.saves for item in self.uses.items)
        constants += [x for x in (*SETTINGS, *([SAVE] if saves else [])) if _word(x, text)]
        name = f"{safe_name(self.program.name)}_{self.kernel.name}_kernel"
        bounds = ["p_cu_seqlens"] if _word("p_cu_seqlens", text) else []
        arguments = [self.pointers[a.name] for a in self.kernel.arrays] + bounds + list(runtime)
        head = f"@triton.jit(do_not_specialize=[{', '.join(repr(x) for x in runtime)}])" if runtime else "@triton.jit"
        lines = [head, f"def {name}("]
        lines += _wrap([*arguments, *(f"{c}: tl.constexpr" for c in constants)])
        lines += ["):", f'{TAB}"""{self.kernel.doc}"""']
        lines += [f"{TAB}{line}" for line in self.scope.lines]
        in_dots = tuple(sorted(self.products.dims))
        tiles = [(d, names.block[d]) for d in tile_dims] + ([("t", "BT")] if needs_bt else [])
        return Printed(
            self.kernel, name, "\n".join(lines) + "\n", self.kernel.arrays, runtime,
            tuple((d, names.dims[d]) for d in dims), tuple(tiles), scalars, in_dots,
            self.products.turned, self.grid(), self.kernel.arrays, saves or None,
        )

    def grid(self) -> tuple[str, ...]:
        """What the programs are, the slowest first."""
        roles = self.roles
        batch = (PIECES + BATCH,) if BATCH in roles.blocked else (BATCH,)
        first = (ALL_BLOCKS,) if self.kernel.block_in_grid else (ALL_SPANS,) if self.kernel.span_in_grid else batch
        return (*first, *(d for d in roles.grid if d != BATCH), *(PIECES + d for d in roles.blocked if d != BATCH))

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
                count, tile = names.count[dim], names.block[dim]
                extent = names.dims[dim]  # Triton 3.6 makes a tensor of `tl.cdiv` where all is known when it compiles
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
            lines.append("i_p = tl.program_id(0).to(tl.int64)")
            for i in range(len(grid) - 1, -1, -1):
                inner = counts[i + 1 :]
                code = "i_p" if not inner else f"i_p // {inner[0]}" if len(inner) == 1 else f"i_p // ({' * '.join(inner)})"
                lines.append(f"{index[i]} = {code}{f' % {counts[i]}' if i else ''}")
        if self.kernel.block_in_grid:
            lines.append(f"{names.program(BATCH)}, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)")
            lines.append("i_0 = i_n * BT")
        if self.kernel.span_in_grid:
            lines.append(f"{names.program(BATCH)}, i_c = block_of(p_cu_seqlens, i_s, B, T, BT * EVERY)")
        self.setup_sequence()

    def setup_sequence(self) -> None:
        """Where the program's sequence begins, and its length."""
        lines = self.scope.lines
        which = self.names.program(BATCH)
        if BATCH in self.roles.blocked:
            which = f"{which}, {self.addresses.positions(BATCH, self.scope)}"
        tiles = "s" if BATCH in self.roles.blocked else ""
        lines.append(f"first, T = sequence{tiles}(p_cu_seqlens, {which}, T, STEP)")
        if self.kernel.block_in_grid:
            lines += ["if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here", f"{TAB}return"]
            return
        if self.kernel.span_in_grid:
            lines += ["if p_cu_seqlens is not None and i_c * EVERY * BT >= T:  # the pack has no span here", f"{TAB}return"]
        merged = [self.addresses.merged(a) for a in self.kernel.arrays]
        if self.uses_blocks() or any(SEQUENCE_BLOCKS in axes for axes in merged):
            lines.append("NT = tl.cdiv(T, BT)")
        if any(SEQUENCE_BLOCKS in axes for axes in merged):
            lines.append(f"first_block = first_block{tiles}_of(p_cu_seqlens, {which}, NT, BT)")
        if not self.kernel.span_in_grid and any(SEQUENCE_SPANS in axes for axes in merged):
            lines.append(f"first_span = first_block{tiles}_of(p_cu_seqlens, {which}, tl.cdiv(NT, EVERY), BT * EVERY)")

    def uses_blocks(self) -> bool:
        return any(loop.over == "blocks" for loop in self.kernel.loops()) or (self.stores_blocks() and self.kernel.every > 1)

    def stores_blocks(self) -> bool:
        return any("NT" in a.axes for a in self.kernel.arrays)

    # ---- items ----

    def find(self, n: Node) -> Text:
        """The text of a value that has been printed."""
        for level in reversed(self.texts):
            if n in level:
                return level[n]
        if n.op in ("const", "size", "index", "block_index") or self.values.is_host(n) or (
            n.op == "leaf" and n.text("kind") == "mask"
        ) or is_position(n):
            return self.values.text(n)
        if n.op == "mul":  # of a product that only sums use
            return self.values.text(n)
        raise KeyError(n)

    def body(self, items: Iterable[Item]) -> None:
        """Print the items of one scope."""
        items = tuple(items)
        keep = self.near, self.outside
        self.near, self.outside = used_at_once(items, self.uses.only_summed), used_inside(items)
        self.values.scope = self.scope
        for item in items:
            self.values.scope = self.scope
            self.item(item)
        self.near, self.outside = keep

    def item(self, item: Item) -> None:
        match item:
            case Load():
                self.load(item)
            case Note(text):
                self.scope.lines.append(f"# {text}")
            case Let(node):
                self.let(node)
            case Store(node, array, first_only, saves):
                self.store(array, self.find(node), first_only, saves)
            case Zero(name, node):
                axes = self.values.axes(node)
                var = self.sums[name] = self.names.fresh(f"b_{safe_name(name)}")
                zero = f"tl.zeros({self.values.shape(axes)}, tl.float32)" if axes else "tl.zeros((), tl.float32)"
                self.scope.lines.append(f"{var} = {zero}")
            case Add(name, node):
                self.scope.lines.append(f"{self.sums[name]} += {self.values.whole(node).code}")
            case StoreSum(name, node, array, first_only):
                self.store(array, Text(self.sums[name], self.values.axes(node)), first_only)
            case Advance(pairs):
                self.advance(pairs)
            case Barrier():
                self.scope.lines.append("tl.debug_barrier()")
            case Loop():
                self.loop(item)

    def load(self, item: Load) -> None:
        """node <- memory, in fp32."""
        at = self.addresses.at(item.array, self.scope, item.offset, False, item.first_only)
        mask = f", mask={at.mask}, other=0.0" if at.mask else ""
        name = self.var(item.node)
        operand = item.array.role == "param" and self.uses.is_operand(item.node)
        if item.array.role in ("kept", "told") and item.array.dtype == "io":
            operand = self.uses.is_operand_under_any_name(item.node)
            if not operand:
                raise SeqcBug("the Triton schedule", f"{item.array.name} is kept as products take it, and not they alone do")
        kind = "DOT" if operand else "tl.float32"
        mask += ', cache_modifier=".cg"' if item.array.role == "told" else ""  # other programs wrote it: not from nearer memory
        self.scope.lines.append(f"{name} = tl.load({self.pointers[item.array.name]}{at.pointer}{mask}).to({kind})")
        if at.only:
            self.scope.lines.append(f"{name} = tl.where({at.only}, {name}, 0.0)")
        self.texts[-1][item.node] = Text(name, at.axes)

    def store(self, array: Array, value: Text, first_only: tuple[str, ...], saves: bool = False) -> None:
        """memory <- value, where the array has the element."""
        at = self.addresses.at(array, self.scope, 0, True, first_only)
        mask = f", mask={at.mask}" if at.mask else ""
        code = self.values.full(value, at.axes).code
        tests = [SAVE] * saves + ["i_n % EVERY == 0"] * (SPANS in array.axes) + [at.only] * bool(at.only)
        self.scope.lines += [f"{TAB * i}if {test}:" for i, test in enumerate(tests)]
        tab = TAB * len(tests)
        self.scope.lines.append(f"{tab}tl.store({self.pointers[array.name]}{at.pointer}, {code}{mask})")

    def let(self, n: Node) -> None:
        """Compute n, or leave it to where it is used."""
        if self.values.is_host(n) or n.op in ("index", "block_index", "size", "const") or self.is_virtual(n):
            return
        text = self.values.text(n)
        quiet = n.op in ("rename", "expand", "stopgrad") and text.binds >= 4 and not text.code.startswith("tl.")
        inline = n in self.near and n not in self.outside and (TABLE[n.op].elementwise or quiet)
        short = len(text.code) <= SHORT and n not in self.schedule.names
        if (quiet and text.code.isidentifier()) or (inline and short):
            self.texts[-1][n] = text
            return
        name = self.var(n)
        self.scope.lines.append(f"{name} = {text.code}")
        self.texts[-1][n] = Text(name, text.axes)

    def is_virtual(self, n: Node) -> bool:
        """A product that only sums take, and so is never a tile of its own."""
        return n.op == "mul" and n in self.uses.only_summed

    def advance(self, pairs: tuple[tuple[Node, Node], ...]) -> None:
        """All carried values at once."""
        new = []
        olds = {self.find(carried).code for carried, _ in pairs}
        for carried, node in pairs:
            axes = self.values.axes(carried)
            text = self.values.full(self.find(node), axes)
            own = text.code == self.find(carried).code
            if len(pairs) > 1 and (not text.code.isidentifier() or (text.code in olds and not own)):
                name = self.names.fresh(f"{self.find(carried).code}_next")
                self.scope.lines.append(f"{name} = {text.code}")
                text = Text(name, axes)
            new.append((self.find(carried).code, text.code))
        for (old, code), (_, node) in zip(new, pairs, strict=True):
            if old == code:
                continue
            scalar = _plain(code) and not self.values.axes(node)
            self.scope.lines.append(f"{old} = {f'tl.full((), {code}, tl.float32)' if scalar else code}")

    def loop(self, item: Loop) -> None:
        """`for`, with a scope of its own."""
        outer, rows = self.scope, self.kernel.rows
        inner = self.scope = Scope(outer.rank + 1, outer)
        self.texts.append({})
        if item.over == "blocks" and rows > 1:
            inner.lines.append("i_0 = i_n * BT")
        self.body(item.body)
        self.texts.pop()
        self.scope = outer
        self.values.scope = outer
        index, low, high = ("i_n", "0", "NT") if item.over == "blocks" else ("i_t", "0", "T")
        if self.kernel.span_in_grid:
            low, high = "i_c * EVERY", "tl.minimum(NT, i_c * EVERY + EVERY)"
        if item.over == "steps" and self.kernel.every > 1 and outer.rank:
            low, high = "i_n * BT", "tl.minimum(T, i_n * BT + BT)"
        span = f"{high} - 1, {'-1' if low == '0' else f'{low} - 1'}, -1" if item.reverse else f"{low}, {high}"
        ahead = self.is_staged(item)
        head = f"for {index} in {f'tl.range({span}, num_stages=STAGES)' if ahead else f'range({span})'}:"
        if inner.lines:  # of a loop that stores nothing, nothing is left
            outer.lines += [head, *(f"{TAB}{line}" for line in inner.lines)]

    def is_staged(self, item: Loop) -> bool:
        """Whether loads are sent ahead only if the loop says so: outside of chunks, where they feed products and Triton sees
        to it itself. Single steps instead of a block are too few for it."""
        chunk = self.kernel.rows > 1 and bool(self.products.of)
        innermost = not any(isinstance(i, Loop) for i in item.body)
        loads = any(isinstance(i, Load) for i in item.body)
        return innermost and loads and not chunk and self.kernel.name != STEPS_KERNEL

    # ---- names ----

    def var(self, n: Node) -> str:
        """A tile's name: `b_` and what it is; `m_` for truth values."""
        return self.names.fresh("m_pair" if n.dtype == "bool" else f"b_{self.label(n)}")

    def bare(self, n: Node) -> str | None:
        """The bare name of a value that has a variable."""
        for level in reversed(self.texts):
            if n in level and level[n].code.startswith("b_") and level[n].code.isidentifier():
                return level[n].code[2:]
        return None


def _word(word: str, text: str) -> bool:
    import re

    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def _plain(code: str) -> bool:
    return code.lstrip("-").replace(".", "", 1).isdigit()


def _wrap(parts: list[str]) -> list[str]:
    """Arguments, as many to a line as fit."""
    lines, line = [], TAB
    for part in parts:
        if len(line) + len(part) + 2 > 116:
            lines.append(line.rstrip())
            line = TAB
        line += f"{part}, "
    return [*lines, line.rstrip()]
