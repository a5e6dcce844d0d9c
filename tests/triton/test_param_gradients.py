"""Gradients of parameters that meet only each other: see `param_gradients.py`, which runs as a process of its own."""

from __future__ import annotations

import pytest

from tests.triton import processes

pytest.importorskip("triton")


def test_what_is_made_of_parameters_alone_counts_once_a_step_and_sequence() -> None:
    done = processes.run(["-W", "error::RuntimeWarning", "-m", "tests.triton.param_gradients"])
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]
