"""Cuts a spec into logical lines, so that each can be parsed, and can fail, by itself.

In: a source. Out: logical lines (continuations joined, comments blanked, offsets unchanged), all comments, and
diagnostics about what ends a line too late: an unclosed bracket, an unclosed documentation string.
A line continues while a bracket is open, after a trailing operator or comma, when the next line begins with an
operator, or when the next line is indented and begins with a word that can only follow a declaration (`init`, `in`).
No statement begins with an operator, so nothing depends on how far a line is indented except these words.
This module never looks inside an expression.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seqc.diagnostics import Diagnostic, Label, Source, Span
from seqc.frontend.syntax import Comment

DECLARED = ("input", "param", "buffer", "const", "state")  # words of declarations, each with its rule `declare_WORD`
STATEMENTS = (
    "spec",
    "dim",
    "axis",
    "scan",
    *DECLARED,
    "output",
    "eigenvalues",
    "sparse",
    "schedule",
    "tile",
    "checkpoint",
    "history",
    "before",
    "every",
    "down",
    "feedback",
)
MARKS = ("in", "index", "unit", "complex", "definite", "init", "per", "lag", "by", "keep", "block", "over")

_DOC = '"""'
_FIRST_WORD = re.compile(r"\s*([^\W\d]\w*)\s*(\S?)(\S?)")
_TARGET = r"[^\W\d]\w*(\s*\[[^\[\]]*\])?"
_DEFINES = re.compile(rf"{_TARGET}\s*(=(?!=)|(,\s*{_TARGET}\s*)+=\s*(fold|scan)\b)")
_CLOSES = {")": "(", "]": "[", "}": "{"}
_OPERATORS = "+-*/^@<>=!,:.)]}|"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"  # a byte order mark, spaces without width, a soft hyphen
_TRAILING = "+-*/^@<>=,:"
_ENDS_OPEN = re.compile(r"(?<!\w)(and|or|not)$")
_BEGINS_JOINT = re.compile(r"(and|or)\b(?!\s*(\[[^\[\]]*\])?\s*=(?!=))")


@dataclass(frozen=True)
class Line:
    """A logical line; `text` is what stands in `span`, with every comment replaced by spaces."""

    span: Span
    text: str


@dataclass(frozen=True)
class _Piece:
    """A physical line that is not empty (or several, where a documentation string spans them)."""

    start: int
    end: int
    indent: int
    text: str


def split(source: Source) -> tuple[list[Line], list[Comment], list[Line], list[Diagnostic]]:
    """Logical lines, comments, lines whose brackets do not match, and diagnostics, each in source order."""
    pieces, comments, found = _pieces(source)
    base = pieces[0].indent if pieces else 0
    lines: list[Line] = []
    broken: list[Line] = []
    group: list[_Piece] = []
    for piece in [*pieces, None]:
        if group and (piece is None or not _continues(group, piece, base)):
            start, end = group[0].start, group[-1].end
            line = Line(Span(source, start, end), _joined(group))
            problem = _brackets(line)
            if problem:
                found.append(problem)
                broken.append(line)
            else:
                lines.append(line)
            group = []
        if piece is not None:
            group.append(piece)
    return lines, comments, broken, found


def _joined(group: list[_Piece]) -> str:
    """The text from the first piece to the last, with what lies between the pieces blanked."""
    parts: list[str] = []
    at = group[0].start
    for piece in group:
        parts.append(" " * (piece.start - at))
        parts.append(piece.text)
        at = piece.end
    return "".join(parts)


def _pieces(source: Source) -> tuple[list[_Piece], list[Comment], list[Diagnostic]]:
    text = source.text
    pieces: list[_Piece] = []
    comments: list[Comment] = []
    found: list[Diagnostic] = []
    at = 0
    while at < len(text):
        end, code = at, ""
        while end < len(text) and text[end] != "\n":
            if text[end] == "#":
                stop = text.find("\n", end)
                stop = len(text) if stop < 0 else stop
                body = text[end:stop].rstrip()
                own = not code.strip()
                comments.append(Comment(Span(source, end, end + len(body)), body, own))
                end = stop
            elif text.startswith(_DOC, end):
                close = text.find(_DOC, end + 3)
                if close < 0:
                    found.append(_open_doc(Span(source, end, end + 3)))
                    return pieces, comments, found
                code += text[end : close + 3]
                end = close + 3
            else:
                code += " " if text[end].isspace() or text[end] in _INVISIBLE else text[end]
                end += 1
        stripped = code.strip()
        if stripped:
            indent = len(code) - len(code.lstrip())
            start = at + indent
            pieces.append(_Piece(start, start + len(stripped), indent, stripped))
        at = end + 1
    return pieces, comments, found


def _open_doc(span: Span) -> Diagnostic:
    return Diagnostic(
        "unclosed-documentation",
        'the documentation string that begins here has no closing `"""`',
        (Label(span, "opened here"),),
        help='write `"""` after the last line of the documentation',
    )


def _depth(text: str) -> int:
    if _DOC in text:
        text = text[: text.index(_DOC)]
    return sum((char in "([{") - (char in ")]}") for char in text)


def _begins_statement(piece: _Piece) -> bool:
    """Whether the text can only be read as the begin of a statement."""
    match = _FIRST_WORD.match(piece.text)
    if not match:
        return False
    word, after = match.group(1), match.group(2)
    is_statement = word in STATEMENTS and (after.isalnum() or after == "_")
    return is_statement or bool(_DEFINES.match(piece.text))


def _continues(group: list[_Piece], piece: _Piece, base: int) -> bool:
    """Whether `piece` belongs to the line that `group` began."""
    last = group[-1].text
    if piece.text.startswith(_DOC):
        return group[0].text.startswith("spec") and _DOC not in last
    if piece.text[0] in _OPERATORS or _BEGINS_JOINT.match(piece.text):
        return True
    fresh = piece.indent <= base and _begins_statement(piece)
    if last[-1] in _TRAILING or _ENDS_OPEN.search(last) or sum(_depth(part.text) for part in group) > 0:
        return not fresh
    word = _FIRST_WORD.match(piece.text)
    return bool(piece.indent > base and word and word.group(1) in MARKS and word.group(2) != "=")


def _brackets(line: Line) -> Diagnostic | None:
    """The first bracket of a line that has no partner."""
    text = line.text
    if _DOC in text:
        text = text[: text.index(_DOC)]
    source, begin = line.span.source, line.span.start
    open_at: list[int] = []
    for i, char in enumerate(text):
        if char in "([{":
            open_at.append(i)
        elif char in ")]}":
            here = Span(source, begin + i, begin + i + 1)
            if not open_at:
                return Diagnostic(
                    "unmatched-bracket", f"`{char}` closes nothing", (Label(here, "no bracket is open here"),)
                )
            if text[open_at[-1]] != _CLOSES[char]:
                there = Span(source, begin + open_at[-1], begin + open_at[-1] + 1)
                labels = (Label(here, "this closes"), Label(there, "what was opened here"))
                return Diagnostic("unmatched-bracket", f"`{char}` does not close `{text[open_at[-1]]}`", labels)
            open_at.pop()
    if not open_at:
        return None
    there = Span(source, begin + open_at[-1], begin + open_at[-1] + 1)
    return Diagnostic(
        "unmatched-bracket",
        f"`{text[open_at[-1]]}` is never closed",
        (Label(there, "opened here"),),
        cause="the statement ends before the bracket does",
    )
