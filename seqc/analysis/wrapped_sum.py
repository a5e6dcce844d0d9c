"""Sums that are cut to a range at each step: running phases and angles.

    phase = mod(phase[t-1] + a, c)    ->   (phase[t-1] + a, c), c constant in time

Needs: the step graph. Criteria: a remainder, spelled by `mod` or as `x - floor(x)`, of the state's last value plus what is free
of it. Where the sum is cut makes no difference modulo c, so a sum that is cut more rarely serves the same readers.
"""

from __future__ import annotations

from seqc.analysis.affine import NotAffine, affine
from seqc.ir.graph import Node, const, leaves


def wrapped_sum(update: Node, state: Node) -> tuple[Node, Node] | None:
    """(the sum, the size of the range) of an update in one state leaf, or None."""
    rest = update.args[2] if update.op == "where" else update
    if rest.op != "sub":
        return None
    whole, cut = rest.args
    floor, size = cut.args if cut.op == "mul" else (cut, const(1.0))
    quotient = whole / size if cut.op == "mul" else whole
    if floor.op != "floor" or floor.args[0] is not quotient or leaves([size], "input") or leaves([size], "state"):
        return None
    try:
        terms = affine(whole, [state]).terms
    except NotAffine:
        return None
    return (whole, size) if len(terms) == 1 and not (terms[0].outer or terms[0].over) else None
