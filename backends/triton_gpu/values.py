"""Nodes as Triton expressions on tiles.

In: nodes whose arguments have been printed. Out: `Text`, code with its tile axes and how tightly it binds. A value may
be kept with fewer axes than its dims, where it is constant along one; it is broadcast where an operator needs the axis.
Sums of products of two tiles become `tl.dot` where they are matrix products, else `tl.sum` of the product.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from seqc.backends.triton_gpu.address import Addresses, Scope, among, spread
from seqc.backends.triton_gpu.names import Names
from seqc.backends.triton_gpu.positions import has_positions, is_position
from seqc.backends.triton_gpu.products import Operand, Product, Products
from seqc.backends.triton_gpu.roles import ALL, lines, rank_tile
from seqc.backends.triton_gpu.segments import DECAY, PAIR, PRODUCT, crossing, next_to
from seqc.backends.triton_gpu.texts import BINDS, in_front, is_number, literal, ordered
from seqc.diagnostics import SeqcBug, Unsupported
from seqc.emit.expressions import ATOM, Text
from seqc.ir.block import COL, ROW
from seqc.ir.dims import base, is_rank, is_time, rank_size
from seqc.ir.graph import Node, leaves
from seqc.ir.ops import TABLE
from seqc.ir.ops.structure import resets

LOG2_E = 1.4426950408889634
DEVICE = re.compile(r"seqc_(\w+)")  # a primitive of `device`, in the spelling of an operator
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")


class Values:
    """Prints the nodes of one kernel."""

    def __init__(
        self, products: Products, names: Names, addresses: Addresses, find: Callable[[Node], Text], levels: Mapping[Node, int],
        is_passed: Callable[[Node], bool],
    ) -> None:
        self.levels, self.is_passed = levels, is_passed
        self.level = 0, ""  # in a function of levels, the one that its values are of, and what it is called
        self.products, self.roles, self.padding = products, products.roles, products.padding
        self.names, self.addresses, self.find = names, addresses, find
        self.runs: Mapping[Node, str] = {}  # by running sum over steps, the device function of it or its exponential
        self.walks = False  # whether the kernel walks steps or scans them, and multiplies no matrices
        self.scalars: dict[Node, str] = {}  # a scalar of constants and extents -> the compile-time argument
        self.scope: Scope | None = None

    # ---- shapes ----

    def axes(self, n: Node) -> tuple[str, ...]:
        """The tile axes of a node's dims."""
        return self.roles.axes(n.dims)

    def shape(self, axes: tuple[str, ...]) -> str:
        """`(BT, BK)`."""
        parts = [self.names.use("PARTS") for a in axes if a.endswith(ALL)]
        lengths = [f"{self.names.tile(a)} // {parts[0]}" if a.endswith(ALL) else self.names.tile(a) for a in axes]
        inner = ", ".join([*parts, *lengths])
        return f"({inner},)" if len(axes) == 1 and not parts else f"({inner})"

    def against(self, x: Text, axes: tuple[str, ...]) -> Text:
        """x as it broadcasts against `axes`."""
        if x.axes == axes or not x.axes:
            return x
        return Text(f"{x.at(ATOM)}[{among(x.axes, axes)}]", axes)

    def full(self, x: Text, axes: tuple[str, ...]) -> Text:
        """x with exactly these axes."""
        if x.axes == axes:
            return x
        if is_number(x.code):
            return Text(f"tl.full({self.shape(axes)}, {x.code}, tl.float32)", axes)
        return Text(f"tl.broadcast_to({self.against(x, axes).code}, {self.shape(axes)})", axes)

    def whole(self, n: Node) -> Text:
        """n with all its axes."""
        return self.full(self.find(n), self.axes(n))

    # ---- nodes ----

    def block(self, rows: int) -> str:
        """A number of rows as it is written here, "" for none."""
        level, name = self.level
        return name if name and rows == level else str(rows or "")

    def text(self, n: Node) -> Text:
        """The expression of a node."""
        if self.is_host(n):
            return self.host(n)
        if n in self.levels:
            assert self.scope is not None
            rows = self.addresses.row_numbers(self.scope)
            return Text(f"{self.names.call('of_level')}({rows}, {self.block(self.levels[n])})", (ROW, COL))
        if n.op == "leaf" and n.text("kind") == "mask":
            assert self.scope is not None
            return Text(self.addresses.inside(self.scope), (ROW,))
        if n.op == "exp" and self.runs.get(n.args[0], "").endswith(DECAY):
            return self.run(n.args[0])
        if TABLE[n.op].elementwise:
            return self.elementwise(n)
        match n.op:
            case "index" | "block_index":
                x = self.position(n)
                return Text(f"{x.at(ATOM)}.to(tl.float32)", x.axes)
            case "expand":
                return self.find(n.args[0])
            case "rename":
                return self.rename(n)
            case "sum":
                return self.sum(n)
            case "amax":
                return self.amax(n)
            case "take":
                return self.take(n)
            case "cumsum":
                return self.run(n)
            case "shift":
                return self.shift(n)
            case "tri_inv":
                return self.tri_inv(n)
            case "affine_scan" | "max_scan":
                return self.scan(n)
        raise Unsupported.of("no-gpu-form", f"a GPU program computes no `{n.op}`")

    def elementwise(self, n: Node) -> Text:
        """By the spelling of the operator's row, arguments broadcast by name."""
        row = TABLE[n.op]
        if n.op == "exp" and self.walks and len(self.axes(n)) > 1:
            return self.power_of_two(n.args[0])
        places = n.op in COMPARE and all(is_position(a) for a in n.args)
        args = [self.position(a) if places else self.find(a) for a in n.args]
        axes = self.roles.axes({a for x in args for a in x.axes})
        if n.op == "mul" and len(axes) > 3 and args[1].axes and axes[0] not in args[1].axes:
            args = args[::-1]  # the other way round Triton 3.6 and 3.7 take its sum for a matrix product, and fail
        spell = DEVICE.sub(lambda called: self.names.call(called[1]), row.spell["triton"])
        ready = [self.against(x, axes) for x in args]
        if n.op in ("and", "or") and axes and not all(x.axes for x in args):  # a condition of a program, and one of elements
            one, each = ready if not args[0].axes else ready[::-1]
            sides = (each.code, "False") if n.op == "and" else ("True", each.code)
            return Text(f"tl.where({one.code}, {', '.join(sides)})", axes)
        binds = BINDS.get(n.op, ATOM)
        if n.op in BINDS and n.op != "neg":
            codes = [ready[0].at(binds), ready[1].at(binds + 1)]
        elif n.op == "neg":
            codes = [ready[0].at(ATOM)]
        elif spell.startswith("(") or n.op in ("not", "stopgrad"):
            codes = [x.at(ATOM if n.op == "stopgrad" else 1) for x in ready]
        else:
            codes = [x.code for x in ready]
        if n.op == "surrogate":
            return Text(f"{ready[0].at(ATOM)}.to(tl.float32)", ready[0].axes)
        return Text(spell.format(*codes), axes, binds)

    def power_of_two(self, exponent: Node) -> Text:
        """exp(exponent), which flushes what is below 1e-38 to zero: no instructions scale it, as those of `tl.exp` do. The
        factor is on the smaller part of a product that has no name of its own."""
        x = self.find(exponent)
        if exponent.op != "mul" or x.code.isidentifier():
            return Text(f"tl.exp2({x.at(2)} * {LOG2_E})", x.axes)
        small, large = sorted(map(self.find, exponent.args), key=lambda one: len(one.axes))
        axes = self.roles.axes({*small.axes, *large.axes})
        small = self.against(Text(f"{small.at(2)} * {LOG2_E}", small.axes, 2), axes)
        return Text(f"tl.exp2({small.at(2)} * {self.against(large, axes).at(3)})", axes)

    def position(self, n: Node) -> Text:
        """An integer expression of positions, extents and whole constants."""
        assert self.scope is not None
        match n.op:
            case "const":
                return Text(str(int(float(n.attr("value")))))  # type: ignore[arg-type]
            case "size":
                return Text(self.names.extent(n.text("dim")))
            case "index" | "block_index":
                dim = n.text("dim")
                if dim in self.roles.grid:
                    x = Text(self.names.program(dim))
                elif is_time(dim):
                    x = Text(self.addresses.row_numbers(self.scope), (dim,))
                else:
                    x = Text(self.addresses.positions(dim, self.scope), (dim,))
                if n.op == "block_index":
                    return Text(f"{x.code} // {n.number('block')}", x.axes, 2)
                return x
        a, b = (self.position(x) for x in n.args)
        axes = self.roles.axes({*a.axes, *b.axes})
        sign = "+" if n.op == "add" else "-"
        return Text(f"{self.against(a, axes).at(1)} {sign} {self.against(b, axes).at(2)}", axes, 1)

    def rename(self, n: Node) -> Text:
        """The same tile under other names, transposed where the global order asks for it."""
        chain = [n]
        while chain[-1].args[0].op == "rename" and self.is_passed(chain[-1].args[0]):
            chain.append(chain[-1].args[0])
        x = self.find(chain[-1].args[0])
        now = x.axes
        for one in reversed(chain):
            now = tuple(one.text("new") if a == one.text("old") else a for a in now)
        want = self.roles.axes(now)
        if now == want:
            return Text(x.code, want, x.level)
        if len(now) == 2:
            return Text(f"tl.trans({x.code})", want)
        order = ", ".join(str(now.index(a)) for a in want)
        return Text(f"tl.permute({x.code}, ({order}))", want)

    def masked(self, x: Text, dims: tuple[str, ...], other: str = "0.0") -> Text:
        """x where it lies within `dims`, else `other`."""
        assert self.scope is not None
        parts = [spread(self.addresses.mask(d, self.scope), d, x.axes) for d in dims]
        if not parts:
            return x
        return Text(f"tl.where({' & '.join(parts)}, {x.code}, {other})", x.axes)

    def padded(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the dims whose tile may be longer than they are."""
        return tuple(d for d in dims if not is_time(d) and not (is_rank(d) and rank_size(d) == rank_tile(base(d))))

    def sum(self, n: Node) -> Text:
        """A contraction of two factors, or the sum of one value."""
        over = tuple(d for d in n.names("over") if d not in self.roles.grid)
        inner = n.args[0]
        if n in self.products.of:
            return self.product(self.products.of[n])
        crossed = crossing(n, self.roles)
        if crossed is not None:
            x = ordered(self.whole(crossed.args[0]), (ROW, COL))
            return Text(f"{self.names.call('crossing_sums')}({x.code}, {bool(crossed.number('exclusive'))})", (ROW,))
        x = self.whole(inner)
        dirty = tuple(d for d in self.padded(over) if not self.padding.clean(inner, d))
        x = self.masked(x, dirty)
        return self.reduce("tl.sum", x, over)

    def reduce(self, call: str, x: Text, over: tuple[str, ...]) -> Text:
        """One axis after the other, the last first."""
        code, left = x.code, list(x.axes)
        if len(left) > 1 and set(left) <= set(over) and call == "tl.sum":
            return Text(f"tl.sum({code})")
        for axis in [a for a in x.axes[::-1] if a in over]:
            ahead = sum(a.endswith(ALL) for a in left)  # the axis of the parts
            code = f"{call}({code}, {left.index(axis) + ahead})"
            code = f"{call}({code}, 0)" if axis.endswith(ALL) else code
            left.remove(axis)
        return Text(code, tuple(left))

    def amax(self, n: Node) -> Text:
        """The largest element along dims."""
        over = n.names("over")
        if any(d in self.roles.grid for d in over):
            raise SeqcBug("the Triton printer", "a maximum over a dim that programs share out")
        x = self.whole(n.args[0])
        return self.reduce("tl.max", self.masked(x, self.padded(over), 'float("-inf")'), over)

    def product(self, p: Product) -> Text:
        """A matrix product on the matrix unit, operands in the storage dtype, the result in fp32."""
        left, right = self.operands(p)
        code = f"tl.dot({left}, {right}, input_precision={self.names.use('PRECISION')})"
        code = f"tl.trans({code})" if p.swapped else code
        axes = (*p.rows, *p.columns)
        return Text(code if len(axes) == 2 else f"tl.reshape({code}, {self.shape(axes)})", axes)

    def operands(self, p: Product) -> tuple[str, str]:
        """The two operands as they lie in the product."""
        left, right = self.operand(p.left), self.operand(p.right)
        turned_left, turned_right = p.left.turned, p.right.turned
        if p.swapped:
            left, right, turned_left, turned_right = right, left, not turned_right, not turned_left
        turn = "tl.permute({}, (0, 2, 1))" if p.over[0].endswith(ALL) else "tl.trans({})"
        return turn.format(left) if turned_left else left, turn.format(right) if turned_right else right

    def operand(self, one: Operand) -> str:
        """An operand in its type, masked where its padding could reach the result."""
        x = self.flat(self.masked(self.whole(one.node), self.padded(one.masked)))
        return f"{x.at(ATOM)}.to({self.names.use('DOT')})"

    def flat(self, x: Text) -> Text:
        """x as a matrix: steps with the rows of each are one of its sides."""
        sides = lines(x.axes)
        if len(sides) == len(x.axes):
            return x
        lengths = (" * ".join(self.names.tile(d) for d in side) for side in sides)
        return Text(f"tl.reshape({x.code}, ({', '.join(lengths)}))", x.axes)

    def take(self, n: Node) -> Text:
        """One row: the sum of the tile with all other rows zeroed; of conditions, whether it is above zero."""
        assert self.scope is not None
        dim, at = n.text("dim"), n.number("at")
        x = self.whole(n.args[0])
        place = f"{self.names.tile(dim)} - {-at}" if at < 0 and is_time(dim) else (
            f"{self.names.extent(dim)} - {-at}" if at < 0 else str(at))
        o = self.position_of(dim)
        hit = spread(f"({o} == {place})", dim, x.axes)
        row = self.reduce("tl.sum", Text(f"tl.where({hit}, {x.code}, 0.0)", x.axes), (dim,))
        return Text(f"({row.code} > 0.0)", row.axes) if n.dtype == "bool" else row

    def position_of(self, dim: str) -> str:
        assert self.scope is not None
        return self.addresses.row_numbers(self.scope) if is_time(dim) else self.addresses.positions(dim, self.scope)

    def on_rows(self, n: Node, arg: Node, call: Callable[[str], str]) -> Text:
        """A device function that works along axis 0, on n's dim."""
        dim, x = n.text("dim"), self.whole(arg)
        if not is_time(dim):
            x = self.masked(x, () if self.padding.clean(arg, dim) else (dim,))
        first = in_front(x, dim)
        return ordered(Text(call(first.code), first.axes), x.axes)

    def shift(self, n: Node) -> Text:
        """Rows moved down or up."""
        in_columns = is_time(n.text("dim")) and self.addresses.columns in n.dims and next_to(n)
        function = "shift_in_columns" if in_columns else "shift_rows"
        return self.on_rows(n, n.args[0], lambda x: f"{self.names.call(function)}({x}, {n.number('by')})")

    def run(self, n: Node) -> Text:  # a running sum, or what a device function makes of it
        dim, function = n.text("dim"), self.runs.get(n, "segment_cumsum")
        if function == PAIR:
            code = f"{self.names.call(PAIR)}({self.whole(n.args[0].args[1]).code}, {bool(n.number('exclusive'))})"
            return ordered(Text(code, (ROW, COL)), self.axes(n))
        block = self.block(n.number("block")) or (self.names.tile(dim) if not is_time(dim) else self.names.use("BT"))
        more = [block, f"{bool(n.number('reverse'))}", f"{bool(n.number('exclusive'))}"]
        more += [self.names.use("DOT")] if PRODUCT in function else []
        return self.on_rows(n, n.args[0], lambda x: f"{self.names.call(function)}({', '.join([x, *more])})")

    def tri_inv(self, n: Node) -> Text:
        """The inverse of I plus the strictly lower part."""
        row, col = n.names("row"), n.names("col")
        if not is_time(row[0]):
            message = f"a triangular system along {row[0]}: a GPU program solves one along the steps of a block alone"
            raise Unsupported.of("no-gpu-form", message)
        padded, x = self.padded((*row, *col)), self.whole(n.args[0])
        x = self.masked(x, tuple(d for d in padded if not self.padding.clean(n.args[0], d)))
        if lines(x.axes) not in ((row, col), (col, row)):
            others = ", ".join(d for d in x.axes if d not in (*row, *col))
            message = f"the feedback has a triangular system for each index of {others}: a GPU program solves one at a time"
            raise Unsupported.of("no-gpu-form", message, help="leave the form to the compiler")
        size = " * ".join(self.names.tile(d) for d in row)
        o = self.position_of(row[0]) if len(row) == 1 else f"tl.arange(0, {size})"
        turned = lines(x.axes) != (row, col)
        code = f"tl.trans({self.flat(x).code})" if turned else self.flat(x).code
        code = f"tl.where({o}[:, None] > {o}[None, :], {code}, 0.0)"
        code = f"{self.names.call('unit_lower_inverse')}({code}, {size}, {self.names.use('PRECISION')})"
        code = f"tl.trans({code})" if turned else code
        found = Text(code if len(x.axes) == 2 else f"tl.reshape({code}, {self.shape(x.axes)})", x.axes)
        return self.masked(found, padded)

    def scan(self, n: Node) -> Text:
        """A scan over the rows, continued from the value before the block."""
        a, b, start = n.args
        dim = n.text("dim")
        x, y, axes, reverse = self.whole(a), self.whole(b), self.axes(n), n.op != "max_scan" and bool(n.number("reverse"))
        if reverse and not is_time(dim):  # what lies beyond the dim comes first: the start passes through it
            x = self.masked(x, (dim,), "1.0")
            y = self.masked(y, () if self.padding.clean(b, dim) else (dim,))
        x, y = in_front(x, dim), in_front(y, dim)
        s = self.find(start)
        first = self.against(s, x.axes) if s.axes else s
        from_zero = (start.op == "const" and start.attr("value") == 0.0) or s.code == "0.0"
        if n.op == "max_scan":
            function, given = "max_scan", first.code
        elif resets(n):
            function, given = "reset_scan_from", f"{first.code}, {reverse}"
        elif from_zero:
            function, given = "affine_scan", f"{reverse}"
        else:
            function, given = "affine_scan_from", f"{first.code}, {reverse}"
        code = f"{self.names.call(function)}({x.code}, {y.code}, {given})"
        return ordered(Text(f"{code}[1]" if function == "affine_scan" else code, x.axes), axes)

    # ---- scalars that the launcher knows ----

    def is_host(self, n: Node) -> bool:
        """Whether the value depends on constants and extents alone."""
        return not n.dims and n.dtype == "real" and n.op != "leaf" and not leaves([n]) and not has_positions(n)

    def host(self, n: Node) -> Text:
        """A literal, an extent, or the name of a compile-time argument that the launcher computes."""
        if n.op == "const":
            return literal(float(n.attr("value")))  # type: ignore[arg-type]
        if n.op == "size":
            return Text(self.names.extent(n.text("dim")))
        return Text(self.names.use(self.scalar(n)))

    def scalar(self, n: Node) -> str:
        """The argument that brings a value of constants and extents."""
        if n not in self.scalars:
            whose = n.args[0].text("dim") if len(n.args) == 1 and n.args[0].op == "size" else "value"
            self.scalars[n] = self.names.fresh(f"{n.op}_{whose}".upper())
        return self.scalars[n]
