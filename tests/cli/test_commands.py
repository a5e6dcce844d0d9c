"""Every command: what it writes, what it answers, its exit code."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seqc.cli.main import COMMANDS
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.format import format_text
from seqc.ir.graph_text import parse

ROOT = Path(__file__).parents[2]
GLA = ROOT / "specs" / "gla.seq"
CASE = re.compile(r"```seq\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
Seqc = Callable[..., tuple[int, str, str]]

FALSE_CLAIM = """\
spec demo
dim H, K, V
input q[H, K], k[H, K] unit[K], v[H, V]
input beta[H] in [0, 3]
state S[H, K, V] = 0
S = S[t-1] + beta * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S)
eigenvalues S in [-1, 1]
"""


def test_compile_writes_a_module(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "gla_kernel.py"
    code, out, err = seqc("compile", GLA, "-o", path, "--backend", "torch")
    assert (code, out) == (0, "") and str(path) in err
    assert callable(load_emitted(path.read_text(), "written").gla)
    assert seqc("compile", GLA, "-o", "-", "--backend", "torch")[1] == path.read_text()


def test_compile_for_a_machine_to_read(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "gla_kernel.py"
    words = ("-o", path, "--backend", "torch", "--dim", "K=64", "--form", "chunkwise", "--rows", "16", "--json")
    code, out, _ = seqc("compile", GLA, *words)
    assert code == 0
    told = json.loads(out)
    assert told["ok"] and told["parts"] == {"torch": {"form": "chunkwise", "rows": 16}}
    assert "dim K is {K}; it may be 64" in path.read_text()


def test_dump_can_be_read_back(seqc: Seqc, tmp_path: Path) -> None:
    seqc("compile", GLA, "-o", tmp_path / "x.py", "--backend", "torch", "--dump", tmp_path / "ir")
    files = sorted((tmp_path / "ir").iterdir())
    assert [path.name for path in files][:4] == ["00_spec.ir", "01_classify.ir", "02_ranges.ir", "03_claims.ir"]
    assert "# S: diagonal: each element of S depends on its own past only" in files[1].read_text()
    assert set(parse(files[0].read_text())) == {"o", "S.next"}
    chosen = next(path for path in files if "choose_form" in path.name)
    assert set(parse(chosen.read_text())) == {"o", "S.next"}


def test_warnings_are_told_and_count_where_they_are_to(seqc: Seqc, tmp_path: Path) -> None:
    path, made = tmp_path / "a.seq", tmp_path / "a.py"
    path.write_text("spec a\ninput x, y\noutput o = x\n")
    code, out, err = seqc("check", path)
    assert code == 0 and "ok" in out and err.startswith("warning[unused-input]")
    assert seqc("check", "--strict", path)[0] == 1
    (answer,) = json.loads(seqc("check", "--json", path)[1])
    assert answer["ok"] and [(d["kind"], d["places"][0]["column"]) for d in answer["diagnostics"]] == [("warning", 10)]
    code, out, err = seqc("compile", path, "--backend", "torch", "-o", made, "--strict")
    assert code == 1 and not made.exists() and "unused-input" in err
    assert "unused-input" in seqc("compile", path, "--backend", "torch", "-o", made)[2] and made.exists()
    told = json.loads(seqc("compile", path, "--backend", "torch", "-o", made, "--json")[1])
    assert [d["code"] for d in told["warnings"]] == ["unused-input"]


def test_check_says_what_is_proved(seqc: Seqc) -> None:
    code, out, err = seqc("check", GLA)
    assert (code, err) == (0, "")
    assert "ok (S: diagonal)" in out and "S: eigenvalues in [0, 1]: proved" in out
    told = json.loads(seqc("check", "--json", GLA)[1])
    assert told[0]["components"][0]["class"] == "diagonal"


def test_a_false_claim_is_refused_with_the_values(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "demo.seq"
    path.write_text(FALSE_CLAIM)
    code, out, err = seqc("check", path)
    assert (code, out) == (1, "")
    assert "error[false-claim]" in err and "`1 - beta` is -2 at beta = 3" in err
    told = json.loads(seqc("compile", path, "--json")[1])
    assert not told["ok"] and told["diagnostics"][0]["code"] == "false-claim"
    assert told["diagnostics"][0]["places"][0]["line"] == 8


@pytest.mark.parametrize("page", sorted((ROOT / "tests" / "errors").glob("*.md")), ids=lambda page: page.stem)
def test_every_wrong_spec_gets_its_diagnostics(seqc: Seqc, page: Path, tmp_path: Path) -> None:
    path = tmp_path / "demo.seq"
    for spec, expected in CASE.findall(page.read_text(encoding="utf-8")):
        path.write_text(spec, encoding="utf-8")
        code, _, err = seqc("compile", path, "-o", tmp_path / "out.py", "--strict")
        assert code == 1
        assert err.replace(path.as_posix(), "demo.seq") == expected
        assert not (tmp_path / "out.py").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("compile", "nowhere.seq"), "error[no-file]: cannot read `nowhere.seq`: No such file or directory"),
        (("compile", GLA, "--backend", "tritn"), "no backend `tritn`"),
        (("compile", GLA, "--dim", "Q=3"), "`gla` has no dim `Q`"),
        (("compile", GLA, "--form", "chunk"), "there is no form `chunk`"),
        (("compile", GLA, "--rows", "48"), "48 rows a block: the number is a power of two"),
        (("compile", ROOT / "specs" / "lstm.seq", "--form", "scan"), "the recurrence cannot run as scan"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_is_not_served_is_refused(seqc: Seqc, words: tuple[object, ...], expected: str) -> None:
    code, out, err = seqc(*words)
    assert (code, out) == (1, "") and expected in err and "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [(), ("compile",), ("compile", GLA, "--dim", "K"), ("compile", GLA, "--dim", f"K={2**31}"), ("fmt",), ("melt", GLA),
     ("report", GLA, "--batch", "-1"), ("bench", GLA, "--rounds", "0"), ("completion", "tcsh")],
)
def test_a_wrong_command_line_is_code_2(seqc: Seqc, words: tuple[object, ...]) -> None:
    assert seqc(*words)[0] == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(seqc: Seqc, command: str) -> None:
    code, out, _ = seqc(command, "--help")
    assert code == 0 and COMMANDS[command].lower() in " ".join(out.lower().split())


def test_fmt(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "demo.seq"
    path.write_text("spec demo\ndim D\ninput x[D]\nstate h[D]=0\nh=(0.5*h[t-1])+x\noutput y=h\n")
    want = format_text(path.read_text())
    assert seqc("fmt", path)[:2] == (0, want)
    assert seqc("fmt", "--check", path)[0] == 1
    assert seqc("fmt", "-w", path)[0] == 0
    assert path.read_text() == want
    assert seqc("fmt", "--check", path)[0] == 0
    path.write_text("spec demo\ndim D,,\n")
    code, out, err = seqc("fmt", "-w", path)
    assert (code, out) == (1, "") and "error[syntax]" in err and path.read_text() == "spec demo\ndim D,,\n"


def test_new_gives_a_spec_that_compiles(seqc: Seqc, tmp_path: Path) -> None:
    path = tmp_path / "memory.seq"
    assert seqc("new", "memory", "-o", path)[0] == 0
    assert seqc("check", path)[0] == 0 and seqc("fmt", "--check", path)[0] == 0
    code, _, err = seqc("new", "memory", "-o", path)
    assert code == 1 and "is there already" in err
    code, _, err = seqc("new", "two words", "-o", tmp_path / "other.seq")
    assert code == 1 and "error[" in err


def test_explain_says_what_a_checkpoint_does(seqc: Seqc) -> None:
    out = seqc("explain", ROOT / "tests" / "recurrences" / "kept_apart.seq")[1]
    assert out.count("states are kept every 3 steps") == 2
    assert out.count("checkpoint: without effect here") == 2  # plain torch has a recurrence for each of the two states


def test_explain(seqc: Seqc, tmp_path: Path) -> None:
    code, out, _ = seqc("explain", GLA, "--dim", "H=4", "--dim", "K=64", "--dim", "V=64")
    assert code == 0
    for words in (
        "S[H, K, V]: diagonal",
        "eigenvalues in [0, 1]: `exp(g)`",
        "gates, kept in fp32 beside half-precision inputs: g",
        "every exponent <= 0",
        "one token at H = 4, K = 64, V = 64:",
    ):
        assert words in out
    told = json.loads(seqc("explain", GLA, "--json")[1])
    assert told["parts"]["torch"]["token"]["operations forward"] > 0
    unguarded = tmp_path / "unranged.seq"
    unguarded.write_text(GLA.read_text().replace(" in [-inf, 0]", "").replace("eigenvalues S in [0, 1]", ""))
    assert "guarded: the decay may grow" in seqc("explain", unguarded)[1]


def test_graph(seqc: Seqc, tmp_path: Path) -> None:
    code, out, _ = seqc("graph", GLA, "-o", tmp_path / "graphs")
    assert code == 0
    names = [Path(line).stem for line in out.splitlines()]
    assert names[0] == "00_spec_step" and "08_assemble_backward" in names
    text = (tmp_path / "graphs" / "00_spec_step.dot").read_text()
    assert text.startswith('digraph "gla after spec: step" {') and '"state S\\n[B, H, K, V]"' in text


def test_verify(seqc: Seqc) -> None:
    code, out, _ = seqc("verify", ROOT / "specs" / "hgrn.seq", "--backend", "torch")
    assert code == 0
    assert "outputs that see the future (to the bit)" in out and "38 of 38 comparisons hold, run on cpu" in out
    code, _, err = seqc("verify", ROOT / "specs" / "hgrn.seq", "--backend", "torch", "--device", "interpreter")
    assert code == 1 and "the file has no Triton kernels" in err


def test_verify_runs_kernels_in_the_interpreter(tmp_path: Path) -> None:
    """In a process of its own: Triton is told to interpret before it is imported."""
    pytest.importorskip("triton")
    spec = tmp_path / "leaky.seq"
    spec.write_text("spec leaky\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n")
    command = [sys.executable, "-m", "seqc", "verify", str(spec), "--backend", "triton", "--form", "step"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "34 of 34 comparisons hold, run in Triton's interpreter" in told.stdout and "float64" not in told.stdout
    assert told.stdout.count("directional derivative, float32") == 1  # by differences on the backend itself


def test_the_page_names_every_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(f"`seqc {command} " in page for command in COMMANDS)


def test_tiles(seqc: Seqc) -> None:
    code, out, _ = seqc("tiles", GLA, "--target", "sm_90", "--dim", "H=4", "--dim", "K=64", "--dim", "V=64")
    assert code == 0 and "  sm_90" in out and "gla_forward_kernel: " in out and "4 warps" in out
    code, _, err = seqc("tiles", GLA, "--target", "sm_91")
    assert code == 1 and "no target `sm_91`" in err


def test_names_of_machines_lead_to_targets_and_backends(seqc: Seqc) -> None:
    leading = (("--target", "H100", "`sm_90`"), ("--target", "mi300x", "`gfx942`"), ("--backend", "cuda", "`triton`"))
    for option, word, help in leading:
        code, _, err = seqc("explain", GLA, option, word)
        assert code == 1 and help in err.partition("help:")[2]


