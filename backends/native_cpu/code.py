"""A program function while it is put together: lines, some of which declare names, and nests with the names that they mention.

In: what the printers of pointers and nests give. Out: text. What a nest mentions of the function around it and of the runtime
is noted as it is printed, so that nobody has to read a line again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

# how a function of its own takes a name: a value; memory that no other name leads to; memory of the program; what tells about
# the call; a variable, as the nest reads or writes it
VALUE, POINTER, MEMORY, OBJECT, VARIABLE = "auto", "auto* __restrict", "auto&", "const auto&", ""


@dataclass(frozen=True)
class Declared:
    """A line that declares names. takes: how a function takes each."""

    line: str
    takes: Mapping[str, str]


@dataclass(frozen=True)
class Nested:
    """Lines that belong together. names: what they mention of what stands outside; written: the variables that they write;
    kind: how the lines open, "block" (a brace), "loop" or "rows" (`with_rows`); "" where they are no function of their own."""

    lines: tuple[str, ...]
    names: frozenset[str]
    written: frozenset[str] = frozenset()
    kind: str = ""


class Text(NamedTuple):
    """C++ that is put together, and what it mentions of the runtime."""

    text: str
    names: frozenset[str]


Code = str | Declared | Nested
MEET = Nested(("team.meet();",), frozenset({"team"}))


def declared(line: str, *names: str, takes: str = VALUE) -> Declared:
    """A line that declares names that a function takes alike."""
    return Declared(line, dict.fromkeys(names, takes))


def indented(code: Iterable[Code], by: int) -> list[Code]:
    """The same, so many levels further in."""
    margin, out = "  " * by, list[Code]()
    for one in code:
        if isinstance(one, str):
            out.append(margin + one)
        elif isinstance(one, Declared):
            out.append(replace(one, line=margin + one.line))
        else:
            out.append(replace(one, lines=tuple(margin + line for line in one.lines)))
    return out


def lines_of(code: Iterable[Code]) -> list[str]:
    """The text, line by line."""
    return [line for x in code for line in (x.lines if isinstance(x, Nested) else (x.line if isinstance(x, Declared) else x,))]


def mentioned(code: Iterable[Code]) -> frozenset[str]:
    """What the nests mention."""
    return frozenset(name for one in code if isinstance(one, Nested) for name in one.names)


def joined(code: Iterable[Code], kind: str, head: Iterable[str], names: Iterable[str], last: str) -> Nested:
    """Several as one, between lines that open and close it. names: what the lines around them mention."""
    code = list(code)
    written = frozenset(name for one in code if isinstance(one, Nested) for name in one.written)
    return Nested((*head, *lines_of(indented(code, 1)), last), mentioned(code).union(names), written, kind)


def with_rows(code: list[Code]) -> list[Code]:
    """Code that needs the number of a block's rows as a constant `r_B` in what gives it; other code as it is."""
    if "r_B" not in mentioned(code):
        return code
    head = ("with_rows(m_B, [&](auto rows_of_block) __attribute__((always_inline)) {", "  constexpr int r_B = rows_of_block;")
    return [joined(code, "rows", head, (), "});")]
