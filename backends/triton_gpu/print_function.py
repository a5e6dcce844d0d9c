"""What several levels have alike -> the text of one device function.

In: a `Function` and the printer of the kernel that calls it. Out: `PrintedFunction`. Positions and masks are handed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from seqc.backends.triton_gpu.address import Addresses, Scope
from seqc.backends.triton_gpu.kernel import Function
from seqc.backends.triton_gpu.print_items import ItemPrinter
from seqc.backends.triton_gpu.texts import TAB
from seqc.emit.expressions import Text
from seqc.emit.text import wrapped
from seqc.ir.graph import Node

if TYPE_CHECKING:
    from seqc.backends.triton_gpu.print_kernel import KernelPrinter

LEVEL = "LEVEL"


@dataclass(frozen=True)
class PrintedFunction:
    """name: of the function; borrowed, constants: what it is given beside sums, values and the level."""

    name: str
    borrowed: tuple[str, ...]
    constants: tuple[str, ...]


class _Borrowed(Addresses):
    """Positions and masks that the kernel has, by the names that it has them by."""

    def __init__(self, kernel: KernelPrinter) -> None:
        super().__init__(kernel.kernel, kernel.roles, kernel.names)
        self.of, self.scope, self.taken = kernel.addresses, kernel.scope.places, dict[str, None]()

    def borrow(self, name: str) -> str:
        self.taken[name] = None
        return name

    def positions(self, dim: str, scope: Scope) -> str:
        return self.borrow(self.of.positions(dim, self.scope))

    def row_numbers(self, scope: Scope) -> str:
        return self.borrow(self.of.row_numbers(self.scope))

    def mask(self, dim: str, scope: Scope) -> str:
        return self.borrow(self.of.mask(dim, self.scope))

    def inside(self, scope: Scope) -> str:
        return self.borrow(self.of.inside(self.scope))


class FunctionPrinter(ItemPrinter):
    """Prints a function, and enters it among those of the kernel."""

    def __init__(self, kernel: KernelPrinter, function: Function) -> None:
        super().__init__(kernel.schedule, kernel.kernel, kernel.products, kernel.uses)
        self.of, self.function = kernel, function
        self.label.level = function.block
        self.borrowed = _Borrowed(kernel)
        self.addresses = self.values.addresses = self.borrowed
        self.values.level, self.values.scalar = (function.block, LEVEL), kernel.values.scalar  # type: ignore[method-assign]
        self.totals = {n: self.names.fresh(f"b_{kernel.label(n)}") for n in function.totals}
        self.given = {n: self.names.fresh(f"b_{kernel.label(n)}") for n in function.given}
        self.texts[0] |= {n: Text(name, kernel.find(n).axes) for n, name in self.given.items()}

    def print(self) -> PrintedFunction:
        """Header, body, and where it is known by."""
        self.body(self.function.items)
        sums = list(self.totals.values())
        lines = [*self.scope.lines, f"return {', '.join(sums)}"]
        constants = self.constants()
        borrowed = tuple(self.borrowed.taken)
        arguments = [*sums, *self.given.values(), *borrowed, *(f"{x}: tl.constexpr" for x in (LEVEL, *constants))]
        labels = [self.label(n) for n in self.totals]
        labels = list(dict.fromkeys(x for x in labels if x != "x")) or ["sums"]
        what = " and ".join(filter(None, [", ".join(labels[:-1]), *labels[-1:]]))
        doc = f"{what} and what pairs of steps add in the two halves of each segment of 2 * {LEVEL} steps."
        name = self.enter(f"{'_'.join(labels)}_of_level", arguments, [TAB + line for line in (f'"""{doc}"""', *lines)])
        return PrintedFunction(name, borrowed, constants)

    def is_named(self, n: Node) -> bool:
        """Names are those of one level."""
        return False

    def constants(self) -> tuple[str, ...]:
        """The compile-time arguments that its lines name; the kernel, which hands them on, names them too."""
        names = self.names
        known = [*names.dims.values(), *names.block.values(), *self.of.values.scalars.values(), "DOT", "PRECISION", "PARTS"]
        found = [x for x in dict.fromkeys(known) if x.isidentifier() and x in names.used]  # extents of ranks are numbers
        self.of.names.used.update(found)
        self.of.names.calls |= names.calls
        return tuple(found)

    def enter(self, wanted: str, arguments: list[str], body: list[str]) -> str:
        """The name that the function is entered by: another where the file has one of that name, and not the same."""
        for i in count():
            name = f"{wanted}_{i}" if i else wanted
            head = [line] if len(line := f"def {name}({', '.join(arguments)}):") <= 116 else [
                f"def {name}(", *wrapped(arguments), "):"]
            text = "\n".join(["@triton.jit", *head, *body]) + "\n"
            if self.of.taken.get(name, text) == text:
                self.of.functions[name] = text
                return name
        raise AssertionError
