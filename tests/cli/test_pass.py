"""`seqc pass`: a stage, run alone on the dump of the stage before, gives what it gave in its place; an edited graph counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seqc.passes import PIPELINE

Seqc = Callable[..., tuple[int, str, str]]
READS = {  # a stage -> the stage whose dump it reads
    "classify": "spec", "ranges": "spec", "claims": "spec", "block_forms": "spec", "choose_form": "spec",
    "derive_backward": "choose_form", "simplify": "derive_backward", "assemble": "simplify", "eliminate": "assemble",
}  # fmt: skip


@pytest.fixture
def dumps(seqc: Seqc, tmp_path: Path) -> Path:
    """The dumps of one compile."""
    given = ("compile", "hgrn", "--backend", "torch", "--form", "scan", "--dump", tmp_path, "-o", tmp_path / "made.py")
    assert seqc(*given)[0] == 0
    return tmp_path


def file(dumps: Path, stage: str) -> Path:
    """The dump of a stage."""
    (found,) = dumps.glob(f"*_{stage}.ir")
    return found


def test_a_stage_alone_gives_what_it_gave(seqc: Seqc, dumps: Path) -> None:
    assert READS.keys() == {stage.name for stage in PIPELINE}
    for name, before in READS.items():
        code, out, err = seqc("pass", name, file(dumps, before), "--form", "scan")
        assert (code, out) == (0, file(dumps, name).read_text()), (name, err)


def test_an_edited_graph_counts(seqc: Seqc, dumps: Path) -> None:
    path = file(dumps, "derive_backward")
    key = next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("out d."))
    path.write_text("\n".join(f"out {key} = 0.0" if line.startswith(f"out {key} ") else line
                              for line in path.read_text().splitlines()) + "\n")
    code, out, _ = seqc("pass", "simplify", path)
    assert code == 0 and f"out {key} = 0.0" in out and out != file(dumps, "simplify").read_text()


def test_a_spec_of_ones_own_is_found_by_its_name(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert seqc("new", "mine", "--scan")[0] == 0
    assert seqc("compile", "mine.seq", "--backend", "torch", "--dump", "d")[0] == 0
    code, out, err = seqc("pass", "simplify", file(tmp_path / "d", "derive_backward"))
    assert (code, out) == (0, file(tmp_path / "d", "simplify").read_text()), err
    (tmp_path / "mine.seq").unlink()
    code, _, err = seqc("pass", "simplify", file(tmp_path / "d", "derive_backward"))
    assert code == 1 and "there is no spec of that name here" in err


def test_what_cannot_be_run_is_told(seqc: Seqc, dumps: Path) -> None:
    path = file(dumps, "spec")
    code, _, err = seqc("pass", "simplifi", path)
    assert code == 1 and "did you mean `simplify`" in err
    code, _, err = seqc("pass", "simplify", path)
    assert code == 1 and "`simplify` reads the graph that `derive_backward` gives" in err and "_derive_backward.ir" in err
    path.write_text("# hgrn after spec\n# step\n%0 = nothing(%x)\n")
    code, _, err = seqc("pass", "classify", path)
    assert code == 1 and "line 2: unknown operator `nothing`" in err
    code, _, err = seqc("pass", "classify", dumps / "none.ir")
    assert code == 1 and "cannot read" in err
