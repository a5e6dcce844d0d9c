"""One kernel at one number of rows on one target: its variables, its budgets in English, and a model of its time.

Comes in: a `KernelSummary` and a `Target`. Goes out: variables, constraints and expressions, for `kernel_problem` to put
together. The time is modelled, not measured: arithmetic at the target's rates, traffic at its bandwidth, and a fixed
latency for every product and every wait. It ranks tiles; it predicts no benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from types import MappingProxyType

from seqc.analysis.workload import TILES, Workload
from seqc.backends.triton_gpu.roles import ALL, COLUMNS
from seqc.backends.triton_gpu.tuning.kernel_summary import Dim, KernelSummary, Tile
from seqc.backends.triton_gpu.tuning.multiprocessor import CACHE, MEMORY, Spent, code, spent
from seqc.backends.triton_gpu.tuning.quarantine import TURNED_ROWS, Use, quarantined
from seqc.backends.triton_gpu.tuning.targets import Target
from seqc.backends.triton_gpu.tuning.verdicts import Verdict
from seqc.ir.graph import COL, ROW
from seqc.solver.expression import Chosen, Const, Expr, Name, Product, Sum, ceil_div, evaluate, lift, most
from seqc.solver.problem import Constraint, Variable

__all__ = ["LOCAL_BYTES", "OVERHEAD_REGISTERS", "KernelModel"]

WARPS = (4, 8, 2, 1)
STAGES = (2, 3, 1)
RESIDENT = (1, 2, 3, 4, 6, 8)
AT_ONCE = (4, 3, 2, 1)
BARRIERS = 256  # bytes of a team's program for barriers of products that are not waited for at once, as on sm_100
DOT = 16
"""Least extent of an operand of `tl.dot`."""

OVERHEAD_REGISTERS = 40
"""Registers a thread for addresses, masks and loop counters, before any tile."""
DOT_LATENCY = 100
"""Nanoseconds from the first operand of a product to its last result, barriers included, whatever its size."""
LOAD_LATENCY = 800
"""Nanoseconds that a load from memory takes; stages hide it."""
MEET_LATENCY = 1200
"""Nanoseconds from what a program tells to what the others read of it: a store, a counter and a load, each by way of the
second-level cache, about 350 ns there and back."""
LOCAL_BYTES = 100
"""Bytes a nanosecond between a unit and the memory nearest to it, where spilled registers go."""


NOT_RENAMED: Mapping[str, str] = MappingProxyType({})


class KernelModel:
    """One kernel at one number of rows.

    prefix: before the names of its variables; called: those that have another name; spilling: registers may spill; scale:
    hundredths of the counted registers that the kernel takes.
    """

    def __init__(
        self,
        summary: KernelSummary,
        target: Target,
        workload: Workload = TILES,
        prefix: str = "",
        called: Mapping[str, str] = NOT_RENAMED,
        spilling: bool = False,
        scale: int = 100,
    ) -> None:
        self.summary, self.target, self.workload = summary, target, workload
        self.prefix, self.called, self.spilling, self.scale = prefix, called, spilling, scale
        self.dims = {dim.name: dim for dim in summary.dims}
        self.in_dots = {side[0] for dot in summary.dots for side in (dot.m, dot.n, dot.k)}  # a side is as long as its first
        self.threads = self.name("warps") * target.warp

    def called_by(self, own: str) -> str:
        return self.called.get(own, self.prefix + own)

    def name(self, own: str) -> Name:
        return Name(self.called_by(own))

    def constraints(self, kept: Iterable[Expr] = (), made: Iterable[Expr] = ()) -> list[Constraint]:
        """Everything that tiles must satisfy. kept: 1 at tiles that are known to keep all registers, whatever is counted; made:
        the same of those whose shared memory is known to be there."""
        return [*self.limits(), *self.budgets(kept, made), *self.quarantine()]

    def variables(self) -> tuple[Variable, ...]:
        out = []
        for dim in self.dims.values():
            if dim.role == "block":
                out.append(Variable(self.called_by(f"B{dim.name}"), self.blocks(dim), f"block of {dim.name}"))
        for own, domain, meaning in (
            ("warps", WARPS, "warps of a program"),
            ("stages", self.stages(), "loads in flight"),
            ("resident", RESIDENT, "programs that share a unit"),
        ):
            out.append(Variable(self.called_by(own), domain, meaning))
        if self.summary.pieces is not None:
            many = tuple(range(self.summary.pieces.count, -1, -1))
            out.append(Variable(self.called_by("held"), many, "pieces of matrices that a program holds"))
            out.append(Variable(self.called_by("at_once"), AT_ONCE, "pieces of what it is told that it takes at once"))
        return tuple(out)

    def stages(self) -> tuple[int, ...]:
        one = self.summary.meets or self.summary.fetches
        return STAGES if (self.summary.loops_over_time or self.summary.span > 1) and not one else (1,)

    def blocks(self, dim: Dim) -> tuple[int, ...]:
        """Powers of two from the least useful block to the one that holds the whole dim, largest first."""
        least = DOT if dim.name in self.in_dots else 1
        top = min(max(_power(dim.size), least), 256)
        return tuple(1 << i for i in range(top.bit_length() - 1, least.bit_length() - 2, -1))

    def extent(self, name: str) -> Expr:
        """Length of a dim in a tile."""
        dim = self.dims[name]
        match dim.role:
            case "block":
                return self.name(f"B{name}")
            case "grid":
                return Const(1)
        padded = _power(dim.size)
        return Const(max(padded, DOT) if name in self.in_dots else padded)

    def elements(self, dims: Iterable[str]) -> Expr:
        """Elements of a tile of these dims, constants folded into one factor."""
        factors = [self.extent(name) for name in dims]
        fixed = 1
        for factor in factors:
            fixed *= factor.value if isinstance(factor, Const) else 1
        return Product((Const(fixed), *(factor for factor in factors if not isinstance(factor, Const))))

    def total(self, tiles: Iterable[tuple[tuple[str, ...], int]]) -> Expr:
        """The sum of elements times weight, tiles of the same dims counted together."""
        weights: dict[Expr, int] = {}
        for dims, weight in tiles:
            shape = self.elements(dims)
            assert isinstance(shape, Product)
            fixed, *rest = shape.parts
            assert isinstance(fixed, Const)
            core = Product(tuple(rest)) if rest else Const(1)
            weights[core] = weights.get(core, 0) + fixed.value * weight
        return Sum((Const(0), *(core * weight for core, weight in weights.items())))

    def bytes(self, tiles: Iterable[Tile]) -> Expr:
        return self.total((tile.dims, tile.bytes) for tile in tiles)

    def words(self) -> Expr:
        """Registers, of all threads, that the live tiles take."""
        held = (*self.summary.live, *self.summary.carried, *(() if self.target.vendor == "cuda" else self.summary.kept))
        tiles = ((tile.dims, tile.bytes * self.scale) for tile in held)
        return ceil_div(self.total(tiles), 400)

    def need(self) -> Expr:
        """Registers a thread, in sixteenths."""
        return ceil_div(self.words() * 16, self.threads)

    def room(self) -> int:
        return self.target.registers_per_thread - OVERHEAD_REGISTERS

    def spilled(self) -> Expr:
        """Nanoseconds a turn by the model: what the registers do not hold is written and read once."""
        over = most(0, self.words() + self.threads * -self.room())
        return ceil_div(over * 8, LOCAL_BYTES)

    def spill_time(self, verdict: Verdict, threads: int) -> int:
        """Nanoseconds a turn that a kernel's spills cost: by its instructions, or its bytes written and read once."""
        moved = max(2 * verdict.spills, 4 * verdict.count("spill")) if verdict.spills else 0
        return -(-moved * threads // LOCAL_BYTES)

    def limits(self) -> list[Constraint]:
        found = [
            Constraint(one.sentence, self.name(one.variable), one.relation, Const(one.value))
            for one in self.summary.limits
        ]
        if self.summary.shares:
            dim, units = self.dims[self.summary.shares], self.target.units
            sentence = f"the programs that share out {dim.name} wait for each other, and run at once on {units} units"
            team = ceil_div(dim.size, self.name(f"B{dim.name}"))
            found.append(Constraint(sentence, team, "<=", self.name("resident") * units))
            sentence = "tiles of a team are those of no more programs on a unit than its programs take"
            found.append(Constraint(sentence, self.name("resident") * units, "<=", team + (units - 1)))
        if self.summary.pieces is not None:
            shared = (self.name("resident") + -1) * self.misses()
            sentence = "what a program has no room for it reads in every step only where it has a unit for itself"
            found.append(Constraint(sentence, shared, "<=", Const(0)))
        return found

    def budgets(self, kept: Iterable[Expr], made: Iterable[Expr]) -> list[Constraint]:
        target, resident, warps = self.target, self.name("resident"), self.name("warps")
        shared = self.shared()
        known = [one * RESIDENT[-1] * 16 * target.shared_per_unit for one in made]
        held = self.threads * target.registers_per_thread  # no thread holds more, whatever is counted
        if not self.spilling:
            counted = self.words() + self.threads * OVERHEAD_REGISTERS
            held = most(counted * -1, held * -1) * -1
        fit = Constraint(
            f"the live tiles fit the {self.room()} registers that each thread of {target.name} has for them",
            self.words(),
            "<=",
            Sum((self.threads * self.room(), *(one * target.registers_per_unit * 16 for one in kept))),
        )
        return [
            *([] if self.spilling else [fit]),
            Constraint(
                f"resident programs share the {target.registers_per_unit} registers of a unit",
                resident * held,
                "<=",
                Const(target.registers_per_unit),
            ),
            Constraint(
                f"a program's tiles fit its {target.shared_per_program} bytes of shared memory",
                shared,
                "<=",
                Sum((Const(target.shared_per_program), *known)),
            ),
            Constraint(
                f"resident programs share the {target.shared_per_unit} bytes of shared memory of a unit",
                resident * (shared + target.shared_reserved),
                "<=",
                Sum((Const(target.shared_per_unit), *known)),
            ),
            Constraint(
                f"resident programs share the {target.warps_per_unit} warps of a unit",
                resident * warps,
                "<=",
                Const(target.warps_per_unit),
            ),
        ]

    def shared(self) -> Expr:
        kept = self.summary.kept if self.target.vendor == "cuda" else ()
        fixed = self.bytes(self.summary.staged) * self.name("stages") + self.bytes((*self.summary.scratch, *kept))
        pieces = self.summary.pieces
        if pieces is None:
            return fixed
        told = Sum(tuple(Chosen(((self.called_by("at_once"), n),)) * min(n, pieces.count) for n in AT_ONCE))
        held = self.name("held") * self.piece(pieces.held) if self.target.vendor == "cuda" else Const(0)
        return most(fixed, told * self.piece(pieces.told)) + BARRIERS + held + self.misses() * self.piece(pieces.again)

    def piece(self, tiles: Iterable[Tile]) -> Expr:
        """Bytes of one piece of these tiles."""
        units = self.dims[self.summary.shares]
        return self.total(
            (tuple(d for d in one.dims if not d.endswith(ALL)), one.bytes * min(COLUMNS, max(_power(units.size), DOT)))
            for one in tiles
        )

    def misses(self) -> Expr:
        """1 where a program does not hold all pieces, else 0."""
        assert self.summary.pieces is not None
        return Const(1) + Chosen(((self.called_by("held"), self.summary.pieces.count),)) * -1

    def quarantine(self) -> list[Constraint]:
        """A constraint for each known fault that some choice of tiles would meet."""
        if not self.summary.dots:
            return []
        found: dict[str, list[Expr]] = {}
        carries = bool(self.summary.carried) and self.summary.loops_over_time
        turned = [dot for dot in self.summary.dots if dot.turned]
        tall = [dot for dot in self.summary.dots if self.summary.rows >= TURNED_ROWS and {*dot.m} & {ROW, COL}]
        used = {*(d for dot in turned for d in dot.m), *(d for dot in tall for d in dot.n)}
        cut = sorted(d for d in used if self.dims[d].role == "block")
        domains = [self.blocks(self.dims[d]) for d in cut]
        for w, s, *sizes in product(WARPS, self.stages(), *domains):
            blocks = {self.called_by(f"B{d}"): size for d, size in zip(cut, sizes, strict=True)}
            rows = max((int(evaluate(self.elements(dot.m), blocks)) for dot in turned), default=0)
            columns = frozenset(int(evaluate(self.elements(dot.n), blocks)) for dot in tall)
            for entry in quarantined(Use(self.target.name, w, s, carries, rows, columns)):
                sentence = f"{entry.reason}: {entry.remedy} ({entry.source})"
                chosen = Chosen(((self.called_by("warps"), w), (self.called_by("stages"), s), *blocks.items()))
                found.setdefault(sentence, []).append(chosen)
        return [Constraint(text, Sum(tuple(bad)), "<=", Const(0)) for text, bad in found.items()]

    def time(self, spilled: Expr | int = 0) -> tuple[Expr, tuple[tuple[str, Expr], ...]]:
        """Modelled nanoseconds of the whole kernel, and the quantities behind them. spilled: nanoseconds a turn."""
        target, resident = self.target, self.name("resident")
        along, turns = self.walks()
        programs = self.programs(self.dims) * along
        alone, shared = self.arithmetic()
        alone, shared = (alone, shared) if spilled == 0 else (alone + spilled, shared + spilled)
        alone, shared = (one + self.read_again() for one in (alone, shared)) if self.summary.pieces else (alone, shared)
        ahead = Const(2) if self.summary.fetches else self.name("stages")
        load = self.summary.meets * MEET_LATENCY if self.summary.meets else ceil_div(LOAD_LATENCY, ahead)
        wait = lift(load) + DOT_LATENCY * sum(dot.times for dot in self.summary.dots)
        waves = ceil_div(programs, resident * target.units)
        busy = waves * turns * most(alone + wait, resident * shared)
        traffic = ceil_div(self.traffic(), target.bytes_per_ns)
        parts = (
            ("programs", programs),
            ("waves", waves),
            ("turns a program", Const(turns)),
            ("ns of arithmetic a turn", alone),
            ("ns of waiting a turn", wait),
            ("ns at the units", busy),
            ("ns at the memory", traffic),
            ("ns", most(busy, traffic)),
            ("bytes of shared memory", self.shared()),
            ("tile registers a thread", ceil_div(self.words(), self.threads)),
        )
        return most(busy, traffic), parts

    def read_again(self) -> Expr:
        """Nanoseconds of a turn that it takes to read what there is no room for, and to take what is told in several parts."""
        pieces = self.summary.pieces
        assert pieces is not None
        missing = Const(pieces.count) + self.name("held") * -1
        read = ceil_div(missing * self.piece(pieces.held) * 1000, CACHE * self.target.clock_mhz)
        each = {n: -(-pieces.count // n) * DOT_LATENCY + n for n in AT_ONCE}  # as many turns of fewer at once are better
        return read + Sum(tuple(Chosen(((self.called_by("at_once"), n),)) * each[n] for n in AT_ONCE))

    def told(self, verdict: Verdict, at: Mapping[str, int]) -> Spent | None:
        """What the kernel takes by its machine code, where that was looked at. at: its tiles, by the problem's names."""
        if not verdict.work:
            return None
        along, turns = self.walks()
        programs = int(evaluate(self.programs(self.dims), at)) * along
        moved, warps = int(evaluate(self.traffic(), at)), at[self.called_by("warps")]
        waits = self.summary.meets * MEET_LATENCY * turns
        steps = self.workload.length if along == 1 else turns * self.summary.rows
        return spent(code(verdict, warps), self.target, programs, steps, moved, waits)

    def scaled(self, whole: Expr, factor: int) -> Expr:
        """A modelled time, of which hundredths are known by the machine code of other tiles: no less than its bytes take."""
        if factor == 100:
            return whole
        memory = ceil_div(self.traffic() * 100, lift(round(100 * MEMORY * self.target.bytes_per_ns)))
        return most(ceil_div(whole * factor, lift(100)), memory)

    def walks(self) -> tuple[int, int]:
        """(programs along a sequence, turns of each)."""
        turns = -(-self.workload.length // self.summary.rows)
        span = turns if self.summary.loops_over_time else min(turns, self.summary.span)
        return -(-turns // span), span

    def programs(self, dims: Iterable[str]) -> Expr:
        """Programs that walk a sequence, or one of its turns, counting of the cut dims only those named."""
        programs: Expr = Const(self.workload.batch if "B" not in self.dims else 1)
        for dim in self.dims.values():
            if dim.role == "grid":
                programs = programs * dim.size
            elif dim.role == "block" and dim.name in dims:
                programs = programs * ceil_div(dim.size, self.name(f"B{dim.name}"))
        return programs

    def traffic(self) -> Expr:
        """Bytes between the chip and its memory. What the pieces of a dim all read is read once: they run side by side."""
        turns = -(-self.workload.length // self.summary.rows)
        written = self.programs(self.dims) * turns * self.bytes(self.summary.written)
        reads: dict[tuple[str, ...], list[Tile]] = {}
        for tile in self.summary.read:
            cut = tuple(d for d in tile.dims if self.dims[d].role == "block")
            reads.setdefault(cut, []).append(tile)
        return Sum((written, *(self.programs(cut) * turns * self.bytes(tiles) for cut, tiles in reads.items())))

    def arithmetic(self) -> tuple[Expr, Expr]:
        """Nanoseconds of a turn's arithmetic: of a program alone, whose warps use part of a unit, and at full rate."""
        target, units = self.target, self.target.units
        weighted: list[tuple[tuple[str, ...], int]] = []
        for dot in self.summary.dots:  # picoseconds of a multiply-add, in thousandths
            rate = max(target.matrix_gops[dot.rate] // units, 1)
            weighted.append(((*dot.m, *dot.n, *dot.k), 2_000_000 * dot.times // rate))
        rate = max(target.vector_gops // units, 1)
        weighted += [(work.dims, 2_000_000 * work.operations // rate) for work in self.summary.work]
        full = ceil_div(self.total(weighted), 1000)
        # A unit has four schedulers: a program of one or two warps leaves the others idle.
        share = Sum(tuple(Chosen(((self.called_by("warps"), w),)) * min(w, 4) for w in WARPS))
        return ceil_div(full * 4, share * 1000), ceil_div(full, lift(1000))


def _power(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()
