"""Where names stand in a spec. In: a syntax tree. Out: `Occurrence`s, in source order.

A name is one that the spec declares, wherever it stands; names that a `fold` binds count within it alone. A prime (`K'`) is no
part of a name: it marks a further dim of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from seqc.diagnostics import Span
from seqc.frontend import syntax
from seqc.frontend.trees import FOLDS, fold_parts
from seqc.ir.dims import unprimed


@dataclass(frozen=True)
class Occurrence:
    """A name at a place, without primes. declares: whether it is declared or defined here; inside: the `fold` that binds it."""

    name: str
    span: Span
    declares: bool = False
    inside: Span | None = None


def occurrences(spec: syntax.Spec) -> list[Occurrence]:
    """Every name of a spec that is not a word of the language, in source order, each place once."""
    found: dict[tuple[int, int], Occurrence] = {}
    for statement in spec.statements:
        for one in _below(statement, {}):
            place = (one.span.start, one.span.end)
            if place not in found or one.declares:
                found[place] = one
    return sorted(found.values(), key=lambda one: one.span.start)


def _below(part: object, bound: dict[str, Span]) -> Iterator[Occurrence]:
    match part:
        case syntax.Name(id=name, span=span):
            plain = unprimed(name)
            short = Span(span.source, span.start, span.end - (len(name) - len(plain)))
            yield Occurrence(plain, short, inside=bound.get(name))
        case syntax.SpecName() | syntax.Scan() | syntax.Schedule():
            return
        case syntax.Sparse(names=names, layers=layers):
            for name in (*names, *layers):
                yield from _below(name, bound)
        case syntax.Call():
            yield from _called(part, bound)
        case syntax.DimItem(name=name) | syntax.Decl(name=name) | syntax.Define(name=name) | syntax.Output(name=name):
            yield Occurrence(unprimed(name.id), name.span, declares=True)
            yield from _fields(part, bound)
        case syntax.Axes(names=names):
            for name in names:
                yield Occurrence(name.id, name.span, declares=True)
        case syntax.Node():
            yield from _fields(part, bound)
        case tuple():
            for item in part:
                yield from _below(item, bound)


def _fields(part: syntax.Node, bound: dict[str, Span]) -> Iterator[Occurrence]:
    for field in fields(part):
        yield from _below(getattr(part, field.name), bound)


def _called(call: syntax.Call, bound: dict[str, Span]) -> Iterator[Occurrence]:
    """The name of a function is a word of the language; what a `fold` binds is known in what stands behind its first values."""
    yield from _below(call.dims, bound)
    parts = fold_parts(call) if call.name.id in FOLDS else None
    if parts is None:
        yield from _below(call.args, bound)
        return
    inner = {**bound, **dict.fromkeys((*parts.names, *(own.name.id for own in parts.own)), call.span)}
    yield from _below(parts.starts, bound)
    for arg in dict.fromkeys((*call.args, *parts.own)):
        match arg:
            case syntax.Started(name=name) | syntax.Bound(name=name):
                yield Occurrence(name.id, name.span, declares=True, inside=call.span)
            case syntax.Name(id=name, span=span) if name in parts.names and arg not in parts.starts:
                yield Occurrence(name, span, declares=True, inside=call.span)
    yield from _below((*(own.start for own in parts.own), *parts.bodies), inner)
