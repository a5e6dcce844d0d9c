"""Seeded bugs: each change still has a place in the code, and one is told. All of them: `python -m tests.fuzz.mutants`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.mutant_specs import SPECS
from tests.fuzz.mutant_table import MUTANTS, Mutant
from tests.fuzz.mutants import RECORD, ROOT, changed, words_of


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.path}: {mutant.old[:40]}")
def test_the_change_has_its_place(mutant: Mutant) -> None:
    changed(mutant, (ROOT / mutant.path).read_text())
    assert mutant.new != mutant.old and mutant.spec in SPECS


def test_there_are_many_of_every_part() -> None:
    assert len(MUTANTS) >= 60 and len({(m.path, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
    assert {m.backend for m in MUTANTS} == {"torch", "cpu", "triton"} and {m.spec for m in MUTANTS} <= SPECS.keys()


def test_all_were_told() -> None:
    """The record of the last run of each, written by `python -m tests.fuzz.mutants --save`: a recall of 100 %."""
    record = json.loads(RECORD.read_text())
    assert record.keys() == set(map(words_of, MUTANTS)) and all(record.values())
    assert f"{len(MUTANTS)} of {len(MUTANTS)}, 100 %" in (ROOT / "docs/reliability.md").read_text()


def test_some_are_told() -> None:
    found = subprocess.run([sys.executable, "-m", "tests.fuzz.mutants", "--draw", "2"], cwd=ROOT, text=True,
                           capture_output=True, check=False)
    assert found.returncode == 0 and "recall: 2 of 2, 100.0 %" in found.stdout, found.stdout + found.stderr
