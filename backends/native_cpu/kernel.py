"""One kernel -> C++: the scratch memory, the program function with its loops over time, the loop over programs.

In: a `Plan`. Out: the text of `seqc_forward` or `seqc_backward`, and the arrays that its caller passes, in order.
The regions of a kernel (what happens before the first step, at each step, when a segment is run again, after the last step)
are scheduled one by one; buffers are shared by name. This file decides nothing about a single nest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seqc.backends.native_cpu.active import spikes_of, two_ways
from seqc.backends.native_cpu.blocks import joins
from seqc.backends.native_cpu.code import MEET, MEMORY, VARIABLE, Code, declared, indented, mentioned, with_rows
from seqc.backends.native_cpu.copies import copied
from seqc.backends.native_cpu.nest import NestPrinter
from seqc.backends.native_cpu.nest_body import Scene
from seqc.backends.native_cpu.places import Place, buffer_place, buffer_size, filled, ident, tiled_place
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import Item, Nest, Region, immediate
from seqc.backends.native_cpu.sparse import SparseProduct, multiplying, sparse_product
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.views import Index, view

FEW = 8  # places: fewer leave most lanes of a vector empty


@dataclass
class Stretch:
    """One region with its nests. scalars: whether scalars are declared where it is printed."""

    name: str
    nests: list[Nest]
    region: Region
    guards: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """How many nests have the most dims: each reads a matrix state."""
        most = max((len(nest.space) for nest in self.nests), default=0)
        return sum(len(nest.space) == most for nest in self.nests)


class KernelWriter:
    """Collects regions, decides vectors' dims and buffer layouts for all of them together, then prints them."""

    def __init__(self, plan: Plan, title: str, packs: bool = True) -> None:
        """packs: whether parameters that would be read across memory are copied first, which many steps pay for."""
        self.plan, self.roles, self.title, self.packs = plan, plan.roles, title, packs
        self.stretches: dict[str, Stretch] = {}
        # value -> where it is read: the vectors' dim there, and what indexes its axes
        self.readers: dict[Node, list[tuple[str | None, dict[str, Index]]]] = defaultdict(list)
        self.given: dict[Node, Place] = {}  # leaves: where they lie
        self.targets: dict[str, Place] = {}
        self.buffers: dict[str, tuple[str, ...]] = {}  # scratch name -> axes
        self.segments: dict[str, int] = {}  # buffers with a slot for every step of a segment: how many slots more
        self.slotted: set[Node] = set()  # values kept for every step of a segment
        self.names = dict(plan.names)
        self.lines = dict(plan.lines)
        self.token: tuple[str, ...] = ()
        self.team = plan.teams and title != "step"  # whether several threads may share a program
        self.joins = joins(plan, title)  # whether a program takes several blocks of rows
        self.kept: dict[Node, str] = {}  # value -> buffer, "" for a scalar
        self.rows: dict[Node, str] = {}
        self.packed: dict[tuple[Node, str], str] = {}
        self.sparse: dict[tuple[str, int], list[SparseProduct]] = {}  # region, nest -> the products that walk lists
        self.tiled: set[str] = set()  # packed copies that are read by whole vectors alone
        self.axis_of: dict[tuple[str, int], str | None] = {}
        self.lane: str | None = None
        self.mentions: set[str] = set()  # what the nests name of what stands outside of them
        self.streams = plan.streams  # whether a step fetches what the next one reads

    # ---- collecting ----

    def add(
        self, name: str, stores: Iterable[Item], carried: Mapping[Node, str] | None = None, fixed: Iterable[Node] = (),
        keep: Iterable[Node] = (),
    ) -> Stretch:
        """Schedule one region. fixed: values that an earlier region has kept; keep: values to keep for a later one."""
        region = Region(self.roles, frozenset(self.given) | frozenset(fixed), carried or {}, f"{self.title}.{name}")
        self.stretches[name] = Stretch(name, region.nests(stores, keep), region)
        return self.stretches[name]

    def invariants(self, roots: Iterable[Node]) -> list[Node]:
        """The largest values below `roots` that no step changes, and that cost something."""
        order = topological(roots)
        moving = {n for n in order if n.op == "leaf" and n.text("kind") != "param"}
        for n in order:
            if any(a in moving for a in n.args):
                moving.add(n)
        out: dict[Node, None] = {}
        for user in [*order, *roots]:
            for a in user.args if user in moving else ():
                base = view(a).base
                if base not in moving and base.op != "leaf" and not immediate(base):
                    out[base] = None
        return list(out)

    def local(self, n: Node) -> tuple[str, ...]:
        """A node's dims inside a program."""
        return self.roles.local(n.dims)

    def home(self, n: Node) -> tuple[str, ...]:
        """The axes, in their order in memory, of what lies outside of the kernel's buffers; none of others."""
        return n.names("shape") if n in self.given and not self.given[n].inside else ()

    # ---- deciding ----

    def choose(self, token: tuple[str, ...]) -> None:
        """Vectors' dim of every nest, then the layout of every buffer. token: names of the regions run per step."""
        self.token = token
        self.lane = self._choose_lane(token)
        for s in self.stretches.values():
            for i, nest in enumerate(s.nests):
                self.axis_of[s.name, i] = self._choose_axis(s, nest)
        for name in token:
            self._find_sparse(self.stretches[name])
        for s in self.stretches.values():
            for i, nest in enumerate(s.nests):
                for read in (read for item in nest.items for read in s.region.cone(item)[1]):
                    self.readers[read.base].append((self.axis_of[s.name, i], dict(read.index)))
        for s in self.stretches.values():
            for i, nest in enumerate(s.nests):
                for item in nest.items:
                    if item.kind in ("keep", "reduce"):
                        self._place_kept(s, i, item)
        for s in self.stretches.values():
            if s.name in token:
                for i, nest in enumerate(s.nests):
                    self._pack(s, i, nest)

    def _choose_lane(self, token: tuple[str, ...]) -> str | None:
        wide = [axes for name, axes in self.buffers.items() if len([d for d in axes if d != BATCH]) >= 2]
        if not wide:
            return None
        cost = {d: 64 * self.few(d) for axes in wide for d in axes if d != BATCH}
        for name in token:
            s = self.stretches[name]
            for nest in s.nests:
                if len([d for d in nest.space if d != BATCH]) < 2:
                    continue
                for item in nest.items:
                    if item.kind == "reduce":
                        for d in item.value.names("over"):
                            if d in cost:
                                cost[d] += 2
                    for read in s.region.cone(item)[1]:
                        home = self.home(read.base)
                        if home and len(home) >= 2 and read.base.text("kind") != "param":
                            for d in home[:-1]:
                                if d in cost:
                                    cost[d] += 3
        spaces = [set(nest.space) for name in token for nest in self.stretches[name].nests]
        best = max(wide, key=lambda axes: (len(axes), sum(set(axes) - {BATCH} <= space for space in spaces)))
        return min((d for d in reversed(best) if d != BATCH), key=lambda d: cost[d])

    def _choose_axis(self, s: Stretch, nest: Nest) -> str | None:
        space = [d for d in nest.space if d != BATCH]
        if not space:
            return None
        if self.lane in space:
            return self.lane
        cost = {d: 3 * self.few(d) for d in space}  # less than a sum across vectors
        for item in nest.items:
            if item.kind == "reduce":
                for d in item.value.names("over"):
                    if d in cost:
                        cost[d] += 4
            for read in s.region.cone(item)[1]:
                home = self.home(read.base)
                index = dict(read.index)
                for d in home[:-1]:
                    if index.get(d) in cost:
                        cost[str(index[d])] += 1 if self.packs else 8
        return min(reversed(space), key=lambda d: cost[d])

    def few(self, dim: str) -> bool:
        """Whether every size of a dim is a few places, so that vectors along it are mostly empty."""
        decl = self.plan.program.dims[unprimed(dim)]
        return max(decl.choices, default=decl.default or FEW) < FEW

    def _place_kept(self, s: Stretch, number: int, item: Item) -> None:
        n = item.value
        dims = self.local(n)
        if n in self.kept:
            pass  # computed in two regions: one buffer serves both
        elif not dims and n not in self.slotted:
            self.kept[n] = ""
        else:
            readers = self.readers[n]
            last = dims[-1] if dims else ""
            wishes = [d for axis, index in readers for d, i in index.items() if i == axis and axis is not None]
            own = self.axis_of[s.name, number]
            if self.lane in dims:
                last = str(self.lane)
            elif wishes:
                last = wishes[0]
            elif own in dims:
                last = str(own)
            name = f"s_{ident(self.names.get(n, f'x{len(self.kept)}'))}"
            while name in self.buffers:
                name += "_"
            self.buffers[name] = (*(d for d in dims if d != last), last) if dims else ()
            self.kept[n] = name
            if n in self.slotted:
                self.segments[name] = 0
        listed = any(x.item is item for x in self.sparse.get((s.name, number), ()))
        if item.kind == "reduce" and n not in self.rows and self.axis_of[s.name, number] in n.names("over") and not listed:
            self.rows[n] = f"rows_{len(self.rows)}"

    def _find_sparse(self, s: Stretch) -> None:
        """Note the products of a region that walk the lists of a sparse matrix."""
        if self.packs and self.roles.blocked and self.lane is None:
            for number, nest in enumerate(s.nests):
                found = [sparse_product(self.plan, item, s.region.cone(item), self.given) for item in nest.items]
                if any(found):
                    self.sparse[s.name, number] = [x for x in found if x]

    def listed(self) -> list[SparseProduct]:
        """One product for each matrix that is packed as lists."""
        return list({x.name: x for found in self.sparse.values() for x in found}.values())

    def _pack(self, s: Stretch, number: int, nest: Nest) -> None:
        """Parameters that a nest would read across memory get a copy whose last axis is the vectors' dim; matrices that
        rows of the batch share, one whose vectors lie in the order in which a product takes them."""
        axis = self.axis_of[s.name, number] if self.packs else None
        listed = [x.item for x in self.sparse.get((s.name, number), ())]
        reads = [read for item in nest.items if item not in listed for read in s.region.cone(item)[1]]
        for read in reads if axis is not None else ():
            home = self.home(read.base)
            if not home or read.base.text("kind") != "param":
                continue
            along = [d for d, i in read.index if i == axis]
            inside = self.roles.local(home)
            matrix = self.roles.blocked and len(inside) > 1
            if not along or (home[-1] == along[0] and not matrix):
                continue
            name = f"s_{ident(read.base.text('name'))}_by_{ident(along[0])}"
            while name in self.buffers and self.packed.get((read.base, along[0])) != name:
                name += "_"
            if (read.base, along[0]) not in self.packed:
                self.packed[read.base, along[0]] = name
                self.buffers[name] = (*(d for d in inside if d != along[0]), along[0])
                if matrix:
                    self.tiled.add(name)
            if any(r.base is read.base and dict(r.index).get(along[0]) != axis for r in reads):
                self.tiled.discard(name)

    def packing(self) -> None:
        """The region that fills the packed copies."""
        stores = []
        for (n, _), name in self.packed.items():
            self.targets[f"w.{name}"] = self.place_of(name)
            stores.append(Item("out", n, self.local(n), f"w.{name}"))
        self.add("pack", stores)
        for i, nest in enumerate(self.stretches["pack"].nests):
            self.axis_of["pack", i] = self.buffers[nest.items[0].target[2:]][-1]

    def place_of(self, name: str) -> Place:
        """The place of a scratch buffer."""
        base = f"p_{name}" if name in self.segments else f"w.{name}"
        return (tiled_place if name in self.tiled else buffer_place)(base, self.buffers[name])

    # ---- printing ----

    def region(self, name: str, indent: int, before: tuple[str, ...] = ()) -> list[Code]:
        """The code of a region. before: regions whose kept values it may read; those of every step it may read too."""
        s = self.stretches[name]
        lines: list[Code] = []
        places = dict(self.given)
        for n, buffer in self.kept.items():
            places[n] = self.place_of(buffer) if buffer else Place(self._scalar(n), {}, scalar=True)
        visible = set(self.given) | (self.slotted if name == "token" else set())
        for earlier in before:
            visible |= {i.value for nest in self.stretches[earlier].nests for i in nest.items if i.kind in ("keep", "reduce")}
        for nest in s.nests:
            for item in nest.items:
                if item.kind in ("keep", "reduce") and self.kept[item.value] == "":
                    base, rows = places[item.value].base, self.rows.get(item.value)
                    lines.append(declared(f"real {base};", base, takes=VARIABLE))
                    lines += [declared(f"alignas(64) real {rows}[W];", rows, takes=MEMORY)] if rows else []
        for i, nest in enumerate(s.nests):
            axis = self.axis_of[s.name, i]
            listed = self.sparse.get((name, i), [])
            if listed:
                lines += with_rows([multiplying(listed, places, self.team)])
                visible |= {x.item.value for x in listed}
                nest = Nest(nest.space, tuple(item for item in nest.items if item not in [x.item for x in listed]))
                if not nest.items:
                    continue
            # several packed copies share a space, but not the dim of their vectors
            for part in [Nest(nest.space, (item,)) for item in nest.items] if name == "pack" else [nest]:
                if name == "pack":
                    axis = self.buffers[part.items[0].target[2:]][-1]
                here = dict(places)
                for (n, along), buffer in self.packed.items():
                    reads = [r for item in part.items for r in s.region.cone(item)[1] if r.base is n]
                    found = [i == axis for r in reads for d, i in r.index if d == along]
                    if name != "pack" and (all(found) and bool(found) if buffer in self.tiled else any(found)):
                        here[n] = self.place_of(buffer)
                scene = Scene(self.roles.panel, self.roles.grid, here, self.targets, self.names,
                              {n: f"w.{row}" if self.kept[n] else row for n, row in self.rows.items()}, s.guards)
                lines += [f"// {c}" for c in self._comments(s, part)]
                lines += with_rows(self._nest(name, part, axis, scene, frozenset(visible)))
                visible |= {item.value for item in part.items if item.kind in ("keep", "reduce")}
        self.mentions |= mentioned(lines)
        return indented(lines, indent)

    def _nest(
        self, name: str, nest: Nest, axis: str | None, scene: Scene, visible: frozenset[Node], listed: str | None = None
    ) -> list[Code]:
        """The code of a nest; that of a team's share of it. listed: the loop that runs over a list of columns, "" for none;
        None: the nest is printed in both ways where a list may serve."""
        copies = copied(nest, scene, self.team, name not in self.token)
        if listed is None and self._lists_pay(name, axis) and not copies:
            lines = list[Code]()
            for spikes, part in spikes_of(self.plan, nest, scene.places).items():
                few = self._nest(name, part, axis, scene, visible, spikes[2]) if spikes else []
                whole = self._nest(name, part, axis, scene, visible, "")
                lines += [two_ways(spikes, scene.places[spikes[0].base], few, whole)] if spikes else whole
            return lines
        printer = NestPrinter(nest, axis, scene, visible)
        printer.listed = listed or ""
        printer.joins = self.joins
        if not self.team:
            printer.onward = self.streams and name == "token" and self.title != "step"
            return copies or [printer.print()]
        if copies:
            return copies
        if printer.divisible:
            printer.team = "steps" if name in self.token else "once"
            return [printer.print(), MEET]
        own = [i for i in nest.items if i.kind in ("keep", "reduce") and self.kept.get(i.value) == ""]
        if own:  # variables: each thread has its own, before what the others of the nest overwrite
            rest = [i for i in nest.items if i not in own]
            first = NestPrinter(Nest(nest.space, tuple(own)), axis, scene, visible)
            first.joins = self.joins
            lines = [first.print(), MEET]
            known = visible | {i.value for i in own}
            return lines + (self._nest(name, Nest(nest.space, tuple(rest)), axis, scene, known, listed) if rest else [])
        return ["if (team.first()) {", *indented([printer.print()], 1), "}", MEET]

    def _lists_pay(self, name: str, axis: str | None) -> bool:
        """Whether a list of columns may serve: in the steps of forward, where rows of a matrix are the lanes of vectors."""
        return self.title == "forward" and name == "token" and axis is not None and self.roles.blocked and self.lane is None

    def _scalar(self, n: Node) -> str:
        """The name of a scalar's variable."""
        scalars = [k for k, b in self.kept.items() if not b]
        number = scalars.index(n)
        name = ident(self.names[n]) if n in self.names else ""
        before = {ident(self.names[k]) for k in scalars[:number] if k in self.names}
        plain = name and name not in before and not (name[0] == "c" and name[1:].isdecimal())
        return f"s_{name}" if plain else f"s_c{number}"

    def _comments(self, s: Stretch, nest: Nest) -> list[str]:
        """The spec's lines that a nest computes."""
        found: dict[str, None] = {}
        for item in nest.items:
            for n in [*s.region.cone(item)[0], item.value]:
                if n in self.lines:
                    found[self.lines[n]] = None
        return list(found)

    def scratch(self, name: str) -> list[str]:
        """The struct of the buffers."""
        own = []
        for buffer, axes in self.buffers.items():
            slots = f"{self.plan.every + self.segments[buffer]} * " if buffer in self.segments else ""
            own.append(f"{buffer}[{slots}{buffer_size(axes)}]")
        rows = [f"{row}[{buffer_size(self.buffers[self.kept[n]])} * W]" for n, row in self.rows.items() if self.kept[n]]
        lines = [f"struct {name} {{"]  # rows of a variable are variables too: each thread of a team computes it
        lines += ["  static constexpr i64 w_B = wide, z_B = padded(wide);"] * self.joins
        lines += filled("alignas(64) real", [*own, *rows]) if own or rows else []
        lines += [f"  {x.type} {x.name};" for x in self.listed()]
        if not (own or rows or self.listed()):
            lines.append("  real unused;")
        return [*lines, "};"]

