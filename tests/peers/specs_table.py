"""The table of `docs/specs.md`, and the index that `seqc list` shows: `python -m tests.peers.specs_table` writes both.

In: `specs/*.seq`, the compiler's choice of form for each, and the mappings of peer cases. Out: the texts of both.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import check, lower
from seqc.frontend import elaborate
from seqc.ir.program import Program
from tests.peers.mapping import ROOT
from tests.peers.mappings import PEERS

PAGE = ROOT / "docs" / "specs.md"
INDEX = ROOT / "specs" / "index.tsv"
BEGIN = "<!-- the table below is written by tests/peers/specs_table.py -->\n"
HEAD = "| spec | what it is | recurrence | source | forms | peer case |\n|---|---|---|---|---|---|\n"


def table() -> str:
    """A row for every published spec."""
    return HEAD + "".join(row(path) for path in sorted((ROOT / "specs").glob("*.seq")))


def row(path: Path) -> str:
    """Name, title, updates of the states, arXiv number or author, forms (the one chosen for a GPU in bold), cases."""
    program, chosen, possible = looked_at(path)
    forms = ", ".join(f"**{form}**" if form == chosen else form for form in possible)
    cases = ", ".join(sorted(peer.case for peer in PEERS if peer.spec == path.stem))
    cells = (path.stem, title(program), recurrence(program), source(program), forms, cases)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def index() -> str:
    """A line for every published spec: name, classes of its components, forms (a star at the one chosen for a GPU), title."""
    return "".join(line(path) for path in sorted((ROOT / "specs").glob("*.seq")))


def line(path: Path) -> str:
    """The fields, parted by tabs."""
    program, chosen, possible = looked_at(path)
    components = check(program)["components"]
    assert isinstance(components, tuple)
    forms = " ".join(f"{form}*" if form == chosen else form for form in possible)
    kinds = ", ".join(dict.fromkeys(one.kind for one in components)) or "no state"
    return "\t".join((path.stem, kinds, forms, title(program))) + "\n"


def title(program: Program) -> str:
    """The first line of the documentation."""
    return program.doc.strip().splitlines()[0].rstrip(".")


@cache
def looked_at(path: Path) -> tuple[Program, str, list[str]]:
    """A spec's program, the form that is chosen for a GPU, and those that the recurrence can take."""
    program = elaborate.load(path)
    return program, lower(program).form, possible_forms(program)


def possible_forms(program: Program) -> list[str]:
    """The forms that the recurrence can take."""
    found = ["step"]
    for form in ("scan", "chunkwise"):
        try:
            lower(program, form)
        except Unsupported:
            continue
        found.append(form)
    return found


def recurrence(program: Program) -> str:
    """The lines of the spec that give states their new values; the outputs where there is no state."""
    names = [n for n, d in program.states.items() if not d.hidden] or list(program.outputs)
    lines = re.findall(rf"^(?:output )?((?:{'|'.join(names)}) = [^#\n]*)", program.source, re.MULTILINE)
    return "`" + "; ".join(line.strip() for line in lines) + "`"


def source(program: Program) -> str:
    """The arXiv numbers in the documentation, or an author and year where it has none."""
    numbers = re.findall(r"arXiv:(\d{4}\.\d{4,5})", program.doc)
    links = ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in dict.fromkeys(numbers))
    named = re.search(r"\((\w[\w ]* \d{4})", program.doc)
    return links or (named.group(1) if named else "")


if __name__ == "__main__":
    words = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
    PAGE.write_text(words + BEGIN + table(), encoding="utf-8")
    INDEX.write_text(index(), encoding="utf-8")
