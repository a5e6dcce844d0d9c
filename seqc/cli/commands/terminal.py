"""How diagnostics look on a terminal. In: their text and the stream that it goes to. Out: the text, in colour where a person
sees it: never in a file or a pipe, and not where `NO_COLOR` is set."""

from __future__ import annotations

import os
import re
from typing import TextIO

from seqc.diagnostics import visible

_HEAD = re.compile(r"^(error|unsupported|warning)(\[[\w-]+\])(: .*)$")
_QUOTED = re.compile(r"^( *\d* \|)(.*)$")
_MARKS = re.compile(r"^( *)(\^+)( .*)?$")
_NOTE = re.compile(r"^( *= )(cause|help)(: .*)$")
_COLOURS = {"error": "1;31", "unsupported": "1;35", "warning": "1;33"}


def painted(text: str, stream: TextIO) -> str:
    """Rendered diagnostics as the stream should show them. What a terminal would obey is shown, not sent."""
    lines = visible(text).split("\n")
    return "\n".join(map(_line, lines) if in_colour(stream) else lines)


def in_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that may show colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _line(line: str) -> str:
    if head := _HEAD.match(line):
        kind, code, words = head.groups()
        return f"{_in(_COLOURS[kind], kind + code)}{_in('1', words)}"
    if note := _NOTE.match(line):
        return f"{note[1]}{_in('1;36' if note[2] == 'help' else '1', note[2])}{note[3]}"
    if quoted := _QUOTED.match(line):
        marks = _MARKS.match(quoted[2])
        rest = f"{marks[1]}{_in('1;31', marks[2] + (marks[3] or ''))}" if marks else quoted[2]
        return f"{_in('34', quoted[1])}{rest}"
    return line


def _in(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"
