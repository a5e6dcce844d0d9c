"""The keys of a block's graphs, which are the names of cotangent leaves too: written and read here alone.

`y` is an output and `S.next` what a state becomes; `d.x` is the gradient of an input or a param, `d.x@2` of the input two steps
before, `d.S.prev` the cotangent that a state hands to the block before.
"""

from __future__ import annotations

from typing import NamedTuple

_NEXT, _PREV, _SLOPE, _AT = ".next", ".prev", "d.", "@"


class Slope(NamedTuple):
    """What a key of gradients says: of which declaration, how many steps before, and whether a state carries it."""

    name: str
    offset: int = 0
    carried: bool = False

    def word(self, ago: str = "_ago", ahead: str = "_ahead") -> str:
        """The name, and how many steps `ago` or `ahead` it is."""
        return f"{self.name}{ago if self.offset > 0 else ahead}{abs(self.offset)}" if self.offset else self.name


def next_key(state: str) -> str:
    """The key of what a state becomes."""
    return f"{state}{_NEXT}"


def prev_key(state: str) -> str:
    """The key of a state's gradient."""
    return f"{_SLOPE}{state}{_PREV}"


def slope_key(name: str, offset: int = 0) -> str:
    """The key of the gradient of an input so many steps before, or of a param."""
    return f"{_SLOPE}{name}{_AT}{offset}" if offset else f"{_SLOPE}{name}"


def is_next(key: str) -> bool:
    """Whether a key of results is of a state."""
    return key.endswith(_NEXT)


def result_of(key: str) -> str:
    """The output or state of a key of results."""
    return key.removesuffix(_NEXT)


def slope_of(key: str) -> Slope:
    """What a key of gradients says."""
    name, _, offset = key.removeprefix(_SLOPE).partition(_AT)
    return Slope(name.removesuffix(_PREV), int(offset or 0), name.endswith(_PREV))
