"""A short run of the fuzzer: random programs against the judge, and every program that was ever found wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from seqc.frontend.elaborate import load
from tests.fuzz.invariants import LAWS
from tests.fuzz.programs import Program, chosen, drawn, families_of, programs, smaller
from tests.fuzz.report import report
from tests.fuzz.run import Tally, again, hunt
from tests.fuzz.trial import Call, Subject, Wish, against_judge, attempt

FOUND = sorted((Path(__file__).parent / "found").glob("*.seq"))
IN_BLOCKS = frozenset((  # wrong in a form that native code does not have: tried on it in long runs only
    "coupled_by_nothing", "delta_masked_along_the_keys", "delta_read_over_values", "gradient_at_the_first_row",
    "linear_states_from_a_param", "reset_along_a_read_dim", "rows_solved_by_halves",
))
COUNTS = {"torch": (1, 6), "cpu": (200_037, 1), "triton": (100_001, 2)}  # the first number, and how many


@settings(max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_specs_are_valid(program: Program) -> None:
    load(program.text)


@pytest.mark.parametrize("backend", COUNTS)
def test_random_programs_agree_with_the_judge(backend: str) -> None:
    tally = Tally(backend)
    first, count = COUNTS[backend]
    hunt(tally, first, count, 60.0, lambda words: None)
    assert tally.programs == count and not tally.problems, tally.examples
    assert f"| {count} | {first} to {first + count - 1} | 0 | 0 |" in report([tally.saved()])


def test_a_tally_is_tried_again() -> None:
    tally = Tally("torch", numbers=[(1, 2)])
    assert tally.count("once wrong", 1) and not tally.count("once wrong", 1) and tally.problems == {"once wrong": 1}
    text = report([tally.saved(), {**tally.saved(), "numbers": [(2, 3)], "wrong": {}}])
    assert "| 1 to 2 | 0 | 1 |" in text and "- 1: once wrong" in text
    made = again(tally.saved())
    assert made["wrong"] == {} and made["mended"] == [1]
    assert "| 1 to 1 | 1 | 0 |" in report([made])


def test_a_wrong_program_is_made_smaller() -> None:
    program, choices = drawn(4)
    families = families_of(4)
    assert chosen(choices, families).text == program.text
    least = smaller(choices, lambda made: "state" in made.text and "output" in made.text, 20.0, families)
    assert len(least.text) < len(program.text) and least.text.count("\n") <= 8


@pytest.mark.parametrize(("path", "backend"), [
    pytest.param(path, backend, id=f"{backend}-{path.stem}",
                 marks=[pytest.mark.long] if backend == "cpu" and path.stem in IN_BLOCKS else [])
    for backend in COUNTS for path in FOUND
])
def test_what_was_wrong_is_right(path: Path, backend: str) -> None:
    text = path.read_text()
    for number in range(3 if backend == "torch" else 1):
        problems, _ = attempt(text, Wish(backend, rows=None if backend == "cpu" else 16), sizes_of(text), number)
        assert not [p for p in problems if p.kind != "refused"], problems
    if backend == "torch":
        subject = Subject(text, Wish("torch", rows=16))
        call = Call({**sizes_of(text), "B": 2, "T": 7}, seed=1)
        assert [p for law in LAWS for p in law(subject, call)] == []


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_wrong_is_right_with_what_a_call_may_leave_out(path: Path) -> None:
    subject = Subject(path.read_text(), Wish("torch"))
    assert not [*against_judge(subject, Call({**sizes_of(subject.text), "B": 2, "T": 4}, defaults=True))]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws_hold(law: object) -> None:
    subject = Subject(FOUND[0].read_text(), Wish("torch"))
    sizes = {**sizes_of(subject.text), "B": 3, "T": 7}
    for bounds in (None, (0, 3, 3, 7)):
        assert list(law(subject, Call(sizes, bounds=bounds, seed=1))) == []  # type: ignore[operator]


def test_a_law_that_does_not_hold_is_told() -> None:
    subject = Subject(FOUND[0].read_text(), Wish("torch"))
    answer = subject.answer

    def mixed(*given: object) -> object:
        results, slopes = answer(*given)  # type: ignore[arg-type]
        return {n: x + x.sum() for n, x in results.items()}, {n: x + np.float64(x.numel()) for n, x in slopes.items()}

    subject.answer = mixed  # type: ignore[method-assign, assignment]
    sizes = {**sizes_of(subject.text), "B": 3, "T": 7}
    told = [sum(1 for _ in law(subject, Call(sizes, bounds=(0, 3, 3, 7), seed=1))) for law in LAWS]
    assert told[0] and told[1] and told[3], told


def sizes_of(text: str) -> dict[str, int]:
    """Small extents for the dims that a text leaves open."""
    program = load(text)
    return {name: d.default or (2, 3)[i % 2] for i, (name, d) in enumerate(program.dims.items())}
