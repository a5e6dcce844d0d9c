"""Names of dims, and the extents that follow from them.

`K'` (one prime or more) is a further dim of the size of `K`. `2D` is the last dim of an output of `scan both`: it holds the
values of both runs, and has twice the size of `D`.
"""

from __future__ import annotations

from collections.abc import Mapping

TWICE = "2"  # before the last dim of an output of `scan both`, which holds the values of both runs


def unprimed(dim: str) -> str:
    """The dim whose size a dim has: `K` for `K'`."""
    return dim.rstrip("'")


def is_primed(dim: str) -> bool:
    """Whether it is a further dim of another's size."""
    return dim.endswith("'")


def extent(dim: str, sizes: Mapping[str, int]) -> int:
    """The size of a dim; a primed dim has the size of the one it was renamed from, `2D` has twice that of `D`."""
    if dim.startswith(TWICE):
        return 2 * (extent(dim[1:], sizes) if dim != TWICE else 1)
    return sizes[dim] if dim in sizes else sizes[unprimed(dim)]
