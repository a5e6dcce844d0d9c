"""A kernel's loop tree -> what the tile solver needs to know of it.

In: a `Schedule`, one of its kernels as printed, extents of the dims, the storage type. Out: a `KernelSummary`: dims with
their roles, the tiles that are live at once where most are, matrix products, elementwise work, traffic. It counts tiles by
their axes and never looks at text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from math import prod

from seqc.analysis.cost import weight
from seqc.analysis.workload import TILED_BATCH
from seqc.backends.triton_gpu.kernel import SPANS, Fetch, Item, Let, Load, Loop, Meet, Store, walk
from seqc.backends.triton_gpu.order import WARPS
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.roles import ALL, COLUMNS, lines, rank_tile
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.spans import CALL
from seqc.backends.triton_gpu.team import UNITS
from seqc.backends.triton_gpu.tuning.kernel_summary import Dim, Dot, KernelSummary, Limit, Pieces, Role, Tile, Work
from seqc.backends.triton_gpu.uses import Uses, taken
from seqc.ir.block import BATCH, COL, ROW
from seqc.ir.dims import PIECE, base, is_piece, is_rank, is_time
from seqc.ir.graph import Node, operands

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
ADDRESS = 2.0  # operations for the address of each element that is loaded or stored
TURNS = 8  # of a span, where a call says how many: tiles are chosen for this number
LANES = 32  # neighbouring elements that one warp should read at once


def summarize(
    plan: Schedule, printed: Printed, sizes: Mapping[str, int], kind: str, lean: Collection[str] = (),
    wide: Collection[str] = (),
) -> KernelSummary:
    """The summary of one kernel. kind: "fp32", "bf16" or "fp16"; lean: arrays in that type, whatever they say; wide: inputs in
    fp32."""
    return _Summary(plan, printed, sizes, kind, lean, wide).make()


def summarize_team(plan: Schedule, printed: Printed, sizes: Mapping[str, int], kind: str) -> KernelSummary:
    """The summary of a kernel whose programs share out a head: loads go to registers, and of what is contracted the longest
    operand and the sums of the warps' parts stand in shared memory."""
    whole = [d for d in plan.program.dims if d.endswith(ALL)]
    dim = whole[0].removesuffix(ALL)
    one_piece = replace(plan, roles=replace(plan.roles, passed=()))
    made = summarize(one_piece, printed, {**sizes, **dict.fromkeys(whole, sizes[dim])}, kind)
    parts = [Tile((*dot.m, *dot.n), 4 * WARPS) for dot in made.dots if dot.k[0] in whole]
    told = [Tile((BATCH, *dot.k), BYTES[kind]) for dot in made.dots if dot.k[0] in whole]
    loops = [loop for step in printed.kernel.loops() for loop in step.body if isinstance(loop, Loop) and loop.some]
    ahead = 1 + any(sum(isinstance(i, Loop) and bool(i.keeps) for i in loop.body) > 1 for loop in loops)
    held = [one for one in made.kept if set(whole) & set(one.dims)]
    rest = tuple(one for one in made.kept if one not in held)
    held += held[:1] * sum(4 - len(four.sums) for loop in printed.kernel.loops() if loop.held for four in loop.fours)  # zeros
    live = tuple(replace(one, bytes=BYTES[kind]) if set(whole) & set(one.dims) else one for one in made.live)
    limits = (
        Limit(f"a program of a team does {UNITS} units of {dim}", f"B{dim}", "==", UNITS),
        Limit("a warp for each part of a long product", "warps", "==", WARPS),
    )
    meets = sum(isinstance(item, Meet) for loop in printed.kernel.loops() for item in loop.body)
    told, held = ([replace(one, bytes=2 * one.bytes if kind == "fp32" else one.bytes) for one in x] for x in (told, held))
    again = held if printed.kernel.in_fours else held[:2]
    pieces = Pieces(-(-sizes[dim] // COLUMNS), tuple(told[:1] * ahead), tuple(held), tuple(again))
    return replace(
        made, staged=(), scratch=tuple(parts[:1]), kept=rest, live=live, meets=meets, shares=dim, pieces=pieces, limits=limits
    )


class _Summary:
    def __init__(
        self, plan: Schedule, printed: Printed, sizes: Mapping[str, int], kind: str, lean: Collection[str],
        wide: Collection[str],
    ) -> None:
        self.plan, self.printed, self.sizes, self.kind, self.lean, self.wide = plan, printed, sizes, kind, lean, wide
        self.roles, self.kernel = plan.roles, printed.kernel
        self.uses = Uses(self.kernel.body, self.roles)

    def make(self) -> KernelSummary:
        items = list(_innermost(self.kernel.body))
        states = [d.leaf() for d in self.plan.program.states.values()]
        dots = tuple(self.dots(items))
        kept = self.kept(items)
        sides = [side for dot in dots for side in ((*dot.m, *dot.k), (*dot.k, *dot.n))]
        operands = [Tile(side, BYTES[self.kind]) for side in sides]
        operands = [tile for tile in operands if all(set(tile.dims) != set(one.dims) for one in kept)]
        loads = [i for i in items if isinstance(i, Load)]
        stores = [i for i in items if isinstance(i, Store) and not (self.plan.spans == CALL and SPANS in i.array.axes)]
        carried = () if self.kernel.block_in_grid else tuple(self.tile(n) for n in states)
        return KernelSummary(
            name=self.kernel.name,
            dims=tuple(self.dims()),
            live=tuple(self.live(items, set(states))),
            carried=carried,
            staged=tuple(self.stored(i) for i in loads if len(lines(self.axes(i.node))) == 2),
            scratch=tuple(sorted(operands, key=self.volume)[-2:]),
            kept=tuple(kept),
            dots=dots,
            work=tuple(self.work(items)),
            read=tuple(self.stored(i) for i in loads for _ in range(self.times(i.node.dims))),
            written=tuple(self.stored(i) for i in stores),
            rows=self.plan.block.rows,
            loops_over_time=not (self.kernel.block_in_grid or self.kernel.span_in_grid),
            span=(self.kernel.spans or TURNS) if self.kernel.span_in_grid else 1,
            fetches=self.kernel.rows == 1 and any(isinstance(i, Fetch) for i in walk(self.kernel.body)),
            limits=tuple(self.limits()),
        )

    def axes(self, n: Node) -> tuple[str, ...]:
        return self.roles.axes(n.dims)

    def tile(self, n: Node) -> Tile:
        return Tile(self.axes(n))

    def stored(self, item: Load | Store) -> Tile:
        narrow = item.array.name in self.lean or item.array.dtype in ("io", *(["state"] if self.kind == "bf16" else []))
        narrow &= not item.array.of(self.wide)
        spans = self.kernel.spans if SPANS in item.array.axes else 1  # of several turns one stores it
        return Tile(self.axes(item.node), BYTES[self.kind] if narrow else max(1, 4 // spans))

    def volume(self, tile: Tile) -> int:
        out = tile.bytes
        for d in tile.dims:
            out *= self.length(d)
        return out

    def length(self, dim: str) -> int:
        if is_time(dim):
            return self.plan.block.rows
        if is_rank(dim):
            return rank_tile(base(dim))
        size = TILED_BATCH.batch if dim == BATCH else PIECE if is_piece(dim) else self.sizes[base(dim)]
        return min(size, PIECE) if dim in self.roles.passed else size

    def times(self, dims: Iterable[str]) -> int:
        """How many pieces a program passes through of a value with these dims."""
        return prod(-(-self.sizes[d] // PIECE) for d in self.roles.passed if d in dims)

    def dims(self) -> Iterable[Dim]:
        for d in self.roles.grid:
            if d != BATCH:
                yield Dim(d, "grid", self.sizes[d])
        for d in self.roles.order:
            role: Role = "block" if d in self.roles.blocked else "passed" if d in self.roles.passed else "whole"
            yield Dim(d, role, self.length(d))

    def limits(self) -> Iterable[Limit]:
        for d in self.roles.blocked:
            if d != BATCH:
                least = min(16 if d in self.printed.in_dots else LANES, 1 << max(self.sizes[d] - 1, 0).bit_length())
                yield Limit(f"the lanes of a warp read {least} neighbours along {d}", f"B{d}", ">=", least)
        for d, allowed in self.plan.block.program.wishes.tiles.items():
            if d in self.roles.blocked:
                words = "{" + ", ".join(map(str, allowed)) + "}"
                dot = ", and a matrix product takes at least 16" if d in self.printed.in_dots and max(allowed) < 16 else ""
                most = f"the spec's `tile {d} {words}` allows at most {max(allowed)}{dot}"
                yield Limit(most, f"B{d}", "<=", max(allowed))
                yield Limit(f"the spec's `tile {d} {words}` allows at least {min(allowed)}", f"B{d}", ">=", min(allowed))

    def dots(self, items: list[Item]) -> Iterable[Dot]:
        for node in self.products(items):
            a, b, result = (frozenset(self.axes(x)) for x in (*node.args[0].args, node))
            k, m, n = (self.roles.axes(x) for x in ((a & b) - result, a & result, b & result))
            turned = self.printed.turned.get(node)
            m, n = (n, m) if turned in n else (m, n)
            yield Dot(m, n, k, self.kind if self.kind != "fp32" else "tf32", self.times(a | b), turned=turned is not None)

    def products(self, items: Iterable[Item]) -> list[Node]:
        """The matrix products."""
        return [item.node for item in items if isinstance(item, Let) and self.uses.is_dot(item.node)]

    def kept(self, items: list[Item]) -> list[Tile]:
        """Operands of products that the loop does not change: they stay, once for each way they lie."""
        inside = {i.node for i in items if isinstance(i, Load | Let)}
        found: dict[tuple[Node, str], Tile] = {}
        for product in self.products(items):
            a, b, result = (frozenset(self.axes(x)) for x in (*product.args[0].args, product))
            k = self.roles.axes((a & b) - result)
            for n in product.args[0].args:
                across = k[0]
                while n.op == "rename":
                    across = n.text("old") if across == n.text("new") else across
                    n = n.args[0]
                if n not in inside and not (n.op == "leaf" and n.text("kind") in ("state", "cot")):
                    found[n, across] = Tile(self.axes(n), BYTES[self.kind])
        return list(found.values())

    def work(self, items: list[Item]) -> Iterable[Work]:
        """Elementwise work and sums that are no matrix products, tiles of the same axes counted together."""
        pieces = dict.fromkeys((d for d in self.plan.program.dims if is_piece(d)), PIECE)
        sizes = {**self.sizes, **pieces, ROW: self.plan.block.rows, COL: self.plan.block.rows, BATCH: TILED_BATCH.batch}
        total: dict[tuple[str, ...], float] = {}
        fused = _summed(items)
        for item in items:
            if isinstance(item, Load | Store):
                axes, each = self.axes(item.node), ADDRESS
            elif isinstance(item, Let) and item.node.op == "sum":
                n = item.node.args[0]
                factors = n.args if n.op == "mul" else (n,)
                if self.uses.is_dot(item.node):
                    continue
                axes, each = self.roles.axes({d for f in factors for d in f.dims}), 1.0
            elif isinstance(item, Let) and item.node not in fused and item.node.args:
                axes, each = self.axes(item.node), weight(item.node, sizes)
            else:
                continue
            total[axes] = total.get(axes, 0.0) + each * self.times(axes)
        return (Work(axes, round(much)) for axes, much in total.items() if axes and much >= 0.5)

    def held(self, n: Node) -> Tile:
        """A value in registers, in fp32; an operand that every warp of four holds whole takes four times its narrow type."""
        everywhere = self.uses.in_every_warp(n, self.plan.block.rows)
        return Tile(self.axes(n), WARPS * BYTES[self.kind] if everywhere else 4)

    def live(self, items: list[Item], carried: set[Node]) -> list[Tile]:
        """The tiles alive at once where they hold most. A product that is summed as it is made never exists."""
        nodes = [i.node if isinstance(i, Load | Let) else None for i in items]
        fused = _summed(items)
        free = {n for n in nodes if n is not None and (n in fused or n.op in ("rename", "expand", "index", "const", "size"))}
        last: dict[Node, int] = {}
        for at, item in enumerate(items):
            for used in taken(item):
                for real in self.real(used, free):
                    last[real] = at
        ends: dict[int, list[Node]] = {}
        alive: dict[Node, None] = {}
        held = most = 0
        best: list[Node] = []
        for at, n in enumerate(nodes):
            if n is not None and n not in free and n not in carried and n not in alive and self.axes(n):
                alive[n] = None
                held += self.volume(self.held(n))
                ends.setdefault(last.get(n, at), []).append(n)
            if held > most:
                most, best = held, list(alive)
            for x in ends.pop(at, ()):
                del alive[x]
                held -= self.volume(self.held(x))
        return [self.held(n) for n in best]

    def real(self, n: Node, free: set[Node]) -> list[Node]:
        """The values that stand behind one that is not held itself."""
        return operands(n, lambda x: x in free or x.op in ("rename", "expand"))


def _innermost(items: Iterable[Item]) -> Iterable[Item]:
    """The items of the body that is run most often: what stands outside loops over time counts only where there is none."""
    listed = [x for item in items for x in (_pieces(item))]
    loops = [i for i in listed if isinstance(i, Loop)]
    if not loops:
        return listed
    return max((list(_innermost(loop.body)) for loop in loops), key=len)


def _pieces(item: Item) -> Iterable[Item]:
    """What a loop over the pieces of a dim has in it; another item is itself."""
    within = isinstance(item, Loop) and (item.sums or item.keeps)
    return chain.from_iterable(map(_pieces, item.body)) if within else (item,)  # type: ignore[union-attr]


def _summed(items: Iterable[Item]) -> set[Node]:
    """Products that are summed as they are made."""
    sums = (i.node for i in items if isinstance(i, Let) and i.node.op == "sum")
    return {n.args[0] for n in sums if n.args[0].op == "mul"}
