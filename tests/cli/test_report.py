"""The static performance report: figures that can be counted by hand, with verdicts made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from seqc.backends.triton_gpu.report.figures import extents, measured, tiles_of
from seqc.backends.triton_gpu.report.peer_kernels import peer_call
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.tiles import choose_tiles
from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable
from seqc.cli.commands.report import text
from seqc.cli.main import main
from seqc.driver.explain.gpu_costs import LAUNCH, SHAPES, Shape, costs, sizes_of, why_spilling
from seqc.driver.pipeline import fix_dims, lowerings
from seqc.frontend.elaborate import load

SPECS = Path(__file__).parents[2] / "specs"
SHAPE = Shape(8, 1024, 16, 64)
GOOD = Verdict(120, 0, 20_000, 0, (("all", 900), ("matrix", 24)), "triton by hand")


def table(spec: str, verdict: Verdict, size: int = 64) -> VerdictTable:
    """A verdict for every kernel that is chosen without any."""
    program = fix_dims(load(SPECS / f"{spec}.seq"), {"K": size, "V": size})
    chosen = tiles_of(lowerings(program), "sm_90", extents(program), table=VerdictTable())
    return VerdictTable({one.job.key: verdict for one in chosen.kernels.values()})


def test_figures_of_a_kernel() -> None:
    (found,) = costs(load(SPECS / "linear_attention.seq"), "sm_90", [SHAPE], {}, table("linear_attention", GOOD))
    (forward,) = found.forward
    target = target_named("sm_90")
    assert forward.verdict == GOOD and forward.resident.limit == "registers" and not forward.spills
    rows, width = found.rows, 64
    pieces = forward.programs // (8 * 16)
    assert forward.programs == 8 * 16 * pieces and width % pieces == 0
    cut = width // pieces
    turn = 2 * (2 * rows * width * cut + rows * rows * width + rows * rows * cut)  # q S, k v, q k, (q k) v
    assert forward.products == forward.programs * -(-1024 // rows) * turn
    moved = 8 * 1024 * 16 * width * 4 * 2  # q, k and v once, whatever the pieces, and o, in bf16
    assert forward.bytes == moved and forward.memory == moved // target.bytes_per_ns
    assert forward.nanoseconds >= max(forward.memory, forward.products // target.matrix_gops["bf16"])
    assert found.nanoseconds(found.forward) == forward.nanoseconds + LAUNCH


def test_decays_in_float32_move_two_bytes_more_a_step_and_head() -> None:
    """Each kernel reads the decays once; what was said of them in bf16 stands until the toolchain is asked."""
    program, shape = load(SPECS / "simple_gla.seq"), Shape(8, 256, 16, 64)
    (narrow,) = costs(program, "sm_90", [shape], {}, VerdictTable())
    (unknown,) = costs(program, "sm_90", [shape], {}, VerdictTable(), wide=("g", "beta"))
    assert unknown.wide == ("g",) and [one.bytes for one in unknown.training] == [one.bytes for one in narrow.training]
    jobs = [one.job for one in unknown.training]
    for job, one in zip(jobs, narrow.training, strict=True):
        assert dict(job.configuration.signature) == {**dict(one.job.configuration.signature), "p_g": "*fp32"}
    (found,) = costs(program, "sm_90", [shape], {}, VerdictTable({job.key: GOOD for job in jobs}), wide=("g", "beta"))
    for one, other in zip(found.training, narrow.training, strict=True):
        assert one.verdict == GOOD and one.bytes - other.bytes == 2 * 8 * 256 * 16, one.kernel


def test_partial_results_are_launches_too() -> None:
    (found,) = costs(load(SPECS / "simple_gla.seq"), "sm_80", [Shape(8, 256, 64, 64)], {}, table("simple_gla", GOOD))
    *others, last = found.training
    assert last.kernel == "simple_gla_gradients_K_kernel" and not any(one.afterwards for one in others)
    assert found.launches(found.training) == len(found.training) + last.afterwards
    assert last.afterwards == 1, "the gradient of the gate, in parts, is summed behind the kernel"
    assert found.nanoseconds(found.training) > found.nanoseconds(found.forward)


def test_few_programs_take_the_two_phases() -> None:
    (found,) = costs(load(SPECS / "retention.seq"), "sm_90", [Shape(1, 4096, 2, 64)], {}, VerdictTable())
    names = [one.kernel.removeprefix("retention_").removesuffix("_kernel") for one in found.training]
    assert names == ["states", "outputs", "again", "cotangents", "gradients_V", "gradients_K"]
    assert f"no verdict recorded for {', '.join(names)}" in " ".join(text(found).split())
    assert [one.afterwards for one in found.training] == [0] * 6, "no gradient is left in parts"
    assert 0 < found.saved < 1 << 23, "too few programs walk: states of some spans are kept"


def test_no_more_is_kept_for_backward_than_others_keep() -> None:
    """flash-linear-attention keeps scores and sums of decays beside the inputs, 3 MB of simple_gla, of others 101 and more."""
    shapes = Shape(1, 8192, 96, 128), Shape(4, 2048, 16, 128)
    for spec in ("gla", "simple_gla", "delta_rule", "gated_delta_rule", "kda"):
        for found in costs(load(SPECS / f"{spec}.seq"), "sm_90", shapes, {}):
            theirs = peer_call(spec, found.shape, target_named("sm_90"))
            assert theirs is not None and found.saved <= theirs.saved, (spec, found.shape)
            assert f"saved for backward: {found.saved / 1e6:.0f} MB of states" in text(found)


@pytest.mark.long  # it asks for the tiles of twelve rounds
def test_a_spilling_choice_says_why() -> None:
    """Every tile of every kernel spills: what is taken says what else was made, and what keeps all registers elsewhere."""
    program = fix_dims(load(SPECS / "retention.seq"), {"K": 64, "V": 64})
    lowered = measured(lowerings(program), extents(program))
    known = VerdictTable()
    spilling = Verdict(255, 400, 20_000, 0, (("all", 900), ("matrix", 24), ("spill", 150)), "triton by hand")
    for _ in range(12):
        missing = choose_tiles(lowered, "sm_90", known).missing()
        if not missing:
            break
        known = known.with_verdicts((job.key, spilling) for job in missing)
    assert not missing
    (found,) = costs(load(SPECS / "retention.seq"), "sm_90", [SHAPE], {}, known)
    assert all(one.verdict == spilling for one in found.training)
    assert all(one.spills.startswith("no choice within the search keeps all registers with ") for one in found.training)
    assert "gradients_K spills: no choice" in " ".join(text(found).split())
    assert re.search(r"in phases, which .*, this shape takes \d+ us by the model", " ".join(text(found).split()))
    (good,) = costs(load(SPECS / "retention.seq"), "sm_90", [SHAPE], {}, table("retention", GOOD))
    assert found.nanoseconds(found.training) > good.nanoseconds(good.training), "spills cost time"
    why = why_spilling(choose_tiles(lowered, "sm_90", known), "forward")
    others = {one.block.rows for one in lowered} - {found.rows}
    assert others and all(re.search(rf"{rows} rows: \d+ us, .*spilling", why) for rows in others)


def test_extents_of_a_shape() -> None:
    shape = Shape(2, 128, 4, 32)
    assert sizes_of(load(SPECS / "gla.seq"), shape) == {"H": 4, "K": 32, "V": 32}
    assert sizes_of(load(SPECS / "hgrn.seq"), shape) == {"D": 128}
    assert sizes_of(load(SPECS / "mamba.seq"), shape)["D"] == 128
    assert sizes_of(load(SPECS / "mamba2.seq"), shape) == {"G": 1, "H": 4, "P": 32, "N": 32}, "P is the width of a head"
    assert sizes_of(load(SPECS / "lstm.seq"), shape) == {"H": 4, "D": 32} | {
        d.name: d.default for d in load(SPECS / "lstm.seq").dims.values() if d.default
    }


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(SPECS / "linear_attention.seq")
    assert main(["report", spec, "--batch", "4", "--steps", "512", "--heads", "8", "--width", "64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("linear_attention on sm_90, B4 T512 H8 D64, bf16") and "= forward and backward" in out
    assert main(["report", spec, "--json", "--target", "gfx942", "--batch", "4"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["shape"] == "B4 T2048 H16 D128" and told["target"] == "gfx942"
    assert told["forward"]["launches"] == len(told["forward"]["kernels"]) and told["forward+backward"]["ns"] > 0
    assert main(["report", spec, "--target", "sm_1"]) == 1
    assert len(SHAPES) == 5
