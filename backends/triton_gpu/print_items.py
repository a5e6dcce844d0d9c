"""The items of one scope -> lines.

In: items of a kernel or of a function, and what prints values and addresses. Out: lines in scopes. A value that is used once,
in the scope where it is computed, and is short, is written where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise

from seqc.backends.triton_gpu.address import Addresses, Scope
from seqc.backends.triton_gpu.fetching import step_of
from seqc.backends.triton_gpu.kernel import (
    SPANS,
    Add,
    Advance,
    Array,
    Barrier,
    Fetch,
    Item,
    Kernel,
    Let,
    Levels,
    Load,
    Loop,
    Note,
    Outputs,
    Plus,
    Store,
    StoreSum,
    Zero,
)
from seqc.backends.triton_gpu.labels import Labels
from seqc.backends.triton_gpu.levels import by_level, first_terms, level_masks
from seqc.backends.triton_gpu.names import Names
from seqc.backends.triton_gpu.positions import is_position
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.schedule import STEPS_KERNEL, Schedule
from seqc.backends.triton_gpu.segments import decays, hidden, runs
from seqc.backends.triton_gpu.texts import TAB, is_number
from seqc.backends.triton_gpu.uses import Uses, used_at_once, used_inside, used_next
from seqc.backends.triton_gpu.values import Values
from seqc.diagnostics import SeqcBug
from seqc.emit.expressions import ATOM, Text
from seqc.emit.names import safe_name
from seqc.ir.dims import base, is_rank
from seqc.ir.graph import Node
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import GUARD, is_finite

SHORT = 60  # characters of an expression that is written where it is used,
LONG = 72  # and of one that the next line uses
SAVE, OUTPUTS = "SAVE", "OUTPUTS"  # compile-time arguments: whether a gradient follows, whether the kernel computes outputs


class ItemPrinter:
    """See the file's docstring."""

    def __init__(self, schedule: Schedule, kernel: Kernel, products: Products, uses: Uses) -> None:
        self.schedule, self.kernel, self.products, self.uses = schedule, kernel, products, uses
        self.program, self.roles = schedule.block.program, schedule.roles
        self.names = Names((*self.program.dims, *dict.fromkeys(base(d) for d in self.roles.order if is_rank(d))))
        self.pointers: dict[str, str] = {}
        self.addresses = Addresses(kernel, self.roles, self.names)
        self.levels = level_masks(kernel.rows) if schedule.block.form == "chunkwise" else {}
        self.values = Values(products, self.names, self.addresses, self.find, self.levels, self.is_virtual)
        self.values.walks = schedule.block.form != "chunkwise" and not products.of
        self.spans = decays(schedule, uses)
        self.hidden = hidden(self.spans, uses, self.roles)
        self.values.runs = runs(self.spans, schedule, uses, kernel.block_in_grid)
        self.texts: list[dict[Node, Text]] = [{}]
        self.sums: dict[str, str] = {}
        self.totals: dict[Node, str] = {}  # by sum of levels, its variable
        self.begins: dict[Node, Node] = {}  # by a value that nothing else takes, the sum that it begins
        self.ends = "0", "T"  # of the loop at hand
        self.sent: dict[Node, list[str]] = {}  # what was sent for steps before, by its node, the next step's first
        self.scope = Scope(0)
        self.passed_sums = {n for loop in kernel.loops() for n in loop.sums}
        self.near, self.next, self.outside = set[Node](), set[Node](), set[Node]()
        self.label = Labels(schedule.labels, schedule.names, self.bare, uses)

    def at_levels(self, item: Levels) -> None:
        """sums <- function(sums, given), at each level."""
        raise SeqcBug("the Triton printer", "a function of levels in another")

    def plus(self, total: Node, node: Node | None, term: Text, sign: int) -> None:
        """sum <- sum + term, the text of a node."""
        axes = self.values.axes(total)
        code = self.values.against(term, axes).code
        if total in self.totals:
            self.scope.lines.append(f"{self.totals[total]} {'+' if sign > 0 else '-'}= {code}")
        elif node in self.begins and sign > 0 and code.isidentifier():
            self.totals[total] = code
        else:
            self.totals[total] = self.var(total)
            self.scope.lines.append(f"{self.totals[total]} = {code if sign > 0 else f'-{term.at(ATOM)}'}")
        self.texts[-1][total] = Text(self.totals[total], axes)

    def find(self, n: Node) -> Text:
        """The text of a value that has been printed."""
        for level in reversed(self.texts):
            if n in level:
                return level[n]
        if n.op in ("const", "size", "index", "block_index") or self.values.is_host(n) or (
            n.op == "leaf" and n.text("kind") == "mask"
        ) or is_position(n) or n in self.levels:
            return self.values.text(n)
        if n.op == "mul":  # of a product that only sums use
            return self.values.text(n)
        raise KeyError(n)

    def body(self, items: Iterable[Item]) -> None:
        """Print the items of one scope."""
        items = tuple(items)
        keep = self.near, self.next, self.outside
        self.outside = used_inside(items)
        items = tuple(by_level(items, self.levels, self.outside, self.is_named, self.label))
        self.near = used_at_once(items, self.uses.only_summed)
        self.next = used_next(items, self.uses.only_summed)
        self.begins |= {n: total for n, total in first_terms(items).items() if n not in self.outside}
        self.values.scope = self.scope.places
        for item in items:
            self.values.scope = self.scope.places
            self.item(item)
        self.near, self.next, self.outside = keep

    def item(self, item: Item) -> None:
        match item:
            case Load(ahead=True):
                self.take(item)
            case Load():
                self.load(item)
            case Fetch():
                self.fetch(item)
            case Note(text):
                self.scope.lines.append(f"# {text}")
            case Let(node):
                self.let(node)
            case Store(node, array, first_only, saves, hands):
                when = [SAVE] * saves + [f"not {OUTPUTS}"] * hands
                self.store(array, self.find(node), first_only, " or ".join(when))
            case Zero(name, node):
                axes = self.values.axes(node)
                var = self.sums[name] = self.names.fresh(f"b_{safe_name(name)}")
                zero = f"tl.zeros({self.values.shape(axes)}, tl.float32)" if axes else "tl.zeros((), tl.float32)"
                self.scope.lines.append(f"{var} = {zero}")
            case Add(name, node):
                self.scope.lines.append(f"{self.sums[name]} += {self.values.whole(node).code}")
            case StoreSum():
                self.store(item.array, self.total(item), item.first_only)
            case Advance(pairs):
                self.advance(pairs)
            case Barrier():
                self.scope.lines.append("tl.debug_barrier()")
            case Loop(over) if over in self.roles.passed:
                self.pass_through(item)
            case Loop():
                self.loop(item)
            case Outputs(body):
                outer, inner = self.scope, self.inner(body, branch=True)
                outer.lines += [f"if {self.names.use(OUTPUTS)}:", *(f"{TAB}{line}" for line in inner.lines)]
            case Plus(total, node, sign):
                self.plus(total, node, self.find(node), sign)
            case Levels():
                self.at_levels(item)

    def total(self, item: StoreSum) -> Text:
        """What was added up, times what does not change."""
        axes = self.values.axes(item.node)
        factors = [self.values.against(self.find(n), axes).at(3) for n in item.factors]
        code = " * ".join(["-" * (item.sign < 0) + self.sums[item.name], *factors])
        return Text(code, axes, 2 if factors or item.sign < 0 else ATOM)

    def take(self, item: Load) -> None:
        """node <- what was sent for a step before, in fp32."""
        name = self.var(item.node)
        self.scope.lines.append(f"{name} = {self.sent[item.node][0]}.to(tl.float32)")
        only = " & ".join(f"({self.names.program(d)} == 0)" for d in item.first_only)
        if only:
            self.scope.lines.append(f"{name} = tl.where({only}, {name}, 0.0)")
        self.texts[-1][item.node] = Text(name, self.addresses.tile_axes(item.array))

    def fetch(self, item: Fetch) -> None:
        """Raw loads of the first steps, of one that is ahead, of those past the end the last one, or of the one at hand."""
        if self.kernel.rows > 1:
            return self.fetch_block(item)
        ends = ("0", "T") if item.through else self.bounds("steps") if item.start else self.ends
        outer = self.scope
        self.scope = outer.root() if item.start and item.through else outer
        for steps in range(item.ahead if item.start else 1):
            if item.start or item.ahead:
                self.addresses.step = self.names.fresh("i_start" if item.start else "i_next")
                self.scope.lines.append(f"{self.addresses.step} = {step_of(item, steps, *ends)}")
            for load in item.loads:
                self.fetch_one(load, item, steps, ends[1] == "T")
        self.addresses.step, self.scope = "i_t", outer

    def fetch_block(self, item: Fetch) -> None:
        """Raw loads of the first block that the loop goes through, or of the one after the block at hand."""
        low, high = self.bounds("blocks") if item.start else self.ends
        names, addresses, outer = self.names, self.addresses, self.scope
        addresses.block = names.fresh("i_start" if item.start else "i_next")
        addresses.near = names.fresh("o_start" if item.start else "o_next")
        at = step_of(item, 0, low, high, "i_n")
        self.scope.lines.append(f"{addresses.block} = {f'({at})' if ' - ' in at and at[-1] != ')' else at} * {names.use('BT')}")
        for load in item.loads:
            self.fetch_one(load, item, 0, True)
        addresses.block, addresses.near, self.scope = "i_0", "o_r", outer

    def fetch_one(self, load: Load, item: Fetch, steps: int, empty: bool) -> None:
        """One of these loads: what was sent for moves a step nearer. empty: whether the loop may have no step."""
        lines, sent = self.scope.lines, self.sent.setdefault(load.node, [])
        at = self.addresses.at(load.array, self.scope.places, 0, False, load.first_only)
        parts = [*([at.mask] if at.mask else []), *(["T > 0"] if item.start and empty else [])]
        mask = " & ".join(x if x.isidentifier() else f"({x})" for x in parts) if len(parts) > 1 else "".join(parts)
        masked = f", mask={mask}, other=0.0" if mask else ""
        if len(sent) < max(item.ahead, 1):
            sent.append(self.names.fresh(f"n_{self.label(load.node)}"))
        elif not item.start:
            lines += [f"{near} = {far}" for near, far in pairwise(sent)]
        name = sent[steps if item.start else -1]
        lines.append(f"{name} = tl.load({self.pointers[load.array.name]}{at.pointer}{masked})")

    def load(self, item: Load) -> None:
        """node <- memory, in fp32."""
        at = self.addresses.at(item.array, self.scope.places, item.offset, False, item.first_only)
        mask = f", mask={at.mask}, other=0.0" if at.mask else ""
        named = f"b_{safe_name(item.array.name)}" if item.array.role == "kept" else item.node
        operand = item.array.role == "param" and self.uses.is_operand(item.node)
        if item.array.role in ("kept", "told") and item.array.dtype == "io":
            operand = self.uses.is_operand_under_any_name(item.node)
            if not operand:
                raise SeqcBug("the Triton schedule", f"{item.array.name} is kept as products take it, and not they alone do")
        kind = self.names.use("DOT") if operand else "tl.float32"
        mask += ', cache_modifier=".cg"' if item.array.role == "told" else ""  # other programs wrote it: not from nearer memory
        read = f"tl.load({self.pointers[item.array.name]}{at.pointer}{mask})"
        truth = item.node.dtype == "bool"  # kept as 1 or 0
        define = partial(ItemPrinter.define, self) if at.only else self.define
        define(item.node, Text(f"{read} != 0.0" if truth else f"{read}.to({kind})", at.axes), named)
        if at.only:
            name = self.find(item.node).code
            self.scope.lines.append(f"{name} = {name} & {at.only}" if truth else f"{name} = tl.where({at.only}, {name}, 0.0)")

    def store(self, array: Array, value: Text, first_only: tuple[str, ...], when: str = "") -> None:
        """memory <- value, where the array has the element. when: the switches that it depends on."""
        at = self.addresses.at(array, self.scope.places, 0, True, first_only)
        mask = f", mask={at.mask}" if at.mask else ""
        code = self.values.full(value, at.axes).code
        first = [f"i_n % {self.names.use('EVERY')} == 0"] if SPANS in array.axes else []
        self.names.used |= {SAVE, OUTPUTS} & {*when.split()}
        tests = [when] * bool(when) + first + [at.only] * bool(at.only)
        self.scope.lines += [f"{TAB * i}if {test}:" for i, test in enumerate(tests)]
        tab = TAB * len(tests)
        self.scope.lines.append(f"{tab}tl.store({self.pointers[array.name]}{at.pointer}, {code}{mask})")

    def let(self, n: Node) -> None:
        """Compute n, or leave it to where it is used."""
        if self.values.is_host(n) or n.op in ("index", "block_index", "size", "const") or self.is_virtual(n):
            return
        if self.is_sum_so_far(n):
            return self.add_to_sum(n)
        text = self.values.text(n)
        quiet = n.op in ("rename", "expand", "stopgrad") and text.level >= 4 and not text.code.startswith("tl.")
        inline = n in self.near and (TABLE[n.op].elementwise or quiet) and len(text.code) <= SHORT
        inline |= n in self.next and len(text.code) <= LONG
        if (quiet and text.code.isidentifier()) or (inline and n not in self.outside and not self.is_named(n)):
            self.texts[-1][n] = text
            return
        if n in self.passed_sums:
            self.scope.lines.append(f"{self.find(n).code} += {self.values.full(text, self.values.axes(n)).code}")
            return
        self.define(n, text, self.begins.get(n, n))

    def define(self, n: Node, text: Text, named: Node | str) -> None:
        """`name = text`. named: the value that the name is of, or the name that is wished for."""
        name = self.names.fresh(named) if isinstance(named, str) else self.var(named)
        self.scope.lines += [*([f"# {GUARD}"] if is_finite(n) else []), f"{name} = {text.code}"]
        self.texts[-1][n] = Text(name, text.axes)

    def is_named(self, n: Node) -> bool:
        """Whether the spec has a name for n, which then has a line of its own."""
        return n in self.schedule.names

    def is_virtual(self, n: Node) -> bool:
        """A product that only sums take, a name on the way to another, or an exponent that is a sum over steps, and so never a
        tile of its own; the mask of a level, written where it is used."""
        if n.dtype == "bool" and self.levels:
            by = self.uses.by_nodes.get(n, ())
            return n in self.levels or (bool(by) and n not in self.uses.by_items and all(u in self.levels for u in by))
        return n in self.uses.only_summed or n in self.uses.only_renamed or n in self.hidden

    def is_sum_so_far(self, n: Node) -> bool:
        """Whether n adds to a sum of the same name that nothing else takes."""
        if n.op not in ("add", "sub") or n not in self.label.toward:
            return False
        first = n.args[0]
        alone = len(self.uses.by_nodes.get(first, ())) == 1 and first not in self.uses.by_items and n.args[1] is not first
        same = self.label.toward.get(first) == self.label.toward[n] and first.op in ("add", "sub")
        text = self.texts[-1].get(first)
        return alone and same and text is not None and text.code.isidentifier() and text.axes == self.values.axes(n)

    def add_to_sum(self, n: Node) -> None:
        """`sum += term`."""
        text, term = self.texts[-1][n.args[0]], self.values.against(self.find(n.args[1]), self.values.axes(n))
        self.scope.lines.append(f"{text.code} {'+' if n.op == 'add' else '-'}= {term.code}")
        self.texts[-1][n] = text

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
            scalar = is_number(code) and not self.values.axes(node)
            self.scope.lines.append(f"{old} = {f'tl.full((), {code}, tl.float32)' if scalar else code}")

    def loop(self, item: Loop) -> None:
        """`for`, with a scope of its own."""
        outer, rows = self.scope, self.kernel.rows
        index = "i_n" if item.over == "blocks" else "i_t"
        low, high = self.ends = self.bounds(item.over)
        start = [f"i_0 = i_n * {self.names.use('BT')}"] if item.over == "blocks" and rows > 1 else []
        inner = self.inner(item.body, start)
        span = f"{high} - 1, {'-1' if low == '0' else f'{low} - 1'}, -1" if item.reverse else f"{low}, {high}"
        stages = f", num_stages={self.names.use('STAGES')}" if self.is_staged(item) else ""
        ahead = next((i.ahead for i in item.body if isinstance(i, Fetch) and not i.start), 1)
        stages = f", loop_unroll_factor={ahead}" if ahead > 1 else stages  # or else what was sent for is moved in every step
        head = f"for {index} in {f'tl.range({span}{stages})' if stages else f'range({span})'}:"
        if inner.lines:  # of a loop that stores nothing, nothing is left
            outer.lines += [head, *(f"{TAB}{line}" for line in inner.lines)]

    def bounds(self, over: str) -> tuple[str, str]:
        """(first, end) of a loop over "blocks" or "steps"."""
        low, high = "0", "NT" if over == "blocks" else "T"
        if self.kernel.span_in_grid:
            every = self.names.use("EVERY")
            low, high = f"i_c * {every}", f"tl.minimum(NT, i_c * {every} + {every})"
        if over == "steps" and self.kernel.every > 1 and self.scope.rank:
            block = self.names.use("BT")
            low, high = f"i_n * {block}", f"tl.minimum(T, i_n * {block} + {block})"
        return low, high

    def pass_through(self, item: Loop) -> None:
        """A loop over the pieces of a dim, which adds up its sums."""
        for n in item.sums:
            axes = self.values.axes(n)
            self.texts[-1][n] = Text(self.var(n), axes)
            self.scope.lines.append(f"{self.find(n).code} = tl.zeros({self.values.shape(axes)}, tl.float32)")
        dim, names = item.over, self.names
        inner = self.inner(item.body)
        extent, tile = names.extent(dim), names.tile(dim)
        self.scope.lines.append(f"for {names.program(dim)} in range(0, ({extent} + {tile} - 1) // {tile}):")
        self.scope.lines += [f"{TAB}{line}" for line in inner.lines]

    def inner(self, body: Iterable[Item], start: Iterable[str] = (), branch: bool = False) -> Scope:
        """A scope of its own for some items. start: its first lines."""
        outer, inner = self.scope, Scope(self.scope.rank + 1, self.scope, list(start), branch=branch)
        self.scope = inner
        self.texts.append({})
        self.body(body)
        self.texts.pop()
        self.scope, self.values.scope = outer, outer.places
        return inner

    def is_staged(self, item: Loop) -> bool:
        """Whether loads are sent ahead only if the loop says so: outside of chunks, where they feed products and Triton sees
        to it itself. Single steps instead of a block are too few for it."""
        chunk = self.kernel.rows > 1 and bool(self.products.of)
        innermost = not any(isinstance(i, Loop | Fetch) for i in item.body)
        loads = any(isinstance(i, Load) for i in item.body)
        return innermost and loads and not chunk and self.kernel.name != STEPS_KERNEL

    # ---- names ----

    def var(self, n: Node) -> str:
        """A tile's name: `b_` and what it is; `m_` for truth values."""
        if n.dtype == "bool":
            return self.names.fresh("m_pair" if all(map(is_position, n.args)) else "m_x")
        return self.names.fresh(f"b_{self.label(n)}")

    def bare(self, n: Node) -> str | None:
        """The bare name of a value that has a variable."""
        for level in reversed(self.texts):
            if n in level and level[n].code.startswith("b_") and level[n].code.isidentifier():
                return level[n].code[2:]
        return None
