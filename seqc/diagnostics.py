"""What the compiler says to the person who wrote a spec: places, messages, and the three classes of failure.

In: offsets into a source text, and words. Out: `Diagnostic` values, and their rendering with the source lines quoted
and marked. This module never decides what is wrong and never prints; it imports nothing from the rest of seqc.
"""

from __future__ import annotations

import difflib
import traceback
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """A spec's text with the name it is quoted under (a file name, or `<spec>` for a string)."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of every line."""
        return (0, *(i + 1 for i, char in enumerate(self.text) if char == "\n"))

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line counted from 1, without its end."""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """The characters `start` up to but not including `end` of a source."""

    source: Source = field(repr=False)
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line of the first character, counted from 1."""
        return self.source.place(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, counted from 1."""
        return self.source.place(self.start)[1]

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Label:
    """A place and what is to be seen there."""

    span: Span
    text: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One thing to tell. `labels[0]` is where it is; the other labels are places that explain it."""

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    cause: str = ""
    help: str = ""
    kind: str = "error"  # "error": the spec is wrong; "unsupported": it is right, and not served yet; "warning"

    def order(self) -> tuple[int, int]:
        """Sort key: source order; what has no place comes last."""
        return (self.labels[0].span.start, self.labels[0].span.end) if self.labels else (1 << 60, 0)

    def render(self) -> str:
        """The message, the quoted lines with carets, the cause and the help, as lines of text."""
        lines = [f"{self.kind}[{self.code}]: {self.message}"]
        gutter = " " * max((len(str(_last_line(label.span))) for label in self.labels), default=1)
        if self.labels:
            first = self.labels[0].span
            lines.append(f"{gutter}--> {first.source.name}:{first.line}:{first.column}")
            lines.append(f"{gutter} |")
        previous = 0
        for number, marks in _by_line(self.labels):
            source = marks[0][0].span.source
            if previous and number > previous + 1:
                lines.append(f"{gutter} ...")
            lines.append(f"{number:>{len(gutter)}} | {visible(source.line(number))}".rstrip())
            lines += [f"{gutter} | {_carets(source, number, label, primary)}".rstrip() for label, primary in marks]
            previous = number
        notes = [("cause", self.cause), ("help", self.help)]
        notes = [(title, text) for title, text in notes if text]
        if self.labels and notes:
            lines.append(f"{gutter} |")
        for title, text in notes:
            head, *rest = text.split("\n")
            lines.append(f"{gutter} = {title}: {head}")
            lines += [f"{gutter}   {' ' * len(title)}  {part}" for part in rest]
        return "\n".join(lines)


def visible(text: str) -> str:
    """A text without characters that a terminal would obey: each is shown as its picture, or as `?`."""
    return "".join(char if char.isprintable() or char in "\n\t" else _picture(char) for char in text)


def _picture(char: str) -> str:
    return "\u2421" if char == "\x7f" else chr(0x2400 + ord(char)) if char < " " else "?"


def _last_line(span: Span) -> int:
    return span.source.place(max(span.start, span.end - 1))[0]


def _by_line(labels: Sequence[Label]) -> list[tuple[int, list[tuple[Label, bool]]]]:
    """Labels grouped by the line they start on, in line order; the flag says which one is the first label."""
    groups: dict[int, list[tuple[Label, bool]]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label.span.line, []).append((label, i == 0))
    return [(number, sorted(marks, key=lambda m: m[0].span.start)) for number, marks in sorted(groups.items())]


def _carets(source: Source, number: int, label: Label, primary: bool) -> str:
    """The line of marks under a quoted line: `^^^` for the place itself, `---` for one that explains it."""
    begin = source.line_starts[number - 1]
    line = source.line(number)
    start = label.span.start - begin
    end = max(min(label.span.end - begin, len(line)), start + 1)
    pad = "".join("\t" if char == "\t" else " " for char in line[:start]).ljust(start)
    mark = ("^" if primary else "-") * (end - start)
    return f"{pad}{mark} {label.text}"


class Refusal(Exception):
    """Base of the failures that are told to the user as diagnostics, in source order.

    A plain string stands for one diagnostic without a place.
    """

    kind = "error"

    def __init__(self, diagnostics: Iterable[Diagnostic] | Diagnostic | str) -> None:
        if isinstance(diagnostics, str):
            diagnostics = Diagnostic("refused", diagnostics, kind=self.kind)
        given = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(given, key=Diagnostic.order))
        super().__init__(self.diagnostics)

    def render(self) -> str:
        """All diagnostics, separated by empty lines."""
        return "\n\n".join(diagnostic.render() for diagnostic in self.diagnostics)

    def __str__(self) -> str:
        return self.render()


class SpecError(Refusal):
    """The spec has mistakes: its author edits it."""


class Unsupported(Refusal):
    """The spec is right, but this target, option or stage does not serve it; the diagnostic says why."""

    kind = "unsupported"

    @classmethod
    def of(cls, code: str, message: str, labels: tuple[Label, ...] = (), cause: str = "", help: str = "") -> Unsupported:
        """One diagnostic, by the fields of `Diagnostic`."""
        return cls(Diagnostic(code, message, labels, cause, help, cls.kind))


class SeqcBug(Exception):
    """A mistake of the compiler itself: names the part that failed and asks for a report."""

    def __init__(self, where: str, message: str) -> None:
        self.where = where
        super().__init__(
            f"seqc itself failed in {where}: {message}\n"
            "This is a bug of the compiler, not of the spec. Please report it with the spec and the command."
        )

    @classmethod
    def of(cls, where: str, problem: Exception) -> SeqcBug:
        """A failure that nobody foresaw, told with the place in the code."""
        last = traceback.extract_tb(problem.__traceback__)[-1]
        return cls(where, f"{type(problem).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}: {problem}")


def raise_if_any(diagnostics: Iterable[Diagnostic]) -> None:
    """Raise `SpecError` if any diagnostic is an error, else `Unsupported` if any is; warnings alone raise nothing."""
    found = [diagnostic for diagnostic in diagnostics if diagnostic.kind != "warning"]
    if any(diagnostic.kind == "error" for diagnostic in found):
        raise SpecError(found)
    if found:
        raise Unsupported(found)


def near_miss(word: str, known: Iterable[str], told: str = "") -> str:
    """``did you mean `x`?`` for the closest known word; when none is close, all of them behind `told`, where that is given."""
    every = list(known)
    names = sorted(set(every))
    lowered = {name.lower(): name for name in reversed(names)}
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    best = found[0] if found else lowered.get(word.lower(), "")
    return f"did you mean `{best}`?" if best else f"{told} {', '.join(every)}" if told else ""


def listing(words: Iterable[str], joint: str = "and") -> str:
    """``\\`a\\`, \\`b\\` and \\`c\\```: words quoted and joined as in a sentence."""
    quoted = [f"`{word}`" for word in words]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {joint} {quoted[-1]}"
