"""A definition some steps ahead: what it is made of, as many steps ahead, where there is such a step; else 0.

    e = d[t-2] + x;   e[t+1]  ->  d[t-1] + x[t+1],   e[t+2]  ->  d + x[t+2],   e[t+3]  ->  d[t+1] + x[t+3]
    feedback x = h[t-1];   x[t+1]  ->  where(given[t+1] > 0, x_given[t+1], h)

In: names, a word, steps. Out: its value. An earlier value comes nearer by as many steps as are read ahead: up to now it is
known, whatever it is a value of. What is still to come is made of inputs and params alone, or it is told that it is not known.
An input that a closed loop feeds is such a definition. Where what it is then needs what reads it, that is told as a circle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seqc.diagnostics import Label
from seqc.frontend.complex_pairs import ZERO
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Expr
from seqc.frontend.values import Value, part_names, real
from seqc.ir.graph import Node, leaf, leaves, topological
from seqc.ir.inside import ahead
from seqc.ir.ops.structure import expanded

if TYPE_CHECKING:
    from seqc.frontend.names import Names


class _Unknown(Exception):
    """A value of a step that is still to come, and depends on a state."""


class _Circle(Exception):
    """A value of this step that is made of what is read ahead. Its name is the argument."""


class _Reported(Exception):
    """A name without a value: the user knows."""


def read_ahead(names: Names, word: str, steps: int, words: str, e: Expr) -> Value | None:
    """The definition `word` so many steps ahead (in words: `words`), as read by e; None after a report."""
    fed = word in names.scope.fed
    if fed and word in names.active:
        _refused(names, word, words, e, f"what it is then is made of it, {words} later still")
        return None
    now = names.current(word, e.span)
    if now is None:
        return None
    try:
        number = real(now)
        found = number.of([x if x is ZERO else _later(names, x, steps, e) for x in number.pair])
        return replace(found, places=now.places)
    except _Reported:
        return None
    except _Circle as circle:
        _refused(names, word, words, e, f"what it is then is made of `{circle}` of this step, which needs it")
    except _Unknown:
        later = "what it is then is made of a state at a later step than this one, and states are known up to now"
        _refused(names, word, words, e, later if fed else "at that step it depends on a state, which is known up to now")
    return None


def _refused(names: Names, word: str, words: str, e: Expr, cause: str) -> None:
    """Report what is not known so many steps ahead."""
    fed = word in names.scope.fed
    message = f"the input `{word}` is fed back, and read" if fed else f"the definition `{word}` is read"
    help = "feed another input, and leave this one to the caller" if fed else ""
    names.scope.report("future-state", f"{message} {words} ahead", Label(e.span), cause=cause, help=help)


def not_ahead(scope: Scope, word: str, steps: str, e: Expr, where: str = "", crossing: bool = False) -> None:
    """Report a state that is read ahead, or what an input is in a closed loop. steps: how far, in words, or "". crossing: of
    two axes it is read back on one, and ahead on the other."""
    if word in scope.fed:
        message, cause = f"the input `{word}` is fed back, and read {steps}ahead", "what it is then is made at that step"
        help = "feed another input, and leave this one to the caller"
    else:
        message = f"the state `{word}` cannot be read {steps}ahead"
        cause = f"a state is known from the past up to now{where}; only inputs may be read ahead"
        help = "" if where else f"read inputs ahead instead, as in `x[{scope.axis}+1]`"
        if crossing:
            t, u = scope.axis, scope.second
            cause = f"cells with the same {t} + {u} are computed side by side, and known are those with less: this one is not"
            help = (f"make {u} a dim N, and read `shift[N]({word}[{t}-1], -1)`; where a cell reads its own row, "
                    "`scan[N](0, y -> ..)` goes along it")
    scope.report("future-state", message, Label(e.span), cause=cause, help=help)


def _later(names: Names, x: Node, steps: int, e: Expr) -> Node:
    if names.new_states() & set(topological([x])):
        raise _Unknown
    return ahead(x, steps, {n: _nearer(names, n, steps, e) for n in leaves([x], "state")})


def _nearer(names: Names, n: Node, steps: int, e: Expr) -> Node:
    """An earlier value, so many steps ahead."""
    part, dot, told = n.text("name").partition(".lag")
    called = {x: word for word in (*names.scope.states, *names.deepest) for x in (word, *part_names(word, True))}
    word, back = called.get(part, ""), int(told) if dot and told.isdigit() else 1
    state = names.scope.states.get(word)
    if word == "" or word in names.replaced or word in names.lines or (state is None and not dot):
        raise _Unknown
    if back > steps:
        nearer = back - steps
        name = part if state is not None and nearer == 1 else f"{part}.lag{nearer}"
        return leaf("state", name, n.names("shape"), 0, n.text("type"))
    if state is not None and back < steps and word not in names.scope.fed:
        raise _Unknown
    if word in names.active:
        raise _Circle(word)
    now = names.current(word, e.span)
    if now is None:
        raise _Reported
    value = real(now).pair[part_names(word, True).index(part) if part != word else 0]
    value = expanded(value, n.names("shape"))
    return value if back == steps else _later(names, value, steps - back, e)
