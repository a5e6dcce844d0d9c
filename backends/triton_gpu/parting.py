"""Which gradients a kernel can compute whose programs take pieces of one dim, and how gradients are shared out among kernels.

In: a block's gradients in pairs, and the roles of its dims. Out: `Part`s: a dim and the gradients of the kernel that takes
pieces of it. Each program has a value either whole (or its own piece of it, where the value has the dim), or a part that
adds up to it over programs: what sums over the dim, and what is linear in such sums. What else comes of such a sum, no
program can know. The dim that the forward leaves free is another matter: there all is linear in cotangents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.backends.triton_gpu.order import PIECE, WHOLE
from seqc.backends.triton_gpu.pairing import is_product
from seqc.backends.triton_gpu.roles import Roles, base, is_time
from seqc.block import BATCH, Block
from seqc.graph import Node, const, index, node, topological, total
from seqc.ops import TABLE

KNOWN, PART, UNKNOWN = "whole", "part", "unknown"
LINEAR = {name for name, row in TABLE.items() if "linear" in row.laws} | {"mul", "div", "neg", "where", "affine_scan"}
PARTIAL = 64  # operations that an element of a result in parts stands for: it is written and read again
ADDED = {"add": (0, 1), "sub": (0, 1), "where": (1, 2), "affine_scan": (1, 2)}  # arguments whose sum, or choice, it is


@dataclass(frozen=True)
class Part:
    """The gradients of one kernel. dim: what its programs take pieces of, None where they take the block's own."""

    dim: str | None
    keys: frozenset[str]


def held(roots: Iterable[Node], dim: str, kept: Iterable[Node] = ()) -> dict[Node, str]:
    """What a program that has a piece of the dim holds of each value: it whole, a part, or neither. kept: what is loaded."""
    found = dict.fromkeys(kept, KNOWN)
    for n in topological(roots, found):
        found[n] = _held(n, [found[a] for a in n.args], dim)
    return found


def _held(n: Node, args: list[str], dim: str) -> str:
    if UNKNOWN in args or any(d != dim and base(d) == dim for d in n.dims) or _moves(n, dim):
        return UNKNOWN
    if n.op == "sum" and dim in n.names("over"):
        return PART
    if n.op == "amax" and dim in n.names("over"):
        return UNKNOWN
    if PART not in args:
        return KNOWN
    factor = {"mul": KNOWN not in args, "div": args[-1] == PART, "where": args[0] == PART, "affine_scan": args[0] == PART}
    return UNKNOWN if n.op not in LINEAR or factor.get(n.op, False) or any(dim in x.dims for x in (n, *n.args)) else PART


def _moves(n: Node, dim: str) -> bool:
    """Whether an operator works along the dim in a way that pieces cannot."""
    named = [str(value) for key, value in n.attrs if key in ("old", "new", "dim", "row", "col")]
    return n.op not in ("index", "block_index", "size") and any(base(d) == dim for d in named)


def counted_once(roots: Mapping[str, Node], dim: str, kept: Iterable[Node] = ()) -> dict[str, Node]:
    """The same gradients, whole values that are added to parts being zero in all programs but the first."""
    kinds = held(roots.values(), dim, kept)
    first = total(node("where", node("eq", index(dim), const(0.0)), const(1.0), const(0.0)), (dim,))
    done = {n: n for n in kept}
    for n in topological(roots.values(), kept):
        args = [done[a] for a in n.args]
        if kinds[n] == PART and n.op in ADDED:
            for i in ADDED[n.op]:
                if kinds[n.args[i]] == KNOWN and n.args[i] is not const(0.0):
                    args[i] = args[i] * first
        done[n] = node(n.op, *args, **dict(n.attrs)) if tuple(args) != n.args else n
    return {key: done[n] for key, n in roots.items()}


def parted(block: Block, roles: Roles, gradients: Mapping[str, Node], kept: Iterable[Node] = ()) -> tuple[Part, ...]:
    """The kernels of a chunk's gradients (by "d.NAME"), that of the block's own pieces first, and what each computes.
    kept: values that they load.

    A gradient that has a dim, and no sum over it, goes to the kernel that takes pieces of it, where two kernels cost less
    than one. One that every kernel would leave in parts goes where it adds least.
    """
    own = roles.blocked[0] if roles.blocked else None
    if block.form != "chunkwise" or BATCH in roles.blocked:
        return (Part(None, frozenset(gradients)),)
    shares = _Shares(block, roles, gradients, tuple(kept))
    dims = [d for d in _long_dims(block, roles) if d != own]
    mine: dict[str | None, list[str]] = {None: [key for key in gradients if shares.free(key, own)]}
    left = [key for key in gradients if key not in mine[None]]
    while dims:
        dim = max(dims, key=lambda d: sum(shares.free(key, d) for key in left))  # of equals the first
        dims.remove(dim)
        taken = [key for key in left if shares.free(key, dim)]
        rest = [key for key in left if key not in taken]
        there = [key for key in rest if shares.able(key, dim)]
        here = [key for key in rest if key not in there]
        apart = shares.cost(taken, dim) + shares.cost(mine[None] + rest, None)
        moved = shares.cost(taken + there, dim) + shares.cost(mine[None] + here, None)
        if taken and min(apart, moved) < shares.cost(mine[None] + left, None):
            mine[dim], left = taken, rest
    for key in left:
        able: list[str | None] = [d for d in mine if shares.able(key, d)]
        able = able if mine[None] or len(able) < 2 else [d for d in able if d is not None]
        least = min(able, key=lambda d: shares.cost([*mine[d], key], d) - shares.cost(mine[d], d))
        mine[least].append(key)
    return tuple(Part(dim, frozenset(keys)) for dim, keys in mine.items() if keys)


class _Shares:
    """What gradients cost in kernels that take pieces of a dim, None for the block's own."""

    def __init__(self, block: Block, roles: Roles, gradients: Mapping[str, Node], kept: tuple[Node, ...]) -> None:
        self.block, self.roles, self.gradients, self.kept = block, roles, gradients, kept
        self.own = roles.blocked[0] if roles.blocked else None
        self.kinds: dict[str, dict[Node, str]] = {}

    def kind(self, key: str, dim: str) -> str:
        if dim not in self.kinds:
            self.kinds[dim] = held(self.gradients.values(), dim, self.kept)
        return self.kinds[dim][self.gradients[key]]

    def free(self, key: str, dim: str | None) -> bool:
        """Whether each program has its own piece of it."""
        return dim is not None and dim in _axes(self.block, key) and self.kind(key, dim) == KNOWN

    def able(self, key: str, dim: str | None) -> bool:
        """Whether programs have it, or parts of it."""
        return dim is None or self.free(key, dim) or (dim not in _axes(self.block, key) and self.kind(key, dim) != UNKNOWN)

    def cost(self, keys: Iterable[str], dim: str | None) -> int:
        """Operations in all programs of a chunk, at extents that stand for any; results in parts are dear."""
        keys, along = list(keys), dim or self.own
        out = sum(self.work(n, along) for n in topological((self.gradients[key] for key in keys), self.kept))
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

    def extent(self, dims: Iterable[str]) -> int:
        """Elements."""
        out = 1
        for d in self.roles.axes(dims):
            out *= PIECE // 2 if is_time(d) else WHOLE
        return out


def _axes(block: Block, key: str) -> tuple[str, ...]:
    name = key[2:].partition("@")[0]
    return {**block.program.inputs, **block.program.params}[name].dims


def _long_dims(block: Block, roles: Roles) -> list[str]:
    """Dims of states that a chunk's program holds whole, and that may be as long as two pieces that fill a product."""
    extents = block.program.dims
    dims = [d for decl in block.program.states.values() for d in decl.dims if d in roles.order and d in extents]
    return [d for d in dict.fromkeys(dims) if not extents[d].choices or max(extents[d].choices) >= PIECE]
