"""The passes of the compiler, one file each, and PIPELINE: the stages of a program on its way to a block.

In: a program, a wished form and number of rows, and the machine that the form is chosen for: the names in GIVEN. Out:
"block". A stage is a pure function of what earlier stages gave; that every need is given before is checked when this
module is imported. `seqc.driver.pipeline` runs the stages, with the verifier after each. LOWERINGS: the passes that
backends ask for once they have a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from seqc.analysis.component import Component
from seqc.analysis.ranges import interval_of, steep_roots
from seqc.ir.block import Block, Reason
from seqc.ir.formula import spell
from seqc.ir.graph import Node
from seqc.ir.intervals import Interval
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.passes import lower
from seqc.passes.blocks.choose import Candidate, Offers, block_forms, choose_form
from seqc.passes.blocks.eliminate import eliminate
from seqc.passes.blocks.selecting import settled
from seqc.passes.claims import check_claims
from seqc.passes.classify import classify
from seqc.passes.derive_backward import derive_backward
from seqc.passes.simplify.simplify import simplify

GIVEN = ("program", "form", "rows", "machine")


@dataclass(frozen=True)
class Stage:
    """One stage. `run` takes the values called `needs`, in that order; what it answers is called `gives`."""

    name: str
    run: Callable[..., object]
    needs: tuple[str, ...]
    gives: str


def gradient(program: Program, chosen: Candidate) -> Mapping[str, Node]:
    """The vector-Jacobian product of the chosen block, as the derivative rules give it."""
    return derive_backward(program, chosen.form, chosen.forward)


def assemble(
    program: Program,
    components: tuple[Component, ...],
    claims: tuple[Reason, ...],
    offers: Offers,
    chosen: Candidate,
    backward: Mapping[str, Node],
    ranges: Mapping[Node, Interval],
) -> Block:
    """The block: both graphs, and the reasons of every decision on the way."""
    classes = [Reason("class", ", ".join(c.states), f"{c.kind}: {c.why}") for c in components]
    steep = "may be 0, where its derivative is unbounded: the derivative counts as 0 there"
    roots = [Reason("numerics", spell(n), steep) for n in steep_roots(program, ranges)]
    reasons = (*classes, *claims, *chosen.reasons, *roots)
    single = _single(program, offers.step.forward, offers.step.names) if chosen.rows > 1 else None
    forward, names = _settled(program, chosen.forward, chosen.names)
    return Block(program, chosen.form, chosen.rows, forward, _settled(program, backward)[0], reasons, names, single)


@found_once
def _settled(
    program: Program, graph: Mapping[str, Node], names: Mapping[Node, str] = MappingProxyType({})
) -> tuple[Mapping[str, Node], Mapping[Node, str]]:
    return settled(graph, names)


@found_once
def _single(program: Program, forward: Mapping[str, Node], names: Mapping[Node, str]) -> Block:
    """The same recurrence step by step, without a gradient."""
    return Block(program, "step", 1, forward, {}, names=names)


PIPELINE: tuple[Stage, ...] = (
    Stage("classify", classify, needs=("program",), gives="components"),
    Stage("ranges", interval_of, needs=("program",), gives="ranges"),
    Stage("claims", check_claims, needs=("program", "components"), gives="claims"),
    Stage("block_forms", block_forms, ("program", "components", "ranges", "form", "rows", "machine"), gives="offers"),
    Stage("choose_form", choose_form, needs=("program", "offers", "form"), gives="chosen"),
    Stage("derive_backward", gradient, needs=("program", "chosen"), gives="gradient"),
    Stage("simplify", simplify, needs=("gradient",), gives="backward"),
    Stage("assemble", assemble, needs=(
        "program", "components", "claims", "offers", "chosen", "backward", "ranges"), gives="whole"),
    Stage("eliminate", eliminate, needs=("whole", "machine"), gives="block"),
)

LOWERINGS: tuple[Stage, ...] = tuple(Stage(name, run, ("block",), "lowered") for name, run in (
    ("along", lower.without_moves), ("regroup", lower.regrouped), ("unroll_steps", lower.two_steps),
    ("hoist", lower.hoisted), ("pieces", lower.in_pieces),
))
"""What backends ask for, each on a block that the stages above give."""

CHECKS = ("classify", "ranges", "claims")  # the stages that find what is wrong with a spec


def ordered(stages: tuple[Stage, ...], given: tuple[str, ...] = GIVEN) -> tuple[Stage, ...]:
    """The stages as they are. ValueError where one needs what no earlier one gives, or two have a name in common."""
    known = set(given)
    for stage in stages:
        missing = [need for need in stage.needs if need not in known]
        if missing:
            raise ValueError(f"stage {stage.name} needs {', '.join(missing)}, which nothing before it gives")
        if stage.gives in known:
            raise ValueError(f"stage {stage.name} gives {stage.gives}, which is there already")
        known.add(stage.gives)
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError("two stages have one name")
    return stages


ordered(PIPELINE)

__all__ = ["CHECKS", "GIVEN", "LOWERINGS", "PIPELINE", "Stage", "ordered"]
