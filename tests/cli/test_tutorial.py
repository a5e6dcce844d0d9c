"""The tutorial, run as its reader runs it: files are saved, commands are typed, Python goes on where the last block ended."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(seq|console|python)\n(.*?)```", re.DOTALL)
SAVED = re.compile(r"[Ss]ave as\s+`(\w+\.seq)`")
Seqc = Callable[..., tuple[int, str, str]]


def test_the_tutorial(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {}
    saved, at = [], 0
    for block in BLOCK.finditer(PAGE):
        kind, text = block.groups()
        if kind == "seq":
            name = SAVED.findall(PAGE[at : block.start()])[-1]
            saved.append(name)
            Path(name).write_text(text, encoding="utf-8")
        elif kind == "console":
            for command in re.split(r"^\$ seqc ", text, flags=re.MULTILINE)[1:]:
                line, _, shown = command.partition("\n")
                code, out, err = seqc(*line.split())
                assert code == 0, (line, err)
                for wanted in filter(None, (part.strip() for part in shown.split("\n"))):
                    said = re.sub(r"\d+ lines", "4000 lines", out + err)
                    assert wanted in said, (line, wanted, said)
        else:
            exec(compile(text, "tutorial.md", "exec"), names)
        at = block.end()
    sys.modules.pop("smooth_kernel", None)
    assert saved == ["smooth.seq", "memory.seq", "cell.seq"]


def test_the_mistake_that_it_shows(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = next(text for kind, text in BLOCK.findall(PAGE) if kind == "seq")
    Path("smooth.seq").write_text(spec.replace("a * h[t-1] +", "a * h +"), encoding="utf-8")
    shown = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    code, _, err = seqc("check", "smooth.seq")
    assert code == 1 and err.strip() == shown[1].strip()
