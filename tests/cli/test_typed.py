"""A typed file of a person's own that imports an emitted file: strict mypy finds what is wrong there, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from seqc.driver.compile import Options, compile_spec

ROOT = Path(__file__).parents[2]
RIGHT = """\
import torch
from gla_kernel import GLA, GLAResult, gla, gla_step
from lstm_kernel import LSTM
from torch import Tensor


def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> GLAResult:
    result = gla(q, k, v, g, cu_seqlens=None, reverse=True)
    layer = GLA(H=4, K=8, V=8, device="cpu")
    result = layer(q, k, v, g, S_0=result.S_T)
    return gla_step(q, k, v, g, S_0=result.S_T, inplace=True)


def cell(x: Tensor) -> Tensor:
    layer = LSTM(H=2, D=4, dtype=torch.float64)
    layer.reset_parameters()
    h: Tensor = layer.step(x, x, x, x).h
    return h + layer(x, x, x, x)[0] + layer.R_i
"""
WRONG = """\
from gla_kernel import GLA, gla
from torch import Tensor


def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    gla(q, k, v, 1.0)
    gla(q, k, v)
    GLA(H="4", K=8, V=8)
    GLA(H=4, K=8, V=8)(q, k, v, g, reverse=2)
    return gla(q, k, v, g)
"""


def test_mypy_on_a_file_of_ones_own(tmp_path: Path) -> None:
    for name in ("gla", "lstm"):
        text = compile_spec(ROOT / "specs" / f"{name}.seq", Options("auto" if name == "gla" else "torch")).text
        (tmp_path / f"{name}_kernel.py").write_text(text)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    # the repository's settings are strict, and its cache knows torch
    files = [str(tmp_path / f"{name}.py") for name in ("right", "wrong")]
    words = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *files]
    environment = {"MYPYPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    # of a file whose text the cache knows, mypy tells the path that it had then
    places = [(Path(path).name, int(line)) for path, line, *_ in (line.split(":") for line in found)]
    assert places == [("wrong.py", i) for i in (6, 7, 8, 9, 10)], found
