"""The tile problem of kernels that share their rows, on one target: variables, budgets in English, a model of their time.

Comes in: for each kernel its `KernelSummary` at every number of rows that it may have, a `Target`, and what the toolchain
has said so far. Goes out: a `Problem` whose variables are `C` (rows, one for all kernels), and for each kernel `B` + dim
(block of a dim), `warps`, `stages` and `resident` (programs that share a unit), after the kernel's name and a dot where
there are several. Its cost is the sum of the kernels' modelled times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from seqc.analysis.workload import Workload
from seqc.backends.triton_gpu.tuning.kernel_model import OVERHEAD_REGISTERS, KernelModel
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary
from seqc.backends.triton_gpu.tuning.targets import Target
from seqc.backends.triton_gpu.tuning.verdicts import Verdict
from seqc.solver.expression import Case, Chosen, Const, Expr, Sum, evaluate, most
from seqc.solver.problem import Constraint, Problem, Variable

NEVER = 1 << 50  # nanoseconds that no kernel takes
UNTOLD = 110  # hundredths of its modelled time as which a kernel counts whose machine code is known of other tiles alone

Told = tuple[tuple[Mapping[str, int], Verdict], ...]
"""Tiles of a kernel (rows, blocks, warps and stages by name), and what the toolchain said of each."""


@dataclass(frozen=True)
class Refusal:
    """Tiles that the toolchain refused, and with them all that need no less: larger tiles, or fewer warps."""

    assignment: tuple[tuple[str, int], ...]
    sentence: str
    by_stages: bool = False
    """Whether more stages need more of what ran out (shared memory), or stages do not matter (registers)."""
    spills: bool = False
    """Whether the kernel was made, and is only slow."""
    alone: bool = False
    """Whether it says nothing of other blocks and warps."""


@dataclass(frozen=True)
class Kernel:
    """One of the kernels of a problem.

    spilling: its registers may spill, since else nothing fits. probing: look for the tiles that need the fewest registers
    of those that the toolchain has not refused. only_told: it may take only tiles that the toolchain has made. factor:
    hundredths of the modelled time that it takes where the machine code of no tiles with these rows is known.
    """

    at: Mapping[int, KernelSummary]
    """Its summary by number of rows."""
    told: Told = ()
    spilling: bool = False
    probing: bool = False
    only_told: bool = False
    factor: int = 100

    def knows(self, tiles: Mapping[str, int]) -> bool:
        """Whether the toolchain has spoken of these tiles."""
        return any(dict(known) == tiles for known, _ in self.told)

    def told_all(self, tiles: Mapping[str, int], target: Target) -> bool:
        """Whether the toolchain has spoken of these tiles, and nothing is left to ask."""
        return any(dict(known) == tiles and said.tells_all(target.vendor) for known, said in self.told)


def refusal(verdict: Verdict, assignment: Mapping[str, int], target: Target) -> Refusal | None:
    """What a verdict on these tiles forbids; None where the kernel is good."""
    at = ", ".join(f"{name} = {value}" for name, value in assignment.items())
    chosen = tuple(assignment.items())
    if verdict.error is not None:
        return Refusal(chosen, f"the toolchain refuses {at}: {verdict.error}")
    if verdict.shared > target.shared_per_program:
        over = f"{verdict.shared} bytes of shared memory, of {target.shared_per_program}"
        return Refusal(chosen, f"with {at} the kernel takes {over}", by_stages=True)
    if verdict.spills and not verdict.work:
        sentence = f"with {at} the kernel spills {verdict.spills} bytes of registers a thread"
        return Refusal(chosen, sentence, spills=True)
    if assignment.get("stages", 1) > 1 and verdict.prefetches is False:
        return Refusal(chosen, f"with {at} no load is on its way before its turn: stages hide nothing", True, alone=True)
    return None


def kernel_problem(
    name: str,
    kernels: Mapping[str, Kernel],
    target: Target,
    *,
    shared: Iterable[str] = (),
    workload: Workload | None = None,
) -> Problem:
    """The problem whose solution is the kernels' rows and tiles on that target. shared: dims cut alike in all of them."""
    rows = [c for c in next(iter(kernels.values())).at if all(c in kernel.at for kernel in kernels.values())]
    variables: dict[str, Variable] = {"C": Variable("C", tuple(sorted(rows, reverse=True)), "rows of a turn")}
    constraints: list[Constraint] = []
    costs: list[Expr] = []
    parts: list[tuple[str, Expr]] = []
    for kernel_name, kernel in kernels.items():
        prefix = f"{kernel_name}." if len(kernels) > 1 else ""
        called = {f"B{dim}": f"B{dim}" for dim in shared}
        at = {
            c: KernelModel(
                kernel.at[c], target, workload or Workload(), prefix, called, kernel.spilling or kernel.probing,
                _scale(kernel, c, target),
            )
            for c in rows
        }
        mine = {v.name: v for builder in at.values() for v in builder.variables()}
        variables |= {name: variable for name, variable in mine.items() if name not in variables}
        one = _OneKernel(kernel, prefix, called, at, {"C": variables["C"], **mine}, target)
        constraints += one.constraints()
        costs.append(one.cost())
        parts += one.parts()
    cost = costs[0] if len(costs) == 1 else Sum(tuple(costs))
    return Problem(name, tuple(variables.values()), tuple(constraints), cost, tuple(parts))


def _scale(kernel: Kernel, rows: int, target: Target) -> int:
    """How many hundredths of the modelled registers the kernel took where it spilled: what it will take of other tiles.

    Told of other rows alone, it is the least that any of these has.
    """
    found: dict[int, int] = {}
    for tiles, verdict in kernel.told:
        if verdict.error is None and verdict.spills:
            c = tiles["C"]
            words = int(evaluate(KernelModel(kernel.at[c], target).words(), tiles))
            threads = tiles["warps"] * target.warp
            took = threads * (verdict.registers + verdict.spills // 4 - OVERHEAD_REGISTERS)
            found[c] = max(found.get(c, 100), 100 * took // max(words, 1))
    return found.get(rows, min(found.values(), default=100))


def tile_choices(summary: KernelSummary, target: Target) -> Iterator[dict[str, int]]:
    """Every choice of blocks, warps and stages that a kernel's problem knows, without its rows."""
    builder = KernelModel(summary, target)
    fixed = {one.variable: one.value for one in summary.limits if one.relation == "=="}
    domains = [
        [(v.name, value) for value in v.domain if value == fixed.get(v.name, value)]
        for v in builder.variables() if v.name != "resident"
    ]
    return (dict(choice) for choice in product(*domains))


class _OneKernel:
    """One kernel of a problem at every number of rows: its constraints and its time, as cases of `C`."""

    def __init__(
        self,
        kernel: Kernel,
        prefix: str,
        called: Mapping[str, str],
        at: Mapping[int, KernelModel],
        variables: Mapping[str, Variable],
        target: Target,
    ) -> None:
        self.kernel, self.prefix, self.called, self.at, self.target = kernel, prefix, called, at, target
        self.domain = {name: variable.domain for name, variable in variables.items()}
        self.priced = {c: self.machine(c) for c in at}
        found = ((tiles, refusal(verdict, tiles, target)) for tiles, verdict in kernel.told)
        self.refused = [no for _, no in found if no is not None and not (kernel.spilling and no.spills)]

    def constraints(self) -> list[Constraint]:
        """Those of each number of rows, joined where they say the same."""
        joined: dict[tuple[str, str], dict[int, Constraint]] = {}
        for c, builder in self.at.items():
            for one in builder.constraints(self.kept(c), self.there(c)):
                joined.setdefault((one.sentence, one.relation), {})[c] = one
        out = []
        for (sentence, _), by_rows in joined.items():
            first = next(iter(by_rows.values()))
            left = self.cases({c: one.left for c, one in by_rows.items()})
            right = self.cases({c: one.right for c, one in by_rows.items()})
            out.append(Constraint(self.told(sentence), left, first.relation, right))
        out += [self.forbid(one) for one in self.refused]
        if self.kernel.only_told:
            made = Sum(tuple(Chosen(self.names(tiles)) for tiles, verdict in self.kernel.told if verdict.error is None))
            sentence = self.told("where all tiles spill, those are taken that the toolchain has made")
            out.append(Constraint(sentence, made, ">=", Const(1)))
        return out

    def kept(self, rows: int) -> list[Chosen]:
        """Tiles that are known to keep all registers, whatever is counted, or whose machine code tells what spills cost."""
        return [
            Chosen(tuple((self.name(name), value) for name, value in tiles.items() if name != "C"))
            for tiles, verdict in self.kernel.told
            if tiles["C"] == rows and (verdict.fits or verdict.work)
        ]

    def there(self, rows: int) -> list[Chosen]:
        """Tiles whose shared memory is known to be there, whatever is counted."""
        known = (tiles for tiles, verdict in self.kernel.told if tiles["C"] == rows and verdict.error is None)
        return [Chosen(tuple((self.name(name), value) for name, value in tiles.items() if name != "C")) for tiles in known]

    def told(self, sentence: str) -> str:
        """A sentence, with the kernel's name where there are several."""
        return f"{self.prefix[:-1]}: {sentence}" if self.prefix else sentence

    def cases(self, by_rows: Mapping[int, Expr]) -> Expr:
        values = list(by_rows.values())
        if len(by_rows) == len(self.at) and all(one == values[0] for one in values):
            return values[0]
        return Case("C", tuple(by_rows.items()))

    def cost(self) -> Expr:
        if self.kernel.probing:
            return self.cases({c: builder.need() for c, builder in self.at.items()})
        return self.cases({c: self.time(c)[0] for c in self.at})

    def time(self, rows: int) -> tuple[Expr, tuple[tuple[str, Expr], ...]]:
        """Nanoseconds, and the quantities behind them: by the machine code of tiles that were made; of others by the model,
        times the least factor by which it was too short, and times `UNTOLD`."""
        builder = self.at[rows]
        whole, parts = builder.time(self.spilled(rows))
        named = [(Chosen(self.names(tiles)), ns) for tiles, ns, _ in self.priced[rows]]
        factor = min((factor * UNTOLD // 100 for _, _, factor in self.priced[rows]), default=self.kernel.factor)
        whole = builder.scaled(whole, factor)
        if named:
            whole = Sum((most(0, Sum((whole, *(one * -NEVER for one, _ in named)))), *(one * ns for one, ns in named)))
        return whole, tuple((name, whole if name == "ns" else value) for name, value in parts)

    def machine(self, rows: int) -> list[tuple[dict[str, int], int, int]]:
        """(tiles that were made, nanoseconds by their machine code, hundredths of what the model says that these are)."""
        found = []
        for tiles, verdict in self.kernel.told:
            both = by_code(self.at[rows], verdict, dict(self.names(tiles))) if tiles["C"] == rows else None
            if both is not None:
                found.append(({k: n for k, n in tiles.items() if k != "C"}, *both))
        return found

    def parts(self) -> list[tuple[str, Expr]]:
        told = {c: dict(self.time(c)[1]) for c in self.at}
        names = next(iter(told.values()))
        return [(self.prefix + name, self.cases({c: parts[name] for c, parts in told.items()})) for name in names]

    def names(self, tiles: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """A kernel's own tiles under the problem's names."""
        return tuple((self.name(name), value) for name, value in tiles.items())

    def name(self, own: str) -> str:
        return own if own == "C" else self.called.get(own, self.prefix + own)

    def spilled(self, rows: int) -> Expr | int:
        """Nanoseconds that spilled registers cost in a turn: as told, no less for larger tiles, or as modelled."""
        builder = self.at[rows]
        if not self.kernel.spilling:
            return 0
        terms: list[Expr] = [Const(0)]
        for tiles in tile_choices(builder.summary, self.target):
            threads = tiles["warps"] * self.target.warp
            chosen = dict(self.names({"C": rows, **tiles}))
            made = [(known, said) for known, said in self.kernel.told if said.error is None]
            own = next((said for known, said in made if known == {"C": rows, **tiles}), None)
            if own is not None:
                price = builder.spill_time(own, threads)
            else:
                less = [said for known, said in made if _no_less({"C": rows, **tiles}, known)]
                modelled = int(evaluate(builder.spilled(), chosen))
                price = max((modelled, *(builder.spill_time(said, threads) for said in less)))
            if price:
                terms.append(Chosen(tuple((name, value) for name, value in chosen.items() if name != "C")) * price)
        return Sum(tuple(terms))

    def forbid(self, one: Refusal) -> Constraint:
        """That a refused assignment, and every one that needs no less, is not chosen, but for what was made and fits."""
        domains = []
        for own, at in one.assignment:
            domain = self.domain[self.name(own)]
            match own:
                case "stages":
                    values = [value for value in domain if value >= at or not one.by_stages]
                case _ if one.alone:
                    values = [at]
                case "warps":
                    values = [value for value in domain if value <= at]
                case _:
                    values = [value for value in domain if value >= at]
            domains.append([(self.name(own), value) for value in values])
        good = [
            {(self.name(own), value) for own, value in tiles.items() if own != "stages"}
            for tiles, verdict in self.kernel.told if verdict.fits and one.spills
        ]
        worse = [choice for choice in product(*domains) if not any(known <= set(choice) for known in good)]
        return Constraint(self.told(one.sentence), Sum(tuple(map(Chosen, worse))), "<=", Const(0))


def by_code(model: KernelModel, verdict: Verdict, at: dict[str, int]) -> tuple[int, int] | None:
    """(nanoseconds of tiles by their machine code, hundredths of what the model says that these are), where it is known. at:
    tiles by the names of the model's variables."""
    took = model.told(verdict, at)
    if took is None:
        return None
    modelled = int(evaluate(model.time()[0], {**at, model.called_by("resident"): took.resident}))
    return round(took.nanoseconds), round(100 * took.nanoseconds / max(modelled, 1))


def _no_less(tiles: Mapping[str, int], known: Mapping[str, int]) -> bool:
    """Whether these tiles need at least the registers a thread that the known ones need."""
    return all(
        tiles[name] <= at if name == "warps" else name == "stages" or tiles[name] >= at for name, at in known.items()
    )
