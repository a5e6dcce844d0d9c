"""Python text: lists that fit a line, docstrings, blocks. In: pieces of source. Out: source, laid out as a formatter
would lay it, but for long lists, which fill their lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 120
MANY = 12  # items of a list from which on it fills its lines; fewer have a line each


def lay(head: str, items: Sequence[str], tail: str, indent: int = 0) -> str:
    """`head items tail` in brackets that head ends with and tail begins with: one line, else one indented line of
    items, else an item a line, or many items in lines that they fill."""
    pad, inner = " " * indent, " " * (indent + 4)
    flat = f"{pad}{head}{', '.join(items)}{tail}"
    if len(flat) <= WIDTH:
        return flat
    row = f"{inner}{', '.join(items)}"
    if len(row) <= WIDTH:
        return f"{pad}{head}\n{row}\n{pad}{tail}"
    rows = wrapped(items, WIDTH - len(inner)) if len(items) >= MANY else [f"    {item}," for item in items]
    return "\n".join([f"{pad}{head}", *(f"{pad}{row}" for row in rows), f"{pad}{tail}"])


def wrapped(parts: Iterable[str], width: int = 112, between: str = ", ") -> list[str]:
    """Arguments, as many to an indented line as fit its width."""
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) + 2 > width:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{part}{between}"
    return [*lines, f"    {line.rstrip()}"]


def listed(name: str, items: Sequence[str]) -> str:
    """`name = [a, b]` on one line, else an item a line."""
    flat = f"{name} = [{', '.join(items)}]"
    return flat if len(flat) <= WIDTH else "\n".join([f"{name} = [", *(f"    {item}," for item in items), "]"])


def group(items: Sequence[str]) -> str:
    """A tuple: `(a, b)`, `(a,)`, `()`."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def unpack(items: Sequence[str]) -> str:
    """The left side of an assignment from a sequence: `a, b`, `(a,)`."""
    return ", ".join(items) if len(items) > 1 else group(items)


def returned(items: Sequence[str], indent: int) -> str:
    """`return a, b`, with brackets where it is one item or does not fit a line."""
    pad = " " * indent
    if len(items) == 1:
        return f"{pad}return ({items[0]},)"
    flat = f"{pad}return {', '.join(items)}"
    return flat if len(flat) <= WIDTH else lay("return (", items, ")", indent)


def either(terms: Sequence[str], indent: int) -> str:
    """`if a or b:`, a term a line where it does not fit one; many fill their lines."""
    pad = " " * indent
    flat = f"{pad}if {' or '.join(terms)}:"
    if len(flat) <= WIDTH:
        return flat
    rows = [f"{'or ' if i else ''}{term}" for i, term in enumerate(terms)]
    rows = wrapped(rows, WIDTH - indent - 4, " ") if len(terms) >= MANY else [f"    {row}" for row in rows]
    return "\n".join([f"{pad}if (", *(f"{pad}{row}" for row in rows), f"{pad}):"])


def docstring(lines: Iterable[str], indent: int = 0) -> str:
    """A docstring of the lines, safe whatever they hold."""
    pad = " " * indent
    safe = [line.rstrip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in lines]
    while safe and not safe[-1]:
        safe.pop()
    if len(safe) == 1:
        end = " " if safe[0].endswith('"') else ""
        return f'{pad}"""{safe[0]}{end}"""'
    body = [safe[0], *(f"{pad}{line}".rstrip() for line in safe[1:])]
    return f'{pad}"""' + "\n".join(body) + f'\n{pad}"""'


def banner(words: str) -> str:
    """The comment line that opens a part of the file."""
    return f"# {'-' * 10} {words} {'-' * max(WIDTH - 14 - len(words), 3)}"


def section(words: str, text: str) -> str:
    """A part of the file under its banner, with the empty lines that a definition or a statement asks for."""
    text = text.strip()
    gap = "\n\n\n" if text.startswith(("def ", "class ", "@")) else "\n\n"
    return banner(words) + gap + text


def join(*parts: str) -> str:
    """Top-level parts, two empty lines between them, empty parts left out; ends in a newline."""
    return "\n\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
