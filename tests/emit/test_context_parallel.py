"""`context_parallel`: one sequence over two and four processes gives the numbers and gradients of the run in one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import seqc
from seqc.diagnostics import Unsupported
from tests.emit.stretches import BOUNDS, CASES, SPECS, STEPS, arguments, weights


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return {name: seqc.compile(text, "torch") for name, text in SPECS.items()}


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_are_one_run(compiled: dict[str, Any], tmp_path: Path, world: int) -> None:
    command = [sys.executable, "-m", "tests.emit.stretches", str(tmp_path)]
    runs = [subprocess.Popen([*command, str(rank), str(world)], stderr=subprocess.PIPE, text=True) for rank in range(world)]
    told = [run.communicate(timeout=120)[1] for run in runs]
    assert not any(run.returncode for run in runs), "\n".join(told)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for case in CASES:
        name, packed, reverse = case
        f = compiled[name]
        given = arguments(f, name, packed)
        how = {"cu_seqlens": BOUNDS} if packed else {}
        whole = f(**given, **how, reverse=reverse)
        cotangents = [weights(x.shape, x.dtype) for x in whole]
        slopes = torch.autograd.grad(list(whole), list(given.values()), cotangents, allow_unused=True)
        backwards = (name == "dense") is not reverse
        last = 0 if backwards else world - 1
        for n, x in whole._asdict().items():
            own = [part[case][0][n] for part in parts]
            got = own[last] if n.endswith("_T") else torch.cat(own, 1)
            torch.testing.assert_close(got, x, rtol=1e-12, atol=1e-12, msg=lambda m, at=(case, n): f"{at}: {m}")
        for (n, axes), slope in zip(((n, f.module._AXES[n]) for n in given), slopes, strict=True):
            if slope is None:
                continue
            own = [d for part in parts if (d := part[case][1].get(n)) is not None]
            got = torch.cat(own, 1) if "T" in axes else sum(own, torch.zeros_like(slope))
            torch.testing.assert_close(got, slope, rtol=1e-11, atol=1e-11, msg=lambda m, at=(case, n): f"{at}: {m}")
    assert sum(STEPS[world]) == 12


def test_what_is_no_affine_map_is_refused() -> None:
    text = "spec cell\ndim D\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\nh = tanh(x + R @ h[t-1])\noutput h"
    cell = seqc.compile(text, "torch")
    with pytest.raises(Unsupported, match="the steps of cell cannot be spread over processes"):
        cell.context_parallel()
