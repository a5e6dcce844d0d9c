"""Form "step", a dim whose units several programs share out: what one program of the team computes, and what it must be told.

Before: `R @ h`, where a program holds R[D, D'] whole. After: `sum[D+](R[D, D+] * h[D+])`, where D is the program's own piece
of the units, and D+ all of them: the program holds the rows of R that make its own piece, and of `h` it has its own piece
and is told the rest. So it is with every sum over D: what is summed is told, and each program sums all of it in the same
order. A value that lacks D is computed by every program alike.

In: the graphs of a step, in pairs. Out: the graphs as one program has them, with a leaf ("told", NAME) for what the programs
tell each other, and the pieces that they tell. What no program can have (a matrix of states along D, a running sum along D) is
`NotShared`. Nothing here knows how programs wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.backends.triton_gpu.pairing import is_dot
from seqc.backends.triton_gpu.roles import ALL, Roles
from seqc.ir.dims import base
from seqc.ir.graph import Node, depends, leaf, leaves, node, rebuild, topological
from seqc.ir.keys import slope_of
from seqc.ir.ops import TABLE
from seqc.ir.traverse import reached

TOLD = "told"
VARYING = ("state", "cot", "value", "input", TOLD)


class NotShared(Exception):
    """No program has a piece of this value."""


@dataclass(frozen=True)
class Told:
    """leaf: a value with D+, all units; piece: what each program tells of it, with its own units D."""

    leaf: Node
    piece: Node


def shared_dim(forward: Mapping[str, Node], roles: Roles) -> str | None:
    """The dim D of most products `R[D, D'] @ x[D']` of a parameter's matrix and the past; None where there is none."""
    past = depends(forward.values(), leaves(forward.values(), "state"))
    found: dict[str, int] = {}
    for n in topological(forward.values()):
        if n in past and is_dot(n, roles):
            matrix = [a for a in n.args[0].args if a not in past and not leaves([a], "input")]
            units = {base(d) for a in matrix for d in roles.axes(a.dims)}
            if len(matrix) == 1 and len(units) == 1:
                found[units.pop()] = found.get(next(iter(units), ""), 0) + 1
    return max(found, key=lambda d: found[d]) if found else None


class TeamGraph:
    """The graphs of one program. dim: whose units programs share out; told: what they tell each other, in the order of need."""

    def __init__(self, dim: str) -> None:
        self.dim, self.all = dim, dim + ALL
        self.done: dict[Node, Node] = {}
        self.told: dict[Node, Told] = {}  # by the piece

    def gradients(self, graph: Mapping[str, Node]) -> tuple[dict[str, Node], frozenset[str]]:
        """(each result of backward as a program has it, those of inputs and params of which it has a part, to be added up)."""
        found, parts = {}, set()
        for key, n in graph.items():
            summed = n.op == "sum" and any(map(self.mine, n.names("over"))) and not self.units(n)
            if summed and not slope_of(key).carried:
                found[key] = self.part(n)
                parts.add(key)
            else:
                found[key] = self.own(n)
        return found, frozenset(parts)

    def rounds(self, roots: Iterable[Node]) -> list[list[Told]]:
        """What must be told for these values: what each round tells depends on what earlier ones told alone."""
        known = {one.leaf: one for one in self.told.values()}
        depth: dict[Node, int] = {}

        def needs(n: Node) -> list[Told]:
            return [known[x] for x in leaves([n], TOLD)]

        def level(one: Told) -> int:
            if one.leaf not in depth:
                depth[one.leaf] = 1 + max((level(x) for x in needs(one.piece)), default=-1)
            return depth[one.leaf]

        wanted = reached((one for n in roots for one in needs(n)), lambda one: needs(one.piece))
        out: list[list[Told]] = [[] for _ in range(1 + max(map(level, wanted), default=-1))]
        for one in wanted:
            out[level(one)].append(one)
        return out

    # ---- dims ----

    def mine(self, d: str) -> bool:
        """Whether d is the dim, under any of its names."""
        return base(d) == self.dim

    def units(self, n: Node) -> list[str]:
        return [d for d in n.dims if self.mine(d)]

    def along(self, dims: Iterable[str], to: str) -> tuple[str, ...]:
        """Dims with the dim's names replaced."""
        return tuple(dict.fromkeys(to if self.mine(d) else d for d in dims))

    # ---- a program's own piece ----

    def own(self, root: Node) -> Node:
        """A value as a program has it: its own units, under the name D."""
        for n in topological([root], self.done):
            if n not in self.done and len(self.units(n)) < 2:
                self.done[n] = self.piece(n)
        if root not in self.done:
            raise NotShared
        return self.done[root]

    def piece(self, n: Node) -> Node:
        mine = self.units(n)
        match n.op:
            case "leaf":
                shape = self.along(n.names("shape"), self.dim)
                return n if not mine else leaf(n.text("kind"), n.text("name"), shape, n.number("offset"), n.dtype)
            case "const" | "size":
                return n
            case "index" | "block_index" if mine:
                return node(n.op, **{**dict(n.attrs), "dim": self.dim})
            case "rename" if self.mine(n.text("old")) or self.mine(n.text("new")):
                return self.arg(n.args[0])
            case "expand":
                return node("expand", self.arg(n.args[0]), over=self.along(n.names("over"), self.dim))
            case "sum" | "amax" if any(map(self.mine, n.names("over"))):
                return self.contracted(n)
            case "take" if self.mine(n.text("dim")):
                return node("take", self.whole(n.args[0], n.text("dim")), dim=self.all, at=n.number("at"))
        if not TABLE[n.op].elementwise and any(isinstance(v, str) and self.mine(v) for _, v in n.attrs):
            raise NotShared
        return rebuild(n, tuple(map(self.arg, n.args)))

    def arg(self, n: Node) -> Node:
        if n not in self.done:
            raise NotShared
        return self.done[n]

    def contracted(self, n: Node) -> Node:
        """A sum, or a maximum, over the dim: of all units."""
        inner = n.args[0]
        over = [d for d in n.names("over") if self.mine(d)]
        if len(over) != 1:
            raise NotShared
        (x,) = over
        constant = inner.op == "mul" and any(not _varies(a) for a in inner.args)
        if len(self.units(inner)) == 1 and not (n.op == "sum" and constant):
            return node(n.op, self.whole(inner, x), over=self.along(n.names("over"), self.all))
        if n.op != "sum" or inner.op != "mul":
            raise NotShared
        factors = []
        for a in inner.args:
            rows = [d for d in self.units(a) if d != x]
            if not rows:
                factors.append(self.whole(a, x) if x in a.dims else self.arg(a))
            elif x in a.dims and len(rows) == 1 and not _varies(a):
                factors.append(self.renamed(a, {x: self.all, rows[0]: self.dim}))
            else:
                raise NotShared
        return node("sum", node("mul", *factors), over=self.along(n.names("over"), self.all))

    def part(self, n: Node) -> Node:
        """A sum over the dim, of a program's own units."""
        return node("sum", self.own(n.args[0]), over=self.along(n.names("over"), self.dim))

    # ---- all units ----

    def whole(self, n: Node, x: str) -> Node:
        """A value with all units of its axis x: told, but for what parameters and inputs alone make."""
        if not _varies(n, ("state", "cot", "value", TOLD)):
            return self.renamed(n, {x: self.all})
        piece = self.arg(n)
        if piece not in self.told:
            shape = self.along(piece.dims, self.all)
            self.told[piece] = Told(leaf(TOLD, f"told_{len(self.told)}", shape), piece)
        return self.told[piece].leaf

    def renamed(self, n: Node, names: Mapping[str, str]) -> Node:
        """A value under other names of its dims."""
        match n.op:
            case "leaf":
                shape = tuple(names.get(d, d) for d in n.names("shape"))
                return leaf(n.text("kind"), n.text("name"), shape, n.number("offset"), n.dtype)
            case "const" | "size":
                return n
            case "index" | "block_index":
                return node(n.op, **{**dict(n.attrs), "dim": names.get(n.text("dim"), n.text("dim"))})
            case "rename":
                old, new = n.text("old"), n.text("new")
                inside = {(old if d == new else d): to for d, to in names.items()}
                if new in names:
                    return self.renamed(n.args[0], inside)
                return node("rename", self.renamed(n.args[0], inside), old=old, new=new)
        if not TABLE[n.op].elementwise:
            raise NotShared
        return rebuild(n, tuple(self.renamed(a, names) for a in n.args))


def _varies(n: Node, kinds: Iterable[str] = VARYING) -> bool:
    """Whether leaves of some kind stand below n."""
    return any(x.text("kind") in kinds for x in leaves([n]))
