"""The tile problem of one kernel on one target: variables, budgets in English, and a model of its time.

Comes in: a `KernelSummary`, a `Target`, and what the toolchain has refused so far. Goes out: a `Problem` whose
variables are `C` (rows of a chunk), `B` + dim (block of a dim), `warps`, `stages` and `resident` (programs that share
a unit). The time is modelled, not measured: arithmetic at the target's rates, traffic at its bandwidth, and a
fixed latency for every product and every wait. It ranks tiles; it predicts no benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from seqc.targets import Target
from seqc.tiling.expression import Chosen, Const, Expr, Name, Product, Sum, ceil_div, lift, most
from seqc.tiling.kernel_summary import Dim, KernelSummary, Tile, Workload
from seqc.tiling.problem import Constraint, Problem, Variable
from seqc.tiling.quarantine import Use, quarantined
from seqc.tiling.verdicts import Verdict

__all__ = ["CHUNKS", "Refusal", "kernel_problem", "refusal"]

CHUNKS = (64, 32, 128, 16)
WARPS = (4, 8, 2, 1)
STAGES = (2, 3, 1)
RESIDENT = (1, 2, 3, 4, 6, 8)
DOT = 16
"""Least extent of an operand of `tl.dot`."""

OVERHEAD_REGISTERS = 40
"""Registers a thread for addresses, masks and loop counters, before any tile."""
DOT_LATENCY = 60
"""Nanoseconds from the first operand of a product to its last result, barriers included, whatever its size."""
LOAD_LATENCY = 800
"""Nanoseconds that a load from memory takes; stages hide it."""
OPERATIONS = 12
"""Elementwise operations on each element of the live tiles in a chunk."""


@dataclass(frozen=True)
class Refusal:
    """Tiles that the toolchain refused, and with them all that need no less: larger tiles, or fewer warps."""

    assignment: tuple[tuple[str, int], ...]
    sentence: str
    by_stages: bool = False
    """Whether more stages need more of what ran out (shared memory), or stages do not matter (registers)."""


def refusal(verdict: Verdict, assignment: Mapping[str, int], target: Target) -> Refusal | None:
    """What a verdict on these tiles forbids; None where the kernel is good."""
    at = ", ".join(f"{name} = {value}" for name, value in assignment.items() if name != "resident")
    chosen = tuple(assignment.items())
    if verdict.error is not None:
        return Refusal(chosen, f"the toolchain refuses {at}: {verdict.error}")
    if verdict.shared > target.shared_per_program:
        over = f"{verdict.shared} bytes of shared memory, of {target.shared_per_program}"
        return Refusal(chosen, f"with {at} the kernel takes {over}", by_stages=True)
    if verdict.spills:
        return Refusal(chosen, f"with {at} the kernel spills {verdict.spills} bytes of registers a thread")
    return None


def kernel_problem(
    summary: KernelSummary, target: Target, *, refused: Iterable[Refusal] = (), workload: Workload | None = None
) -> Problem:
    """The problem whose solution is the kernel's tiles on that target."""
    return _Builder(summary, target, workload or Workload()).problem(tuple(refused))


class _Builder:
    def __init__(self, summary: KernelSummary, target: Target, workload: Workload) -> None:
        self.summary, self.target, self.workload = summary, target, workload
        self.dims = {dim.name: dim for dim in summary.dims}
        self.in_dots = {name for dot in summary.dots for name in (*dot.m, *dot.n, *dot.k)}
        self.threads = Name("warps") * target.warp

    def problem(self, refused: tuple[Refusal, ...]) -> Problem:
        variables = self.variables()
        constraints = [*self.limits(), *self.budgets(), *self.quarantine(variables)]
        constraints += [_forbid(one, variables) for one in refused]
        cost, parts = self.time()
        return Problem(f"{self.summary.name} on {self.target.name}", variables, tuple(constraints), cost, parts)

    def variables(self) -> tuple[Variable, ...]:
        out = []
        if any(dim.role == "chunk" for dim in self.dims.values()):
            out.append(Variable("C", CHUNKS, "rows of a chunk"))
        for dim in self.dims.values():
            if dim.role == "block":
                out.append(Variable(f"B{dim.name}", self.blocks(dim), f"block of {dim.name}"))
        stages = STAGES if self.summary.loops_over_time else (1,)
        out += [Variable("warps", WARPS, "warps of a program"), Variable("stages", stages, "loads in flight")]
        return (*out, Variable("resident", RESIDENT, "programs that share a unit"))

    def blocks(self, dim: Dim) -> tuple[int, ...]:
        """Powers of two from the least useful block to the one that holds the whole dim, largest first."""
        least = DOT if dim.name in self.in_dots else 1
        top = min(max(_power(dim.size), least), 256)
        return tuple(1 << i for i in range(top.bit_length() - 1, least.bit_length() - 2, -1))

    def extent(self, name: str) -> Expr:
        """Length of a dim in a tile."""
        dim = self.dims[name]
        match dim.role:
            case "chunk":
                return Name("C")
            case "block":
                return Name(f"B{name}")
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

    def bytes(self, tiles: Iterable[Tile]) -> Expr:
        return Sum((Const(0), *(self.elements(tile.dims) * tile.bytes for tile in tiles)))

    def limits(self) -> list[Constraint]:
        return [
            Constraint(one.sentence, Name(one.variable), one.relation, Const(one.value)) for one in self.summary.limits
        ]

    def budgets(self) -> list[Constraint]:
        target, resident = self.target, Name("resident")
        words = ceil_div(self.bytes((*self.summary.live, *self.summary.carried)), 4)
        room = target.registers_per_thread - OVERHEAD_REGISTERS
        shared = self.shared()
        held = words + self.threads * OVERHEAD_REGISTERS
        return [
            Constraint(
                f"the live tiles fit the {room} registers that each thread of {target.name} has for them",
                words,
                "<=",
                self.threads * room,
            ),
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
                Const(target.shared_per_program),
            ),
            Constraint(
                f"resident programs share the {target.shared_per_unit} bytes of shared memory of a unit",
                resident * (shared + target.shared_reserved),
                "<=",
                Const(target.shared_per_unit),
            ),
            Constraint(
                f"resident programs share the {target.warps_per_unit} warps of a unit",
                resident * Name("warps"),
                "<=",
                Const(target.warps_per_unit),
            ),
        ]

    def shared(self) -> Expr:
        return self.bytes(self.summary.staged) * Name("stages") + self.bytes(self.summary.scratch)

    def quarantine(self, variables: tuple[Variable, ...]) -> list[Constraint]:
        """A constraint for each known fault that some choice of warps and stages would meet."""
        stages = next(variable.domain for variable in variables if variable.name == "stages")
        found: dict[str, list[Expr]] = {}
        carries = bool(self.summary.carried) and self.summary.loops_over_time
        for w, s in product(WARPS, stages):
            use = Use(self.target.name, w, s, carries, self.summary.transposed_accumulator)
            for entry in quarantined(use) if self.summary.dots else ():
                sentence = f"{entry.reason}: {entry.remedy} ({entry.source})"
                found.setdefault(sentence, []).append(Chosen((("warps", w), ("stages", s))))
        return [Constraint(text, Sum(tuple(bad)), "<=", Const(0)) for text, bad in found.items()]

    def time(self) -> tuple[Expr, tuple[tuple[str, Expr], ...]]:
        """Modelled nanoseconds of the whole kernel, and the quantities behind them."""
        target, load = self.target, self.workload
        programs: Expr = Const(load.batch if not any(dim.name == "B" for dim in self.dims.values()) else 1)
        for dim in self.dims.values():
            match dim.role:
                case "grid":
                    programs = programs * dim.size
                case "block":
                    programs = programs * ceil_div(dim.size, Name(f"B{dim.name}"))
        chunked = any(dim.role == "chunk" for dim in self.dims.values())
        chunks = ceil_div(load.length, Name("C")) if chunked else Const(load.length)
        if not self.summary.loops_over_time:
            programs, chunks = programs * chunks, Const(1)
        alone, shared = self.arithmetic()
        wait = ceil_div(LOAD_LATENCY, Name("stages")) + DOT_LATENCY * sum(dot.times for dot in self.summary.dots)
        waves = ceil_div(programs, Name("resident") * target.units)
        busy = waves * chunks * most(alone + wait, Name("resident") * shared)
        traffic = programs * chunks * ceil_div(self.bytes(self.summary.moved), target.bytes_per_ns)
        words = self.bytes((*self.summary.live, *self.summary.carried))
        parts = (
            ("programs", programs),
            ("waves", waves),
            ("chunks a program", chunks),
            ("ns of arithmetic a chunk", alone),
            ("ns of waiting a chunk", wait),
            ("ns at the units", busy),
            ("ns at the memory", traffic),
            ("bytes of shared memory", self.shared()),
            ("tile registers a thread", ceil_div(words, self.threads * 4)),
        )
        return most(busy, traffic), parts

    def arithmetic(self) -> tuple[Expr, Expr]:
        """Nanoseconds of a chunk's arithmetic: of a program alone, whose warps use part of a unit, and at full rate."""
        target, units = self.target, self.target.units
        picoseconds: list[Expr] = [Const(0)]
        for dot in self.summary.dots:
            rate = max(target.matrix_gops[dot.rate] // units, 1)
            operations = self.elements((*dot.m, *dot.n, *dot.k)) * (2000 * dot.times)
            picoseconds.append(ceil_div(operations, rate))
        tiles = (*self.summary.live, *self.summary.carried)
        touched = Sum((Const(0), *(self.elements(tile.dims) for tile in tiles)))
        picoseconds.append(ceil_div(touched * (1000 * OPERATIONS), max(target.vector_gops // units, 1)))
        full = Sum(tuple(picoseconds))
        # A unit has four schedulers: a program of one or two warps leaves the others idle.
        share = Sum(tuple(Chosen((("warps", w),)) * min(w, 4) for w in WARPS))
        return ceil_div(full * 4, share * 1000), ceil_div(full, lift(1000))


def _power(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()


def _forbid(one: Refusal, variables: tuple[Variable, ...]) -> Constraint:
    """That a refused assignment, and every one that needs no less, is not chosen."""
    was = dict(one.assignment)
    domains = []
    for variable in variables:
        at = was[variable.name]
        match variable.name:
            case "resident":
                continue
            case "stages":
                values = [value for value in variable.domain if value >= at or not one.by_stages]
            case "warps":
                values = [value for value in variable.domain if value <= at]
            case _:
                values = [value for value in variable.domain if value >= at]
        domains.append([(variable.name, value) for value in values])
    return Constraint(one.sentence, Sum(tuple(Chosen(choice) for choice in product(*domains))), "<=", Const(0))
