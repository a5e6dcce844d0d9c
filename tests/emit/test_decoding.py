"""Prefill, then decode: a call over a prompt, then a step per token, equals one call; for batches and for packs.

Also: a run cut in two with states of longer lags, and names of a spec that are words of Python.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

import seqc
from seqc.check.verify_emitted import Case, tolerance
from seqc.semantics.packed_arrays import part
from tests.emit import packed

SPECS = ("gla", "delta_rule", "hgrn", "lstm", "mamba", "mlstm", "gsa", "lagged", "sampled")
STEPS, PROMPTS = 37, (0, 5, 5, 21, 38)  # an empty prompt among them
TOKENS = 6


def drawn(name: str, backend: str, sequences: int, steps: int, rows: int | None = None) -> tuple[Case, dict[str, Any]]:
    """A case and its arrays; rows: of what has a time axis."""
    made = packed.compiled(name, backend)
    bounds = None if rows is None else tuple(range(sequences + 1))
    sizes = packed.sample_sizes(made.program, sequences)
    case = Case(made.program, packed.module(name, backend), sizes, steps, "float64", False, bounds=bounds)
    return case, case.tensors(case.sample()[0])


def steps_from(case: Case, arrays: dict[str, Any], states: dict[str, Any], start: int) -> tuple[list[Any], dict[str, Any]]:
    """A step per token from `start` on: the results, and the states after the last."""
    program, found = case.program, []
    for t in range(start, next(iter(arrays.values())).shape[1]):
        given = {k: x[:, t] if k in program.inputs else x for k, x in arrays.items() if not k.endswith("_0")}
        found.append(case.call(given | states, "_step"))
        states = {f"{s}_0": case.result(found[-1], f"{s}_T") for s in program.states}
    return found, states


def close(a: torch.Tensor, b: torch.Tensor, steps: int) -> None:
    assert (a - b).abs().max() <= tolerance("float64", steps) * max(float(b.abs().max()), 1.0)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", SPECS)
def test_prefill_then_decode(name: str, backend: str) -> None:
    case, arrays = drawn(name, backend, 2, STEPS)
    program, cut = case.program, STEPS - TOKENS
    whole = case.call(arrays)
    prompt = case.call({k: x[:, :cut] if k in program.inputs else x for k, x in arrays.items()})
    states = {f"{s}_0": case.result(prompt, f"{s}_T") for s in program.states}
    tokens, states = steps_from(case, arrays, states, cut)
    for key in program.outputs:
        joined = torch.cat([case.result(prompt, key), torch.stack([case.result(t, key) for t in tokens], 1)], 1)
        close(joined, case.result(whole, key), STEPS)
    for s in program.states:
        close(states[f"{s}_0"], case.result(whole, f"{s}_T"), STEPS)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", ["gla", "lstm", "lagged", "sampled"])
def test_a_pack_of_prompts_then_decode(name: str, backend: str) -> None:
    """Prompts of several lengths in one call; then all sequences step together, as a batch."""
    count = len(PROMPTS) - 1
    case, arrays = drawn(name, backend, count, PROMPTS[-1], rows=1)
    case = Case(case.program, case.module, case.sizes, case.steps, case.dtype, False, bounds=PROMPTS)
    program = case.program
    _, after = drawn(name, backend, count, TOKENS)
    prompt = case.call(arrays)
    states = {f"{s}_0": case.result(prompt, f"{s}_T") for s in program.states}
    given = {k: after[k] if k in program.inputs else x for k, x in arrays.items()}
    tokens, states = steps_from(case, given, states, 0)
    alone = Case(program, case.module, case.sizes, case.steps, case.dtype, False)
    for i, (start, end) in enumerate(pairwise(PROMPTS)):
        own = part(program, arrays, PROMPTS, i)
        own = {k: torch.cat([x, after[k][i : i + 1]], 1) if k in program.inputs else x for k, x in own.items()}
        whole = alone.call(own)
        for key in program.outputs:
            decoded = torch.stack([case.result(t, key)[i : i + 1] for t in tokens], 1)
            joined = torch.cat([case.result(prompt, key)[:, start:end], decoded], 1)
            close(joined, case.result(whole, key), PROMPTS[-1])
        for s in program.states:
            close(states[f"{s}_0"][i : i + 1], case.result(whole, f"{s}_T"), PROMPTS[-1])


def test_longer_lags_are_the_callers() -> None:
    """y[t-2] is a state of its own: an argument and a result, so that a run can be cut anywhere."""
    lagged = seqc.compile(packed.text("lagged"), backend="torch")
    x, a, b = torch.randn(2, 9, 3, dtype=torch.float64), torch.full((3,), 0.4), torch.full((3,), -0.3)
    a, b = a.double(), b.double()
    whole = lagged(x, a, b)
    assert whole._fields == ("o", "y_T", "y_lag2_T")
    first = lagged(x[:, :1], a, b)
    second = lagged(x[:, 1:], a, b, y_0=first.y_T, y_lag2_0=first.y_lag2_T)
    assert torch.equal(torch.cat([first.o, second.o], 1), whole.o) and torch.equal(second.y_lag2_T, whole.y_lag2_T)
    assert "y_lag2_0: [B, D] (`y[t-2]` at the first step)" in lagged.source


def test_names_that_are_words_of_python() -> None:
    sampled = seqc.compile(packed.text("sampled"), backend="torch")
    made = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 5, 3), "lambda": (2, 5, 3), "W": (2, 3, 3), "yield": (2, 3)}
    given = {name: torch.randn(shape, generator=made, dtype=torch.float64) for name, shape in shapes.items()}
    mine = sampled(**given)
    assert mine._fields == ("return_", "h_T")
    emitted = {"lambda": "lambda_", "yield": "yield_"}
    theirs = sampled(**{emitted.get(name, name): x for name, x in given.items()})
    assert torch.equal(mine.return_, theirs.return_)
    one = sampled.step(**{name: x[:, 0] if name in ("x", "lambda") else x for name, x in given.items()})
    torch.testing.assert_close(one.return_, mine.return_[:, 0])
    assert "lambda_: [B, T, D] (`lambda` in the spec)" in sampled.source
    assert "return_: Tensor  # [B, T, D], `return` in the spec" in sampled.source
    with pytest.raises(TypeError, match="has no argument `cu_seqlens`"):
        sampled.step(**given, cu_seqlens=torch.tensor([0, 1]))
