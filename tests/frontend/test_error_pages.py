"""The pages in tests/errors are run: each spec must be answered with exactly the text that follows it."""

import re
from pathlib import Path

import pytest

import seqc.frontend.elaborate
from seqc.diagnostics import Refusal, Source
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import build
from seqc.frontend.parse import parse_with_errors

PAGES = sorted((Path(__file__).parents[1] / "errors").glob("*.md"))
CASE = re.compile(r"```seq\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def answer(text: str) -> str:
    """What the front end and the checks of claims and forms say of a spec."""
    parsed = parse_with_errors(Source("demo.seq", text))
    try:
        program = build(parsed.spec, parsed.found, parsed.lost)
        lower(program)
    except Refusal as refusal:
        return refusal.render() + "\n"
    return "\n\n".join(warning.render() for warning in program.warnings) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path) -> None:
    cases = CASE.findall(page.read_text(encoding="utf-8"))
    assert cases
    for spec, expected in cases:
        assert answer(spec) == expected


def test_diagnostics_come_in_source_order() -> None:
    for page in PAGES:
        for _, expected in CASE.findall(page.read_text(encoding="utf-8")):
            places = [tuple(map(int, p)) for p in re.findall(r"--> demo.seq:(\d+):(\d+)", expected)]
            assert places == sorted(places), page.stem


def test_every_code_has_a_page() -> None:
    """The codes that the front end can answer with, found in its text, are all shown on some page."""
    room = Path(seqc.frontend.elaborate.__file__).parent
    text = "".join(module.read_text(encoding="utf-8") for module in room.glob("*.py") if module.stem != "sources")
    codes = set(re.findall(r'(?:report|refuse|warn|_warning|Diagnostic)\(\s*"([a-z-]+)"', text))
    shown = set(re.findall(r"^\w+\[([a-z-]+)\]", "".join(p.read_text(encoding="utf-8") for p in PAGES), re.MULTILINE))
    assert codes - shown == {"too-deep"}  # see test_mutations.py
