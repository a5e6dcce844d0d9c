"""The diagonal coefficient of a state -> decays, ready for the rows of a block, and how each factor is read.

Needs: ranges. Gives: `Transition`. Factors that are exponentials become sums of logarithms, grouped by their dims, each with
its range per step; the others are coefficients of any sign, whose products a scan forms exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqc.analysis.affine import Product, common_factors, parted
from seqc.ir.graph import BATCH, Node, const, topological
from seqc.ir.intervals import ANY, Interval
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.passes.blocks.decay import Decay, log_of


@dataclass(frozen=True)
class Transition:
    """A diagonal coefficient as decays, where it does not reset the state; and notes for `explain`.

    kept: whether a row keeps what the state was, None where it always does.
    """

    decays: tuple[Decay, ...]
    notes: tuple[str, ...]
    kept: Node | None = None


def transition(
    diagonal: list[Product], lift: Callable[[Node], Node], masked: Callable[[Node, float], Node],
    ranges: Mapping[Node, Interval],
) -> Transition:
    """diagonal: products of the step graph that are added up. lift: a step's value on rows. masked: neutral on other rows."""
    if not diagonal:  # S = b: the old value counts only through feedback
        return Transition((Decay(None, masked(const(0.0), 1.0), Interval(0.0, 0.0)),), ())
    groups: dict[tuple[frozenset[str], bool], tuple[Node, Interval]] = {}
    reset, listed = parted(common_factors(diagonal))
    kept = None if reset is None else lift(reset)
    for f in listed:
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
    decays, notes = [], [] if kept is None else ["a reset drops what stands before it in a block, whatever that is"]
    for (dims, is_log), (x, known) in groups.items():
        lifted = lift(x) if kept is None else where(kept, lift(x), 0.0 if is_log else 1.0)
        spread = ", ".join(sorted(dims - {BATCH})) or "no dim"
        if is_log:
            decays.append(Decay(masked(lifted, 0.0), None, known))
            notes.append(f"decay over {spread} kept as a logarithm in {known} per step")
        else:
            decays.append(Decay(None, masked(lifted, 1.0), known))
            notes.append(f"coefficient over {spread} may be zero or negative: exact products by a scan")
    return Transition(tuple(decays), tuple(notes), kept)


def _range(x: Node, ranges: Mapping[Node, Interval]) -> Interval:
    known = dict(ranges)
    for n in topological([x]):
        if n not in known:
            known[n] = TABLE[n.op].interval(n, tuple(known[a] for a in n.args)) if n.op != "leaf" else ANY
    return known[x]
