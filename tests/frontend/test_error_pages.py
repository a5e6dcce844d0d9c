"""The pages in tests/errors are run: each spec must be answered with exactly the text that follows it."""

import re
from pathlib import Path

import pytest

from seqc.build import build
from seqc.diagnostics import Refusal, Source
from seqc.parse import parse_with_errors

PAGES = sorted((Path(__file__).parents[1] / "errors").glob("*.md"))
CASE = re.compile(r"```seq\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def answer(text: str) -> str:
    """What the front end says of a spec."""
    parsed = parse_with_errors(Source("demo.seq", text))
    try:
        build(parsed.spec, parsed.found, parsed.lost)
    except Refusal as refusal:
        return refusal.render() + "\n"
    return ""


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
