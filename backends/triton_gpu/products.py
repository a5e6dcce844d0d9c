"""The matrix products of a kernel, decided before it is printed: their operands, how these lie, and where they are masked.

In: a kernel and the roles of its dims. Out: `Products`, with a `Product` for each sum that the matrix unit computes. The
printer writes them, and the tile model asks which dims they have.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqc.backends.triton_gpu.kernel import Advance, Kernel, Let, Load, tile_axes, walk
from seqc.backends.triton_gpu.padding import Padding
from seqc.backends.triton_gpu.pairing import is_product
from seqc.backends.triton_gpu.roles import Roles, lines
from seqc.backends.triton_gpu.tuning.quarantine import TURNED_ROWS
from seqc.ir.block import ROW
from seqc.ir.dims import base, is_time
from seqc.ir.graph import Node
from seqc.ir.ops import TABLE


@dataclass(frozen=True)
class Operand:
    """A factor of a product. turned: it is taken transposed; masked: dims that are summed, beyond which zeros stand."""

    node: Node
    turned: bool
    masked: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """left [rows, over] times right [over, columns], each a dim or steps with the rows of each; swapped: computed as its
    transpose, right^T times left^T."""

    left: Operand
    right: Operand
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    over: tuple[str, ...]
    swapped: bool = False


class Products:
    """See the file's docstring. of: by node; turned: those whose left operand is the transposed result of another one, and the
    dim of their rows; dims: those that any product has."""

    def __init__(self, kernel: Kernel, roles: Roles) -> None:
        self.rows, self.roles = kernel.rows, roles
        items = walk(kernel.body)
        self.padding = Padding({a: b for item in items if isinstance(item, Advance) for a, b in item.pairs})
        self.held = {i.node: tile_axes(i.array, roles, kernel.rows) for i in items if isinstance(i, Load)}
        self.of: dict[Node, Product] = {}
        self.turned: dict[Node, str] = {}
        for item in items:
            if isinstance(item, Let):
                self.held_axes(item.node)
                self.enter(item.node)
        self.dims = frozenset(base(d) for p in self.of.values() for d in (p.rows[0], p.columns[0], p.over[0]))

    def axes(self, n: Node) -> tuple[str, ...]:
        """The tile axes of a node's dims."""
        return self.roles.axes(n.dims)

    def held_axes(self, n: Node) -> tuple[str, ...]:
        """The axes that a value's tile has: all of its dims', but for those along which it is known to be constant."""
        if n not in self.held:
            self.held[n] = self._held(n)
        return self.held[n]

    def _held(self, n: Node) -> tuple[str, ...]:
        if n.op == "leaf":
            return (ROW,) if n.text("kind") == "mask" else self.axes(n)
        if n.op in ("index", "block_index"):
            return self.roles.axes((n.text("dim"),))
        if n.op == "expand":
            return self.held_axes(n.args[0])
        if n.op == "rename":
            return self.roles.axes(self.renamed(n))
        if TABLE[n.op].elementwise:
            return self.roles.axes({d for a in n.args for d in self.held_axes(a)})
        return self.axes(n)

    def renamed(self, n: Node) -> tuple[str, ...]:
        """The axes of a renamed value's tile under their new names, in the order in which they lie."""
        return tuple(n.text("new") if a == n.text("old") else a for a in self.held_axes(n.args[0]))

    def is_flipped(self, n: Node) -> bool:
        """Whether n is another value's tile, transposed."""
        if n.op != "rename":
            return False
        now = self.renamed(n)
        return len(now) == 2 and now != self.roles.axes(now)

    def enter(self, n: Node) -> None:
        """Decide a sum, if it is a matrix product."""
        if n.op != "sum" or n.args[0].op != "mul" or n in self.of:
            return
        a, b = n.args[0].args
        if not is_product(frozenset(self.axes(a)), frozenset(self.axes(b)), frozenset(self.axes(n))):
            return
        row, column = lines(self.axes(n))
        over = self.roles.axes(n.names("over"))
        a, b = (a, b) if row[0] in self.axes(a) else (b, a)
        hidden = {d: self.hidden(a, b, d) for d in over}
        left = Operand(a, lines(self.axes(a)) != (row, over), tuple(d for d in over if hidden[d][0]))
        right = Operand(b, lines(self.axes(b)) != (over, column), tuple(d for d in over if hidden[d][1]))
        bad = self.transposed(a, left.turned)
        # of many rows, a transposed accumulator as left operand is miscompiled on Hopper
        few = is_time(row[0]) and self.rows < TURNED_ROWS
        swap = not few and bad and not self.transposed(b, not right.turned)
        if bad and not swap:
            self.turned[n] = row[0]
        self.of[n] = Product(left, right, row, column, over, swap)

    def transposed(self, n: Node, turned: bool) -> bool:
        """Whether n is the transposed result of a matrix product, but for elementwise operators and triangular inverses, whose
        tile has the layout of what they are given. turned: whether the product at hand transposes it once more."""
        todo, seen = [(n, turned)], set()
        while todo:
            x, odd = todo.pop()
            if x in self.of and odd:
                return True
            if x not in self.of and (x, odd) not in seen and (
                TABLE[x.op].elementwise or x.op in ("rename", "expand", "tri_inv")
            ):
                seen.add((x, odd))
                todo += [(a, odd != self.is_flipped(x)) for a in x.args]
        return False

    def hidden(self, a: Node, b: Node, over: str) -> tuple[bool, bool]:
        """Which of two operands are masked along the dim summed over, where their padding could reach the result."""
        if is_time(over):
            return False, False
        clean, bounded = self.padding.clean, self.padding.bounded
        if clean(a, over):
            return False, not bounded(b, over)
        if clean(b, over):
            return not bounded(a, over), False
        if bounded(b, over):
            return True, False
        return not bounded(a, over), True

