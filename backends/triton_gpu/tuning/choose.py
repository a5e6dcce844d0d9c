"""Rows and tiles of kernels that go together: what the solver answers, given all that the toolchain has said of them.

Comes in: `KernelSummary`s by kernel and number of rows, a target, and what the toolchain said of their tiles: from the
committed table where a spec is compiled, and of more and more tiles where the table is refreshed. Goes out: a `Choice`,
or the `Clash` that leaves none. The answer depends on nothing else, so a refreshed table gives the choice it was made for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from seqc.analysis.workload import TILES, Workload
from seqc.backends.triton_gpu.tuning.kernel_model import RESIDENT, KernelModel
from seqc.backends.triton_gpu.tuning.kernel_problem import Kernel, Told, kernel_problem, tile_choices
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary
from seqc.backends.triton_gpu.tuning.multiprocessor import MEMORY
from seqc.backends.triton_gpu.tuning.targets import Target
from seqc.backends.triton_gpu.tuning.verdicts import Verdict
from seqc.solver.expression import evaluate
from seqc.solver.problem import Clash, Problem, Solution
from seqc.solver.solve import solve

Look = Callable[[str, int], Told]
"""Kernel and rows -> tiles that the toolchain was asked about, with rows as `C`, and its verdicts."""
SLOWER = 1.1  # tiles that the model takes for slower than those chosen by this factor are not asked about
NO_FACTORS: Mapping[str, int] = MappingProxyType({})
NOTHING_FITS = "the registers, which nothing that was asked fits: of what spills, the fastest by the model is taken"


@dataclass(frozen=True)
class Choice:
    """The kernels' tiles and how they came about. spilling: kernels for which no tiles keep all registers."""

    target: Target
    problem: Problem
    solution: Solution
    kernels: Mapping[str, Kernel]
    spilling: frozenset[str]
    workload: Workload = TILES

    @property
    def rows(self) -> int:
        """Steps that one turn of the kernels serves."""
        return self.solution["C"]

    def own(self, kernel: str, name: str) -> int:
        """A variable of one kernel, by its own name: a block, "warps", "stages", "resident"."""
        values = dict(self.solution.assignment)
        return values.get(f"{kernel}.{name}", values.get(name, 0))

    def tiles(self, kernel: str) -> dict[str, int]:
        """Rows, blocks, warps and stages of one kernel, by their own names."""
        names = [name.removeprefix(f"{kernel}.") for name, _ in self.solution.assignment]
        return {name: self.own(kernel, name) for name in names if "." not in name and name != "resident"}

    def part(self, kernel: str, name: str) -> int:
        """A named quantity of one kernel, such as "ns"."""
        return dict(self.solution.parts)[self.name(kernel, name)]

    def verdict(self, kernel: str) -> Verdict | None:
        """The toolchain's figures at these tiles; None where it was never asked."""
        return next((v for tiles, v in self.kernels[kernel].told if dict(tiles) == self.tiles(kernel)), None)

    def asks(self, kernel: str) -> dict[str, int] | None:
        """Tiles to ask the toolchain about, so that the choice is one that it knows; None where it is.

        Before tiles are taken that spill, those that need the fewest registers are tried, and the other blocks of these rows:
        how many registers a kernel takes does not always grow with its tiles.
        """
        one = self.kernels[kernel]
        if kernel in self.spilling:
            probe = solve(kernel_problem(f"least registers of {kernel}", {kernel: replace(one, probing=True)}, self.target))
            if isinstance(probe, Solution) and not one.knows(_tiles(probe)):
                return _tiles(probe)
            here = self.tiles(kernel)
            for other in tile_choices(one.at[here["C"]], self.target):
                alike = all(other[name] == here[name] for name in ("warps", "stages"))
                if alike and not one.knows({"C": here["C"], **other}):
                    return {"C": here["C"], **other}
        return self.tiles(kernel) if self.verdict(kernel) is None else None

    def beside(self, kernel: str, gain: float = 0) -> list[dict[str, int]]:
        """What to ask of where the choice is known: the choice itself, if an older record does not tell how often its machine
        code runs what; then tiles that differ in one step of one variable, fit the target, would be hardly slower by the
        model, and whose bytes leave memory time to gain so many nanoseconds. When none is left, no step makes the kernel
        faster."""
        one, here, said = self.kernels[kernel], self.tiles(kernel), self.verdict(kernel)
        if said is None or not said.work:
            return [] if said is None or said.tells_all(self.target.vendor) else [here]
        model = KernelModel(one.at[here["C"]], self.target, self.workload, spilling=True)
        limits = model.constraints()
        took = model.told(said, here)
        assert took is not None
        modelled = evaluate(model.time()[0], {**here, "resident": self.own(kernel, "resident")})
        found = []
        for variable in model.variables():
            domain = sorted(variable.domain)
            at = domain.index(here[variable.name]) if variable.name in here else len(domain)
            for way in (domain[at + 1 :], domain[:at][::-1] if variable.name in here else ()):
                fitting = ({**here, variable.name: value} for value in way)
                tiles = next((one for one in fitting if all(x.holds({**one, "resident": 1}) for x in limits)), None)
                if tiles is None or one.told_all(tiles, self.target):
                    continue
                fits = (n for n in RESIDENT if all(x.holds({**tiles, "resident": n}) for x in limits))
                if min(evaluate(model.time()[0], {**tiles, "resident": n}) for n in fits) > SLOWER * modelled:
                    continue
                if evaluate(model.traffic(), tiles) / (MEMORY * self.target.bytes_per_ns) < took.nanoseconds - gain:
                    found.append(tiles)
        return found

    def name(self, kernel: str, part: str) -> str:
        """A part of one kernel as the problem calls it."""
        return f"{kernel}.{part}" if len(self.kernels) > 1 else part

    def binds(self, kernel: str) -> list[str]:
        """What keeps the kernel from being faster, what helps most first. Where the answer does not tell, z3 is asked."""
        several = len(self.kernels) > 1
        asked = self.solution if self.solution.binding else solve(self.problem)
        found = [b.sentence for b in asked.binding] if isinstance(asked, Solution) else []
        mine = [s.removeprefix(f"{kernel}: ") for s in found if not several or s.startswith(f"{kernel}: ")]
        return merged([NOTHING_FITS, *mine] if kernel in self.spilling else mine)


def merged(sentences: Iterable[str]) -> list[str]:
    """Sentences of which those that say the same of several tiles are one: what the tiles have in common stands in it once."""
    groups: dict[str, list[list[str]]] = {}
    for sentence in dict.fromkeys(sentences):
        head = re.fullmatch(r"with (\w+ = \w+(?:, \w+ = \w+)*) (.+)", sentence)
        groups.setdefault(head[2] if head else sentence, []).extend([head[1].split(", ")] if head else [])
    out = []
    for rest, tiles in groups.items():
        common = [pair for pair in tiles[0] if all(pair in one for one in tiles)] if tiles else []
        own = [f"({', '.join(pair for pair in one if pair not in common)})" for one in tiles] if len(tiles) > 1 else []
        shared = [", ".join(common)] * bool(common) + [" or ".join(own)] * bool(own)
        out.append(f"with {' and '.join(shared)} {rest}" if tiles else rest)
    return out


def choose(
    name: str,
    kernels: Mapping[str, Mapping[int, KernelSummary]],
    target: Target,
    look: Look,
    *,
    shared: Iterable[str] = (),
    workload: Workload | None = None,
    factors: Mapping[str, int] = NO_FACTORS,
    solver: Callable[[Problem], Solution | Clash] = solve,
) -> Choice | Clash:
    """Rows and tiles of least modelled time that keep all registers; where some kernel has none, it may spill.

    shared: dims that are cut alike in all kernels. factors: `Kernel.factor` of some. Of what spills only tiles that the
    toolchain has made are taken, if there are any. A kernel that did not compile, or whose shared memory the target lacks, is
    never taken.
    """
    shared = tuple(shared)
    given = {
        k: Kernel(at, tuple(one for rows in at for one in look(k, rows)), factor=factors.get(k, 100))
        for k, at in kernels.items()
    }

    def answer(wanted: Mapping[str, Kernel]) -> tuple[Problem, Solution | Clash]:
        problem = kernel_problem(f"{name} on {target.name}", wanted, target, shared=shared, workload=workload)
        return problem, solver(problem)

    spilling: frozenset[str] = frozenset()
    problem, found = answer(given)
    while isinstance(found, Clash):  # whoever has a part in it may spill
        named = {k for k in given if len(given) == 1 or any(s.startswith(f"{k}: ") for s in found.sentences)}
        if named <= spilling:
            return found
        spilling |= named
        problem, found = answer({k: _spilling(one) if k in spilling else one for k, one in given.items()})
    return Choice(target, problem, found, given, spilling, workload or TILES)


def _tiles(solution: Solution) -> dict[str, int]:
    return {name: value for name, value in solution.assignment if name != "resident"}


def _spilling(kernel: Kernel) -> Kernel:
    return replace(kernel, spilling=True, only_told=any(verdict.error is None for _, verdict in kernel.told))
