"""Where the text of a spec comes from: a file, standard input, the name of a spec that ships with seqc, or a string.

In: what the caller gave. Out: a `Source`, or `SpecError`. A text that no compiler should see (a NUL, a control
character, a lone surrogate, a mark that turns the direction of what is shown) is refused with its place; line ends
are those of Unix from here on. This module parses nothing.
"""

from __future__ import annotations

import difflib
import re
import sys
import unicodedata
from pathlib import Path

from seqc.diagnostics import Diagnostic, Label, Source, Span, SpecError

STDIN = "-"
"""The path that stands for standard input."""
LONGEST = 1 << 22
"""Bytes of a spec at most: what is longer is no spec, and a device may have no end."""

_SHIPPED = Path(__file__).parents[1] / "specs"
_NAME = re.compile(r"[^\W\d]\w*")
_PATH = re.compile(r"\S+|.*\.seq")
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def read(path_or_text: str | Path) -> Source:
    """The source behind a path or the name of a shipped spec; the text itself where a string is neither.

    A string is a text if it holds a line break, or a space and no `.seq` at its end. `Path("-")` is standard input.
    """
    if isinstance(path_or_text, str) and ("\n" in path_or_text or not _PATH.fullmatch(path_or_text)):
        return checked(Source("<spec>", path_or_text))
    path = located(path_or_text)
    if path == Path(STDIN):
        name, data = "<stdin>", sys.stdin.buffer.read(LONGEST + 1)
    else:
        name = path.as_posix()
        try:
            with open(path, "rb") as file:
                data = file.read(LONGEST + 1)
        except (OSError, ValueError) as error:
            raise _unread(path, str(getattr(error, "strerror", None) or error), _near(path_or_text)) from error
    if len(data) > LONGEST:
        raise _unread(name, f"it is longer than {LONGEST >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(Diagnostic("no-file", f"`{name}` is not UTF-8 text (byte {error.start})")) from error
    return checked(Source(name, text))


def checked(source: Source) -> Source:
    """A text that is no file (yet), with line ends of Unix. Raises SpecError where it holds what no spec may hold."""
    return _fit(Source(source.name, _unix(source.text)))


def located(given: str | Path) -> Path:
    """The file behind a path, or behind the name of a shipped spec where no file has that name."""
    path = Path(given)
    text = str(given)
    if not _NAME.fullmatch(text) or path.is_file():
        return path
    return shipped().get(text, path)


def shipped() -> dict[str, Path]:
    """The specs that ship with seqc by name."""
    return {path.stem: path for path in sorted(_SHIPPED.rglob("*.seq"))}


def _near(given: str | Path) -> str:
    """What may have been meant by a name that no file has."""
    path = Path(given)
    if path.name and path.with_name(f"{path.name}.seq").is_file():
        return f"did you mean `{path}.seq`?"
    if str(path.parent) != ".":
        return ""
    known = shipped()
    found = [path.stem] if path.stem in known else difflib.get_close_matches(path.stem.lower(), known, n=3, cutoff=0.6)
    if not found:
        return "" if path.suffix == ".seq" else "a shipped spec goes by its name: `seqc list` shows them"
    names = " or ".join(f"`{name}`" for name in found)
    return f"did you mean the shipped spec {names}? `seqc list` shows all of them"


def _unread(name: str | Path, reason: str, help: str = "") -> SpecError:
    return SpecError(Diagnostic("no-file", f"cannot read `{name}`: {reason}", help=help))


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fit(source: Source) -> Source:
    """The source, if every character may stand in a spec; else one mistake for each that may not, twenty at most."""
    bad = [i for i, char in enumerate(source.text) if not (char.isprintable() or char in "\n\t") and _unfit(char)]
    if not bad:
        return source
    raise SpecError([_told(source, i) for i in bad[:20]])


def _unfit(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in _TURNING


def _told(source: Source, place: int) -> Diagnostic:
    char = source.text[place]
    what = {"\0": "a NUL", "\f": "a form feed", "\x1b": "an escape", "\b": "a backspace"}.get(char, f"U+{ord(char):04X}")
    cause = "what an editor shows would differ from what the compiler reads, and the text goes into the emitted file"
    kind = "a lone surrogate" if "\ud800" <= char <= "\udfff" else what
    message = f"the text holds {kind}, which no spec may hold"
    return Diagnostic("control-character", message, (Label(Span(source, place, place + 1), "remove it"),), cause=cause)
