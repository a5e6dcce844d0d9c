"""Seeded bugs: each change of `mutant_table` is made in a copy of the project, and must be told from the right compiler.

    python -m tests.fuzz.mutants [WORD ..]     all, or those whose file, text or spec holds one of the words
    python -m tests.fuzz.mutants --draw 4      so many of those on plain torch, drawn with a fixed seed
    python -m tests.fuzz.mutants --save        what was found goes to `recall.json`, which docs/reliability.md tells of
    python -m tests.fuzz.mutants --missing --save     what it does not tell of yet

In: nothing. Out: a line for each, and the recall: the part that was told. A change that breaks the compiler counts as told.
Each runs in a process of its own, forked from one that has loaded torch but nothing of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.fuzz.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("recall.json")
PARTS = ("seqc", "passes", "backends", "grammar", "specs", "tests/fuzz", "tests/triton", "tests/__init__.py", "pyproject.toml")
RIGHT, WRONG, BROKEN = 0, 1, 2  # exit codes of a process that tries one


def copied(folder: Path) -> Path:
    """A copy of what a run needs."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def changed(mutant: Mutant, text: str) -> str:
    """The text of the file with the change made. ValueError unless the old text stands there once."""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.path}: `{mutant.old}` stands there {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def tried(mutant: Mutant) -> int:
    """Compare what the project gives for the mutant's spec with the judge: `RIGHT` or `WRONG`."""
    from itertools import accumulate

    from tests.fuzz.mutant_specs import SPECS
    from tests.fuzz.trial import Call, Subject, Wish, against_judge, parts_and_steps

    subject = Subject(SPECS[mutant.spec], Wish(mutant.backend, mutant.form, mutant.rows))
    sizes = {name: d.default or (3, 2)[i % 2] for i, (name, d) in enumerate(subject.program.dims.items())}
    bounds = tuple(accumulate((2, 0, 18), initial=0))
    whole = {**sizes, "B": 2, "T": 20}
    calls = [
        (against_judge, Call(whole, "float64", hard=True, seed=1)),
        (against_judge, Call({**sizes, "B": 3, "T": bounds[-1]}, "float32", bounds, True, seed=2)),
        (parts_and_steps, Call({**sizes, "B": 2, "T": 7}, "float64", seed=3)),
        (against_judge, Call(whole, "float32", hard=mutant.spec == "decayed", seed=4)),
        (against_judge, Call({**whole, "T": 6}, "float64", reverse=True, seed=5)),
    ]
    if mutant.rows is not None:  # the last block is full
        calls.append((against_judge, Call({**whole, "T": 2 * mutant.rows}, "float64", seed=6)))
    if mutant.backend == "triton":
        calls = [(against_judge, Call({**sizes, "B": 2, "T": 19}, "float32", seed=2)), calls[1]]
    return WRONG if any(True for how, call in calls for _ in how(subject, call)) else RIGHT


def in_a_process(folder: Path, mutant: Mutant) -> int:
    """Try a mutant in a forked process that takes the project from a folder."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = BROKEN
    try:
        for name in [m for m in sys.modules if m.split(".")[0] in ("seqc", "tests")]:
            del sys.modules[name]
        sys.path.insert(0, str(folder))
        os.chdir(folder)
        from tests.fuzz.mutants import tried as tried_there

        code = tried_there(mutant)
    except BaseException:
        if os.environ.get("SHOW"):
            traceback.print_exc()
    finally:
        os._exit(code)


def run(mutants: tuple[Mutant, ...]) -> Iterator[tuple[Mutant, bool, float]]:
    """(mutant, whether it was told, seconds). AssertionError where the right compiler does not pass what tells a mutant."""
    import torch

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="seqc-mutants-") as name:
        folder = copied(Path(name))
        os.environ["XDG_CACHE_HOME"] = name
        compiler = folder / "compiler"
        compiler.write_text(f'#!/bin/sh\nexec {shutil.which("c++") or "g++"} "$@" -O0\n')
        compiler.chmod(0o755)
        os.environ["CXX"] = str(compiler)
        right: set[tuple[object, ...]] = set()
        for mutant in mutants:
            how = mutant.spec, mutant.backend, mutant.form, mutant.rows
            if how not in right:
                assert in_a_process(folder, mutant) == RIGHT, f"the right compiler fails {how}"
                right.add(how)
            path = folder / mutant.path
            before = path.read_text()
            path.write_text(changed(mutant, before))
            began = time.monotonic()
            told = in_a_process(folder, mutant) != RIGHT
            path.write_text(before)
            yield mutant, told, time.monotonic() - began


def words_of(mutant: Mutant) -> str:
    """What tells a change from all others."""
    return f"{mutant.path}: {mutant.old.strip()} -> {mutant.new.strip()}, by {mutant.spec} on {mutant.backend}"


def save(found: Mapping[str, bool]) -> None:
    """Into the record of what was told, which forgets changes that are on the list no more."""
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    known = {words: told for words, told in {**before, **found}.items() if words in set(map(words_of, MUTANTS))}
    RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")


def main(arguments: list[str]) -> int:
    """`python -m tests.fuzz.mutants`."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutants")
    parser.add_argument("words", nargs="*", help="some of what the file, text or spec of a change holds")
    parser.add_argument("--draw", type=int, help="how many on plain torch to draw")
    parser.add_argument("--save", action="store_true", help="record what was found")
    parser.add_argument("--missing", action="store_true", help="those alone that were not told yet")
    given = parser.parse_args(arguments)
    words = given.words
    chosen = tuple(m for m in MUTANTS if not words or any(w in f"{m.path} {m.spec} {m.backend} {m.old}" for w in words))
    if given.missing and RECORD.exists():
        record = json.loads(RECORD.read_text())
        chosen = tuple(m for m in chosen if not record.get(words_of(m)))
    if given.draw is not None:
        chosen = tuple(random.Random(1).sample([m for m in chosen if m.backend == "torch"], given.draw))
    found = {}
    for mutant, told, seconds in run(chosen):
        found[words_of(mutant)] = told
        where = f"{mutant.path}: {mutant.old.strip()[:70]!r} by {mutant.spec} on {mutant.backend}"
        print(f"{'told ' if told else 'LIVES'} {seconds:5.1f} s  {where}", flush=True)
        if given.save:
            save(found)
    print(f"recall: {sum(found.values())} of {len(found)}, {100 * sum(found.values()) / max(len(found), 1):.1f} %")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
