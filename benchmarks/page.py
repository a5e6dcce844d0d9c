"""Rows -> JSON for a machine, and from it a page and pictures. `python -m benchmarks.page FOLDER` writes these again.

In: a folder with results.json. Out: results.md and a picture for each spec that was swept, beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from benchmarks.ceilings import Ceilings, Work
from benchmarks.contender import FORWARD, TRAIN
from benchmarks.entry import OURS, Row
from benchmarks.plots import plot_sweeps
from benchmarks.report import HEAD, cells, sizes
from seqc.check.quiet import ALLOWED

LOOP = "eager loop"


def save(
    rows: Sequence[Row], sweeps: Mapping[str, Sequence[Row]], machine: Mapping[str, object], ceilings: Ceilings,
    folder: Path,
) -> None:
    """results.json, results.md and pictures. sweeps: rows by the axis that was swept."""
    known = {
        "machine": machine,
        "ceilings": asdict(ceilings),
        "rows": [row.as_json() for row in rows],
        "sweeps": {axis: [row.as_json() for row in found] for axis, found in sweeps.items()},
    }
    (folder / "results.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    main([str(folder)])


def kept(folder: Path, machine: Mapping[str, object], ceilings: Ceilings) -> tuple[list[Row], Ceilings]:
    """The rows of a run on this machine with as many threads that ended early, and the ceilings that both have seen."""
    known = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if any(known["machine"][fact] != machine[fact] for fact in ("cpu", "cores", "threads")):
        return [], ceilings
    rows = [Row(**{**row, "work": row["work"] and Work(**row["work"])}) for row in known["rows"]]
    return rows, ceilings.above(Ceilings(**known["ceilings"]))


def readme(folders: Sequence[Path]) -> str:
    """The table of README.md, of one run or of several with other numbers of threads: losing cells in bold."""
    head = ["spec", "threads"]
    for part in (FORWARD, TRAIN):
        head += [f"{part}: time", "eager loop takes", "best other takes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    runs = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in folders]
    found: dict[tuple[str, str, int], dict[str, list[str]]] = {}
    for run in runs:
        rows = [Row(**{**row, "work": None}) for row in run["rows"]]
        for (label, shape, part), group in groupby(rows, lambda r: (r.label, sizes(r), r.part)):
            if (words := compared(list(group))) is not None:
                found.setdefault((label, shape, run["machine"]["threads"]), {})[part] = words
    order = list(dict.fromkeys(label for label, _, _ in found))
    for (label, shape, threads), parts in sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1:])):
        cells_ = [word for part in (FORWARD, TRAIN) for word in parts.get(part, ["", "", ""])]
        lines.append("| " + " | ".join([f"{label}, {shape}", str(threads), *cells_]) + " |")
    return "\n".join(lines) + "\n"


def compared(rows: Sequence[Row]) -> list[str] | None:
    """Our time, the loop's ratio and the best peer's, in words; None where nothing was timed."""
    timed = {row.contender: row for row in rows if row.ratio is not None}
    ours = next((timed[name] for name in OURS if name in timed), None)
    peers = [row for name, row in timed.items() if not name.startswith("seqc ") and name != LOOP]
    if ours is None:
        return None
    best = min(peers, key=lambda row: row.ratio[1] if row.ratio else 0.0, default=None)
    mark = "**" if best and best.ratio and best.ratio[1] < 1 else ""
    return [cells(ours)[1], f"{cells(timed[LOOP])[3]}x" if LOOP in timed else "",
            f"{mark}{cells(best)[3]}x{mark} ({best.contender})" if best else ""]


def main(arguments: Sequence[str]) -> int:
    """Write the page and the pictures of a folder; with `--readme` print the table of README.md, of one folder or several."""
    if "--readme" in arguments:
        print(readme([Path(x) for x in arguments if x != "--readme"]), end="")
        return 0
    folder = Path(arguments[0])
    known = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = [Row(**{**row, "work": None}) for row in known["rows"]]
    sweeps = {axis: [Row(**{**row, "work": None}) for row in found] for axis, found in known["sweeps"].items()}
    pictures = plot_sweeps(sweeps, folder)
    guide = "README.md" if (folder / "README.md").is_file() else "../README.md"
    text = page(rows, known["machine"], Ceilings(**known["ceilings"]), pictures, guide)
    (folder / "results.md").write_text(text, encoding="utf-8")
    return 0


def page(rows: Sequence[Row], machine: Mapping[str, object], ceilings: Ceilings, pictures: Sequence[str],
         guide: str = "README.md") -> str:
    """Markdown: the machine, a summary, every figure, the pictures. guide: where the words on how to read it lie."""
    packages = machine["packages"]
    assert isinstance(packages, dict)
    said = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    out = [
        "# Results on a CPU",
        "",
        f"Written by `python -m benchmarks`; [README.md]({guide}) says how to read it.",
        "",
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['vectors']}; "
        f"{machine['date']}",
        f"- Python {machine['python']}, {said}; {machine['compiler']}",
        f"- ceilings measured in the same run, of which the highest rate counts: {ceilings.told()}",
        f"- load of the machine when the run began: {machine['load']} (0 is idle); `others` tells it for each figure",
        "",
        *summary(rows),
    ]
    for (label, shape), group in groupby(rows, lambda r: (r.label, sizes(r))):
        out += ["", f"## {label}, {shape}", "", "| part | " + " | ".join(HEAD) + " |", "|---" * (len(HEAD) + 1) + "|"]
        out += [f"| {row.part} | " + " | ".join(cells(row)) + " |" for row in group]
    for name in pictures:
        out += ["", f"![{Path(name).stem}]({name})"]
    return "\n".join(out) + "\n"


def summary(rows: Sequence[Row]) -> list[str]:
    """One line for each entry and part: how many times as long the loop and the best peer take."""
    lines = [
        "## Summary",
        "",
        "How many times as long others take as the form that seqc runs here; below 1 they are faster.",
        "",
        "| entry | part | seqc | eager loop | best peer | | of bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for (label, shape, part), group in groupby(rows, lambda r: (r.label, sizes(r), r.part)):
        timed = {row.contender: row for row in group if row.ratio is not None}
        ours = next((timed[name] for name in OURS if name in timed), None)
        if ours is None:
            continue
        peers = [row for name, row in timed.items() if not name.startswith("seqc ") and name != LOOP]
        best = min(peers, key=lambda row: row.ratio[1] if row.ratio else 0.0, default=None)
        disturbed = ours.others is not None and ours.others > ALLOWED
        words = [f"{label}, {shape}", part, cells(ours)[1] + (" (disturbed by others)" if disturbed else "")]
        words += [cells(timed[LOOP])[3] if LOOP in timed else ""]
        words += [cells(best)[3], best.contender] if best else ["", ""]
        lines.append("| " + " | ".join([*words, cells(ours)[5]]) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
