"""What a person's first hour needs: specs by name, a spec of one's own, standard input, a doctor, completion, colours."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import seqc as library
from seqc.backends.triton_gpu.report import figures
from seqc.backends.triton_gpu.tuning.verdicts import TABLE, Verdict, VerdictTable, family
from seqc.cli.commands.terminal import painted
from seqc.cli.main import COMMANDS
from seqc.frontend.sources import shipped

ROOT = Path(__file__).parents[2]
LEAKY = "spec leaky\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n"
Seqc = Callable[..., tuple[int, str, str]]


def test_a_shipped_spec_goes_by_its_name(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gla").mkdir()  # a folder of that name is no spec
    by_name = seqc("compile", "gla", "-o", "-", "--backend", "torch")
    assert by_name[0] == 0 and by_name[1] == seqc("compile", shipped()["gla"], "-o", "-", "--backend", "torch")[1]
    assert library.compile("gla", backend="torch").source == by_name[1]
    (tmp_path / "gru").write_text(LEAKY)  # a file of that name is
    assert "def leaky(" in seqc("compile", "gru", "-o", "-", "--backend", "torch")[1]


@pytest.mark.parametrize(
    ("word", "help"),
    [("gal", "did you mean the shipped spec `g"), ("gla.seq", "the shipped spec `gla`?"), ("Deltarule", "`delta_rule`"),
     ("qqqqq", "`seqc list` shows them"), ("own", "did you mean `own.seq`?")],
)
def test_a_name_that_is_nothing(
    seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, help: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.seq").write_text(LEAKY)
    code, _, err = seqc("check", word)
    assert code == 1 and "error[no-file]" in err and help in err


def test_list(seqc: Seqc) -> None:
    code, out, err = seqc("list")
    assert code == 0 and len(out.splitlines()) == len(shipped()) + 1 and "`seqc new MY --like NAME`" in err
    assert "delta_rule  " in out and "low rank" in out and "chunkwise*" in out
    assert seqc("list", "--names")[1].split() == list(shipped())
    told = json.loads(seqc("list", "--json", "gated", "delta", "decays first")[1])
    assert [row["name"] for row in told] == ["gated_delta_rule"] and Path(told[0]["file"]).is_file()
    assert seqc("list", "no such words")[0] == 1


@pytest.mark.parametrize("how", ["--cell", "--scan", "--matrix", "--like delta_rule", "--like bidirectional_gru"])
def test_new_in_all_kinds(seqc: Seqc, tmp_path: Path, how: str) -> None:
    path = tmp_path / "mine.seq"
    assert seqc("new", "mine", *how.split(), "-o", path)[0] == 0
    assert seqc("check", path)[0] == 0 and seqc("fmt", "--check", path)[0] == 0
    assert path.read_text().splitlines()[0] == "spec mine"
    assert seqc("new", "mine", *how.split(), "-o", "-")[1] == path.read_text()


def test_standard_input(seqc: Seqc, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    given(LEAKY)
    assert seqc("check", "-")[1] == "-: ok (h: diagonal)\n"
    given(LEAKY)
    assert "def leaky(" in seqc("compile", "-", "-o", "-", "--backend", "torch")[1]
    given(LEAKY.replace(" = 0", "=0"))
    assert seqc("fmt", "-w", "-")[1] == LEAKY
    given("spec x\ninput\n")
    assert "<stdin>:2:6" in seqc("check", "-")[2]


def test_doctor(seqc: Seqc) -> None:
    code, out, _ = seqc("doctor")
    assert code == 0
    for what in ("seqc", "python", "torch", "z3-solver", "cache", "gpu", "backend torch", "backend cpu", "backend triton"):
        assert any(line.split("  ", 2)[1].strip() == what for line in out.splitlines()), what
    told = json.loads(seqc("doctor", "--json")[1])
    assert told["ok"] and {row["what"] for row in told["lines"]} >= {"graphviz", "numpy"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("chek a.seq", 2, "seqc: there is no command `chek`: did you mean `check`?"),
        ("new sub/my.seq", 1, "`sub/my.seq` is no name of a recurrence\n  = help: say `seqc new my -o sub/my.seq`"),
        ("new my.seq", 1, "help: say `seqc new my`\n"),
        ("new 1x", 1, "`1x` is no name of a recurrence"),
        ("prove gla --points 0", 2, "`0` should be a number above 0"),
        ("compile gla --form newtn -o -", 1, "there is no form `newtn`\n  = help: did you mean `newton`?"),
        ("pass simplify a.ir", 1, "`a.ir` is a dump of `nowhere`, and there is no spec of that name here\n  = help: say where"),
    ],
)
def test_slips_on_the_command_line(
    seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert seqc("compile", "gla", "--backend", "torch", "--dump", "d", "-o", "-")[0] == 0
    text = (tmp_path / "d" / "06_derive_backward.ir").read_text()
    (tmp_path / "a.ir").write_text(text.replace("# gla after", "# nowhere after"))
    found, _, err = seqc(*words.split())
    assert found == code and told in err


def test_a_cache_that_cannot_be_made_is_told(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    told = {row["what"]: row for row in json.loads(seqc("doctor", "--json")[1])["lines"]}
    assert not told["cache"]["ok"] and "libraries are built for each process anew" in told["cache"]["words"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(seqc: Seqc, shell: str, tmp_path: Path) -> None:
    code, out, _ = seqc("completion", shell)
    assert code == 0 and all(command in out for command in COMMANDS) and "gated_delta_rule" in out
    if shell == "bash":
        program = "COMP_WORDS=(seqc {}); COMP_CWORD={}; _seqc; echo \"${{COMPREPLY[@]}}\""
        asked = {"com": "compile completion", "compile --fo": "--form", "bench hgr": "hgrn hgrn2"}
        for words, wanted in asked.items():
            script = out + program.format(words, len(words.split()))
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == wanted
    elif shutil.which(shell):
        (tmp_path / "script").write_text(out)
        assert subprocess.run([shell, "-n", tmp_path / "script"]).returncode == 0


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "error[x]: what\n --> a.seq:1:2\n  |\n1 | y\x1b[2J\n  |  ^ here\n  = help: this"
    plain = text.replace("\x1b", "\u241b")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted(text, io.StringIO()) == plain
    shown = painted(text, Terminal())
    assert "\x1b[1;31merror[x]\x1b[0m" in shown and "\x1b[2J" not in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(text, Terminal()) == plain


def test_verdicts_of_own_specs_lie_in_the_cache(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolchain is a stand-in: what is looked at is where its words go, and who reads them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec, committed = tmp_path / "leaky.seq", TABLE.read_bytes()
    spec.write_text(LEAKY)
    said = Verdict(77, 0, 1024, 0, (("all", 10),), "triton by hand")

    def asked(asked: list[tuple[list[figures.Lowered], str]], table: VerdictTable, *_: object) -> list[VerdictTable]:
        jobs = [job for one, target in asked for job in figures.choose_tiles(one, target, table).missing()]
        return [table.with_verdicts((job.key, said) for job in jobs)]

    monkeypatch.setattr(figures, "refreshed", asked)
    assert "no verdict recorded" in seqc("tiles", spec, "--target", "sm_90")[1]
    code, out, err = seqc("tiles", spec, "--target", "sm_90", "--refresh")
    own = tmp_path / "cache" / "seqc" / "verdicts.json"
    assert code == 0 and "77 registers" in out and str(own) in err
    assert TABLE.read_bytes() == committed and len(VerdictTable.load(own)) < 20
    assert "77 registers" in seqc("tiles", spec, "--target", "sm_90")[1]
    own.write_text("no JSON")
    figures._own.cache_clear()
    code, _, err = seqc("tiles", spec, "--target", "sm_90")
    assert code == 1 and "error[no-verdicts]" in err and str(own) in err


def test_what_is_committed_goes_first() -> None:
    one, two = (Verdict(n, 0, 0, 0, (), "by hand") for n in (1, 2))
    first = f"{family('a', 'k', 'sm_90')}: x"
    second = f"{family('b', 'k', 'sm_90')}: x"
    both = VerdictTable({first: one}).beside(VerdictTable({first: two, second: two}))
    assert both[first] == one and both[second] == two
