"""Facts that are worked out once: a function of a program, a block or a schedule -> the same function, which remembers.

What was found lies with the object that it is about, and goes with it; an object that `dataclasses.replace` makes begins anew.
Arguments without a hash (graphs, mappings of ranges) are told apart as objects. All of them are never changed once they are
made: graphs are interned, programs and blocks frozen, and what a remembering function gives is not to be changed either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Concatenate, ParamSpec, TypeVar

X = TypeVar("X")
P = ParamSpec("P")
R = TypeVar("R")


class _Known(dict[tuple[object, ...], tuple[object, object]]):
    """(function, arguments) -> (result, the arguments, which keeps their identities theirs). Copies begin anew."""

    def __reduce__(self) -> tuple[type[_Known], tuple[()]]:
        return _Known, ()


def found_once(work: Callable[Concatenate[X, P], R]) -> Callable[Concatenate[X, P], R]:
    """The function, worked out once for the same first argument, an object with attributes, and the same others, whether they
    are given by place, by name or by default."""
    _, *others = (x for x in signature(work).parameters.values() if x.kind is not Parameter.VAR_POSITIONAL)
    defaults = {x.name: x.default for x in others}

    @wraps(work)
    def found(about: X, /, *more: P.args, **named: P.kwargs) -> R:
        known: _Known = about.__dict__.setdefault("_known", _Known())
        rest = {**dict(list(defaults.items())[len(more) :]), **named}
        key = (work, *map(_same, (*more, *rest.values())))
        if key not in known:
            known[key] = work(about, *more, **named), (more, named)
        return known[key][0]  # type: ignore[return-value]

    return found


def _same(x: object) -> object:
    """What tells an argument from others."""
    try:
        hash(x)
    except TypeError:
        return "object", id(x)
    return x
