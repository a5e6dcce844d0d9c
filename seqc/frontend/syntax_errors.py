"""Turns the parser generator's complaint about a line into a diagnostic.

In: a line and the exception (only its position, token and expected terminals are read). Out: a `Diagnostic` that says
what was found, what may stand there, and how a spec writes the thing that other languages write in this way.
"""

from __future__ import annotations

import re
from typing import Any

from seqc.diagnostics import Diagnostic, Label, Span
from seqc.frontend.idioms import at_stop
from seqc.frontend.logical_lines import MARKS, Line

# what a run of expected terminals is called; the first group whose terminals are all expected is named, and removed
_GROUPS = (
    ({"NAME", "LPAR", "MINUS", "INT"}, {"NUM", "IMAGINARY", "PLUS", "NOT"}, "a value"),
    ({"PLUS", "MINUS"}, {"TIMES", "OVER", "MATMUL", "POWER", "COMPARE", "AND", "OR"}, "an operator"),
)
_WORDS = {
    "NAME": "a name",
    "INT": "a whole number",
    "NUM": "a number",
    "IMAGINARY": "",
    "DOC": 'documentation in `"""`',
    "$END": "the end of the line",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "PERCENT": "`%`",
    "POWER": "`^`",
    "MATMUL": "`@`",
    "OVER": "`/`",
    "COMPARE": "a comparison",
    "PLUS": "`+`",
    "MINUS": "`-`",
    "TIMES": "`*`",
    "_TO": "`..`",
    "_ARROW": "`->`",
    "_OF_UNITS": "`over`",
}

def explain(line: Line, error: Any) -> Diagnostic:
    """The diagnostic for the first thing in a line that no rule allows."""
    at = min(error.pos_in_stream if error.pos_in_stream is not None else len(line.text), len(line.text))
    token = getattr(error, "token", None)
    ended = token is not None and token.type == "$END"
    if ended:
        at = len(line.text.rstrip())
    found = _found(line.text[at:])
    expected = getattr(error, "accepts", None) or getattr(error, "expected", None) or getattr(error, "allowed", ())
    possible = set(expected or ())
    words = wanted(possible - _impossible(line.text, at, possible))
    start = line.span.start + at
    span = Span(line.span.source, start, start + max(len(found), 1))
    message = "the statement ends too early" if ended or not found else f"`{found}` cannot stand here"
    return Diagnostic("syntax", message, (Label(span, f"expected {words}" if words else ""),), help=at_stop(line.text, at))


def _impossible(text: str, at: int, expected: set[str]) -> set[str]:
    """Terminals that the parser's merged states list, but that cannot stand at this place of the line."""
    before = text[:at]
    out = set()
    for opening, closing, terminal in (("(", ")", "RPAR"), ("[", "]", "RSQB")):
        if before.count(opening) <= before.count(closing):
            out.add(terminal)
    if "TIMES" in expected:
        out |= {"LPAR", "LSQB"}
    called = before.count("(") > before.count(")") and before.rfind("[") <= before.rfind("]")
    if called and not re.search(r"\b(fold|scan)\b", before):
        out |= {"EQUAL", "_ARROW"}  # first values and running values: of folds alone
    if not re.match(r"(input|param|buffer|const|state|dim|axis)\b", text):
        out |= {mark.upper() for mark in MARKS}
        if not before.count("(") + before.count("[") > before.count(")") + before.count("]"):
            out.add("COMMA")
    return out


def _found(rest: str) -> str:
    match = re.match(r"[^\W\d]\w*|[\d.]+\w*|\*\*|//|->|[<>=!:+*-]=|&&|\|\||\S", rest)
    return match.group() if match else ""


def wanted(expected: set[str]) -> str:
    """Expected terminals as a phrase: ``a value or `)` ``."""
    words: list[str] = []
    rest = set(expected)
    for needed, more, name in _GROUPS:
        if needed <= rest:
            words.append(name)
            rest -= needed | more
    named = {_WORDS.get(terminal, f"`{terminal.lower()}`") for terminal in rest} - {""}
    words += sorted(named)
    if len(words) > 1:
        return f"{', '.join(words[:-1])} or {words[-1]}"
    return "".join(words)
