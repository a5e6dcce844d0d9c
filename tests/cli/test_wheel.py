"""A wheel holds all that a person needs: built from what git tracks, put on a path of its own, used outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("seqc", "backends", "grammar", "passes", "specs", "pyproject.toml", "README.md", "LICENSE")
HOUR = """
import sys
from seqc.cli.main import main
import seqc
assert seqc.__file__.startswith(sys.argv[1]), seqc.__file__
for words in ("list --names", "new mine --like hgrn", "check mine.seq", "compile gla -o gla_kernel.py --backend torch",
              "doctor", "bench mine.seq --quick --rounds 1 --size T=8"):
    assert main(words.split()) == 0, words
import torch, gla_kernel
q = torch.randn(1, 7, 2, 4)
assert torch.isfinite(gla_kernel.gla(q, q, q, -q.abs()).o).all()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / "source" / part, symlinks=True, ignore=skipped)
        else:
            shutil.copy(ROOT / part, folder / "source" / part)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", build, str(folder)]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_module_and_spec(wheel: Path) -> None:
    wanted = {"seqc/backends/triton_gpu/tuning/verdicts.json", "seqc/py.typed"}
    for top in ("seqc", "backends", "grammar", "passes", "specs"):
        base = ROOT if top == "seqc" else ROOT / "seqc"
        files = (path for path in (base / top).rglob("*") if path.suffix in (".py", ".seq", ".lark", ".tsv"))
        wanted |= {str(path.relative_to(ROOT)) for path in files}
    assert wanted <= {str(path.relative_to(wheel)) for path in wheel.rglob("*")}


def test_the_first_hour_from_a_wheel(wheel: Path, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(wheel)}
    done = subprocess.run([sys.executable, "-c", HOUR, str(wheel)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "native" in done.stdout and "WRONG" not in done.stdout
