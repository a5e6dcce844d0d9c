"""Statements of a gradient that run only where a call asks for what is made of them.

In: statements in a row, the codes of the results behind them, and the name that tells of each result whether it is asked for.
Out: the same, in groups under `if`s. What all results read stays as it is. Statements change places where none reads or writes
what another writes, so that those of the same results stand together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from seqc.backends.torch_eager.lines import laid
from seqc.emit.text import either

_TARGETS = re.compile(r"(\w+(?:, \w+)*) = ")
_WORD = re.compile(r"\b[^\W\d]\w*")


@dataclass
class _Statement:
    """A statement with the comments above it. writes: names that it gives a value, or changes in place."""

    lines: list[str] = field(default_factory=list)
    writes: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    serves: frozenset[int] = frozenset()


def only_asked(said: Sequence[str], results: Sequence[str], needs: Sequence[str], indent: int) -> tuple[list[str], list[str]]:
    """The lines, and the codes of the results. needs: name of each result's switch."""
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
    lines: list[str] = []
    for serves, group in _together(statements):
        spread = serves in (everything, frozenset())
        lines += [] if spread else either([needs[i] for i in sorted(serves)], indent).split("\n")
        lines += [row for one in group for line in one.lines for row in laid(line, indent + 4 * (not spread)) if line]
    apart = {name for one in statements if one.serves != everything for name in one.writes}
    codes = [code if code.isidentifier() and code not in apart else f"{code} if {need} else None"
             for code, need in zip(results, needs, strict=True)]
    return lines, codes


def _statements(said: Sequence[str]) -> list[_Statement]:
    """The statements. One that assigns nothing changes what it begins with, through a view: `_upper(x, 1, -2).add_(y)`."""
    found, one, known = list[_Statement](), _Statement(), set[str]()
    for line in said:
        one.lines.append(line)
        if not line or line.startswith("#"):
            continue
        one.words = set(_WORD.findall(line))
        match = _TARGETS.match(line)
        one.writes = set(match[1].split(", ")) if match else set([x for x in _WORD.findall(line) if x in known][:1])
        known |= one.writes
        found.append(one)
        one = _Statement()
    return found


def _together(statements: Sequence[_Statement]) -> list[tuple[frozenset[int], list[_Statement]]]:
    """Runs of statements that serve the same results, as long as what they read and write allows."""
    waits = {id(b): {id(a) for a in statements[:j] if a.writes & b.words or b.writes & a.words} for j, b in enumerate(statements)}
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


__all__ = ["only_asked"]
