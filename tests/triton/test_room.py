"""What an emitted file asks of a device before it launches: room for the kernels of a call, the right current device, and a
Triton that does not miscompile what it holds."""

from __future__ import annotations

import inspect
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.emit.late_import import loader, triton_text

SPECS = Path(__file__).parents[2] / "specs"
LITERATURE = Path(__file__).parents[1] / "literature" / "specs"
HOPPER = 227 * 1024  # bytes of shared memory that a program may have


@pytest.fixture(scope="module")
def lstm() -> ModuleType:
    made = compile_spec(SPECS / "lstm.seq", Options("triton"))
    return load_emitted(made.text, made.signature.spec)


@pytest.fixture(scope="module")
def gru() -> ModuleType:
    made = compile_spec(SPECS / "gru.seq", Options("triton"))
    return load_emitted(made.text, made.signature.spec)


def test_kernels_of_inference_need_room_for_themselves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward loads more in a step than inference does: on a machine with room for the one alone, that one runs."""
    made = compile_spec(SPECS / "shplrnn.seq", Options("triton"))
    module = load_emitted(made.text, made.signature.spec)
    needs = {k: sum(v) for k, v in module._needs_triton(2, 128, 128).items()}
    assert needs["infer"] < needs["backward"]
    monkeypatch.setattr(module, "_room", lambda device: needs["infer"])
    x = torch.empty(1, dtype=torch.bfloat16)
    assert module._ready_triton(x, 64, 64) and module._ready_triton(x, 64, 64, alone=True)
    with pytest.warns(UserWarning, match="plain torch runs"):
        assert not module._ready_triton(x, 128, 128)
    assert module._ready_triton(x, 128, 128, alone=True), "and nothing is said"
    assert not module._ready_triton(x, 256, 256, alone=True)


def test_backward_holds_a_matrix_once(lstm: ModuleType, gru: ModuleType) -> None:
    """Forward saves the sums before the gates: the matrices of 128 units fit a program in both directions."""
    for module, gates in ((lstm, 4), (gru, 3)):
        kept = {k: v[0] for k, v in module._needs_triton(2, 128).items()}
        assert kept["forward"] == kept["backward"] < HOPPER
        assert kept["backward"] - 16 * 128 * 4 == gates * 128 * 128 * 2, "and beside them two operands of 16 rows"
        backward = inspect.getsource(module).partition("_backward_kernel(")[2].partition("@_jit")[0]
        assert backward.count("tl.dot(") == gates


def test_backward_holds_a_matrix_once_where_all_of_a_matrix_state_is_multiplied() -> None:
    """The gates of a graph's nodes are saved at every step, as those of a cell, and not formed again by a second copy of all
    matrices: 64 nodes of 64 units fit a program. States that no parameter multiplies are saved now and then."""
    made = compile_spec(LITERATURE / "dcgru.seq", Options("triton"))
    module = load_emitted(made.text, made.signature.spec)
    kept = {k: v[0] for k, v in module._needs_triton(2, 64, 64).items()}
    assert kept["forward"] <= kept["backward"] < HOPPER // 2
    assert "before_r" in made.text
    assert "before_" not in compile_spec(SPECS / "longhorn.seq", Options("triton")).text


def test_fp32_keeps_both_parts_of_its_operands(lstm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products in tf32 take two parts of each matrix: at 64 units Triton 3.7.1 takes 139,264 bytes, in bf16 36,864."""
    taken = {4: 139_264, 2: 36_864}
    for io, bytes in taken.items():
        assert sum(lstm._needs_triton(io, 64)["forward"]) >= bytes
    assert lstm._held_triton("team_forward", torch.empty(1), 200)[2] >= 139_264
    monkeypatch.setattr(torch.version, "hip", "6.0", raising=False)
    assert lstm._needs_triton(4, 64)["forward"][0] < 65_536, "registers hold them on AMD"


def test_a_call_without_gradients_asks_for_its_own_kernels(lstm: ModuleType) -> None:
    assert [_reads(lstm, name) for name in ("_run", "_step", "_forward", "_backward")] == [True, True, False, False]


def _reads(module: ModuleType, operator: str) -> bool:
    """Whether an operator chooses its form as a call without gradients does."""
    call: Any = getattr(module, operator)
    function = dict(zip(call.__code__.co_freevars, call.__closure__, strict=True))["function"].cell_contents
    return "_form_alone" in function.__code__.co_names


def test_operators_run_on_the_device_of_their_tensors(lstm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    current = [0]

    @contextmanager
    def device(wanted: Any) -> Any:
        before, current[0] = current[0], wanted.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", device)
    call = lstm._autocast_off(lambda *tensors: current[0])
    assert [call(SimpleNamespace(device=torch.device("cuda", i))) for i in (0, 1, 0)] == [0, 1, 0] and current == [0]
    for operator in ("_run", "_forward", "_backward", "_step"):
        assert getattr(lstm, operator).__qualname__ == "_autocast_off.<locals>.call"


@pytest.mark.parametrize(("version", "major", "warned"), [("3.6.0", 9, True), ("3.7.1", 9, False), ("3.6.0", 8, False)])
def test_a_triton_that_miscompiles_on_hopper_is_named(
    version: str, major: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton 3.4 to 3.7.0 and a product whose left operand is transposed; a file without one says nothing."""
    pytest.importorskip("triton")
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr("triton.jit", lambda function: function)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, 0))
    for product, found in (("tl.dot(tl.trans(b_x), b_y)", warned), ("tl.dot(b_x, b_y)", False)):
        made: dict[str, Any] = {"torch": torch, "warnings": warnings}
        text = triton_text(f"@triton.jit\ndef kernel():\n    pass  # {product}")
        exec(f"{text}\n\n{loader(text)}", made)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made["_load_triton"]()
        assert [f"Triton {version}" in str(one.message) for one in said] == [True] * found
