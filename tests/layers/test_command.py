"""`seqc layer`, and the types of what it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from seqc.cli.main import main
from tests.cli.test_typed import ROOT

RIGHT = """\
import torch
from gla_layer import GLACache, GLALayer, GLAStack
from lstm_layer import LSTMStack
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def run(x: Tensor, packed: PackedSequence, mask: Tensor) -> Tensor:
    layer = GLALayer(64, H=2, conv=4, dropout=0.1, dtype=torch.float64)
    cache: GLACache = layer.cache()
    ragged: PackedSequence = GLAStack(64, 2, conv=4)(packed)
    y = layer(x, cache.select(mask), mask=mask)
    lstm = LSTMStack.from_torch(torch.nn.LSTM(3, 4))
    return y + layer.step(x[:, 0], cache, inplace=True) + ragged.data + lstm(x)
"""
WRONG = """\
from gla_layer import GLALayer
from torch import Tensor


def run(x: Tensor) -> None:
    GLALayer("64")
    GLALayer(64)(x, mask=True)
    GLALayer(64).step(x)
"""
SPECS = ("gla", "lstm", "lru", "delta_product", "simple_gla", "bidirectional_gru", "s4d")


def test_mypy_on_layers(tmp_path: Path) -> None:
    for name in SPECS:
        words = ["layer", name, "-o", str(tmp_path / f"{name}_layer.py"), "--kernel", f"{name}_kernel", "--backend", "torch"]
        assert main(words) == 0
    (tmp_path / "right_layers.py").write_text(RIGHT)
    (tmp_path / "wrong_layers.py").write_text(WRONG)
    files = [str(tmp_path / f"{name}.py") for name in ("right_layers", "wrong_layers", *(f"{name}_layer" for name in SPECS))]
    words = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--warn-unused-ignores", *files]
    environment = {"MYPYPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    places = [(Path(line.split(":")[0]).name, line.split(":")[1]) for line in found]
    assert places == [("wrong_layers.py", str(i)) for i in (6, 7, 8)], found


def test_the_file_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs where there is no seqc; with --kernel it needs the file beside it; both give the same."""
    whole, apart = tmp_path / "whole.py", tmp_path / "apart.py"
    assert main(["layer", "gla", "-o", str(whole), "--backend", "torch"]) == 0
    assert main(["layer", "gla", "-o", str(apart), "--kernel", "gla_kernel", "--backend", "torch"]) == 0
    said = capsys.readouterr().err
    assert "whole.py: GLALayer, " in said and "gla_kernel.py: the recurrence" in said
    assert "seqc" not in [line.split()[1] for line in whole.read_text().splitlines() if line.startswith(("import ", "from "))]
    program = (
        "import sys; sys.modules['seqc'] = None\nimport torch, whole, apart\n"
        "layers = [m.GLAStack(8, 2, conv=2) for m in (whole, apart)]\nlayers[1].load_state_dict(layers[0].state_dict())\n"
        "x = torch.randn(2, 5, 8)\nassert torch.equal(layers[0](x), layers[1](x))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_stdout_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layer", "hgrn", "-o", "-", "--backend", "torch", "--given", "g"]) == 0
    text = capsys.readouterr().out
    assert "class HGRNLayer" in text and "def step(self, x: Tensor, g: Tensor, cache: HGRNCache" in text
    for words, message in (
        (["--kernel", "a-b"], "is not the name of a module"),
        (["--kernel", "a", "-o", "-"], "stdout has no place for it"),
        (["--given", "z"], "`hgrn` has no input `z`"),
        (["--backend", "tpu"], "there is no backend `tpu`"),
    ):
        assert main(["layer", "hgrn", *words]) == 1
        assert message in capsys.readouterr().err
    spec = tmp_path / "s.seq"
    spec.write_text("spec s\n")
    assert main(["layer", str(spec), "-o", str(spec)]) == 1
    assert spec.read_text() == "spec s\n"
