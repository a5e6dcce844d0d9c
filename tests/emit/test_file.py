"""The text of an emitted file: stable, formatted, standalone; names; what cannot be emitted; the Triton part."""

import re
import subprocess
import sys
import traceback
from dataclasses import replace

import pytest
import torch

from seqc.diagnostics import Unsupported
from seqc.driver.load_emitted import load_emitted
from seqc.emit import Input, Saved, State, class_name, emit, safe_name
from seqc.emit.names import RESERVED
from tests.emit import bodies
from tests.emit.data import decay_data

FILES = {
    "decay": emit(bodies.decay(triton=True)),
    "cell": emit(bodies.cell()),
    "square": emit(bodies.square()),
}


@pytest.mark.parametrize("name", FILES)
def test_text_is_formatted_and_clean(name: str) -> None:
    def ruff(*words: str) -> str:
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", "-"]
        return subprocess.run(command, input=FILES[name], text=True, capture_output=True).stdout

    assert ruff("format") == FILES[name]
    assert "All checks passed" in ruff("check", "--select", "E,F,W")
    imported = re.findall(r"^\s*(?:from|import) (\w+)", FILES[name], re.MULTILINE)
    assert set(imported) <= {"__future__", "collections", "typing", "functools", "inspect", "math", "torch", "triton"}


def test_text_is_stable() -> None:
    program = "from tests.emit import bodies; from seqc.emit import emit; print(emit(bodies.cell()), end='')"
    for seed in ("1", "2"):
        seeded = {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=seeded)
        assert done.stdout == FILES["cell"], done.stderr


def test_emission_needs_no_torch() -> None:
    program = "import sys; import seqc.emit, seqc.driver.load_emitted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_names() -> None:
    assert [safe_name(n) for n in ("q", "lambda", "lambda_", "double", "sum", "tl", "_x", "λ", "S_T")] == [
        "q", "lambda_", "lambda__", "double_", "sum_", "tl_", "u_x", "u3bb", "S_T",
    ]  # fmt: skip
    assert [class_name(n) for n in ("gla", "lstm", "mamba", "delta_rule", "None")] == [
        "GLA", "LSTM", "Mamba", "DeltaRule", "NONE",
    ]  # fmt: skip
    assert [class_name("a", taken) for taken in ({"A"}, {"a"})] == ["AModule", "A"]
    public = {n for n in dir(torch.nn.Module()) if not n.startswith("_")}
    assert public <= RESERVED


def test_what_cannot_be_emitted() -> None:
    sig = bodies.decay()
    for broken, message in [
        (replace(sig, inputs=()), "has no input"),
        (replace(sig, inputs=(Input("x", ("D",)), Input("h_0", ("D",)))), "would be called `h_0`"),
        (replace(sig, spec="x"), "would be called `x`"),
        (replace(sig, states=(State("h", ("D",)), State("h", ("D",)))), "two results would be called `h_T`"),
        (replace(sig, torch=replace(sig.torch, saved=(Saved("h", ("B",), "io"),))), "save it as `carry`"),
        (replace(sig, spec="_step_torch"), "would be called `_step_torch`"),
    ]:
        with pytest.raises(Unsupported, match=message):
            emit(broken)


def test_triton_part_waits_and_then_runs_in_the_interpreter() -> None:
    program = f"""
import sys, torch
sys.path.insert(0, ".")
from tests.emit.data import decay_data, decay_reference
from seqc.driver.load_emitted import load_emitted
m = load_emitted({FILES["decay"]!r}, "decay")
x, g, h_0 = decay_data(5, torch.float32, grad=False)
m.decay(x, g, h_0=h_0)
assert "triton" not in sys.modules
tensors = m._prepare_triton(torch.float32, x, g, h_0)
y, h_T, h = m._forward_triton(*tensors)
torch.testing.assert_close((y, h_T), decay_reference(x, g, h_0))
fake = torch._subclasses.fake_tensor.FakeTensorMode()
with fake:
    assert m._form(torch.empty(1, device="cuda")) is m._TRITON
assert m._form(torch.empty(1)) is m._TORCH
"""
    environment = {"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_traceback_shows_the_emitted_line() -> None:
    module = load_emitted(FILES["decay"].replace("torch.exp(g_t) * h + x_t", "torch.exp(g_t) * h + missing"), "broken")
    x, g, _ = decay_data(2, grad=False)
    with pytest.raises(NameError) as caught:
        module._forward_torch(x, g, x[:, 0])
    assert "h = torch.exp(g_t) * h + missing" in "".join(traceback.format_exception(caught.value))


def test_a_file_that_fails_to_load_is_not_kept() -> None:
    with pytest.raises(ZeroDivisionError):
        load_emitted("1 / 0", "failing")
    assert not any(name.startswith("seqc_emitted_failing") for name in sys.modules)
