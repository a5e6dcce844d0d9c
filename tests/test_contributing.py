"""CONTRIBUTING.md and docs/glossary.md: the steps that find a fault in a pass find one, and what is named is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqc.driver.dump import text_of
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("spoilt", [False, True])
def test_bisecting_finds_the_pass(spoilt: bool, tmp_path: Path) -> None:
    """Two graphs that mean the same do not differ; one with another number in it does."""
    program = load(ROOT / "specs" / "hgrn.seq")

    def watch(stage: str, value: object) -> None:
        text = text_of(stage, value, program)
        if spoilt and stage == "simplify":
            key = next(line.split()[1] for line in text.splitlines() if line.startswith("out d."))
            text = re.sub(rf"^out {re.escape(key)} = .*$", f"out {key} = 0.0", text, flags=re.MULTILINE)
        (tmp_path / f"0_{stage}.ir").write_text(text, encoding="utf-8")

    lower(program, "scan", 4, watch=watch)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"folder": tmp_path}
    exec(re.sub(r"^   ", "", snippet, flags=re.MULTILINE), names)
    assert bool(names["different"]) == spoilt


def test_what_the_pages_name_is_there() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for text in (PAGE, glossary):
        for path in re.findall(r"`((?:tests|seqc|docs|passes|specs)/[\w./]+)`", text):
            assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((docs/[\w./-]+)\)", PAGE):
        assert (ROOT / target).exists(), target
    commands = re.findall(r"`make ([\w-]+)`", PAGE)
    assert commands and all(f"\n{name}: " in (ROOT / "Makefile").read_text() for name in commands)
    for module in re.findall(r"`python -m (tests[\w.]+)", PAGE):
        at = ROOT / module.replace(".", "/")
        assert at.with_suffix(".py").exists() or (at / "__main__.py").exists(), module
