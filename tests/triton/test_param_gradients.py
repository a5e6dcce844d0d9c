"""Gradients of parameters that meet only each other: see `param_gradients.py`, which runs as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_what_is_made_of_parameters_alone_counts_once_a_step_and_sequence() -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.triton.param_gradients"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]
