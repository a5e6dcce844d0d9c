"""What the tile problem needs to know of a kernel: its dims and their roles, its tiles, products, work and traffic.

Comes in: nothing. Goes out: frozen records that a scheduler fills in from its loop tree. They hold names and sizes, no
graph. A dim of a tile is named; what extent it has in the kernel follows from its role. A kernel that may walk time in
turns of several lengths has a summary for each length: what it computes in a turn depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqc.solver.problem import Relation

Role = Literal["grid", "block", "whole", "passed"]
"""grid: a program per index. block: cut into blocks, variable `B` + name. whole: in the tile in its full length. passed:
in pieces of that size, one after the other."""


@dataclass(frozen=True)
class Dim:
    """A dim of a kernel."""

    name: str
    role: Role
    size: int = 1


@dataclass(frozen=True)
class Tile:
    """A value of the kernel: its dims (time may occur twice, under two names) and the bytes of an element."""

    dims: tuple[str, ...]
    bytes: int = 4


@dataclass(frozen=True)
class Dot:
    """A matrix product of `m` x `k` and `k` x `n` in each turn; several dims count as one long one.

    `rate` names the row of the target's matrix rates: "bf16", "fp16", "tf32" or "fp32". `turned`: whether its left
    operand is the transposed, cast result of another product.
    """

    m: tuple[str, ...]
    n: tuple[str, ...]
    k: tuple[str, ...]
    rate: str = "fp32"
    times: int = 1
    turned: bool = False


@dataclass(frozen=True)
class Work:
    """Elementwise work of a turn: so many operations on each element of a tile of these dims."""

    dims: tuple[str, ...]
    operations: int


@dataclass(frozen=True)
class Limit:
    """A bound on one variable that the spec or the schedule sets, and why."""

    sentence: str
    variable: str
    relation: Relation
    value: int


@dataclass(frozen=True)
class Pieces:
    """The operands of a team's products, `count` pieces of each. A program takes some of what it is `told` at once, and has
    room for some of what is `held` from step to step; what it has no room for it reads in every step, by way of `again`."""

    count: int
    told: tuple[Tile, ...]
    held: tuple[Tile, ...]
    again: tuple[Tile, ...]


@dataclass(frozen=True)
class KernelSummary:
    """One kernel, before its tiles are chosen."""

    name: str
    dims: tuple[Dim, ...]
    live: tuple[Tile, ...]
    """Tiles in registers at once where the kernel needs most, without the carried ones."""
    carried: tuple[Tile, ...] = ()
    """State tiles that live across the loop over time."""
    staged: tuple[Tile, ...] = ()
    """Tiles loaded in each turn through shared memory, as often as there are stages."""
    scratch: tuple[Tile, ...] = ()
    """Further tiles in shared memory at once, such as operands of products between registers."""
    kept: tuple[Tile, ...] = ()
    """Operands of products that stay from turn to turn: in shared memory on NVIDIA, in registers on AMD."""
    dots: tuple[Dot, ...] = ()
    work: tuple[Work, ...] = ()
    read: tuple[Tile, ...] = ()
    """Tiles read from memory in each turn."""
    written: tuple[Tile, ...] = ()
    """Tiles written to memory in each turn."""
    rows: int = 1
    """Steps of time that one turn serves."""
    loops_over_time: bool = True
    """Whether one program takes all turns in order; otherwise each span of turns has a program of its own."""
    span: int = 1
    """Turns of a span, which one program takes in order."""
    fetches: bool = False
    """Whether a turn sends for what the next one loads, into registers: with no stages beside."""
    meets: int = 0
    """How often in a turn the programs of a team wait for each other (`team`)."""
    shares: str = ""
    """The dim that the programs of a team share out: all of them must run at once."""
    pieces: Pieces | None = None
    """What it has of a dim of which it holds no more than a piece of (`shares`)."""
    limits: tuple[Limit, ...] = ()
