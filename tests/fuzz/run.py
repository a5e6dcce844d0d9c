"""Long runs: random programs on one backend, each against the judge; what disagrees is made smaller and written down.

In: a backend, a seed, a number of programs or minutes. Out: a `Tally` of what ran and of every problem. Programs are numbered
from the seed on, so that a run is the same for the same seed and count. A problem that is known by its signature is counted
only; a new one is made smaller, for a bounded time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqc.diagnostics import SpecError, Unsupported
from seqc.frontend.format import format_text
from tests.fuzz.programs import LATEST, LONG, Program, drawn, families_of, smaller
from tests.fuzz.report import report
from tests.fuzz.trial import Problem, Wish, attempt

KEPT = 20  # programs after which a long run writes its tally
SHRINKING = 90.0  # seconds that making one problem smaller may take


@dataclass
class Tally:
    """What ran: programs, forms, features, refusals; every problem by its signature, with its smallest program.

    wrong: the numbers with a problem, by its signature; mended: those that had one once, and none when they were tried again.
    """

    backend: str
    programs: int = 0
    numbers: list[tuple[int, int]] = field(default_factory=list)
    forms: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[int]] = field(default_factory=dict)
    mended: list[int] = field(default_factory=list)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def problems(self) -> Counter[str]:
        """How many programs have each problem."""
        return Counter({signature: len(numbers) for signature, numbers in self.wrong.items()})

    def count(self, signature: str, number: int) -> bool:
        """Note a problem of a program; whether it is a new one."""
        new = signature not in self.wrong
        numbers = self.wrong.setdefault(signature, [])
        numbers += [number] if number not in numbers else []
        return new

    def saved(self) -> dict[str, Any]:
        """As JSON."""
        return {"backend": self.backend, "programs": self.programs, "numbers": self.numbers, "forms": dict(self.forms),
                "features": dict(self.features), "refusals": dict(self.refusals), "wrong": self.wrong, "mended": self.mended,
                "examples": self.examples}


def wish_of(backend: str, number: int, sizes: Mapping[str, int]) -> Wish:
    """How the program of this number is compiled: mostly as the compiler chooses, else with a form or a number of rows.
    sizes: of its dims, which half of the later ones have fixed in native code."""
    rng = np.random.default_rng(number)
    if backend == "cpu" and number >= LONG:
        return Wish(backend, dims=sizes if rng.random() < 0.5 else {})
    if backend == "cpu" or rng.random() < 0.5:
        return Wish(backend, team=number % 2 * number if backend == "triton" and number >= LATEST else 0)
    if backend == "triton":
        return Wish(backend, rows=16, team=number if number >= LATEST else 0)
    return Wish(backend, form=rng.choice([None, None, "step", "scan", "chunkwise"]), rows=rng.choice([None, 16, 16, 32]))


def syntax(tally: Tally, start: int, count: int | None, minutes: float, tell: Callable[[str], None] = print) -> None:
    """The native code of programs of numbers from `start` on, which the compiler only parses and types, many in one call."""
    from tests.native_cpu import syntax as checker

    until, number = time.monotonic() + 60 * minutes, start
    while (count is None or number < start + count) and time.monotonic() < until:
        sources, texts = [], []
        for at in range(number, min(number + checker.BATCH, number + checker.BATCH if count is None else start + count)):
            program, _ = drawn(at)
            tally.programs += 1
            tally.features.update(program.features)
            try:
                own = checker.sources_of(program.text)
                sources += own
                texts += [(at, program.text)] * len(own)
            except Unsupported as refusal:
                tally.refusals["; ".join(d.message for d in refusal.diagnostics)] += 1
            except Exception as crash:
                words = f"{type(crash).__name__}: {crash}"
                tally.count(re.sub(r"[0-9]+", "#", words), at)
                tell(f"{at}: {words}\n{program.text}")
        for (at, text), words in zip(texts, checker.compiled(sources, ("float", "double")[number % 2]), strict=True):
            if words:
                tally.count(re.sub(r"[0-9]+", "#", words.splitlines()[0]), at)
                tell(f"{at}: {words}\n{text}")
        number += checker.BATCH
    tally.numbers.append((start, number if count is None else min(number, start + count)))


def likeness(p: Problem) -> tuple[str, str, str]:
    """What a smaller program must have in common with the one that a problem was found with."""
    return p.backend, p.kind, p.words[:80] if p.kind in ("crash", "invalid") else ""


def one(tally: Tally, number: int, tell: Callable[[str], None]) -> None:
    """The program of a number, tried and counted; a new problem, the first of a program's, is made smaller and told."""
    program, choices = drawn(number)
    wish = wish_of(tally.backend, number, program.sizes)
    problems, subject = attempt(program.text, wish, program.sizes, number)
    tally.programs += 1
    tally.features.update(program.features)
    if subject is not None:
        block = subject.block
        words = f" of {block.rows} rows" if block.rows > 1 else " in pieces of time" if subject.in_pieces else ""
        words += " in lanes" if subject.in_lanes else " by a team" if subject.team else ""
        tally.forms[block.form + words] += 1
    for p in problems:
        if p.kind == "refused":
            if wish.form is None and wish.rows is None:
                tally.refusals[p.words] += 1
            continue
        if not tally.count(p.signature, number):
            continue
        tell(f"new: {number}: {p.signature}\n  {p.where}")
        if any(example["number"] == number for example in tally.examples.values()):
            continue
        least, last = _least(p, choices, wish, number)
        text = formatted(least.text)
        example = {"text": text, "sizes": least.sizes, "number": number, "where": last.where, "words": last.words}
        tally.examples[p.signature] = example
        tell(f"smallest of {number}: {last.signature}\n  {last.where}\n  sizes {least.sizes}, {wish}\n{text}")


def formatted(text: str) -> str:
    """The text as `seqc fmt` prints it. A text that the language refuses, as it is; so is one at which `seqc fmt` itself fails,
    which must not hide the fault that was found: the failure stands above it."""
    try:
        return format_text(text)
    except SpecError:
        return text
    except Exception as fault:
        return f"# `seqc fmt` fails: {' '.join(repr(fault).split())}\n{text}"


def _least(p: Problem, choices: list[int], wish: Wish, number: int) -> tuple[Program, Problem]:
    """The smallest program that has a problem like this one, and its problem."""
    shown = [p]

    def wrong(made: Program) -> bool:
        found, _ = attempt(made.text, wish, made.sizes, number)
        same = [q for q in found if likeness(q) == likeness(p)]
        shown.extend(same[:1])
        return bool(same)

    return smaller(choices, wrong, SHRINKING, families_of(number)), shown[-1]


def hunt(
    tally: Tally, start: int, count: int | None, minutes: float, tell: Callable[[str], None] = print, keep: Path | None = None
) -> None:
    """The programs of numbers from `start` on, until there were enough or the time is over. keep: where the tally is written
    now and then on the way."""
    until = time.monotonic() + 60 * minutes
    number = start
    try:
        while (count is None or number < start + count) and time.monotonic() < until:
            one(tally, number, tell)
            number += 1
            if keep is not None and number % KEPT == 0:
                keep.write_text(json.dumps({**tally.saved(), "numbers": [*tally.numbers, (start, number)]}, indent=1))
    except KeyboardInterrupt:
        tell("interrupted")
    tally.numbers.append((start, number))


def again(saved: dict[str, Any]) -> dict[str, Any]:
    """A tally whose programs with a problem are tried once more: those that are right now are `mended`."""
    known = {number for numbers in saved["wrong"].values() for number in numbers}
    wrong: dict[str, list[int]] = {}
    for number in sorted(known):
        program, _ = drawn(number)
        found, _ = attempt(program.text, wish_of(saved["backend"], number, program.sizes), program.sizes, number)
        for p in found:
            if p.kind != "refused":
                wrong.setdefault(p.signature, []).append(number)
    left = {number for numbers in wrong.values() for number in numbers}
    return {**saved, "wrong": wrong, "mended": sorted({*saved["mended"], *known - left})}


def quick_builds(folder: Path) -> None:
    """Native code from here on: built without optimisation, which is several times as fast, and kept in the folder."""
    compiler = folder / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("c++") or "g++"} "$@" -O0\n')
    compiler.chmod(0o755)
    os.environ |= {"CXX": str(compiler), "XDG_CACHE_HOME": str(folder)}


def main(arguments: list[str]) -> int:
    """`python -m tests.fuzz`."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--backend", default="torch", choices=("torch", "cpu", "triton", "syntax"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--programs", type=int)
    parser.add_argument("--save", type=Path, help="write the tally as JSON")
    parser.add_argument("--report", type=Path, help="run nothing: write a page about tallies that were saved")
    parser.add_argument("--again", action="store_true", help="try the programs of tallies that had a problem once more")
    parser.add_argument("tallies", nargs="*", type=Path, help="tallies that were saved")
    parser.add_argument("--optimised", action="store_true", help="build native code as users do")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.report:
        args.report.write_text(report([json.loads(path.read_text()) for path in args.tallies]))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside: what was counted is told
    with tempfile.TemporaryDirectory(prefix="seqc-fuzz-") as folder:
        if args.backend == "cpu" and not args.optimised:
            quick_builds(Path(folder))
        return _again(args.tallies) if args.again else _run(args)


def _again(paths: list[Path]) -> int:
    """Tallies, each written again as it is now."""
    left = 0
    for path in paths:
        made = again(json.loads(path.read_text()))
        path.write_text(json.dumps(made, indent=1))
        left += sum(map(len, made["wrong"].values()))
        print(f"{path}: mended {made['mended']}; wrong {made['wrong']}")
    return 1 if left else 0


def _run(args: argparse.Namespace) -> int:
    tally = Tally(args.backend)
    started = time.monotonic()
    how = syntax if args.backend == "syntax" else partial(hunt, keep=args.save)
    how(tally, args.seed, args.programs, args.minutes, lambda words: print(words, file=sys.stderr, flush=True))
    seconds = time.monotonic() - started
    print(f"{tally.programs} programs on {args.backend} in {seconds:.0f} s; numbers {tally.numbers}")
    tables = {"forms": tally.forms, "features": tally.features, "refusals": tally.refusals, "problems": tally.problems}
    for title, counts in tables.items():
        print(f"{title}:")
        for words, n in counts.most_common():
            print(f"  {n:6d}  {words}")
    if args.save:
        args.save.write_text(json.dumps(tally.saved(), indent=1))
    return 1 if tally.problems else 0
