"""Matrix states at the ends of their ranges: every spec that has a chunk form, in float64 and float32.

Log decays of 0, -1e-8, -5, -20, -1000 and -inf, alone and mixed inside a block; one unit key for all steps with the largest
rate. The sequence ends inside its third block, at every place in turn. No NaN, no infinity, in any result or gradient.

Tolerances, relative to the largest element of a tensor: float64 1e-10; float32 1e-4, which is roundoff of 6e-8 times sums and
triangular systems over at most 24 steps, and the growth of those on repeated keys; the gradient of a log decay at -10 has no
such growth, and is as good as its terms: 1e-5. A spec that itself solves a system in every step has no such bound: the
square of the condition of that system multiplies roundoff.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from seqc.backends import native_cpu, torch_eager
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.graph import topological
from seqc.ir.ops.dense import SYSTEMS
from seqc.ir.program import Program
from tests import forms
from tests.cli import digests
from tests.hard.cases import Call, drawn, errors, is_coefficient, is_log_decay
from tests.harness import EXTREMES
from tests.parts import loaded
from tests.triton import processes

ROOT = Path(__file__).parents[2]
ROWS = 8
EXACT, SINGLE, GATE = 1e-10, 1e-4, 1e-5


def matrix_states() -> dict[str, Program]:
    """The specs with a state of two dims or more and a chunk form; one of both directions is two runs of such a one."""
    chunked = [name for name in digests.SPECS if "chunkwise" in forms.kept().get((name, "torch"), ())]
    programs = {name: forms.for_kernels(elaborate.load(digests.SPECS[name])) for name in chunked}
    kept = {name: p for name, p in programs.items() if p.direction != "both"}
    return {name: p for name, p in kept.items() if any(len(s.dims) > 1 for s in p.states.values())}


PROGRAMS = matrix_states()
GATED = [
    name
    for name, p in PROGRAMS.items()
    if any(map(is_log_decay, p.inputs.values())) and not any(n.op in SYSTEMS for n in topological(p.graph.values()))
]
every_spec = pytest.mark.parametrize("name", PROGRAMS)


@cache
def chunks(name: str) -> tuple[Call, Call]:
    """The chunk form in plain torch: forward, backward."""
    made = loaded(torch_eager.emit(lower(PROGRAMS[name], "chunkwise", ROWS)).text, PROGRAMS[name], f"{name}_hard")
    return made._forward_torch, made._backward_torch


@cache
def native(name: str) -> tuple[Call, Call]:
    """The native step form: forward, backward."""
    made = loaded(native_cpu.emit(lower(PROGRAMS[name], "step")).alone, PROGRAMS[name], f"{name}_hard")
    return made._forward_cpu, made._backward_cpu


def judge(found: dict[str, float], allowed: float, what: str) -> None:
    """Fails with the worst tensor."""
    worst = max(found, key=lambda k: found[k])
    assert found[worst] <= allowed, f"{what}: {worst} is off by {found[worst]:.1e}"


@every_spec
def test_every_level_alone_and_mixed(name: str) -> None:
    program = PROGRAMS[name]
    varies = any(is_log_decay(d) or is_coefficient(d) for d in program.inputs.values())
    for i, level in enumerate((None, *EXTREMES) if varies else (None,)):
        case = drawn(program, 2 * ROWS + 1 + i, level)
        judge(errors(case, *chunks(name), torch.float64), EXACT, f"log decay {level}, float64")
        judge(errors(case, *chunks(name), torch.float32), SINGLE, f"log decay {level}, float32")


@pytest.mark.parametrize("name", [name for name, p in PROGRAMS.items() if any(d.unit for d in p.inputs.values())])
def test_one_key_for_ever(name: str) -> None:
    case = drawn(PROGRAMS[name], 3 * ROWS, one_key=True)
    judge(errors(case, *chunks(name), torch.float64), EXACT, "float64")
    judge(errors(case, *chunks(name), torch.float32), SINGLE, "float32")


@pytest.mark.parametrize("name", GATED)
def test_gradient_of_a_steep_gate(name: str) -> None:
    program = PROGRAMS[name]
    case, rng = drawn(program, 3 * ROWS - 1, 0.0, seed=3), np.random.default_rng(3)
    for key, d in program.inputs.items():
        if is_log_decay(d):
            case.arrays[key] = case.arrays[key] - 20.0 * rng.random(case.arrays[key].shape)
    found = errors(case, *chunks(name), torch.float32)
    judge({f"d.{k}": found[f"d.{k}"] for k, d in program.inputs.items() if is_log_decay(d)}, GATE, "torch")


@pytest.mark.parametrize("name", ["gla", "gated_delta_rule"])
def test_gradient_of_a_steep_gate_in_native_code(name: str) -> None:
    case = drawn(PROGRAMS[name], 3 * ROWS - 1, -10.0, seed=3)
    judge({k: x for k, x in errors(case, *native(name), torch.float32).items() if k == "d.g"}, GATE, "native")
    judge(errors(drawn(PROGRAMS[name], 3 * ROWS - 1), *native(name), torch.float32), SINGLE, "native, all levels")


@pytest.mark.parametrize("name", ["gla", "simple_gla"])
def test_gradient_of_a_steep_gate_in_triton(name: str) -> None:
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.hard.steep_in_triton", str(ROOT / "specs" / f"{name}.seq"), "chunkwise"])
    assert done.returncode == 0, done.stderr[-3000:]
    judge({k: x for k, x in json.loads(done.stdout).items() if k == "d.g"}, GATE, "triton")
