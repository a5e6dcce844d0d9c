"""A recurrence's blocks of several numbers of rows, on a target -> the rows and tiles that the solver chooses, and why.

In: `Block`s that differ in their rows alone, the target's name, extents, the storage type, and what the toolchain has
said: the committed table. Out: `Chosen`: the block, and for each of its kernels tiles, verdict, and what bound them. Rows
are chosen for training, forward and backward together, each in the way that is fastest by the model. Registers that spill have
their price, which the toolchain tells: rows whose kernels spill, by the model alone, are passed over until it has been asked.
With the rows tiles are chosen kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from statistics import median_low

from seqc.analysis.workload import FEW_MATRICES, TILES, TILES_OF_MATRICES, Workload
from seqc.backends.triton_gpu.extents import Tiles
from seqc.backends.triton_gpu.kernel import BLOCKS
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.schedule import AGAIN_KERNEL, PAIRS_KERNEL, STEPS_KERNEL, Schedule
from seqc.backends.triton_gpu.tuning.choose import Choice, choose
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.kernel_problem import Told, by_code
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary
from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.room import TEAM
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.toolchain import Job
from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable
from seqc.diagnostics import Diagnostic, Label, Unsupported, listing
from seqc.ir.block import Block
from seqc.solver.enumerate import solve_by_enumeration
from seqc.solver.expression import evaluate
from seqc.solver.problem import Clash, Problem, Solution
from seqc.solver.solve import solve

TRAINED = ("forward", "backward")
PHASES = ("states", "outputs")
GAIN = 0.01  # of the time of forward and backward: tiles that cannot gain as much are not asked about
OTHER_ROWS = 1.6  # rows that the model takes for no slower than this, beside those chosen, are asked about: it knows rows least
UNTOLD_ROWS = 1.2  # the same of rows whose machine code is not known, of which the model expects too much


def groups(plan: Schedule) -> tuple[tuple[str, ...], ...]:
    """Kernels whose tiles are chosen together: phases that share what programs leave in parts cut dims alike."""
    phases = plan.alike(PHASES) if plan.phases else ()
    backward = plan.alike([name for name in plan.way("backward", "cotangents") if name != PAIRS_KERNEL])
    ahead = (("forward",), ("backward",), ("infer",), (PAIRS_KERNEL,), *phases, (AGAIN_KERNEL,))
    found: tuple[tuple[str, ...], ...] = (*ahead, *backward, (STEPS_KERNEL,))
    return tuple(names for names in found if names and all(name in plan.kernels for name in names))


@dataclass(frozen=True)
class ChosenKernel:
    """One kernel of a choice. name: "forward", "backward", and so on; programs: of the workload that tiles are for."""

    name: str
    tiles: Tiles
    job: Job
    verdict: Verdict | None
    summary: KernelSummary
    nanoseconds: int
    choice: Choice
    afterwards: int
    """Launches that follow: sums of results left in parts, and products of what was stored for every step."""
    factor: int
    """Hundredths of the time by the tile model that it takes, where its machine code is not known."""
    outdated: bool
    """Whether the toolchain has spoken of another text of this kernel alone."""

    @property
    def why(self) -> str:
        """What keeps the kernel from being faster: the solver is asked when a person is."""
        return "; ".join(self.choice.binds(self.name)) or "nothing binds"


@dataclass(frozen=True)
class Chosen:
    """The block whose rows were chosen, and its kernels in the order of the emitted file."""

    block: Block
    plan: Schedule
    target: str
    sizes: Mapping[str, int]
    kernels: Mapping[str, ChosenKernel]
    trained: int
    """Modelled nanoseconds of forward and backward."""
    others: Callable[[], Mapping[int, str]]
    """Rows that were not chosen, and what they would cost or what clashes: worked out when it is called."""
    printed: Callable[[str], Printed | None]
    """The text of a kernel of the plan, where the choice was made by it."""
    missing: Callable[[], tuple[Job, ...]]
    """What the toolchain should be asked before the choice is one that it knows: worked out when it is called."""
    beside: Callable[[], tuple[Job, ...]]
    """What it can be asked then, since it may be faster: worked out when it is called."""

    @property
    def tiles(self) -> dict[str, Tiles]:
        """Tiles by kernel."""
        return {name: one.tiles for name, one in self.kernels.items()}


def choose_tiles(
    lowered: Sequence[Lowered], target: str, table: VerdictTable, workload: Workload | None = None
) -> Chosen:
    """Rows and tiles of blocks that differ in their rows alone.

    Raises Unsupported where the constraints of a kernel clash.
    """
    return _Chooser(lowered, target, table, workload).choose()


class _Chooser:
    def __init__(
        self, lowered: Sequence[Lowered], target: str, table: VerdictTable, workload: Workload | None
    ) -> None:
        self.program, self.target, self.table = lowered[0].block.program, target_named(target), table
        matrices = lowered[0].block.form == "chunkwise"
        self.workload = workload or (TILES_OF_MATRICES if matrices else TILES)
        self.few = workload or (FEW_MATRICES if matrices else TILES)
        self.lowered = {one.block.rows: one for one in lowered}
        self.known: dict[tuple[tuple[str, ...], int], Choice | Clash] = {}
        self.factors: dict[str, int | None] = {}
        self.seen: dict[tuple[str, int], Told] = {}

    def choose(self) -> Chosen:
        spent = {rows: ns for rows in self.lowered if (ns := self.spent(rows)) is not None}
        if not spent:
            return self.team()
        rows = min(spent, key=lambda c: (bool(self.unpriced(c)), spent[c], -c))
        best = self.lowered[rows]
        choices: dict[str, Choice] = {}
        for names in groups(best.plan):
            found = self.tried(names, rows)
            if isinstance(found, Clash):
                raise Unsupported(self.clash(names, found))
            choices |= dict.fromkeys(names, found)
        kernels = {name: self.kernel(best, name, choices[name]) for name in best.plan.kernels}

        def others() -> dict[int, str]:
            return {c: self.instead(c) for c in self.lowered if c != rows}

        def asked() -> tuple[Job, ...]:
            faster = [c for c in spent if spent[c] < spent[rows] and self.unpriced(c)]
            return (*self.asks(choices), *chain(*(self.asks(self.unpriced(c)) for c in faster)))

        def beside() -> tuple[Job, ...]:
            elsewhere = (self.nearer(c, choices, spent) for c in spent if c != rows)
            return (*self.besides(choices, spent[rows]), *chain(*elsewhere))

        return Chosen(
            best.block, best.plan, self.target.name, best.sizes, kernels, spent[rows], others, best.printed, asked, beside
        )

    def team(self) -> Chosen:
        """The kernels that several programs for each head share out, where one program has no room: under the names of those
        whose work they do."""
        lowered = next(iter(self.lowered.values()))
        if lowered.plan.team is None:
            raise Unsupported(self.clash(*self.clashing(self.lowered)))
        choices: dict[str, Choice] = {}
        for name in lowered.plan.team.kernels:
            found = self.tried((name,), lowered.block.rows)
            if isinstance(found, Clash):
                raise Unsupported(self.clash((name,), found))
            choices[name] = found
        kernels = {name.removeprefix(TEAM): self.kernel(lowered, name, choice) for name, choice in choices.items()}
        trained = sum(kernels[name].nanoseconds for name in TRAINED)
        return Chosen(
            lowered.block, lowered.plan, self.target.name, lowered.sizes, kernels, trained, dict[int, str], lowered.printed,
            lambda: tuple(self.asks(choices)), lambda: tuple(self.besides(choices, trained)),
        )

    def asks(self, choices: Mapping[str, Choice]) -> Iterable[Job]:
        for name, choice in choices.items():
            tiles = choice.asks(name)
            if tiles is not None:
                yield self.job(name, tiles)

    def besides(self, choices: Mapping[str, Choice], trained: int) -> Iterable[Job]:
        """What lies beside tiles, and may gain what is worth a question. trained: nanoseconds of forward and backward."""
        gain = GAIN * trained
        return (self.job(name, tiles) for name, choice in choices.items() for tiles in choice.beside(name, gain))

    def nearer(self, rows: int, best: Mapping[str, Choice], spent: Mapping[int, int]) -> tuple[Job, ...]:
        """What to ask of rows that were not chosen, and that the model takes for little slower: of the kernel that takes most
        of their time, and of which something is left to ask. The tiles that it has with the chosen rows; its own; where these
        are known what lies beside them. best: the choices of the chosen rows; spent: nanoseconds forward and back, by rows."""
        trained = spent[next(iter(best.values())).rows]
        choices, untold = self.chosen_at(rows), self.untold(rows)
        if spent[rows] >= OTHER_ROWS * trained:
            return ()
        for name in sorted(choices, key=lambda k: -self.nanoseconds(choices[k], k)):
            tiles = {**best[name].tiles(name), "C": rows} if name in best else {}
            if tiles and self.fits(name, tiles) and not choices[name].kernels[name].knows(tiles):
                return (self.job(name, tiles),)
        if untold and spent[rows] >= UNTOLD_ROWS * trained:
            return ()
        for name in sorted(untold or choices, key=lambda k: -self.nanoseconds(choices[k], k)):
            one = {name: choices[name]}
            jobs = tuple(self.asks(one) if untold else self.besides(one, trained))
            if jobs:
                return jobs
        return ()

    def fits(self, name: str, tiles: Mapping[str, int]) -> bool:
        """Whether a kernel may have these tiles, registers left aside."""
        model = KernelModel(self.lowered[tiles["C"]].kernel(name)[1], self.target, self.workload, spilling=True)
        return all(one.holds({**tiles, "resident": 1}) for one in model.constraints())

    def job(self, name: str, tiles: Mapping[str, int]) -> Job:
        lowered = self.lowered[tiles["C"]]
        return lowered.jobs(name, self.target.name).job(lowered.tiles(name, tiles))

    def kernel(self, best: Lowered, name: str, choice: Choice) -> ChosenKernel:
        tiles = best.tiles(name, choice.tiles(name))
        printed, summary = best.kernel(name)
        jobs = best.jobs(name, self.target.name)
        job = jobs.job(tiles)
        partial = [a for a in printed.arrays if a.role == "grad" and (a.partial or BLOCKS in a.axes)]
        partial += [a for a in printed.arrays if a.role == "scratch" and a.partial and best.plan.parts]
        stored = [a for a in printed.arrays if a.role == "grad"]
        afterwards = len(partial) + (sum(map(len, best.plan.outer.values())) if stored else 0)
        spent = choice.part(name, "ns")
        return ChosenKernel(
            name, tiles, job, choice.verdict(name), summary, spent, choice, afterwards, self.factor(name),
            bool(self.table.before(jobs.family, jobs.extents)),
        )

    def spent(self, rows: int) -> int | None:
        """Modelled nanoseconds of forward and backward with so many rows; None where no tiles do."""
        found = [self.faster(name, rows) for name in TRAINED]
        return sum(spent for choices, spent in found) if all(choices for choices, _ in found) else None

    def clashing(self, rows: Iterable[int]) -> tuple[tuple[str, ...], Clash]:
        """The kernels of forward and backward for which no tiles do, and why."""
        rows = list(rows)
        plan = self.lowered[rows[0]].plan
        trained = tuple(dict.fromkeys(chain(*((*plan.before.get(name, ()), *plan.ways[name][0]) for name in TRAINED))))
        for names in (*((name,) for name in trained), trained):
            found = self.answer(names, rows)
            if isinstance(found, Clash):
                return names, found
        raise AssertionError(trained)

    def spilling(self, rows: int) -> list[str]:
        """The kernels of forward and backward for which no tiles with so many rows keep all registers."""
        every = (k for name in TRAINED for choice in self.faster(name, rows)[0] for k in sorted(choice.spilling))
        return list(dict.fromkeys(every))

    def unpriced(self, rows: int) -> dict[str, Choice]:
        """The kernels with so many rows that spill, and of whose spills the toolchain has not told the price."""
        found = ((k, choice) for name in TRAINED for choice in self.faster(name, rows)[0] for k in sorted(choice.spilling))
        return {k: choice for k, choice in found if choice.verdict(k) is None}

    def untold(self, rows: int) -> dict[str, Choice]:
        """The kernels with so many rows whose machine code is not known at the tiles that are best by the model."""
        return {k: choice for k, choice in self.chosen_at(rows).items() if choice.verdict(k) is None}

    def chosen_at(self, rows: int) -> dict[str, Choice]:
        """The choice of each kernel of forward and backward with so many rows, in the way that is fastest by the model."""
        return {k: choice for name in TRAINED for choice in self.faster(name, rows)[0] for k in choice.kernels}

    def faster(self, what: str, rows: int) -> tuple[list[Choice], int]:
        """(the choices of the kernels of a direction, in the way that is fastest by the model, its nanoseconds); none where no
        tiles do."""
        plan = self.lowered[rows].plan
        best: tuple[list[Choice], int] = [], 0
        for way in plan.ways[what]:
            names = {*plan.before.get(what, ()), *way}
            found = {some: self.tried(some, rows) for some in groups(plan) if names & {*some}}
            choices = [one for one in found.values() if isinstance(one, Choice)]
            if len(choices) == len(found):
                spent = sum(self.nanoseconds(one, name) for some, one in zip(found, choices, strict=True) for name in some)
                best = (choices, spent) if not best[0] or spent < best[1] else best
        return best

    def nanoseconds(self, choice: Choice, name: str) -> int:
        """What a kernel takes at the tiles of a choice, of the workload that rows are chosen for."""
        if choice.workload == self.workload:
            return choice.part(name, "ns")
        tiles, said = choice.tiles(name), choice.verdict(name)
        model = KernelModel(choice.kernels[name].at[choice.rows], self.target, self.workload)
        took = said and model.told(said, tiles)
        at = {**tiles, "resident": choice.own(name, "resident")}
        return round(took.nanoseconds) if took else int(evaluate(model.scaled(model.time()[0], self.factor(name)), at))

    def tried(self, names: Sequence[str], rows: int) -> Choice | Clash:
        """The answer by trying every assignment, which is sooner had than the solver's; it does not tell what binds."""
        if (tuple(names), rows) not in self.known:
            self.known[tuple(names), rows] = self.answer(names, [rows], partial(solve_by_enumeration, why=False))
        return self.known[tuple(names), rows]

    def answer(
        self, names: Sequence[str], rows: Iterable[int], solver: Callable[[Problem], Solution | Clash] = solve
    ) -> Choice | Clash:
        rows = list(rows)
        summaries = {name: {c: self.lowered[c].kernel(name)[1] for c in rows} for name in names}
        plan = self.lowered[rows[0]].plan
        shared = plan.roles.blocked if len(names) > 1 and names in groups(plan) else ()
        return choose(
            " and ".join(names), summaries, self.target,
            self.told, shared=shared, workload=self.few if names[0] in PHASES else self.workload, solver=solver,
            factors={name: self.factor(name) for name in names},
        )

    def told(self, name: str, rows: int) -> Told:
        """What the table holds of a kernel with so many rows."""
        if (name, rows) not in self.seen:
            self.seen[name, rows] = self.lowered[rows].told(name, self.target.name, self.table)
        return self.seen[name, rows]

    def factor(self, name: str) -> int:
        """By how much the model of a kernel is too short at least, in hundredths, at any number of rows; of one that nothing is
        known of, the median of the others."""
        own = self.shortest(name)
        if own is not None:
            return own
        names = {k for lowered in self.lowered.values() for k in lowered.plan.kernels}
        others = [factor for k in names if (factor := self.shortest(k)) is not None]
        return max(100, median_low(others)) if others else 100

    def shortest(self, name: str) -> int | None:
        if name not in self.factors:
            found = []
            for rows, lowered in self.lowered.items():
                told = self.told(name, rows) if name in lowered.plan.kernels or name.startswith(TEAM) else ()
                model = KernelModel(lowered.kernel(name)[1], self.target) if told else None
                found += [both[1] for tiles, said in told if model and (both := by_code(model, said, dict(tiles)))]
            self.factors[name] = min(found, default=None)
        return self.factors[name]

    def instead(self, rows: int) -> str:
        """What another number of rows would mean."""
        spent = self.spent(rows)
        if spent is None:
            return f"no tiles: {'; '.join(self.clashing([rows])[1].sentences)}"
        text = f"{spent / 1000:.0f} us"
        return f"{text}, {listing(self.spilling(rows))} spilling" if self.spilling(rows) else text

    def clash(self, names: Sequence[str], found: Clash) -> Diagnostic:
        wishes = self.program.wishes
        sentences = list(found.sentences)
        if wishes.chunks:
            sentences.append(f"the spec's `schedule chunk {{{', '.join(map(str, wishes.chunks))}}}` allows no other rows")
        message = f"no tiles for the kernel `{' and '.join(names)}` of `{self.program.name}` on {self.target.name}"
        labels = (Label(wishes.span, "asked for here"),) if wishes.span is not None else ()
        sizes = next(iter(self.lowered.values())).sizes
        largest = max(self.program.dims, key=lambda dim: sizes.get(dim, 0), default="")
        taken = ", ".join(f"{dim} = {sizes[dim]}" for dim in self.program.dims if dim in sizes)
        half = max(1, sizes.get(largest, 0) // 2)
        change = [f"the tiles are for {taken}: a smaller dim may help, as `--dim {largest}={half}`"] if taken else []
        change += ["other sizes in `schedule` or `tile`"] if wishes.chunks or wishes.tiles or wishes.form else []
        help = "; or ".join([*change, "`--backend cpu` or `--backend torch`, which need no tiles"])
        return Diagnostic("no-tiles", message, labels, cause="; ".join(sentences), help=help, kind="unsupported")
