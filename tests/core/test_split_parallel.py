"""The split in three: text before and after, and which recurrences are split. What the parts give together: `test_plans`."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqc.frontend.elaborate import load
from seqc.ir.both_ways import one_run
from seqc.ir.graph_text import show
from seqc.ir.verify import verify_program
from seqc.passes.plan.products_outside import Split, split_parallel

ROOT = Path(__file__).parents[2]
FOLDERS = ("specs", "tests/recurrences", "tests/peers/specs")
PATHS = {p.stem: p for folder in FOLDERS for p in sorted((ROOT / folder).glob("*.seq"))}
SPLIT = ("lru", "s5", "qrnn", "layer", "mixer", "dense_ssm", "pvrnn_layer", "rwkv4_time_mix", "rwkv7_time_mix")

CELL = """
spec cell
dim M, D, N = 64
input x[M]
param W[D, M], R[D, D], C[N, D], w[D]
state h[D] = 0
h = tanh(W @ x + R @ h[t-1])
output y = C @ h
output z = sum[D](w * h)
"""
BEFORE = """
%W = param W [D, M]
%x = input x [B, M]
%0 = mul(%W, %x) : [B, D, M]
%W_x = sum(%0) over=(M) : [B, D]
out W_x = %W_x
"""
CORE = """
%w = param w [D]
%W_x = input W_x [B, D]
%R = param R [D, D']
%h = state h [B, D]
%0 = rename(%h) new=D' old=D : [B, D']
%1 = mul(%R, %0) : [B, D, D']
%2 = sum(%1) over=(D') : [B, D]
%3 = add(%W_x, %2) : [B, D]
%4 = tanh(%3) : [B, D]
%5 = mul(%w, %4) : [B, D]
%6 = sum(%5) over=(D) : [B]
out z = %6
out h = %4
out h.next = %4
"""
AFTER = """
%C = param C [N, D]
%h = input h [B, D]
%0 = mul(%C, %h) : [B, D, N]
%1 = sum(%0) over=(D) : [B, N]
out y = %1
"""


def test_text_before_and_after() -> None:
    split = split_parallel(load(CELL))
    assert split.before is not None and split.after is not None
    names = dict.fromkeys(split.before.outputs.values(), "W_x")
    assert show(split.before.graph, names) == BEFORE.lstrip()
    assert show(split.core.graph) == CORE.lstrip()
    assert show(split.after.graph) == AFTER.lstrip()


def test_reasons_tell_both_ways() -> None:
    told = {r.subject: r.text for r in split_parallel(load(CELL)).reasons}
    assert told["W @ x"].startswith("before the recurrence, saves 8192 operations")
    assert told["C @ h"].startswith("after the recurrence, saves 8192 operations")
    assert told["sum[D](w * h)"].startswith("inside the recurrence, would save 128 operations")


@pytest.mark.parametrize(("size", "leaves"), [(16, False), (64, True)])
def test_small_products_stay(size: int, leaves: bool) -> None:
    """A result that is read again costs more than a product with few columns."""
    text = CELL.replace("dim M, D, N = 64", f"dim M = {size}, D = {size}, N = {size}")
    split = split_parallel(load(text))
    assert (split.before is not None, split.after is not None) == (leaves, leaves)
    assert leaves or split.core.graph == load(text).graph


def test_nothing_recurrent_is_left_alone() -> None:
    program = load(PATHS["fsmn"])
    assert split_parallel(program) == Split(None, program, None)


def test_names_that_are_taken() -> None:
    text = CELL.replace("output z", "output W_x = h\noutput z")
    split = split_parallel(load(text))
    assert split.before is not None
    assert list(split.before.outputs) == ["W_x_2"]


@pytest.mark.parametrize("name", SPLIT)
def test_these_are_split(name: str) -> None:
    """Every part is a program, and none has a state that the whole has not. `test_plans` runs the parts one after the other."""
    program = one_run(load(PATHS[name]))
    split = split_parallel(program)
    assert not split.whole
    parts = [part for part in (split.before, split.core, split.after) if part is not None]
    for part in parts:
        verify_program(part, "split_parallel")
    assert [s for part in parts for s in part.states if s not in program.states] == []


@pytest.mark.parametrize(("size", "leaves"), [(2, False), (64, True)])
def test_a_difference_of_products_leaves_as_two(size: int, leaves: bool) -> None:
    """The real part of a complex matrix times a complex state; what is left of the recurrence is of the state's size."""
    text = f"""
spec turning
dim D = {size}, N
input u[N]
param a[N], b[N], Cm[D, N] complex
state x[N] complex = 0
x = (a + 1i * b) * x[t-1] + u
output y = re(Cm @ x)
"""
    split = split_parallel(load(text))
    assert (split.after is not None) == leaves
    assert set(split.core.outputs) == ({"x_re", "x_im"} if leaves else {"y"})
    if split.after is not None:
        sums = [n for n in split.after.graph["y"].args if n.op == "sum"]
        assert split.after.graph["y"].op == "sub" and len(sums) == 2 and "D" not in split.core.dims
