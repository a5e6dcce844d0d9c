"""A short run of the fuzzer: random programs against the judge, and every program that was ever found wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from seqc.build import load
from tests.fuzz.programs import Program, chosen, drawn, programs, smaller
from tests.fuzz.run import Tally, hunt
from tests.fuzz.trial import Wish, attempt

FOUND = sorted((Path(__file__).parent / "found").glob("*.seq"))
BACKENDS = ("torch",)


@settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_specs_are_valid(program: Program) -> None:
    load(program.text)


def test_random_programs_agree_with_the_judge() -> None:
    tally = Tally("torch")
    hunt(tally, 1, 10, 60.0, lambda words: None)
    assert tally.programs == 10 and not tally.problems, tally.examples


def test_a_wrong_program_is_made_smaller() -> None:
    program, choices = drawn(4)
    assert chosen(choices).text == program.text
    least = smaller(choices, lambda made: "state" in made.text and "output" in made.text, 20.0)
    assert len(least.text) < len(program.text) and least.text.count("\n") <= 8


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_wrong_is_right(path: Path, backend: str) -> None:
    text = path.read_text()
    for number in range(3):
        problems, _ = attempt(text, Wish(backend), sizes_of(text), number)
        assert not [p for p in problems if p.kind != "refused"], problems


def sizes_of(text: str) -> dict[str, int]:
    """Small extents for the dims that a text leaves open."""
    program = load(text)
    return {name: d.default or (2, 3)[i % 2] for i, (name, d) in enumerate(program.dims.items())}
