"""Recurrences that are in no list, as specs and as loops in torch (`by_hand`): results and every gradient, in float64 to 1e-10.

Native code is built for some of each kind; `by_hand_in_triton` judges some in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch

import seqc
from seqc.check.sampling import sample
from seqc.frontend import elaborate
from seqc.ir.arguments import argument_table
from tests.hard import (
    cells_by_hand,
    matrices_by_hand,
    neurons_and_filters_by_hand,
    published_by_hand,
    rates_by_hand,
    systems_by_hand,
)  # fmt: skip
from tests.hard.by_hand import HAND, Given
from tests.hard.test_by_hand import close
from tests.harness import tensor
from tests.triton import processes

# they fill HAND
FILLS = (cells_by_hand, matrices_by_hand, neurons_and_filters_by_hand, published_by_hand, rates_by_hand, systems_by_hand)
assert all(FILLS)
STEPS = 7
INTERPRETED = ("kalman_filter", "ctc_like", "folded", "ahead", "recursive_least_squares")
BUILT = ("kalman_filter", "system_by_zoh", "rotations", "ahead", "memory_gru")


def arguments(name: str, dtype: torch.dtype = torch.float64) -> tuple[Given, Given]:
    """Arguments of a spec, of all states too, and a weight for each result."""
    hand = HAND[name]
    program = elaborate.load(hand.spec)
    sizes = {"B": 2, **{d.name: d.default for d in program.dims.values() if d.default}, **hand.sizes}
    arrays, weights = sample(program, sizes, STEPS, seed=1)
    given = {x.replace(".", "_"): tensor(value, dtype) for x, value in arrays.items()}
    given = {x: hand.fit[x](value) if x in hand.fit else value for x, value in given.items()}
    return given, {x.replace(".", "_"): torch.tensor(value, dtype=dtype) for x, value in weights.items()}


@pytest.mark.parametrize(("name", "backend"), [*((name, "torch") for name in HAND), *((name, "cpu") for name in BUILT)])
def test_equals_the_loop_written_by_hand(name: str, backend: str) -> None:
    given, weights = arguments(name)
    moved = {a.name for a in argument_table(elaborate.load(HAND[name].spec)) if a.gradient}
    moved &= {x for x in given if not x.startswith("begun")}
    for x in moved:
        given[x].requires_grad_()
    want = HAND[name].loop(given)
    made = seqc.compile(HAND[name].spec, backend=backend, dims=HAND[name].sizes if backend == "cpu" else {})
    got = made(**given)._asdict()
    slopes = []
    for results in (got, want):
        loss = sum((results[x] * weights[x]).sum() for x in want)
        slopes.append(torch.autograd.grad(loss, [given[x] for x in moved], allow_unused=True))
    for x, value in want.items():
        close(got[x], value, x)
    for x, a, b in zip(moved, *slopes, strict=True):
        close(*(torch.zeros_like(given[x]) if d is None else d for d in (a, b)), x)


def test_triton_equals_the_loops_written_by_hand() -> None:
    pytest.importorskip("triton")
    done = processes.run(["-m", "tests.hard.by_hand_in_triton", *INTERPRETED])
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stdout.strip(), done.stdout
