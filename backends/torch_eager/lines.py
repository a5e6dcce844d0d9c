"""Statements that are too long for a line, broken where a person would break them.

In: one statement. Out: its lines: a sum or product one term a line in parentheses, a call one argument a line, a tuple one
item a line. Text in quotes is left alone.
"""

from __future__ import annotations

import re
from itertools import pairwise

from seqc.emit.text import WIDTH, lay

SUMS, PRODUCTS, ITEMS = (" + ", " - "), (" * ", " / ", " @ "), (", ",)


def laid(line: str, indent: int) -> list[str]:
    """The statement as lines, each `indent` deep at least."""
    pad = " " * indent
    if len(pad + line) <= WIDTH or line.startswith(("#", '"')):
        return [pad + line]
    match = re.match(r"((?:[\w, ]+ = |return |[-+*/@] )?)(.*)", line)  # the sign of a term stands before its brackets
    assert match is not None
    head, body = match.groups()
    for marks in (ITEMS, SUMS, PRODUCTS):
        cuts = _cuts(body, marks)
        if cuts and marks is ITEMS:
            items = [body[i:j].strip(", ") for i, j in pairwise([0, *cuts, len(body)])]
            return lay(f"{head}(", items, ")", indent).splitlines()
        if cuts:
            terms = [body[i:j].strip() for i, j in pairwise([0, *cuts, len(body)])]
            inside = [part for term in terms for part in laid(term, indent + 4)]
            return [f"{pad}{head}(", *inside, f"{pad})"]
    if body.endswith(")"):
        opening = _opening(body)
        items = [x.strip(", ") for x in _pieces(body[opening + 1 : -1])]
        if len(items) == 1 and not re.search(r"[\w\])]$", body[:opening]):  # no call: a comma would make it a tuple
            return [f"{pad}{head}{body[:opening]}(", *laid(items[0], indent + 4), f"{pad})"]
        return lay(head + body[: opening + 1], items, ")", indent).splitlines()
    return [pad + line]


def _cuts(text: str, marks: tuple[str, ...]) -> list[int]:
    """Where one of `marks` stands outside all brackets and quotes."""
    depth, quoted, out = 0, False, []
    for i, c in enumerate(text):
        quoted ^= c == '"'
        if quoted:
            continue
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(c, 0)
        if depth == 0 and text.startswith(marks, i) and i:
            out.append(i)
    return out


def _pieces(text: str) -> list[str]:
    return [text[i:j] for i, j in pairwise([0, *_cuts(text, ITEMS), len(text)])]


def _opening(text: str) -> int:
    """Where the bracket opens that the last character closes."""
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise AssertionError(text)
