"""The diagonal coefficient of a state -> decays, ready for the rows of a block, and how each factor is read.

Needs: ranges. Gives: `Transition`. Factors that are exponentials become sums of logarithms, grouped by their dims, each with
its range per step; the others are coefficients of any sign, whose products a scan forms exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqc.affine import Product, common_factors
from seqc.graph import BATCH, Node, const, topological
from seqc.intervals import ANY, Interval
from seqc.ops import TABLE
from seqc.passes.blocks.decay import Decay, log_of


@dataclass(frozen=True)
class Transition:
    """A diagonal coefficient as decays, and notes for `explain`."""

    decays: tuple[Decay, ...]
    notes: tuple[str, ...]


def transition(
    diagonal: list[Product], lift: Callable[[Node], Node], masked: Callable[[Node, float], Node],
    ranges: Mapping[Node, Interval],
) -> Transition:
    """diagonal: products of the step graph that are added up. lift: a step's value on rows. masked: neutral on other rows."""
    if not diagonal:  # S = b: the old value counts only through feedback
        return Transition((Decay(None, masked(const(0.0), 1.0), Interval(0.0, 0.0)),), ())
    groups: dict[tuple[frozenset[str], bool], tuple[Node, Interval]] = {}
    for f in common_factors(diagonal):
        if f.op == "const" and f.attr("value") == 1.0:
            continue
        log = log_of(f, ranges)
        known = _range(log, ranges) if log is not None else ANY
        kind = (frozenset(f.dims), log is not None)
        x = log if log is not None else f
        before = groups.get(kind)
        if before is None:
            groups[kind] = (x, known)
        elif kind[1]:
            groups[kind] = (before[0] + x, before[1] + known)
        else:
            groups[kind] = (before[0] * x, ANY)
    decays, notes = [], []
    for (dims, is_log), (x, known) in groups.items():
        lifted = lift(x)
        spread = ", ".join(sorted(dims - {BATCH})) or "no dim"
        if is_log:
            decays.append(Decay(masked(lifted, 0.0), None, known))
            notes.append(f"decay over {spread} kept as a logarithm in {known} per step")
        else:
            decays.append(Decay(None, masked(lifted, 1.0), known))
            notes.append(f"coefficient over {spread} may be zero or negative: exact products by a scan")
    return Transition(tuple(decays), tuple(notes))


def _range(x: Node, ranges: Mapping[Node, Interval]) -> Interval:
    known = dict(ranges)
    for n in topological([x]):
        if n not in known:
            known[n] = TABLE[n.op].interval(n, tuple(known[a] for a in n.args)) if n.op != "leaf" else ANY
    return known[x]
