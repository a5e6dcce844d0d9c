"""States that forward keeps once a span of blocks, and that a kernel computes again before the gradients.

Every case runs in each of its ways, in Triton's interpreter, against the float64 reference: batches whose last span and
last block are short, packs with empty sequences, both directions, initial and final states, all gradients.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seqc.analysis.workload import Workload
from seqc.backends.triton_gpu.emit import triton_kernels
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.spans import blocks_between_saved
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.tiles import Lowered
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.solver.expression import evaluate
from tests.triton.test_kernels import ROWS, SMALL, interpret

SPECS = Path(__file__).parents[2] / "specs"


def with_checkpoint(spec: str, steps: int, folder: Path) -> Path:
    """A copy of a spec that asks for a state every so many steps."""
    path = folder / f"{spec}.seq"
    path.write_text(re.sub(r"^dim ", f"checkpoint {steps}\n\ndim ", (SPECS / f"{spec}.seq").read_text(), count=1, flags=re.M))
    return path


@pytest.mark.parametrize(
    "spec",
    ["kda", *(pytest.param(x, marks=pytest.mark.long)
              for x in ("gla", "gsa", "momentum_delta_rule", "linear_attention_normalized", "mamba2"))],
)  # fmt: skip
def test_states_of_spans(spec: str, tmp_path: Path) -> None:
    """Three blocks a span: a batch of four blocks and a piece, packs with a span and a step, a block, one step, nothing."""
    path = with_checkpoint(spec, 3 * ROWS, tmp_path)
    lengths = (3 * ROWS + 1, 0, 1, ROWS)
    interpret([(str(path), "chunkwise")], [(4 * ROWS + 3, "half", SMALL)], packs=[(lengths, False), (lengths[::-1], True)])


def test_what_is_kept_is_one_state_a_span(tmp_path: Path) -> None:
    block = lower(load(with_checkpoint("gla", 64, tmp_path)), "chunkwise", 16)
    plan = schedule(block)
    assert plan.spans == 4 and plan.before == {"forward": ("pairs",), "infer": ("pairs",), "backward": ("pairs", "again")}
    made = triton_kernels(block, plan=plan)
    (saved,) = made.saved
    assert saved.name == "S_every" and saved.shape[0] == "B * ((T + 63) // 64)"
    assert saved.packed is not None and saved.packed[0] == "T // 64 + B"
    assert made.text.count("i_n % EVERY == 0") == 1  # forward, which is states too
    each = schedule(lower(load(with_checkpoint("gla", 1, tmp_path)), "chunkwise", 16))
    assert each.spans == 1 and "again" not in each.kernels


def test_a_program_that_walks_a_span_is_counted_once(tmp_path: Path) -> None:
    """The kernel `again` has a program for every span, which takes all of its blocks; `cotangents` has one for a sequence."""
    lowered = Lowered(lower(load(with_checkpoint("gla", 64, tmp_path)), "chunkwise", 16), {"H": 4, "K": 64, "V": 64}, "bf16")
    at = {"BV": 32, "warps": 4, "stages": 1, "resident": 1}

    def counted(name: str) -> dict[str, int]:
        model = KernelModel(lowered.kernel(name)[1], target_named("sm_90"), Workload(batch=1, length=1024))
        return {part: int(evaluate(expr, at)) for part, expr in model.time()[1]}

    again, walk, gradients = map(counted, ("again", "cotangents", "gradients_V"))
    assert (again["programs"], again["turns a program"]) == (4 * 2 * 16, 4)
    assert (walk["programs"], walk["turns a program"]) == (4 * 2, 64)
    assert (gradients["programs"], gradients["turns a program"]) == (4 * 2 * 64, 1)


@pytest.mark.parametrize("spec", ["gla", pytest.param("gated_delta_rule", marks=pytest.mark.long)])
def test_states_in_bf16_cost_gradients_nothing_that_products_do_not(spec: str) -> None:
    """Between kernels states and their cotangents are in bf16, as products take them; the recurrence keeps fp32."""
    line = json.dumps({"path": str(SPECS / f"{spec}.seq"), "rows": 16, "steps": 70})
    command = [sys.executable, "-m", "tests.triton.half"]
    ran = subprocess.run(command, input=line, capture_output=True, text=True, cwd=SPECS.parent, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    narrow, wide = json.loads(ran.stdout)
    assert narrow != wide, "both ran with the same states"
    assert max(narrow.values()) < 0.03 and all(narrow[name] < 1.1 * wide[name] for name in wide), (narrow, wide)


def test_extreme_arguments_in_bf16_give_numbers_and_nothing_of_what_comes_later() -> None:
    """Resets, steep decays and repeated keys; from the middle of a block on all inputs are NaN, and no output before tells."""
    specs = ("gla", "simple_gla", "delta_rule", "gated_delta_rule", "kda")
    lines = [json.dumps({"path": str(SPECS / f"{x}.seq"), "rows": 16, "steps": 40, "from": 21}) for x in specs]
    command = [sys.executable, "-m", "tests.triton.half"]
    ran = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, cwd=SPECS.parent, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = dict(zip(specs, map(json.loads, ran.stdout.splitlines()), strict=True))
    assert all(x == {"numbers": True, "causal": True} for x in said.values()), said


def test_what_is_handed_on_in_bf16() -> None:
    """A matrix that outputs multiply; not a normaliser, which they take as it is, nor what a program has no piece of."""
    for spec, narrow in (("gla", {"S"}), ("linear_attention_normalized", {"S"}), ("gsa", {"Z"}), ("mamba", set())):
        assert schedule(lower(load(SPECS / f"{spec}.seq"), None, 16)).narrow == narrow, spec
    kernels = triton_kernels(lower(load(SPECS / "gla.seq"), "chunkwise", 64))
    assert re.findall(r"S_in = torch.empty\(.*dtype=(.*), device", kernels.text)[0] == "_state_type(q.dtype)"
    assert [one.dtype for one in kernels.saved] == ["_state_type(io)"], "one state a block is kept from forward to backward"


def test_states_take_no_more_than_the_inputs_that_are_kept_anyway() -> None:
    """K = V = 64: 16 KiB of a state against 512 bytes of q, k, v and g a step; K = V = 128: 64 KiB against 1 KiB."""
    text = (SPECS / "gla.seq").read_text()
    assert blocks_between_saved(lower(load(SPECS / "gla.seq"), "chunkwise", 16)) == 2
    assert blocks_between_saved(lower(load(SPECS / "gla.seq"), "chunkwise", 32)) == 1
    large = load(text.replace("dim H, K, V", "dim H, K = 128, V = 128"))
    assert blocks_between_saved(lower(large, "chunkwise", 16)) == 4
