"""The page about what random programs showed: `docs/reliability.md`. In: tallies as JSON. Out: its text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BACKENDS = {
    "torch": "plain torch",
    "syntax": "native code, parsed and typed by the compiler",
    "cpu": "native code, built and run",
    "triton": "Triton, run in its interpreter",
}
HEAD = """# What random programs show

This page is written by the fuzzer: `python -m tests.fuzz --report docs/reliability.md TALLY.json ..`, from the tallies of runs
(`python -m tests.fuzz --backend NAME --seed N --minutes M --save TALLY.json`).

A program is a number: the spec that `tests/fuzz/programs.py` draws for it. It has one to three families of recurrences
(elementwise, matrices with decays, low rank, coupled, complex, maxima, cells, lags, folds, boundaries, ..; from number
5,000,000 on also tables, indices, buffers, noise, sparse params, systems of equations, histories, closed loops, clipped
gradients; from 20,000,000 on, as often as all of these, neighbours along a dim, cascades and products, choices of positions,
complex matrices; from 34,000,000 on, as often as all of these, derivatives within a step, several rates, closed loops in
every direction; from 38,200,000 on two axes, complex arguments, places of tables, folds in folds, cells that several
programs share out, `schedule` and `tile` lines) with random expressions in every place,
params without dims or one for each sequence, masks, resets, look-ahead, arguments that nothing
reads, statements in any order. The judge (`tests/fuzz/judge.py`) computes what the spec means, step by step, from the
language's page alone. Compared are all results and the gradients of all arguments, in two of these calls, drawn for each
program: a batch of any size and length around blocks, forwards or backwards, with ordinary or extreme arguments; a pack;
another dtype; a run in parts and step by step; and for half of them one law that needs no judge (`tests/fuzz/invariants.py`).
Half of the programs on torch and Triton are compiled with another form or number of rows than the compiler would choose.

A program that had a problem was tried again (`python -m tests.fuzz --again TALLY.json ..`) once the compiler was mended; each
problem is kept in its smallest form (`tests/fuzz/found`), and tried by the test command on every backend. The other
programs ran once, with the compiler as it was in that hour.
"""


def report(tallies: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    parts = [HEAD, "| backend | programs | numbers | had a problem, mended since | have one |", "|---|---|---|---|---|"]
    for backend, words in BACKENDS.items():
        own = [t for t in tallies if t["backend"] == backend]
        numbers = ", ".join(f"{a} to {b - 1}" for a, b in _joined([(a, b) for t in own for a, b in t["numbers"] if b > a]))
        wrong = len({n for t in own for numbers in t["wrong"].values() for n in numbers})
        mended = sum(len(t["mended"]) for t in own)
        parts.append(f"| {words} | {sum(t['programs'] for t in own)} | {numbers or '-'} | {mended} | {wrong} |")
    parts += ["", "## Forms", ""]
    for backend in BACKENDS:
        forms = _added(tallies, backend, "forms")
        if forms:
            parts.append(f"- {BACKENDS[backend]}: " + ", ".join(f"{form} {n}" for form, n in forms.most_common()))
    every = sorted({f for t in tallies for f in t["features"]})
    own = [b for b in BACKENDS if _added(tallies, b, "features")]
    parts += ["", "## Features", "", f"| feature | {' | '.join(own)} |", "|---" * (len(own) + 1) + "|"]
    counts = {b: _added(tallies, b, "features") for b in own}
    parts += [f"| {f} | {' | '.join(str(counts[b][f]) for b in own)} |" for f in every]
    parts += ["", "## Refused", "", "What a backend does not take, with its reason (the form was left open):", ""]
    refusals = [(b, words, n) for b in BACKENDS for words, n in _added(tallies, b, "refusals").most_common()]
    parts += [f"- {BACKENDS[b]}, {n}: {words}" for b, words, n in refusals] or ["- nothing"]
    parts += ["", "## Disagreements left", ""]
    left = Counter(words for t in tallies for words, numbers in t["wrong"].items() for _ in numbers)
    parts += [f"- {n}: {words.splitlines()[0]}" for words, n in left.most_common()] or ["- none"]
    return "\n".join([*parts, *_recall()]) + "\n"


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that meet as one."""
    out: list[tuple[int, int]] = []
    for a, b in sorted(ranges):
        if out and a <= out[-1][1]:
            out[-1] = out[-1][0], max(b, out[-1][1])
        else:
            out.append((a, b))
    return out


def _recall() -> list[str]:
    """What is known of the seeded bugs."""
    record = json.loads(Path(__file__).with_name("recall.json").read_text())
    files, told = Counter(words.partition(":")[0] for words in record), sum(record.values())
    rows = [f"| `{path}` | {n} | {sum(found for words, found in record.items() if words.partition(':')[0] == path)} |"
            for path, n in sorted(files.items())]
    return [
        "", "## Seeded bugs", "",
        "Small changes of the compiler (`tests/fuzz/mutant_table.py`), each with a quick run that must tell it from the right",
        f"compiler: {told} of {len(record)}, {100 * told // len(record)} %. `python -m tests.fuzz.mutants --save` tries all of",
        "them, words behind it some; the test command tries two, drawn with a fixed seed, and asks that the record is whole.",
        "",
        "| file | changes | told |", "|---|---|---|", *rows,
    ]


def _added(tallies: Sequence[Mapping[str, Any]], backend: str, key: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for t in tallies:
        if t["backend"] == backend:
            found.update(t[key])
    return found


__all__ = ["report"]
