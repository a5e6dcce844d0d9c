"""Kernels of packs and of reversed runs compile for a GPU, from the same text as those of whole batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seqc.backends.triton_gpu.emit import default_tiles, print_all
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.tuning.jobs import Jobs
from seqc.backends.triton_gpu.tuning.toolchain import Job, available, judge
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load

ROOT = Path(__file__).parents[2]
ALL = ((None, -1), ("*i32", 1), ("*i64", -1))
SIZES = {"H": 2, "K": 32, "V": 32, "D": 32, "N": 16}


def variant(job: Job, bounds: str | None, step: int) -> Job:
    """The job with bounds of this type (None: whole batches), in this direction."""
    there = job.configuration
    constants = tuple((n, step if n == "STEP" else x) for n, x in there.constants if not (bounds and n == "p_cu_seqlens"))
    signature = (*there.signature, *((("p_cu_seqlens", bounds),) if bounds else ()))
    return replace(job, configuration=replace(there, signature=signature, constants=constants))


CASES = [
    pytest.param("gla", "chunkwise", 16, marks=pytest.mark.long), ("mamba", "step", None),
    pytest.param("lstm", "step", None, marks=pytest.mark.long),
]  # fmt: skip


@pytest.mark.skipif(available() is not None, reason=str(available()))
@pytest.mark.parametrize(("name", "form", "rows"), CASES)
def test_packs_and_directions_compile(name: str, form: str, rows: int | None) -> None:
    plan = schedule(lower(load(ROOT / "specs" / f"{name}.seq"), form, rows))
    jobs = []
    for kernel, printed in print_all(plan).items():
        variants = {"forward": ALL, "backward": ALL, "states": (("*i64", -1),), "outputs": (("*i32", 1),)}.get(kernel, ())
        job = Jobs(plan, printed, "sm_90", SIZES, "bf16").job(default_tiles(plan))
        jobs += [variant(job, bounds, step) for bounds, step in variants]
    assert not {verdict.error for verdict in judge(jobs)} - {None}
