"""Names of dims, and the extents that follow from them.

`K'` (one prime or more) is a further dim of the size of `K`. `2D` is the last dim of an output of `scan both`: it holds the
values of both runs, and has twice the size of `D`. `t` and `s` are time inside a block. `K~2` is the third piece of a dim
K that is too long for one tile of a GPU's program, which holds it in pieces (`seqc.passes.lower.pieces`). `^3` is a dim of 3
indices that no spec names: the rows of a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from seqc.ir.graph import COL, ROW

TWICE = "2"  # before the last dim of an output of `scan both`, which holds the values of both runs
RANK = "^"  # before the size of a dim that no spec names
MARK = "~"  # between a dim and the number of a piece
LONGEST = 256  # elements of a dim that a program of a GPU holds in one tile
PIECE = 128  # elements of a piece of a longer one


def rank_dim(count: int) -> str:
    """The dim of so many indices that no spec names."""
    return f"{RANK}{count}"


def is_rank(dim: str) -> bool:
    """Whether no spec names the dim."""
    return dim.startswith(RANK)


def rank_size(dim: str) -> int:
    """The size that such a dim tells, primed or not."""
    return int(unprimed(dim).removeprefix(RANK))


def unprimed(dim: str) -> str:
    """The dim whose size a dim has: `K` for `K'`."""
    return dim.rstrip("'")


def is_primed(dim: str) -> bool:
    """Whether it is a further dim of another's size."""
    return dim.endswith("'")


def primed(dim: str, taken: Iterable[str]) -> str:
    """The dim's name with as many primes as make it new."""
    names = set(taken)
    while dim in names:
        dim += "'"
    return dim


def extent(dim: str, sizes: Mapping[str, int]) -> int:
    """The size of a dim; a primed dim has the size of the one it was renamed from, `2D` has twice that of `D`."""
    if is_rank(dim):
        return rank_size(dim)
    if dim.startswith(TWICE):
        return 2 * (extent(dim[1:], sizes) if dim != TWICE else 1)
    return sizes[dim] if dim in sizes else sizes[unprimed(dim)]


def is_time(dim: str) -> bool:
    """Whether a dim is time inside a block: `t`, `s`, or one of them primed."""
    return unprimed(dim) in (ROW, COL)


def base(dim: str) -> str:
    """The declared dim behind a primed or a time dim, or a piece: `D''` is `D`, `s` is `t`, `K~2` is `K`."""
    return ROW if is_time(dim) else unprimed(dim).partition(MARK)[0]


def piece(dim: str) -> int:
    """Which piece of a dim it is; 0 where it is no piece."""
    return int(unprimed(dim).partition(MARK)[2] or 0)


def is_piece(dim: str) -> bool:
    """Whether it is a piece of a dim, or a tensor with one."""
    return MARK in dim


def piece_of(name: str, at: Iterable[int], primes: str = "") -> str:
    """The name of a piece of a dim, or of a tensor with pieces of several; the name itself where it has none."""
    places = ".".join(map(str, at))
    return f"{name}{MARK}{places}{primes}" if places else name


def unpieced(name: str) -> str:
    """The name of what this is a piece of."""
    return re.sub(rf"{MARK}[\d.]+", "", name)
