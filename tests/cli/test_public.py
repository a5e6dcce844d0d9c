"""Every spec through the public API: against the oracle, split, stepped, causal to the bit; and as torch operators.

The plain torch form is taken: it is the one that every machine has. Its tolerance is `seqc.check.verify_emitted.tolerance`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.check.sampling import sample, sample_sizes
from seqc.check.verify_emitted import Case, against_oracle, causality, emitted_name, parts_and_steps, tolerance
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from tests.cli import digests

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.seq"))
STEPS = 19
each = pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)

# The boundary to torch is one text for all specs, and tracing it takes seconds: the specs that differ in what it holds.
TRACED = ("delta_rule", "gla", "gru", "hgrn", "linear_attention", "lstm", "mamba", "retention", "lif", "fsmn", "mlstm")
operators = pytest.mark.parametrize("path", [p for p in SPECS if p.stem in TRACED], ids=lambda path: path.stem)


@cache
def compiled(path: Path) -> Compiled:
    return compile_spec(path, Options("torch"))


def case(path: Path, steps: int, dtype: str = "float64", hard: bool = False) -> Case:
    made = compiled(path)
    module = load_emitted(made.text, made.signature.spec)
    return Case(made.program, module, sample_sizes(made.program), steps, dtype, hard)


def tensors(path: Path, steps: int) -> dict[str, Any]:
    """float32 arguments that ask for gradients, in the order of the operator."""
    here = case(path, steps, "float32")
    arrays = here.tensors(here.sample()[0])
    program = here.program
    order = [*program.inputs, *program.params, *(f"{name}_0" for name in program.states)]
    return {emitted_name(program, name): arrays[name].requires_grad_() for name in order}


@each
def test_spec(path: Path) -> None:
    """The text as it was; values and gradients against the oracle; a split run, a loop of steps; causality to the bit."""
    assert not (told := digests.changed(path.stem, "torch", digests.digest(compiled(path).text))), told
    here = case(path, STEPS)
    findings = [*causality(case(path, STEPS, "float32"))] if here.program.direction == "forward" else []
    if not here.program.no_step:
        findings += parts_and_steps(here)
    for dtype in ("float64", "float32"):
        for hard in (False, True):
            findings += against_oracle(case(path, STEPS, dtype, hard))
    assert not [finding for finding in findings if not finding.ok]


@operators
def test_operator(path: Path) -> None:
    module = case(path, 5).module
    torch.library.opcheck(module._OPS.run.default, (*tensors(path, 5).values(), None, False))


def compiled_run(path: Path, backend: str) -> None:
    """torch.compile at two lengths with one graph, values and gradients."""
    here = case(path, 5)
    function = getattr(here.module, emitted_name(here.program, here.program.name))

    def run(**given: Any) -> Any:
        return sum(x.mean() for x in function(**given))

    torch._dynamo.reset()
    quick = torch.compile(run, fullgraph=True, dynamic=True, backend=backend)
    for steps in (127, 193):
        given = tensors(path, steps)
        mine, truth = quick(**given), run(**given)
        found = torch.autograd.grad(mine, list(given.values()), allow_unused=True)
        wanted = torch.autograd.grad(truth, list(given.values()), allow_unused=True)
        assert (mine - truth).abs() <= tolerance("float32", steps) * max(float(truth.detach().abs()), 1.0)
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert (a - b).abs().max() <= tolerance("float32", steps) * max(float(b.abs().max()), 1.0)


@operators
def test_compiled_by_torch(path: Path) -> None:
    compiled_run(path, "aot_eager")


def test_compiled_by_inductor() -> None:
    compiled_run(ROOT / "specs" / "gla.seq", "inductor")


def test_the_public_object() -> None:
    path = ROOT / "specs" / "gla.seq"
    gla = seqc.compile(path.read_text(), backend="torch", dims={"K": 16})
    program = compiled(path).program
    arrays, _ = sample(program, sample_sizes(program, given={"K": 16}), 9)
    given = {name: torch.tensor(x) for name, x in arrays.items()}
    result = gla(given["q"], given["k"], given["v"], given["g"], S_0=given["S_0"])
    want = seqc.oracle(path, **given)
    assert result._fields == ("o", "S_T")
    for name in ("o", "S_T"):
        np.testing.assert_allclose(getattr(result, name), want[name], rtol=0, atol=1e-12)
    one = gla.step(*(given[name][:, 0] for name in ("q", "k", "v", "g")), S_0=given["S_0"])
    torch.testing.assert_close(one.o, result.o[:, 0])
    layer = gla.Module(H=3, K=16, V=2)
    assert isinstance(layer, torch.nn.Module)
    torch.testing.assert_close(layer(*(given[name] for name in ("q", "k", "v", "g")), S_0=given["S_0"]).o, result.o)
    assert gla.source.startswith("# Made by seqc") and "every exponent <= 0" in gla.explain()
    assert seqc.explain(path, backend="torch").startswith("gla: ")
    assert "gla(q, k, v, g, S_0) -> (o, S_T)" in repr(gla)
    with pytest.raises(ValueError, match="dim K is 5; it may be 16"):
        gla(*(torch.randn(1, 2, 3, 5) for _ in range(4)))
    with pytest.raises(seqc.SpecError, match=r"error\[no-name\]"):
        seqc.compile("dim D\n")
    with pytest.raises(seqc.Unsupported, match="no backend"):
        seqc.compile(path, backend="gpu")


def test_module_owns_initialised_params() -> None:
    mamba = seqc.compile(ROOT / "specs" / "mamba.seq", backend="torch")
    layer = mamba.Module(D=3)
    expected = torch.log(1 + torch.arange(16.0)).expand(3, 16)
    torch.testing.assert_close(layer.A_log, expected)
    assert layer.skip.eq(1).all() and layer.bias.eq(0).all()
