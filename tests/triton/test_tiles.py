"""The solver's tiles of real kernels: within what the roles allow, told why, bound by the spec's wishes and by verdicts."""

from pathlib import Path

import pytest

from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.tiles import choose_tiles
from seqc.backends.triton_gpu.toolchain import Job
from seqc.build import load
from seqc.driver import lower
from seqc.tiling.verdicts import Verdict

SPECS = Path(__file__).parents[2] / "specs"
SIZES = {"H": 8, "K": 64, "V": 64, "D": 64, "N": 16}


def silent(job: Job) -> Verdict | None:
    """A table without any verdict."""
    return None


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("spec", ["gla", "mamba", "lstm"])
def test_tiles_of_every_kernel(spec: str, target: str) -> None:
    block = lower(load(SPECS / f"{spec}.seq"))
    chosen = choose_tiles(block, target, SIZES, "bf16", silent)
    plan = schedule(block)
    kernels = {k.name for k in (plan.forward, plan.infer, plan.backward, *plan.phases)}
    assert set(chosen.tiles) == set(chosen.why) == kernels
    for tiles in chosen.tiles.values():
        assert set(tiles.blocks) == set(plan.roles.blocked)
        assert all(size & (size - 1) == 0 and size >= 16 for size in tiles.blocks.values())
        assert tiles.warps in (1, 2, 4, 8) and tiles.stages in (1, 2, 3)
    assert choose_tiles(block, target, SIZES, "bf16", silent) == chosen


def test_the_spec_limits_a_tile() -> None:
    text = (SPECS / "retention.seq").read_text() + "\ntile V {16}\n"
    block = lower(load(text))
    assert choose_tiles(block, "sm_90", SIZES, "bf16", silent).tiles["forward"].blocks["V"] == 16


def test_a_verdict_that_spills_changes_the_choice() -> None:
    block = lower(load(SPECS / "retention.seq"))
    free = choose_tiles(block, "sm_90", SIZES, "bf16", silent).tiles["forward"]

    def spills(job: Job) -> Verdict | None:
        width = dict(job.configuration.constants)["BV"]
        large = isinstance(width, int) and width >= free.blocks["V"]
        return Verdict(255, 64 if large else 0, 1024, True, 0, (), "a toolchain")

    assert choose_tiles(block, "sm_90", SIZES, "bf16", spills).tiles["forward"].blocks["V"] < free.blocks["V"]
