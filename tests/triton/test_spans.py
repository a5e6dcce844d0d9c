"""States that forward keeps once a span of blocks, and that a kernel computes again before the gradients.

Every case runs in each of its ways, in Triton's interpreter, against the float64 reference: batches whose last span and
last block are short, packs with empty sequences, both directions, initial and final states, all gradients.
"""

import json
import re
from pathlib import Path

import pytest

from seqc.analysis.workload import Workload
from seqc.backends.triton_gpu.emit import triton_kernels
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.spans import CALL, blocks_between_saved, spans_of_call
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.solver.expression import evaluate
from tests.triton import processes
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
    ran = processes.run(["-m", "tests.triton.half"], line)
    assert ran.returncode == 0, ran.stderr[-2000:]
    narrow, wide = json.loads(ran.stdout)
    assert narrow != wide, "both ran with the same states"
    assert max(narrow.values()) < 0.03 and all(narrow[name] < 1.1 * wide[name] for name in wide), (narrow, wide)


def test_extreme_arguments_in_bf16_give_numbers_and_nothing_of_what_comes_later() -> None:
    """Resets, steep decays and repeated keys; from the middle of a block on all inputs are NaN, and no output before tells."""
    specs = ("gla", "simple_gla", "delta_rule", "gated_delta_rule", "kda")
    lines = [json.dumps({"path": str(SPECS / f"{x}.seq"), "rows": 16, "steps": 40, "from": 21}) for x in specs]
    ran = processes.run(["-m", "tests.triton.half"], "\n".join(lines))
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = dict(zip(specs, map(json.loads, ran.stdout.splitlines()), strict=True))
    assert all(x == {"numbers": True, "causal": True} for x in said.values()), said


def test_what_is_handed_on_in_bf16() -> None:
    """A matrix that outputs multiply; not a normaliser, which they take as it is, nor what a program has no piece of."""
    for spec, narrow in (("gla", {"S"}), ("linear_attention_normalized", {"S"}), ("gsa", {"Z"}), ("mamba", set())):
        assert schedule(lower(load(SPECS / f"{spec}.seq"), None, 16)).narrow == narrow, spec
    kernels = triton_kernels(lower(load(SPECS / "gla.seq"), "chunkwise", 64))
    backward = kernels.text.split("def _backward_triton(")[1]
    assert re.findall(r"S_in = torch.empty\(.*dtype=(.*), device", backward) == ["_state_type(q.dtype)"]
    assert [one.dtype for one in kernels.saved] == ["carry"], "what a span begins with is the recurrence's own"


def test_a_call_says_how_many_states_are_kept() -> None:
    """None where a walk has programs enough; otherwise as few spans as have them. Small states are kept as they are."""
    text = (SPECS / "gla.seq").read_text()
    assert blocks_between_saved(lower(load(SPECS / "gla.seq"), "chunkwise", 16)) == CALL
    small = load(text.replace("dim H, K, V", "dim H, K = 2, V = 64"))
    assert blocks_between_saved(lower(small, "chunkwise", 64)) == 1
    assert spans_of_call(4, 1000, 16, 16, 64) == (63, 4, 0)
    assert spans_of_call(1, 1000, 16, 16, 64) == (16, 4, 4)
    assert spans_of_call(1, 1000, 16, 1, 640) == (1, 63, 63), "no more spans than blocks"
    assert spans_of_call(2, 16, 16, 1, 64) == (1, 2, 0), "one block begins with the initial state"
    assert spans_of_call(0, 16, 16, 1, 64)[2] == spans_of_call(1, 0, 16, 1, 64)[2] == 0


@pytest.mark.parametrize("spec", ["gla", "gated_delta_rule", pytest.param("gsa", marks=pytest.mark.long)])
def test_states_saved_or_computed_again_give_the_same_gradients(spec: str) -> None:
    """A batch whose last block is short, and packs both ways, with an empty sequence and one that fills its span."""
    path = str(SPECS / f"{spec}.seq")
    cases: list[dict[str, object]] = [{"steps": 7 * ROWS + 3, "lengths": None, "reverse": False}]
    cases += [{"lengths": one, "reverse": one[0] > 1} for one in ((1, 4 * ROWS, 0, 3 * ROWS + 1), (5 * ROWS + 2, 0, 2 * ROWS))]
    lines = "\n".join(json.dumps({"path": path, "rows": ROWS, **one}) for one in cases)
    ran = processes.run(["-m", "tests.triton.settings"], lines)
    assert ran.returncode == 0, ran.stderr[-2000:]
    for case, line in zip(cases, ran.stdout.splitlines(), strict=True):
        said = json.loads(line)
        kept = [said[setting]["kept"] for setting in ("saved", "every", "spans", "call")]
        assert kept[0] > kept[1] > 0 and kept[0] >= kept[2] > 0 and kept[3] == 0, kept
        assert all(off < 1e-6 for one in said.values() for off in one["off"].values()), (case, said)
