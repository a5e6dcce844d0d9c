"""From text to syntax tree. The one module that knows the parser generator, imported when the first spec is read.

In: a source. Out: a `Spec`, or `SpecError` with every syntax mistake of the file: each logical line is parsed by
itself, so one bad line costs only itself. This module never resolves a name.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from seqc import cache, grammar
from seqc.diagnostics import Diagnostic, Label, Source, Span, SpecError, near_miss
from seqc.frontend.idioms import first_words
from seqc.frontend.logical_lines import DECLARED, STATEMENTS, Line, split
from seqc.frontend.read_line import Reader
from seqc.frontend.syntax import Spec, Statement
from seqc.frontend.syntax_errors import explain

if TYPE_CHECKING:
    from lark import Lark

_RULES = {
    "spec": "spec",
    "dim": "dims",
    "axis": "axes",
    "scan": "scan",
    **{word: f"declare_{word}" for word in DECLARED},
    "output": "outputs",
    "eigenvalues": "claim",
    "sparse": "sparse",
    "schedule": "schedule",
    "tile": "tile",
    "checkpoint": "checkpoint",
    "every": "every",
    "down": "down",
    "feedback": "feedback",
    "history": "history",
    "before": "before",
}
_WORD = re.compile(r"[^\W\d]\w*")
_TIME_ON_LEFT = re.compile(r"([^\W\d]\w*)\s*\[\s*(t\b[^\]]*)\]\s*(=(?!=)|,)")
_TARGET = r"[^\W\d]\w*'*\s*(\[[^\[\]]*\]\s*)?"
_SEVERAL = re.compile(rf"{_TARGET}(,\s*{_TARGET})+=(?!=)")


@lru_cache(maxsize=1)
def _parser() -> Lark:
    """The parser. Its tables are made of the grammar once, and then read from the person's cache."""
    import lark

    starts, text = sorted({*_RULES.values(), "define", "defines"}), grammar.text()
    name = hashlib.sha256(repr((text, starts, lark.__version__, sys.version)).encode()).hexdigest()[:32]
    if told := cache.recall(name):
        return lark.Lark.load(io.BytesIO(base64.b64decode(told["tables"])))
    made = lark.Lark(text, parser="lalr", start=starts, propagate_positions=True, maybe_placeholders=False)
    made.save(tables := io.BytesIO())
    cache.remember(name, {"tables": base64.b64encode(tables.getvalue()).decode()})
    return made


def parse(source: Source | str) -> Spec:
    """The tree of a spec. Raises SpecError with all syntax mistakes."""
    parsed = parse_with_errors(source)
    if parsed.found:
        raise SpecError(parsed.found)
    return parsed.spec


@dataclass(frozen=True)
class Parsed:
    """The tree of what could be read; the mistakes of the rest; every word of the lines that could not be read."""

    spec: Spec
    found: tuple[Diagnostic, ...]
    lost: frozenset[str]


def parse_with_errors(source: Source | str) -> Parsed:
    """Parse as much as possible. Never raises on bad text."""
    if isinstance(source, str):
        source = Source("<spec>", source)
    lines, comments, broken, found = split(source)
    statements: list[Statement] = []
    for line in lines:
        result = _statement(line)
        if isinstance(result, tuple):
            statements += result
        else:
            found.append(result)
            broken.append(line)
    found.sort(key=Diagnostic.order)
    words = {word for line in broken for word in _WORD.findall(line.text)}
    lost = frozenset(words | {word.rpartition("_")[0] for word in words})  # S of S_{t-1} too
    return Parsed(Spec(source, tuple(statements), tuple(comments)), tuple(found), lost)


def _statement(line: Line) -> tuple[Statement, ...] | Diagnostic:
    rule = _rule(line)
    if isinstance(rule, Diagnostic):
        return rule
    from lark.exceptions import UnexpectedInput

    try:
        tree = _parser().parse(line.text, start=rule)
    except UnexpectedInput as error:
        return explain(line, error)
    return Reader(line).statements(tree)


def _rule(line: Line) -> str | Diagnostic:
    """The grammar rule that a line's first word asks for."""
    match = _WORD.match(line.text)
    if not match:
        return Diagnostic(
            "syntax",
            "a statement begins with a statement word or with the name that it defines",
            (Label(_part(line, 0, 1), "cannot begin a statement"),),
            help=first_words(line.text) or f"the statement words are {', '.join(STATEMENTS)}",
        )
    word, rest = match.group(), line.text[match.end() :].lstrip()
    if time := _TIME_ON_LEFT.match(line.text):
        return Diagnostic(
            "time-on-the-left",
            f"the left side of a definition is always the value now, without `[{time.group(2).strip()}]`",
            (Label(_part(line, 0, time.end(2) + 1), "a definition names a value, not a time"),),
            cause="a bare name is its value now; `x[t-1]` on the right side is its value one step ago",
            help=f"write `{word} = ...` and shift the times on the right side to match",
        )
    if _SEVERAL.match(line.text):
        return "defines"
    if rest.startswith("[") or (rest.startswith("=") and not rest.startswith("==")):
        return "define"
    if word in _RULES:
        return _RULES[word]
    return Diagnostic(
        "unknown-statement",
        f"`{word}` does not begin a statement",
        (Label(_part(line, 0, match.end()), "neither a statement word nor the name of a definition `NAME = ...`"),),
        help=first_words(line.text) or near_miss(word, STATEMENTS, "the statement words are"),
    )


def _part(line: Line, start: int, end: int) -> Span:
    return Span(line.span.source, line.span.start + start, line.span.start + end)
