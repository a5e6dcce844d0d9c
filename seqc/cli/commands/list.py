"""`seqc list`: the specs that ship with seqc. In: words to look for. Out: a line each (name, class of the recurrence, forms,
what it is), or JSON. The lines come from `specs/index.tsv`, which is written with the table of `docs/specs.md`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys

from seqc.cli.commands.options import add_json, say
from seqc.cli.commands.terminal import in_colour

COLUMNS = ("name", "class", "forms", "title", "file")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("words", metavar="WORD", nargs="*", help="only specs whose line holds every word")
    parser.add_argument("--names", action="store_true", help="the names alone, one a line")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """List them; 1 where no spec holds the words."""
    rows = [row for row in index() if all(word.lower() in " ".join(row.values()).lower() for word in args.words)]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif args.names:
        print("\n".join(row["name"] for row in rows))
    elif rows:
        print(table(rows))
        say(f"{len(rows)} specs; `seqc explain NAME` tells more of one, `seqc new MY --like NAME` copies it")
    else:
        say("no shipped spec holds these words")
    return 0 if rows else 1


def index() -> list[dict[str, str]]:
    """Every shipped spec by the names of `COLUMNS`; `forms` has a star at the compiler's choice for a GPU."""
    from seqc.frontend.sources import shipped

    files = shipped()
    lines = (files["gla"].parent / "index.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return [dict(zip(COLUMNS, (*row, files[row[0]].as_posix()), strict=True)) for row in rows if row[0] in files]


def table(rows: list[dict[str, str]]) -> str:
    """The rows in columns; on a terminal a line ends where the terminal does."""
    shown = COLUMNS[:3]
    widths = [max(map(len, (column, *(row[column] for row in rows)))) for column in shown]
    head = "  ".join(column.ljust(width) for column, width in zip(shown, widths, strict=True)) + "  what it is"
    lines = ["  ".join([*(row[c].ljust(w) for c, w in zip(shown, widths, strict=True)), row["title"]]) for row in rows]
    if in_colour(sys.stdout):
        edge = shutil.get_terminal_size().columns
        return "\n".join([f"\x1b[1m{head}\x1b[0m", *(line if len(line) <= edge else line[: edge - 1] + "…" for line in lines)])
    return "\n".join([head, *lines])
