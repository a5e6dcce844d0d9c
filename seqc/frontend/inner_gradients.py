"""`grad(E, x)`: the derivative of one value of a step by another, as a value of that step.

In: the value of E where leaves stand for x, so that no other value that happens to be equal counts as x; these leaves; and x.
Out: a `Value` with the dims of x, the derivative of the sum of E over its dims. The rules are those of every other gradient, so
that it has derivatives too. What is no leaf, or does not reach E, raises `Misuse`.
"""

from __future__ import annotations

from seqc.analysis.derivative import vjp
from seqc.frontend.complex_pairs import ZERO
from seqc.frontend.values import Misuse, Value, real
from seqc.ir.graph import BATCH, Node, const, depends, leaf, substitute
from seqc.ir.ops.structure import expanded


def stand_in(x: Value, number: int, across: tuple[str, ...]) -> Value:
    """Leaves in the place of x, one value for each sequence; across: the dim of a second axis."""
    parts = [leaf("state", f"grad.{number}.{i}", (BATCH, *across, *x.order)) for i in range(len(x.parts))]
    return Value(parts[0], x.order, parts[1] if len(parts) > 1 else None, x.written, x.places)


def derivative(of: Value, by: Value, x: Value) -> Value:
    """The derivative of the sum of `of` by the leaves `by`, which stand for x."""
    if of.imag is not None:
        raise Misuse("`grad` is of a real value", help="take `re`, `im` or `abs` of it")
    if x.places or any(part.op != "leaf" for part in by.parts):
        cause = "the value is told by a name, a running value, or a state or an input at one time"
        raise Misuse("`grad` is by no value of the step", cause, "give it a name, `z = ...`, and write `grad(E, z)`")
    whole = real(of).node
    if not set(by.parts) & depends([whole], by.parts) or whole not in depends([whole], by.parts):
        raise Misuse("`grad` is of a value that does not read what it is by", help="name what it reads: `W[t-1]` is not `W`")
    found = vjp({"E": whole}, {"E": const(1.0)}, by.parts)
    table = {own: expanded(part, (*part.dims, *x.order)) for own, part in zip(by.parts, x.pair, strict=False)}
    return x.of(ZERO if found[own] is ZERO else _at(found[own], table) for own in by.parts)


def _at(slope: Node, table: dict[Node, Node]) -> Node:
    return substitute({"d": slope}, table)["d"]
