"""Gradients that nobody asks for: the others are as they were, and the work is left out."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
import torch

from seqc.driver.compile import Options, compile_spec
from tests.emit.asked import SPECS, compare, gradients, made
from tests.harness import Case, draw
from tests.triton import processes

SIZES = {"B": 2, "K": 3, "V": 3, "D": 4, "M": 3, "U": 3}


@pytest.mark.parametrize("name", SPECS)
def test_in_plain_torch(name: str) -> None:
    module, program = made(name, "torch")
    compare(module, draw(program, 6, SIZES), torch.float64, 1e-10)
    if name not in ("both", "plane"):
        compare(module, draw(program, 9, SIZES, lengths=(0, 5, 4), reverse=True), torch.float64, 1e-10)
    if name == "series":  # in pieces of time, with a head before them
        compare(module, draw(program, 1501, {**SIZES, "B": 1, "D": 1}), torch.float64, 1e-10)


def test_long_conditions_have_names() -> None:
    """What many statements are asked for by is said once: a stack of layers has as many terms as params, not their square."""
    text = compile_spec(SPECS["stack"], Options("torch")).text
    assert "    asked2 = asked or need_c_0\n" in text and "if asked2:" in text
    assert "if (\n        need_" not in text


def test_in_native_code() -> None:
    module, program = made("layer", "cpu")
    compare(module, draw(program, 6, SIZES), torch.float64, 1e-10)
    compare(module, draw(program, 9, SIZES, lengths=(0, 5, 4)), torch.float64, 1e-10)
    found = {x: products(module, draw(program, 6, SIZES), [x]) for x in ("b", "R", "C", "W", "x")}
    assert found == {"b": 1, "R": 2, "C": 1, "W": 2, "x": 2}, found


def test_products_are_left_out() -> None:
    """Of `layer`: C @ h gives d_C and d_h; all else is behind d_h."""
    module, program = made("layer", "torch")
    case = draw(program, 6, SIZES)
    alone = {x: products(module, case, [x]) for x in case.moved}
    assert alone["C"] == 1  # no loop
    assert alone["W"] == alone["R"] == alone["x"] == alone["b"] + 1
    assert products(module, case, case.moved) == alone["b"] + 6


def products(module: ModuleType, case: Case, asked: list[str]) -> int:
    """How many matrix products a backward pass takes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        gradients(module, case, asked, torch.float64)
    begin = next(e.time_range.start for e in seen.events() if e.name.endswith("::backward"))
    return sum(e.name in ("aten::mm", "aten::bmm") and e.time_range.start >= begin for e in seen.events())


def test_under_torch_func_and_twice() -> None:
    module, program = made("attention", "torch")
    case = draw(program, 6, SIZES)
    given = {x: torch.as_tensor(case.arrays[x]) for x in case.arguments}
    _, truth = case.truth()

    def loss(v: torch.Tensor) -> torch.Tensor:
        found = module.attention(**{**given, "v": v})
        return sum((torch.as_tensor(case.cotangents[x]) * y).sum() for x, y in zip(case.results, found, strict=True))  # type: ignore

    torch.testing.assert_close(torch.func.grad(loss)(given["v"]), torch.as_tensor(truth["v"]), rtol=1e-10, atol=1e-10)
    several = torch.stack([given["v"], given["v"]])
    found = torch.func.vmap(torch.func.grad(loss))(several)[1]
    torch.testing.assert_close(found, torch.as_tensor(truth["v"]), rtol=1e-10, atol=1e-10)
    v = given["v"].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(loss, (v,))


def test_in_triton() -> None:
    """Kernels of whose results none is asked for do not run: d_v is one kernel, d_q and d_k are another."""
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.emit.asked"])
    assert done.returncode == 0, done.stderr[-3000:]
    ran = json.loads(done.stdout.splitlines()[-1])
    assert {x: [name.removeprefix("attention_") for name in ran[x]] for x in ran} == {
        "q": ["gradients_K_kernel"], "k": ["gradients_K_kernel"], "v": ["gradients_V_kernel"],
    }  # fmt: skip
