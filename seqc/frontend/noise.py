"""`normal[D](..)`, `uniform[D](..)`, `bernoulli[D](p)`: noise that is drawn in the step, put into the step graph.

In: calls of the tree with their elaborated arguments. Out: `Value`s over the hidden states of `seqc.analysis.noise`. A draw's
site is the name that it is defined under (of `a, b = fold[J](..)` the first) and its place among the draws of that definition:
spaces, comments and the order of statements change no number, and a new draw elsewhere changes none of the others. A draw is a
value: wherever its definition is read in a step it is the same, and what a `fold` writes out differs from step to step where
the draw has the fold's dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from seqc.analysis.noise import CLOCK, HIGH, LOW, draw
from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.choices import chosen
from seqc.frontend.declared import square
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Call, Expr, Name, Taken
from seqc.frontend.trees import walk
from seqc.frontend.values import Misuse, Value, apply, number, real, within

DRAWN = {"normal": (0, 2), "uniform": (0, 2), "bernoulli": (1, 1), "sample": (1, 1)}
"""Name -> how many arguments a draw may have beside `once`."""
ONCE = "once"
SITES = 1 << 16


def sites(scope: Scope, spec: syntax.Spec) -> dict[int, int]:
    """The site of every draw, by the id of its call. Where two hashes meet, the one of the later name moves on by one."""
    found: dict[tuple[str, int], Call] = {}
    named = [(name, define.expr) for name, define in scope.defines.items()]
    named += [(f"every {s.body.name.id}", s.body.expr) for s in spec.statements if isinstance(s, syntax.Every)]
    for name, e in named:
        if isinstance(e, Taken) and e.place:
            continue  # the draws of a `fold` with several names are those of its first name
        calls = [x for x in walk(e) if isinstance(x, Call) and x.name.id in DRAWN] if e is not None else []
        found |= {(name, i): call for i, call in enumerate(calls)}
    taken: dict[int, int] = {}
    for name, i in sorted(found):
        site = crc32(f"{name}.{i}".encode()) % SITES
        while site in taken.values():
            site = (site + 1) % SITES
        taken[id(found[name, i])] = site
    return taken


def split_once(args: Sequence[Expr]) -> tuple[tuple[Expr, ...], bool]:
    """The arguments of a draw without `once`, and whether it was there."""
    once = bool(args) and isinstance(args[-1], Name) and args[-1].id == ONCE
    return tuple(args[: len(args) - once]), once


def drawn(
    e: Call, args: Sequence[Value], site: int, at: Mapping[str, int], once: bool, across: tuple[str, ...] = ()
) -> Value:
    """The value of a draw. at: dims that are held at one position; across: the dim of a second axis. Raises Misuse."""
    name = e.name.id
    fewest, most = DRAWN[name]
    if len(args) not in (fewest, most):
        help = {"normal": "`normal[D]()` or `normal[D](mean, std)`", "uniform": "`uniform[D]()` or `uniform[D](low, high)`",
                "bernoulli": "`bernoulli[D](p)`, with the chance p of a 1", "sample": "`sample[V](logits)`"}
        raise Misuse(f"`{name}` takes {'one argument' if most == 1 else 'no argument or two'}, and `once` behind",
                     help=f"write {help[name]}")
    if name == "sample":
        return _sampled(e, args[0], site, at, once, across)
    dims = square(e.dims or ())
    if len(set(dims)) < len(dims):
        raise Misuse(f"`{name}` repeats a dim", help="a further dim of the same size is written `D''`")
    order = tuple(d for d in dims if d not in at)

    def one(word: int) -> Value:
        return Value(draw(dims, site, once, word, at, across), order, None, within([order], order))

    if name == "bernoulli":
        return apply("lt", one(0), real(args[0]))
    if name == "uniform":
        low, high = map(real, args or (number(0.0), number(1.0)))
        return one(0) * (high - low) + low if args else one(0)
    # Box and Muller: the length is that of a pair of normal numbers, the angle is uniform
    length = apply("sqrt", -2.0 * apply("log", 1.0 - one(0)))
    x = length * apply("cos", 2 * math.pi * one(1))
    return x * real(args[1]) + real(args[0]) if args else x


def _sampled(
    e: Call, logits: Value, site: int, at: Mapping[str, int], once: bool, across: tuple[str, ...]
) -> Value:
    """A position, each with the chance that the softmax of the logits gives it: that of the largest with Gumbel noise."""
    dims = square(e.dims or ())
    if len(dims) != 1 or dims[0] not in logits.order:
        help = "write `sample[V](logits)`, with logits that have the dim V"
        raise Misuse(f"`sample` chooses a position of one dim that its argument has, which is {logits.shown()}", help=help)
    u = Value(draw((*at, *logits.order), site, once, 0, at, across), logits.order)
    return chosen(real(logits) + -apply("log", -apply("log", u)), dims)


def refuse_draw(scope: Scope, e: Call) -> None:
    """Report a draw that stands in no step."""
    cause = "noise is drawn in the step, and this is computed before the first one"
    help = "a param is filled at random: `init normal(mean, std)`; a state's start is passed as `NAME_0`"
    scope.report("not-constant", f"`{e.name.id}` stands in no step", Label(e.span), cause=cause, help=help)


def states_read(once: Iterable[bool]) -> frozenset[str]:
    """The hidden states that draws read, of which it is known whether they are drawn once a sequence."""
    found = tuple(once)
    return frozenset((LOW, HIGH, *(() if all(found) else (CLOCK,)))) if found else frozenset()
