"""Golden files: equal to what the compiler emits, to the byte; formatted; and executed."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from seqc.check.sampling import sample_sizes
from seqc.check.verify_emitted import Case, against_oracle, lengths
from seqc.driver.load_emitted import load_emitted
from tests.cli import digests
from tests.cli.golden import CASES, FOLDER, emitted, path

AGAIN = "if the change is meant, write them again with `python -m tests.cli.golden`"


def test_no_file_is_left_over() -> None:
    assert sorted(FOLDER.iterdir()) == sorted([digests.FILE, *(path(*case) for case in CASES)])
    assert sorted(digests.kept()) == sorted((spec, backend) for spec in digests.SPECS for backend in digests.BACKENDS), AGAIN


@pytest.mark.parametrize(("spec", "backend"), CASES)
def test_golden_file(spec: str, backend: str) -> None:
    """Of a file with Triton kernels the plain form runs here; the kernels run in the test below."""
    kept = path(spec, backend).read_text(encoding="utf-8")
    made = emitted(spec, backend)
    assert made.text == kept, AGAIN
    assert not re.search(r"import seqc|from seqc", kept)
    module = load_emitted(kept, f"golden_{spec}")
    rows = made.blocks["torch"].rows
    case = Case(made.program, module, sample_sizes(made.program), lengths(rows)[-2], "float64", False)
    for one in (case, replace(case, dtype="float32", hard=True)):
        assert all(finding.ok for finding in against_oracle(one)), list(against_oracle(one))


def test_golden_kernels() -> None:
    pytest.importorskip("triton")
    mine = [spec for spec, backend in CASES if backend == "triton"]
    program = f"from tests.cli.golden import run_triton; run_triton({mine!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=FOLDER.parents[1], env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_files_are_formatted() -> None:
    files = [str(path(*case)) for case in CASES if case[1] == "torch"]
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_readme_shows_what_is_emitted() -> None:
    """Its excerpt of a kernel stands in the golden file, line by line and in this order."""
    text = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = text[text.index("```python\n    for i_n") :].split("```")[1].splitlines()[1:]
    left = iter(path("gla", "triton").read_text(encoding="utf-8").splitlines())
    assert [line for line in shown if line.strip() != "..." and line not in left] == []
