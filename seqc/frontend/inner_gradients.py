"""`grad(E, x)`: the derivative of one value of a step by another, as a value of that step.

In: a call, and the elaborator that gives the values of its parts. Out: a `Value` with the dims of x, the derivative of the sum
of E over its dims; None after a report. E is elaborated once more with leaves in the place of x, so that no other value that
happens to be equal counts as x. The rules are those of every other gradient, so that it has derivatives too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.analysis.derivative import vjp
from seqc.frontend import syntax
from seqc.frontend.complex_pairs import ZERO
from seqc.frontend.syntax import Expr
from seqc.frontend.trees import names_in
from seqc.frontend.values import Misuse, Value, real
from seqc.ir.graph import BATCH, Node, const, depends, leaf, substitute, topological
from seqc.ir.ops.structure import expanded

if TYPE_CHECKING:
    from seqc.frontend.expressions import Elaborator, Frame

GRAD = "grad"


def grad(work: Elaborator, e: syntax.Call, frame: Frame) -> Value | None:
    """The derivative of E by x, where x is a name, a running value, or a state or an input at one time."""
    if not work.takes(e, 2, 2, "no"):
        return None
    of, by = e.args
    x, whole = work.expr(by, replace(frame, at={})), work.expr(of, frame)
    if x is None or whole is None:
        return None
    name = by.id if isinstance(by, syntax.Name) else ""
    bound = name in frame.bound
    known = {} if bound else {word: value for word, value in work.fed(e.span).items() if word != name}
    stands = {word: _leaves(work, value) for word, value in known.items()}
    held = _leaves(work, x) if name else x
    others = _read(of, frame, name)
    if bound:
        whole = work.expr(of, _again(work, replace(frame, bound={**frame.bound, name: held}), others))
    elif name or stands:
        values = {**stands, name: held} if name else stands
        whole = work.holding(values, lambda: work.expr(of, _again(work, frame, others)))
    pairs = [(held, x), *((stands[word], known[word]) for word in stands)]
    found = None if whole is None else work.expanded(e, lambda: derivative(whole, pairs))
    for part in topological(found.parts) if found is not None else ():
        work.spans.setdefault(part, e.span)
    return work.placed(found, frame)


def _leaves(work: Elaborator, x: Value) -> Value:
    """Leaves in the place of x, one value for each sequence."""
    work.stand_ins += 1
    parts = [leaf("state", f"grad.{work.stand_ins}.{i}", (BATCH, *work.scope.beside, *x.order)) for i in range(len(x.parts))]
    return Value(parts[0], x.order, parts[1] if len(parts) > 1 else None, x.written, x.places)


def _read(of: Expr, frame: Frame, x: str) -> list[str]:
    """The step's own values behind E, in their order: each is made of those before it. What is behind x does not count."""
    found: list[str] = []
    read = names_in(of)
    for word, (e, _) in reversed([*frame.own.items()]):
        if word in read and word != x:
            found.append(word)
            read |= names_in(e)
    return found[::-1]


def _again(work: Elaborator, frame: Frame, words: Iterable[str]) -> Frame:
    """The frame with some of a step's own values made again, from what it binds."""
    for word in words:
        e, at = frame.own[word]
        frame = replace(frame, bound={**frame.bound, word: work.expr(e, replace(frame, at=at))})
    return frame


def derivative(of: Value, stands: Sequence[tuple[Value, Value]]) -> Value:
    """The derivative of the sum of `of` by the first of some stand-ins. stands: these, each with what it stands for."""
    by, x = stands[0]
    if of.imag is not None:
        raise Misuse("`grad` is of a real value", help="take `re`, `im` or `abs` of it")
    if x.places or any(part.op != "leaf" for part in by.parts):
        cause = "the value is told by a name, a running value, or a state or an input at one time"
        raise Misuse("`grad` is by no value of the step", cause, "give it a name, `z = ...`, and write `grad(E, z)`")
    whole = real(of).node
    if whole not in depends([whole], by.parts):
        raise Misuse("`grad` is of a value that does not read what it is by", help="name what it reads: `W[t-1]` is not `W`")
    found = vjp({"E": whole}, {"E": const(1.0)}, by.parts)
    table = {
        own: expanded(part, (*part.dims, *value.order))
        for leaves, value in stands for own, part in zip(leaves.parts, value.pair, strict=False)
    }
    return x.of(ZERO if found[own] is ZERO else _at(found[own], table) for own in by.parts)


def _at(slope: Node, table: dict[Node, Node]) -> Node:
    return substitute({"d": slope}, table)["d"]
