"""What each dim of a block does in a kernel: one program per index, a tile axis in pieces, or a whole tile axis.

In: a `Block`. Out: `Roles`, the same for every kernel of the block, so that states, saved states and partial results fit
together; kernels of gradients may take pieces of another dim (`parting`). It never looks at extents: those are known when a
kernel is launched.

- grid: each index of the dim has its own program (the batch; free dims, which the block never mixes);
- blocked: a tile axis of B<dim> elements and as many programs as there are pieces (the lane dim of the states if it is
  free, or else the free dim that most of a chunk's work lacks; the batch where a recurrent matrix multiplies a state, so
  that the product fills a matrix unit);
- whole: a tile axis that holds the dim, padded to a power of two (dims that are contracted; `t` and `s`, of `rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.ir.block import BATCH, COL, ROW, Block, free_dims, rows_of_a_step
from seqc.ir.dims import base, is_rank, is_time, rank_size, unprimed
from seqc.ir.graph import Node, depends, leaves, topological

COLUMNS = 256  # units of a piece of all of them
ALL = "+"  # `D+` is all units of D, beside a program's own piece of them (`team_graph`)


@dataclass(frozen=True)
class Roles:
    """See the file's docstring. `grid` outermost first; `order` is the one order of all tile axes.

    mixed: blocked dims that the block does mix, so that every program has what lacks them, and what sums over one is left
    in parts. Along the others all is linear in cotangents, of which piece 0 alone has what lacks them. passed: dims of which a
    program has one piece after the other, and sums over them.
    """

    grid: tuple[str, ...]
    blocked: tuple[str, ...]
    order: tuple[str, ...]
    mixed: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def whole(self) -> frozenset[str]:
        """The declared dims that a program holds whole."""
        return frozenset(base(d) for d in self.order if not is_time(d) and d not in (*self.blocked, *self.passed))

    def is_passed(self, dims: Iterable[str]) -> bool:
        """Whether a value with these dims is one of each piece that a program passes through."""
        return any(d in self.passed for d in dims)

    @property
    def split(self) -> tuple[str, ...]:
        """Dims that several programs share out among them."""
        return self.grid + self.blocked

    def axes(self, dims: Iterable[str]) -> tuple[str, ...]:
        """The tile axes of a value with these dims, in the global order."""
        have = set(dims)
        return tuple(d for d in self.order if d in have)


def without_pieces(roles: Roles) -> Roles:
    """Those of a kernel none of whose values has a dim that programs take pieces of."""
    return Roles(roles.grid, (), roles.order)


def partner(dim: str) -> str:
    """The time beside which rows of a step run: of ^3 it is t, of ^3' s, of ^3'' t'', and so on."""
    primes = dim.count("'")
    return (COL if primes % 2 else ROW) + "'" * (primes - primes % 2)


def lines(dims: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The dims, each time with the rows of a step that run beside it: what is one side of a matrix."""
    listed = list(dims)
    beside: dict[str, list[str]] = {}
    for d in listed:
        if is_rank(d) and partner(d) in listed:
            beside.setdefault(partner(d), []).append(d)
    taken = {d for some in beside.values() for d in some}
    return tuple((d, *beside.get(d, ())) for d in listed if d not in taken)


def rank_tile(dim: str) -> int:
    """The length of a tile of rows of a step: a power of two."""
    return 1 << (rank_size(dim) - 1).bit_length()


def assign_roles(block: Block) -> Roles:
    """The roles of all dims of the block's two graphs."""
    free = free_dims(block.forward)
    program = block.program
    largest = max(program.states.values(), key=lambda d: len(d.dims), default=None)
    lane = largest.dims[-1] if largest is not None and largest.dims and largest.dims[-1] in free else None
    if lane is None and block.form == "chunkwise":
        lane = _shared_least(block, free)
    declared = _declared_order(block)
    grid = tuple(d for d in (BATCH, *declared) if (d == BATCH or d in free) and d != lane)
    matrix = block.form == "step" and _recurrent_matrix(block.forward, grid)
    if largest is not None and not lane and block.form != "chunkwise" and not matrix:
        inner = [d for d in largest.dims if d not in free]
        if len(inner) == 1 and len(largest.dims) > 1:  # one short dim inside: a tile of it and a piece of the next
            lane = [d for d in largest.dims if d in free][-1]
    blocked = ((BATCH,) if matrix else ()) + ((lane,) if lane else ())
    grid = tuple(d for d in grid if d not in blocked)
    return Roles(grid, blocked, _tile_axes(block, grid))


def roles_along(block: Block, roles: Roles, dim: str, passed: tuple[str, ...] = ()) -> Roles:
    """The roles where programs take pieces of a dim that the block mixes, and have what they took pieces of whole, or pass
    through it."""
    return Roles(roles.grid, (dim,), _tile_axes(block, roles.grid), (dim,), passed)


def team_roles(roles: Roles, dim: str) -> Roles:
    """The roles where several programs share out a dim that one held whole, and have all of it under another name."""
    order = [d for d in roles.order if base(d) != dim or d == dim]
    order.insert(order.index(dim) + 1, dim + ALL)
    return Roles(roles.grid, (*roles.blocked, dim), tuple(order), (dim,), (dim + ALL,))


def _tile_axes(block: Block, grid: tuple[str, ...]) -> tuple[str, ...]:
    """All axes of tiles, in their order."""
    used = {d for n in topological([*block.forward.values(), *block.backward.values()]) for d in n.dims}
    used |= {d for decl in block.program.states.values() for d in decl.dims}  # carried whole, where nothing has all of them too
    rows = rows_of_a_step(block)
    declared = [d for d in _declared_order(block) if d not in rows]
    order = [d for r in (BATCH, ROW) for d in sorted(x for x in used if unprimed(x) == r)]
    order += [x for d in rows for x in sorted(x for x in used if unprimed(x) == d)]
    order += [d for r in (COL, *declared) for d in sorted(x for x in used if unprimed(x) == r)]
    for rank in sorted(x for x in used if is_rank(x)):
        order.insert(order.index(partner(rank)) + 1, rank)
    return tuple(d for d in order if d not in grid)


def _shared_least(block: Block, free: Iterable[str]) -> str | None:
    """The free dim of a state that the fewest inputs have, the last of equals: a tile of it shares all the work on the
    others. None where every input has it.

    Not a dim whose indices have little to share: each has a matrix of the state, and matrices [t, s] of its own.
    """
    program = block.program
    pairs = {d for n in topological(block.forward.values()) if {ROW, COL} <= set(n.dims) for d in n.dims}
    matrices = [decl.dims for decl in program.states.values() if sum(d not in free for d in decl.dims) > 1]
    apart = {d for dims in matrices for d in dims if d in pairs}
    states = dict.fromkeys(d for decl in program.states.values() for d in decl.dims if d in free and d not in apart)
    having = {d: sum(d in decl.dims for decl in program.inputs.values()) for d in states}
    least = min(having.values(), default=len(program.inputs))
    return [d for d, count in having.items() if count == least][-1] if least < len(program.inputs) else None


def _declared_order(block: Block) -> tuple[str, ...]:
    """The spec's dims: those of the states first, in their order, then the others."""
    program = block.program
    by_size = sorted(program.states.values(), key=lambda d: -len(d.dims))
    every = [unprimed(d) for decl in by_size for d in decl.dims] + list(program.dims)
    return tuple(dict.fromkeys(every))


def _recurrent_matrix(forward: Mapping[str, Node], grid: tuple[str, ...]) -> bool:
    """Whether some parameter with two tile axes multiplies a vector that depends on a state."""
    on_state = depends(forward.values(), leaves(forward.values(), "state"))
    for n in topological(forward.values()):
        if n.op != "sum" or n.args[0].op != "mul":
            continue
        for matrix, vector in (n.args[0].args, n.args[0].args[::-1]):
            tall = [d for d in matrix.dims if d not in grid and not is_time(d)]
            long = [d for d in vector.dims if d not in grid and not is_time(d)]
            constant = matrix not in on_state and not leaves([matrix], "input")
            if vector in on_state and constant and len(tall) == 2 and len(long) == 1:
                return True
    return False
