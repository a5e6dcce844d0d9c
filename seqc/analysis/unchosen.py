"""A step that torch differentiates -> one of the same values, in which a branch that is not chosen has no derivative.

torch gives a branch of `where` that is not chosen the cotangent zero, and zero times an infinite slope is NaN. So what enters
the part of a branch that may be infinite is `where(chosen, x, stopgrad(x))`: the same value, whose cotangent is selected, not
multiplied, and so is zero whatever comes from above; derivatives of every order likewise. What is finite where its arguments
are stays as it is, and so does all that no branch holds.

A node counts where any of its users has a derivative by it. So it is made once, however many branches read it, and a stack of
layers whose choices lie within each other grows with the layers: a user that counts at fewer places selects at its own edge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TypeVar

from seqc.analysis.choices import any_of, steep_nodes
from seqc.ir.graph import BATCH, Node, leaves, node, rebuild, renamed
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE, holds
from seqc.ir.ops.elementwise import where
from seqc.ir.program import Program

_ALONG = ("sum", "amax", "expand", "rename")  # operators on dims that leave other dims as they are
_Value = TypeVar("_Value")


@found_once
def without_unchosen(program: Program) -> Program:
    """The program with guarded branches; itself where no branch may be infinite."""
    made = guarded(tuple(program.graph.values()))

    def named(given: Mapping[Node, _Value]) -> dict[Node, _Value]:
        return {made.get(n, n): value for n, value in given.items()}

    updates = {x: made.get(n, n) for x, n in program.updates.items()}
    outputs = {x: made.get(n, n) for x, n in program.outputs.items()}
    if updates == program.updates and outputs == program.outputs:
        return program
    definitions, spans = named(program.definitions), named(program.spans)
    return replace(program, updates=updates, outputs=outputs, definitions=definitions, spans=spans)


@dataclass(frozen=True)
class _Use:
    """A user's argument. chosen: where the user has a derivative by it, None for everywhere; wild: whether its cotangent may be
    infinite or NaN elsewhere."""

    user: Node
    at: int
    chosen: Node | None
    wild: bool


def guarded(roots: Collection[Node]) -> dict[Node, Node]:
    """What each node becomes, of those that may be infinite."""
    always = set(roots)
    steep = steep_nodes(roots)
    order = [n for n in steep if steep[n] and n.dtype != "bool"]
    uses: dict[Node, list[_Use]] = {n: [] for n in order}
    guards: dict[tuple[Node, int], Node] = {}
    for n in reversed(order):  # users before what they read
        counts = None if n in always or not uses[n] else _either([_own(n, use.chosen) for use in uses[n]])
        wild = False
        for use in uses[n]:
            if use.wild and use.chosen is not None and use.chosen is not counts:
                guards[use.user, use.at] = use.chosen
            else:
                wild |= use.wild
        wild_below = wild or (counts is not None and n.op != "where" and not holds(n, "additive"))
        for at, chosen in _edges(n, counts):
            a = n.args[at]
            if a in uses:
                uses[a].append(_Use(n, at, chosen, wild_below))
            elif chosen is not None and wild_below and a.dtype == "real" and leaves([a]):
                guards[n, at] = chosen
    made: dict[Node, Node] = {}
    for n in order:
        args = [a if n.op == "where" and not at else made.get(a, a) for at, a in enumerate(n.args)]
        for at, x in enumerate(args):
            if (n, at) in guards:
                args[at] = where(guards[n, at], x, node("stopgrad", x))
        made[n] = rebuild(n, tuple(args))
    return made


def _edges(n: Node, counts: Node | None) -> list[tuple[int, Node | None]]:
    """The places of the arguments by which a node has a derivative, and where it has."""
    if n.op == "stopgrad":
        return []
    if n.op == "where":
        return [(1, _both(counts, n.args[0])), (2, _both(counts, _not(n.args[0])))]
    if counts is None or TABLE[n.op].elementwise:
        return [(at, counts) for at in range(len(n.args))]
    if n.op == "rename":
        counts = renamed(counts, n.text("new"), n.text("old"))
    if n.op not in _ALONG:  # it mixes the places of a dim
        counts = any_of(counts, tuple(d for d in counts.dims if d != BATCH))
    return [(at, _own(a, counts)) for at, a in enumerate(n.args)]


def _own(a: Node, chosen: Node | None) -> Node | None:
    """A condition on a node's own dims: where any place of another dim is chosen."""
    return None if chosen is None else any_of(chosen, tuple(d for d in chosen.dims if d not in a.dims))


def _not(test: Node) -> Node:
    return test.args[0] if test.op == "not" else node("not", test)


def _both(chosen: Node | None, test: Node) -> Node:
    return test if chosen is None or test in _terms(chosen) else node("and", chosen, test)


def _terms(chosen: Node) -> dict[Node, None]:
    """What must hold for a condition to hold, in order."""
    found, stack = dict[Node, None](), [chosen]
    while stack:
        n = stack.pop()
        if n.op == "and":
            stack += reversed(n.args)
        else:
            found[n] = None
    return found


def _either(conditions: Iterable[Node | None]) -> Node | None:
    """Where any of some conditions holds: None for everywhere. Both sides of a choice count as what is beside it, and what says
    more than another condition is left out."""
    left: list[dict[Node, None]] = []
    for chosen in conditions:
        if chosen is None:
            return None
        terms = _terms(chosen)
        for other in list(left):
            differ = terms.keys() ^ other.keys()
            if len(differ) == 2 and any(_not(x) in differ for x in differ):
                left.remove(other)
                terms = {x: None for x in terms if x not in differ}
        if not any(other.keys() <= terms.keys() for other in left):
            left = [*(other for other in left if not terms.keys() <= other.keys()), terms]
    if not all(left):
        return None
    return reduce(partial(node, "or"), (reduce(partial(node, "and"), terms) for terms in left))
