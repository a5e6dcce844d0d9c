"""Where values lie in memory, and how C++ spells an access to them.

In: axes and strides. Out: `Place`, and the expressions that load from it and store to it, for scalars and for vectors along
one dim. Names: `n_K` the extent of a dim, `m_K` the extent inside the program (of a panel: its part), `z_K` that extent
rounded up to whole vectors, `i_K` the index of a loop, `o_K` where the panel begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from textwrap import wrap

WHOLE = "\N{NO-BREAK SPACE}"  # stands for the spaces of an item while lines are filled


def ident(dim: str) -> str:
    """A name of the spec inside an identifier (always behind a prefix, so that it is no keyword)."""
    return "".join(c if c.isascii() else f"u{ord(c):x}" for c in dim).replace("'", "_").replace(".", "_")


def product(factors: list[str]) -> str:
    """Factors as a C++ product; "1" if there are none."""
    return " * ".join(factors) if factors else "1"


def plus(terms: list[str]) -> str:
    """Terms as a C++ sum; "0" if there are none."""
    return " + ".join(terms) if terms else "0"


def condition(guard: Iterable[str]) -> str:
    """A guard as C++: of several programs the first, where the call wants what is saved; "" of an empty one."""
    return " && ".join(name if name == "save" else f"{name} == 0" for name in guard)


@dataclass(frozen=True)
class Place:
    """A tensor in memory. base: a pointer. strides: local axis -> C++ factors of its stride ([] is 1).

    inside: the array is a buffer of the kernel, padded to whole vectors along its last axis; otherwise a caller's array
    whose edge must be respected. scalar: `base` is a variable and not a pointer.
    ahead: the distance to the same element at the next step, where fetching it early pays; "" where not.
    tiled: the axis whose vectors lie whole, each followed by what the next index of another axis reads; "" if none. Only
    vectors along it can be addressed.
    """

    base: str
    strides: Mapping[str, tuple[str, ...]]
    inside: bool = False
    scalar: bool = False
    ahead: str = ""
    tiled: str = ""

    def whole(self, axis: str) -> bool:
        """Whether the elements of a vector along an axis are neighbours."""
        return axis == self.tiled or not self.strides[axis]

    @property
    def names(self) -> set[str]:
        """What an access mentions, but for its index."""
        return {self.base.partition(".")[0], *(x for stride in self.strides.values() for x in stride)}

    def offset(self, index: Mapping[str, str]) -> str:
        """How far the element at an index per axis is from the base; "0" where it lies there."""
        found = [(index[axis], stride) for axis, stride in self.strides.items() if index[axis] != "0"]
        return plus([product([i if i.isidentifier() or not stride else f"({i})", *stride]) for i, stride in found])

    def at(self, index: Mapping[str, str]) -> str:
        """The address of the element at an index per axis."""
        offset = self.offset(index)
        return self.base if offset == "0" else f"{self.base} + {offset}"

    def element(self, index: Mapping[str, str]) -> str:
        """The element at an index per axis, as an lvalue."""
        return self.base if self.scalar else f"{self.base}[{self.offset(index)}]"


def buffer_place(base: str, axes: tuple[str, ...]) -> Place:
    """A buffer of the kernel with the given axes, the last one padded."""
    strides: dict[str, tuple[str, ...]] = {}
    for i, axis in enumerate(axes):
        rest = axes[i + 1 :]
        strides[axis] = tuple(f"w_{ident(d)}" for d in rest[:-1]) + tuple(f"z_{ident(d)}" for d in rest[-1:])
    return Place(base, strides, inside=True)


def tiled_place(base: str, axes: tuple[str, ...]) -> Place:
    """A buffer of the same size, for loops that take one vector along the last axis and run over the others."""
    *others, last = axes
    widths = [f"w_{ident(d)}" for d in others]
    strides = {d: (*widths[i + 1 :], "W") for i, d in enumerate(others)}
    return Place(base, {**strides, last: tuple(widths)}, inside=True, tiled=last)


def buffer_size(axes: tuple[str, ...]) -> str:
    """The number of elements of such a buffer."""
    if not axes:
        return "1"
    return product([*(f"w_{ident(d)}" for d in axes[:-1]), f"z_{ident(axes[-1])}"])


def filled(head: str, items: Iterable[str], indent: int = 2) -> list[str]:
    """`HEAD a, b, c;`, over as many lines as it takes, broken between items."""
    text = f"{head} {', '.join(x.replace(' ', WHOLE) for x in items)};"
    lines = wrap(text, 120, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4))
    return [line.replace(WHOLE, " ") for line in lines]
