"""Text and numbers as `explain` prints them. In: a text or a count. Out: lines, or a short number."""

from __future__ import annotations

import textwrap

WIDTH = 110


def microseconds(nanoseconds: int) -> str:
    """`118`, or `4.2` where that is short."""
    return f"{nanoseconds / 1000:.0f}" if nanoseconds >= 10_000 else f"{nanoseconds / 1000:.1f}"


def wrapped(text: str, indent: int, width: int = WIDTH) -> list[str]:
    """Lines of text, those after the first further in."""
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4))


def amount(n: int, of: str = "") -> str:
    """A number, short, with its unit: `1.2 kB`, `512 B`; without one `1.2 k`, `512`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= 10 * size:
            return f"{n / size:.0f} {unit}{of}"
        if n >= size:
            return f"{n / size:.1f} {unit}{of}"
    return f"{n} {of}".rstrip()
