"""The plan of a program: the stages that a call goes through, each a program of its own.

A stage reads arguments of the call and what stages before it wrote: the inputs and params of its program. It writes the outputs
of its program, and the final values of its states, which are states of the whole. `walk` is how it goes through a sequence:

    once       params alone, before the first step; what it writes is the same at every step, a param of who reads it
    ones       nothing is read: 1 for every step of a sequence (`seqc.ir.inside`)
    all        every step at once
    taps       every step at once: a sum over many lags of an input
    steps      the recurrence, step by step or in blocks
    both       `inner` twice, from the first step on and from the last step back (`seqc.ir.both_ways`)
    diagonals  `inner` over the diagonals of two axes (`seqc.ir.two_axes`)
    clocks     nothing is read: what counts the steps of groups, in closed form
    groups     `inner` at the last step of each group; what it gives is held until the next
    rows       `inner` at each step, between reading and writing rows of `tables`
    newton     all steps of `inner` at once, by Newton's method (`seqc.analysis.newton`), or `inner` where that does not settle

`seqc.passes.plan` makes plans; a backend serves stages; `seqc.driver.compose.chain` joins what backends made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from seqc.diagnostics import SeqcBug
from seqc.ir.arguments import argument_table
from seqc.ir.block import Reason
from seqc.ir.graph import topological
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.ir.verify import verify_program

FLAT, NESTED = ("once", "ones", "clocks", "all", "taps", "steps"), ("both", "diagonals", "groups", "rows", "newton")


@dataclass(frozen=True)
class Rows:
    """Rows that are read or written. name: of the inner program's input or output; place: the index that tells where."""

    name: str
    place: str


@dataclass(frozen=True)
class Table:
    """A state whose rows are told by indices. axis: of its array [B, ..], the one whose positions these are."""

    state: str
    axis: int
    reads: tuple[Rows, ...]
    written: Rows


@dataclass(frozen=True)
class Groups:
    """The groups of `steps` steps of a slow stage. count: its input that tells how many of a group's steps are before this one;
    whole: the inner program's input that is 1 for a group that ends, and 0 for one that the sequence cuts off; picked: of the
    other inner inputs, the stage's input and how many steps before the end of a group it is read; made: state -> the inner
    output that is its value after each group; held: output of the stage -> the state that it is, and whether before the step.
    """

    steps: int
    count: str
    whole: str
    picked: Mapping[str, tuple[str, int]]
    made: Mapping[str, str]
    held: Mapping[str, tuple[str, bool]]


@dataclass(frozen=True)
class Stage:
    """See the file's docstring. form: "step" where a recurrence has no other form; None leaves it to the passes of blocks."""

    name: str
    walk: str
    program: Program
    inner: Plan | None = None
    tables: tuple[Table, ...] = ()
    groups: Groups | None = None
    form: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs and params that it reads."""
        return tuple(a.name for a in argument_table(self.program) if a.kind != "state")

    @property
    def writes(self) -> tuple[str, ...]:
        """Its outputs, then NAME_T of its states."""
        return (*self.program.output_decls, *(f"{name}_T" for name in self.program.states))


@dataclass(frozen=True)
class Plan:
    """The stages of a program, in an order in which they can run; and what was decided about them."""

    program: Program
    stages: tuple[Stage, ...]
    reasons: tuple[Reason, ...] = ()

    def every(self) -> Iterator[Stage]:
        """The stages, each before those inside of it."""
        for stage in self.stages:
            yield stage
            yield from stage.inner.every() if stage.inner else ()

    @property
    def cores(self) -> tuple[Stage, ...]:
        """The recurrences."""
        return tuple(stage for stage in self.every() if stage.walk == "steps")

    @property
    def whole(self) -> bool:
        """Whether nothing leaves the recurrences to run for all steps at once."""
        return all(stage.walk not in ("all", "taps") for stage in self.every())

    @property
    def told(self) -> tuple[Reason, ...]:
        """The reasons, with those of inner plans."""
        inner = (reason for stage in self.stages if stage.inner for reason in stage.inner.told)
        return (*self.reasons, *inner)


# (a recurrence, names that nothing new may have) -> stages that do the same; None where it stays
Rule = Callable[[Stage, frozenset[str]], Plan | None]


def planned(program: Program, rules: tuple[Rule, ...]) -> Plan:
    """The plan of one recurrence, after the rules: each is applied to every recurrence that the ones before it left.

    What clips a gradient stands in one stage, for two would each clip their part of a sum: a cut through it is not made.
    """
    plan = _uncut(program)
    for rule in rules:
        plan = _applied(plan, rule)
        verify_plan(plan, rule.__name__)
    return plan


@found_once
def _uncut(program: Program) -> Plan:
    return Plan(program, (Stage("core", "steps", program),))


@found_once
def _cut(stage: Stage, rule: Rule, taken: frozenset[str]) -> Plan | None:
    return rule(stage, taken)


def _applied(plan: Plan, rule: Rule) -> Plan:
    stages: list[Stage] = []
    reasons = list(plan.reasons)
    for i, stage in enumerate(plan.stages):
        others = [plan.program, *(one.program for one in (*stages, *plan.stages[i + 1 :]))]
        taken = frozenset(name for one in others for name in (*one.inputs, *one.params, *one.output_decls))
        if stage.inner:
            stages.append(replace(stage, inner=_applied(stage.inner, rule)))
        elif stage.walk == "steps" and (new := _cut(stage, rule, taken)) is not None and _clips(new.stages) <= _clips((stage,)):
            stages += new.stages
            reasons += new.reasons
        else:
            stages.append(stage)
    return Plan(plan.program, tuple(stages), tuple(reasons))


def _clips(stages: tuple[Stage, ...]) -> int:
    """How many values of the stages have a clipped gradient."""
    inner = sum(_clips(stage.inner.stages) for stage in stages if stage.inner)
    own = (n for stage in stages if not stage.inner for n in topological(stage.program.graph.values()))
    return inner + sum(n.op == "gradclip" for n in own)


def verify_plan(plan: Plan, where: str) -> None:
    """Check that every stage finds what it reads, and that results are written once. Raises SeqcBug naming `where`."""
    known = {a.name for a in argument_table(plan.program) if a.kind != "state"}
    written: list[str] = []
    for stage in plan.stages:
        if (stage.walk in NESTED) != (stage.inner is not None) or stage.walk not in (*FLAT, *NESTED):
            raise SeqcBug(where, f"stage {stage.name} has the walk {stage.walk}")
        if missing := [name for name in stage.reads if name not in known]:
            raise SeqcBug(where, f"stage {stage.name} reads {', '.join(missing)}, which nothing before it writes")
        if stage.inner:
            verify_plan(stage.inner, where)
        elif stage.program.direction != "both" and stage.program.plane is None:
            verify_program(stage.program, f"{where}, stage {stage.name}")
        known.update(stage.program.output_decls)
        written += stage.writes
    wanted = {*plan.program.output_decls, *(f"{name}_T" for name in plan.program.states)}
    if len(set(written)) < len(written) or not wanted <= set(written):
        raise SeqcBug(where, f"the stages write {', '.join(written)}, for {', '.join(sorted(wanted))}")
    names = [stage.name for stage in plan.every()]
    if len(set(names)) < len(names):
        raise SeqcBug(where, f"two stages have one name, of {', '.join(names)}")


__all__ = ["FLAT", "NESTED", "Groups", "Plan", "Rows", "Rule", "Stage", "Table", "planned", "verify_plan"]
