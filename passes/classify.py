"""step graph -> its components: strongly connected groups of states, in the order in which they can be computed.

Needs: the step graph. Gives: `Component`s with a class and the reason in terms of the source. A state is in a component
with those that it depends on and that depend on it through one step. The class says how the new state depends on the old
one:
- "taps": not at all; its old value is an earlier value of something else;
- "diagonal": S = d * S[t-1] + b;
- "low rank": diagonal, plus terms a * sum[X](b * S[t-1]);
- "maximum": m = max(m[t-1] + a, b), linear over the semiring (max, +);
- "coupled": linear, several states mixed by coefficients;
- "dense": linear, but no sum of elementwise and low-rank terms: mixed along a dim by a matrix, say;
- "constant": never changes, and has no gradient: the key of a sequence's noise;
- "counter": steps since the last boundary, of states that are replaced there; such a state has the class of its own update;
- "nonlinear": the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from seqc.analysis.affine import Affine, NotAffine, affine, nonlinear
from seqc.analysis.boundaries import counters, hook_of
from seqc.analysis.component import Component
from seqc.analysis.noise import CLOCK
from seqc.analysis.rotation import rotation
from seqc.analysis.running_maximum import running_maximum
from seqc.analysis.wrapped_sum import wrapped_sum
from seqc.ir.formula import spell
from seqc.ir.graph import Node, depends, leaves, topological
from seqc.ir.once import found_once
from seqc.ir.program import Program


@found_once
def classify(program: Program) -> tuple[Component, ...]:
    """The program's components, each after those whose values it reads."""
    leaf_of = {d.leaf(): name for name, d in program.states.items()}
    reads = {name: {leaf_of[n] for n in leaves([update], "state") if n in leaf_of} for name, update in program.updates.items()}
    out = []
    for members in _groups(tuple(program.states), reads):
        cyclic = len(members) > 1 or members[0] in reads[members[0]]
        out.append(_component(program, members, cyclic))
    return tuple(out)


def _groups(names: tuple[str, ...], reads: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """Names that reach each other through what they read, each group after those that it reads, by the place of its first."""
    place = {name: 1 << i for i, name in enumerate(names)}
    below = {name: sum(place[other] for other in reads[name]) for name in names}  # all that a name reaches, as bits
    for name in names:  # through this one, and all before it
        for other in names:
            if below[other] & place[name]:
                below[other] |= below[name]
    group = {x: tuple(y for y in names if y == x or (below[x] & place[y] and below[y] & place[x])) for x in names}
    found: list[tuple[str, ...]] = []
    done = 0
    while left := [x for x in names if not place[x] & done]:
        ready = next(x for x in left if not below[x] & ~done & ~sum(place[y] for y in group[x]))
        found.append(group[ready])
        done |= sum(place[y] for y in group[ready])
    return found


def _component(program: Program, members: tuple[str, ...], cyclic: bool) -> Component:
    if not cyclic:
        return Component(members, "taps", f"{members[0]} does not depend on its own past", {})
    if (period := counters(program).get(members[0])) is not None and len(members) == 1:
        why = "counts the steps: noise is drawn from it" if members[0] == CLOCK else (
            f"counts the steps since the last boundary, one every {period}")
        return Component(members, "counter", why, {})
    if len(members) == 1 and _constant(program, members[0]):
        return Component(members, "constant", f"{members[0]} never changes", {})
    hook = hook_of(program, members[0]) if len(members) == 1 else None
    if hook is not None:
        own = replace(program, updates={**program.updates, members[0]: hook.free})
        found = _component(own, members, members[0] in {n.text("name") for n in leaves([hook.free], "state")})
        return replace(found, why=f"{found.why}; replaced after every {hook.period} steps", hook=hook)
    leaf_nodes = [program.states[m].leaf() for m in members]
    forms: dict[str, Affine] = {}
    for m in members:
        try:
            forms[m] = affine(program.updates[m], leaf_nodes)
        except NotAffine as stop:
            if len(members) == 1 and running_maximum(program.updates[m], leaf_nodes[0]) is not None:
                return Component(members, "maximum", f"{m} is a running maximum{_quote(program, stop.at)}", {})
            first = next(filter(None, (nonlinear(program.updates[x], leaf_nodes) for x in members)), None)
            kind, told = ("dense", stop) if first is None else ("nonlinear", first)
            why = f"{told.why}{_quote(program, told.at)}{_instead(program, members)}"
            return Component(members, kind, why, {}, told.at)
    if len(members) > 1:
        turned = rotation(members, leaf_nodes, forms) is not None
        why = "are turned and scaled as one complex number an element" if turned else "feed each other linearly"
        return Component(members, "coupled", f"{', '.join(members)} {why}", forms)
    form = forms[members[0]]
    ranked = [t for t in form.terms if t.over]
    if not ranked:
        return Component(members, "diagonal", f"each element of {members[0]} depends on its own past only", forms)
    dims = sorted({d for t in ranked for d in t.over})
    across = sorted({d for t in ranked for d in t.across})
    each = f", for each index of {', '.join(across)}," if across else ""
    read, write = ("a term reads", "writes") if len(ranked) == 1 else (f"{len(ranked)} terms read", "write")
    why = f"{read} {members[0]}[t-1] contracted over {', '.join(dims)}{each} and {write} it back"
    return Component(members, "low rank", why, forms)


def _constant(program: Program, state: str) -> bool:
    """Whether a state keeps its first value, and takes no gradient."""
    update = program.updates[state]
    return update.op == "stopgrad" and update.args[0] is program.states[state].leaf()


def _instead(program: Program, members: tuple[str, ...]) -> str:
    """What to write of a running phase, so that it is a sum."""
    name, names = members[0], {n: program.spans[n].text for n in program.spans}
    found = wrapped_sum(program.updates[name], program.states[name].leaf()) if len(members) == 1 else None
    if found is None:
        return ""
    whole, size = (names.get(x, spell(x, names)) for x in found)
    rest = f"mod({name}, {size})"
    return (f". A sum that is cut at boundaries alone runs as a scan, `{name} = {whole}` with `every 64: {name} = {rest}`;"
            f" so does a sum that is never cut, with `{rest}` in what reads it")


def _quote(program: Program, at: Node) -> str:
    """The spec's words for a value: its own, else those of the smallest expression around it that has some."""
    around = depends(program.graph.values(), [at])
    span = next((program.spans[n] for n in topological(program.graph.values()) if n in around and n in program.spans), None)
    return "" if span is None else f": `{span.text}`"
