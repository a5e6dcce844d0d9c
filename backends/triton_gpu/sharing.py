"""How the gradients of a chunk are shared out among kernels: which dim each takes pieces of, and what one keeps for another.

In: a block's gradients in pairs, the roles of its dims, and the values that are loaded anyhow. Out: `Part`s, in the order in
which their kernels run. It compares what kernels compute, move, and leave in parts, at extents that stand for any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seqc.backends.triton_gpu.arrays import keepable
from seqc.backends.triton_gpu.order import PIECE, WHOLE
from seqc.backends.triton_gpu.pairing import is_product
from seqc.backends.triton_gpu.parting import KNOWN, UNKNOWN, can_cut, cheapest_cut, held
from seqc.backends.triton_gpu.roles import Roles, rank_tile
from seqc.ir.block import BATCH, Block
from seqc.ir.dims import base, is_rank, is_time
from seqc.ir.graph import Node, depends, leaves, topological
from seqc.ir.keys import slope_of
from seqc.ir.ops import holds

PARTIAL = 64  # operations that an element of a result in parts stands for: it is written and read again
READ = 4  # those that an element of what is given stands for: there is a kernel to which it is new
MOVED = 16  # those that an element stands for that one kernel stores, or another loads


@dataclass(frozen=True)
class Part:
    """The gradients of one kernel. dim: what its programs take pieces of, None where they take the block's own. kept: values
    that the block's own kernel stores and this one loads."""

    dim: str | None
    keys: frozenset[str]
    kept: tuple[Node, ...] = ()


def parted(
    block: Block, roles: Roles, gradients: Mapping[str, Node], given: Iterable[Node] = (), keeps: bool = True
) -> tuple[Part, ...]:
    """The kernels of a chunk's gradients (by "d.NAME"), that of the block's own pieces first, and what each computes.
    given: values that they load; keeps: whether one may keep values for another.

    A gradient that has a dim, and no sum over it, goes to the kernel that takes pieces of it, where two kernels cost less
    than one; so does one that has it where values in the middle are kept. What every kernel would leave in parts goes where it
    adds least.
    """
    if block.form != "chunkwise" or BATCH in roles.blocked:
        return (Part(None, frozenset(gradients)),)
    shares = _Shares(block, roles, gradients, tuple(given))
    dims = [d for d in _long_dims(block, roles) if d != shares.own]
    mine: dict[str | None, list[str]] = {None: [key for key in gradients if shares.own and shares.free(key, shares.own)]}
    left = [key for key in gradients if key not in mine[None]]
    while dims:
        ways = [way for d in dims for way in shares.ways(d, mine[None], left, keeps)]
        cost, dim, taken, kept = min(ways, key=lambda way: way[0])  # of equals the first
        if cost >= shares.cost(mine[None] + left, None):
            break
        dims.remove(dim)
        shares.keep(dim, kept)
        mine[dim], left = taken, [key for key in left if key not in taken]
    for key in left:
        able: list[str | None] = [d for d in mine if d is None or shares.able(key, d)]
        able = able if mine[None] or len(able) < 2 else [d for d in able if d is not None]
        least = min(able, key=lambda d: shares.cost([*mine[d], key], d) - shares.cost(mine[d], d))
        mine[least].append(key)
    stores = any(shares.kept[d] for d in mine)
    return tuple(Part(dim, frozenset(keys), shares.kept[dim]) for dim, keys in mine.items() if keys or (dim is None and stores))


Way = tuple[int, str, list[str], tuple[Node, ...]]
"""Cost in all kernels, the dim, the gradients that a kernel takes along it, and what is kept for it."""


class _Shares:
    """What gradients cost in kernels that take pieces of a dim, None for the block's own. kept: values that a kernel loads."""

    def __init__(self, block: Block, roles: Roles, gradients: Mapping[str, Node], given: tuple[Node, ...]) -> None:
        self.block, self.roles, self.gradients, self.given = block, roles, gradients, given
        self.own = roles.blocked[0] if roles.blocked else None
        self.kinds: dict[str, dict[Node, str]] = {}
        self.kept: dict[str | None, tuple[Node, ...]] = {None: ()}
        roots = list(gradients.values())
        own = held(roots, self.own, given) if self.own else {}
        thin = [n for n in leaves(roots, "cot") if not {*roles.split} <= {*n.dims}]  # of which the first piece alone has it
        late = depends(roots, thin)
        whole = [n for n, kind in own.items() if kind == KNOWN and n.args and not holds(n, "alias") and n.dtype != "bool"]
        self.prices = {n: self.extent(n.dims) for n in whole if keepable(n) and n not in late and n not in given}

    def keep(self, dim: str, nodes: Sequence[Node]) -> None:
        """Let the kernel along a dim load these."""
        self.kept[dim] = tuple(nodes)
        self.kinds.pop(dim, None)

    def kind(self, key: str, dim: str) -> str:
        if dim not in self.kinds:
            self.kinds[dim] = held(self.gradients.values(), dim, (*self.given, *self.kept.get(dim, ())))
        return self.kinds[dim][self.gradients[key]]

    def free(self, key: str, dim: str) -> bool:
        """Whether each program has its own piece of it."""
        return dim in _axes(self.block, key) and self.kind(key, dim) == KNOWN

    def able(self, key: str, dim: str) -> bool:
        """Whether programs have it, or parts of it."""
        return self.free(key, dim) or (dim not in _axes(self.block, key) and self.kind(key, dim) != UNKNOWN)

    def ways(self, dim: str, mine: list[str], left: list[str], keeps: bool) -> Iterable[Way]:
        """What a kernel along the dim may take of what is left."""
        self.keep(dim, ())
        free = [key for key in left if self.free(key, dim)]
        yield self.way(dim, free, mine, left)
        more = [key for key in left if dim in _axes(self.block, key) and (key in free or self.cuts(key, dim))]
        if keeps and self.own and len(more) > len(free):
            roots = [self.gradients[key] for key in more]
            self.keep(dim, cheapest_cut(roots, dim, self.given, self.prices))
            yield self.way(dim, more, mine, left)
        self.keep(dim, ())

    def way(self, dim: str, taken: list[str], mine: list[str], left: list[str]) -> Way:
        rest = [key for key in left if key not in taken]
        there = [key for key in rest if self.able(key, dim)]
        here = [key for key in rest if key not in there]
        kept = self.kept[dim]
        apart = self.cost(taken, dim) + self.cost(mine + rest, None, kept)
        moved = self.cost(taken + there, dim) + self.cost(mine + here, None, kept)
        return min(apart, moved), dim, taken, kept

    def cuts(self, key: str, dim: str) -> bool:
        """Whether programs would have their own piece of it if values were kept."""
        return can_cut(self.gradients[key], dim, self.given, self.prices)

    def cost(self, keys: Iterable[str], dim: str | None, stored: Iterable[Node] = ()) -> int:
        """Operations in all programs of a chunk, at extents that stand for any; results in parts are dear."""
        keys, stored, along, kept = list(keys), list(stored), dim or self.own, self.kept[dim]
        roots = [self.gradients[key] for key in keys] + stored
        nodes = topological(roots, (*self.given, *kept))
        read = {a for n in nodes for a in n.args} & set(kept)
        given = [n for n in nodes if n.op == "leaf" and n.dtype != "bool"]
        out = sum(self.work(n, along) for n in nodes)
        out += MOVED * (sum(self.times(n, along) for n in read) + sum(map(self.extent, (n.dims for n in stored))))
        out += READ * sum(self.times(n, along) for n in given)
        parts = [self.gradients[key] for key in keys if along is not None and self.kind(key, along) != KNOWN]
        return out + sum(PARTIAL * WHOLE // PIECE * self.extent(n.dims) for n in parts)

    def work(self, n: Node, dim: str | None) -> int:
        """Operations for a value."""
        if not n.args or n.op == "mul":
            return 0
        factors = n.args[0].args if n.op == "sum" and n.args[0].op == "mul" else ()
        axes = [frozenset(self.roles.axes(x.dims)) for x in (*factors, n)]
        every = frozenset().union(*axes)
        out = self.extent(every) * (1 if dim is None or dim in every else WHOLE // PIECE)
        return out // 16 if len(axes) == 3 and is_product(*axes) else out

    def times(self, n: Node, dim: str | None) -> int:
        """Elements of a value in all programs together."""
        return self.extent(n.dims) * (1 if dim is None or dim in n.dims else WHOLE // PIECE)

    def extent(self, dims: Iterable[str]) -> int:
        """Elements."""
        out = 1
        for d in self.roles.axes(dims):
            out *= PIECE // 2 if is_time(d) else rank_tile(base(d)) if is_rank(d) else WHOLE
        return out


def _axes(block: Block, key: str) -> tuple[str, ...]:
    name = slope_of(key).name
    return {**block.program.inputs, **block.program.params}[name].dims


def _long_dims(block: Block, roles: Roles) -> list[str]:
    """Dims of states that a chunk's program holds whole, and that may be as long as two pieces that fill a product."""
    extents = block.program.dims
    dims = [d for decl in block.program.states.values() for d in decl.dims if d in roles.order and d in extents]
    return [d for d in dict.fromkeys(dims) if not extents[d].choices or max(extents[d].choices) >= PIECE]
