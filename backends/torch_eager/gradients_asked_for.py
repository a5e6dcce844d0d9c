"""Statements of a gradient that run only where a call asks for what is made of them.

In: statements in a row, the codes of the results behind them, and the name that tells of each result whether it is asked for.
Out: the same, in groups under `if`s. What all results read stays as it is. Statements change places where none reads or writes
what another writes, so that those of the same results stand together. Conditions that are too long for a line have names, each
made of shorter ones: a stack of layers has many, and nearly the same results behind them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from seqc.backends.torch_eager.lines import laid
from seqc.emit.text import WIDTH, either

_TARGETS = re.compile(r"(\w+(?:, \w+)*) = ")
_WORD = re.compile(r"\b[^\W\d]\w*")


@dataclass
class _Statement:
    """A statement with the comments above it. writes: names that it gives a value, or changes in place."""

    lines: list[str | list[str]] = field(default_factory=list)
    writes: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    serves: frozenset[int] = frozenset()
    loop: bool = False


def only_asked(
    said: Sequence[str | list[str]], results: Sequence[str], needs: Sequence[str], trained: Iterable[int], indent: int,
    fresh: Callable[[str], str],
) -> tuple[list[str], list[str], list[str]]:
    """The lines, the codes of the results, and the lines above all that name long conditions. said: statements, and loops as
    the lines that they have; needs: name of each result's switch; trained: which results are gradients of params; fresh: a
    name that nothing has. What stands up to the last loop stays as it is where all of these need it: a gradient of some inputs
    alone is hardly ever wanted."""
    statements = _statements(said)
    readers: dict[str, set[int]] = {}
    for i, code in enumerate(results):
        for word in _WORD.findall(code):
            readers.setdefault(word, set()).add(i)
    everything = frozenset(range(len(results)))
    for one in reversed(statements):
        one.serves = frozenset(i for name in one.writes for i in readers.get(name, ())) if one.writes else everything
        for word in one.words:
            readers.setdefault(word, set()).update(one.serves)
    loops = [i for i, one in enumerate(statements) if one.loop]
    if loops and set(trained) <= statements[loops[-1]].serves:
        for one in statements[: loops[-1] + 1]:
            one.serves = everything
    lines, runs = list[str](), _together(statements)
    above, terms = _conditions([serves for serves, _ in runs if serves != everything], needs, indent, fresh)
    for serves, group in runs:
        spread = serves in (everything, frozenset())
        if not spread and not group[0].lines[0]:  # an empty line stands above the condition
            lines.append("")
            del group[0].lines[0]
        lines += [] if spread else either(terms[serves], indent).split("\n")
        for line in (line for one in group for line in one.lines):
            deeper = "" if spread else "    "
            if isinstance(line, list):
                lines += [deeper + row for row in line]
            else:
                lines += laid(line, indent + len(deeper)) if line else [""]
    apart = {name for one in statements if one.serves != everything for name in one.writes}
    codes = [code if code.isidentifier() and code not in apart else f"{code} if {need} else None"
             for code, need in zip(results, needs, strict=True)]
    return lines, codes, above


def _conditions(
    asked: Sequence[frozenset[int]], needs: Sequence[str], indent: int, fresh: Callable[[str], str]
) -> tuple[list[str], dict[frozenset[int], list[str]]]:
    """The lines that name long conditions, and the terms of each condition. asked: the results behind each `if`."""
    terms = {serves: [needs[i] for i in sorted(serves)] for serves in asked}
    long_ = [serves for serves in asked if "\n" in either(terms[serves], indent)]
    if len(long_) < 2:
        return [], terms
    lines = laid("# gradients that many statements serve: whether any of them is asked for", indent)
    named: list[frozenset[int]] = []
    for serves in sorted(set(long_), key=lambda one: (len(one), sorted(one))):
        within, left = list[str](), set(serves)
        for smaller in reversed(named):
            if smaller <= serves and len(smaller & left) > 1:
                within += terms[smaller]
                left -= smaller
        name = fresh("asked")
        lines += _named(name, " or ".join([*within, *(needs[i] for i in sorted(left))]), indent)
        terms[serves] = [name]
        named.append(serves)
    return lines, terms


def _named(name: str, condition: str, indent: int) -> list[str]:
    """`name = condition`, in brackets where it takes several lines."""
    pad = " " * indent
    if len(f"{pad}{name} = {condition}") <= WIDTH:
        return [f"{pad}{name} = {condition}"]
    rows = wrap(condition.replace(" or ", " or\xa0"), WIDTH - indent - 4)
    return [f"{pad}{name} = (", *(f"{pad}    {row}".replace("\xa0", " ") for row in rows), f"{pad})"]


def _statements(said: Sequence[str | list[str]]) -> list[_Statement]:
    """The statements. One that assigns nothing changes what it begins with, through a view: `_upper(x, 1, -2).add_(y)`."""
    found, one, known = list[_Statement](), _Statement(), set[str]()
    for line in said:
        one.lines.append(line)
        if isinstance(line, list):
            one.words = {word for row in line for word in _WORD.findall(row)}
            one.loop = True
            one.writes = {name for row in line for name in _written(row.strip(), one.words)}
        elif not line or line.startswith("#"):
            continue
        else:
            one.words, one.writes = set(_WORD.findall(line)), _written(line, known)
        known |= one.writes
        found.append(one)
        one = _Statement()
    return found


def _written(line: str, known: set[str]) -> set[str]:
    """What a statement gives a value or changes. known: the names that it can change."""
    match = _TARGETS.match(line)
    return set(match[1].split(", ")) if match else set([x for x in _WORD.findall(line) if x in known][:1])


def _together(statements: Sequence[_Statement]) -> list[tuple[frozenset[int], list[_Statement]]]:
    """Runs of statements that serve the same results, as long as what they read and write allows."""
    waits: dict[int, set[int]] = {}
    writers: dict[str, set[int]] = {}
    readers: dict[str, set[int]] = {}
    for one in statements:  # after who wrote what it reads or writes, and who read what it writes
        before = [writers.get(word, ()) for word in one.words | one.writes] + [readers.get(name, ()) for name in one.writes]
        waits[id(one)] = set().union(*before)
        for table, names in ((writers, one.writes), (readers, one.words)):
            for name in names:
                table.setdefault(name, set()).add(id(one))
    left, runs = list(statements), list[tuple[frozenset[int], list[_Statement]]]()
    while left:
        serves, run = left[0].serves, list[_Statement]()
        open_ = {id(x) for x in left}
        for one in left:
            if one.serves == serves and not waits[id(one)] & open_:
                run.append(one)
                open_.remove(id(one))
        left = [x for x in left if id(x) in open_]
        runs.append((serves, run))
    return runs
