"""The definitions of a C++ runtime that some kernels need. In: both texts. Out: the runtime without what no kernel reaches.

A definition is kept where a kept one, or a kernel, has a name of it as a word: all overloads of a name stay or go together, and
so do the branches of an `#if`. What includes headers, and what other languages call (`extern "C"`), stays always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TEMPLATE = re.compile(r"template <[^{}]*>$")
_NAMES = (
    re.compile(r"#define (\w+)"),
    re.compile(r"(?:struct|using) (\w+)"),
    re.compile(r"typedef [^;{}]* (\w+) __attribute__"),
    re.compile(r"SEQC_[A-Z_]+\((\w+)\)$"),
    re.compile(r"(?:constexpr )?[\w:<>, ]+? (\w+)(?: =|\{)"),
    re.compile(r"[^(){}=;#]*?\b(\w+)\("),
)
_OPENS, _CLOSES = "namespace {", "}  // namespace"


@dataclass(frozen=True)
class _Definition:
    """Lines of the top level, with the comments above them. names: what they define."""

    text: str
    names: frozenset[str]

    @property
    def words(self) -> set[str]:
        """What they mention."""
        return words_of(self.text)


def words_of(text: str) -> set[str]:
    """The identifiers of a C++ text that stand outside of comments."""
    return set(re.findall(r"[^\W\d]\w*", re.sub(r"//.*", "", text)))


def needed(runtime: str, kernels: str) -> str:
    """The runtime without the definitions that neither the kernels nor what they need mention."""
    parts = list(_definitions(runtime))
    kept = [not part.names for part in parts]
    words = words_of(kernels).union(*(part.words for part, always in zip(parts, kept, strict=True) if always))
    while new := [i for i, part in enumerate(parts) if not kept[i] and part.names & words]:
        for i in new:
            kept[i] = True
            words |= parts[i].words
    text = "".join(part.text for part, keep in zip(parts, kept, strict=True) if keep)
    text = re.sub(rf"\n*{_CLOSES}\n+{re.escape(_OPENS)}\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _definitions(runtime: str) -> Iterator[_Definition]:
    lines: list[str] = []
    names: set[str] = set()
    braces = branches = 0
    for line in runtime.split("\n"):
        lines.append(line)
        code = line.partition("//")[0].rstrip()
        if line in (_OPENS, _CLOSES, "") and not (braces or branches):
            yield _Definition(line + "\n", frozenset())
            lines = []
            continue
        if not braces:
            names |= _named(code)
        branches += code.startswith("#if") - code.startswith("#endif")
        braces += code.count("{") - code.count("}")
        ended = code.endswith((";", "}", ")")) or code.startswith("#")
        if code and not (braces or branches or code.endswith("\\") or _TEMPLATE.match(code)) and ended:
            text = "\n".join(lines) + "\n"
            yield _Definition(text, frozenset(() if 'extern "C"' in text or "#include" in text else names))
            lines, names = [], set()
    assert not lines or not "".join(lines).strip(), f"a definition has no end: {lines[0]}"


def _named(code: str) -> set[str]:
    """The name that a line of the top level defines."""
    if not code or code.startswith((" ", "}", "#if", "#el", "#en", "#inc", "#pragma")) or _TEMPLATE.match(code):
        return set()
    found = next((m for m in (p.match(code) for p in _NAMES) if m), None)
    if found is None:
        return set()
    return {f"seqc_{found[1]}" if code.startswith("SEQC_") else found[1]}
