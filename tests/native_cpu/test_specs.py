"""Every spec as native kernels, against the float64 reference.

Tolerances are relative to the largest element of a tensor. float64, 1e-10: roundoff times paths of at most 130 steps, with room
for feedback on repeated keys. float32, 2e-4: roundoff 6e-8 times 130 steps times sums of products over a few dims, with a
factor of ten for gradients that pass through saturated gates; specs that divide by a sum of either sign are left out,
because their condition is unbounded.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from functools import cache
from types import ModuleType

import pytest
import torch

from seqc.frontend import elaborate
from seqc.ir.both_ways import one_run
from seqc.ir.graph import leaves
from seqc.ir.program import Program
from tests import forms
from tests.cli import digests
from tests.forms import PATHS
from tests.harness import check_causality, compare, compare_split, compare_steps, draw, tensors
from tests.parts import loaded

MAIN = ("linear_attention", "retention", "gla", "delta_rule", "hgrn", "mamba", "lstm", "gru")
WIDE = {"H": 3, "K": 33, "V": 80, "D": 70, "N": 17}
Call = Callable[..., tuple[torch.Tensor, ...]]

marked = [pytest.param(name, marks=pytest.mark.long) if name in forms.REPEATING else name for name in PATHS]
every_spec = pytest.mark.parametrize("name", marked)
main_specs = pytest.mark.parametrize("name", MAIN)


@cache
def compiled(name: str) -> tuple[Program, ModuleType]:
    """A spec and the module of its native part."""
    program = forms.for_kernels(one_run(elaborate.load(PATHS[name])))
    return program, loaded(text(name), program, name)


def apart(name: str) -> tuple[Program, ModuleType]:
    """The same in a module of its own that has built nothing yet, for a test that builds it otherwise."""
    program = one_run(elaborate.load(PATHS[name]))
    made = loaded(text(name), program, f"{name}_apart")
    made._native_kernel.cache_clear()
    made._native_loaded.clear()
    return program, made


@cache
def text(name: str) -> str:
    """The native part of a spec."""
    return digests.native_part(PATHS[name])


def contiguous(function: Call) -> Call:
    """The function behind a boundary that makes its arguments contiguous, as the emitted operator does."""
    return lambda *arguments: function(*(x.contiguous() for x in arguments))


@every_spec
def test_against_the_reference(name: str) -> None:
    program, made = compiled(name)
    assert not (told := forms.changed(name, "cpu", ["step"])), told
    assert not (told := digests.changed(name, "cpu", digests.digest(text(name)))), told
    for steps, hard in [(0, False), (1, True), (2, False), (37, True), (65, False)]:
        compare(draw(program, steps, hard=hard), made._forward_cpu, made._backward_cpu, 1e-10)


@every_spec
def test_split_runs_and_causality(name: str) -> None:
    program, made = compiled(name)
    offsets = [n.number("offset") for n in leaves(program.graph.values(), "input")]
    if not any(offsets):
        compare_split(draw(program, 21, hard=True, seed=1), contiguous(made._forward_cpu), 10, 1e-10)
    if not program.no_step:
        compare_steps(draw(program, 5, hard=True, seed=1), made._forward_cpu, contiguous(made._step_cpu), 1e-10)
    else:
        with pytest.raises(NotImplementedError, match=re.escape(program.no_step)):
            made._step_cpu(*tensors(draw(program, 1)))
    if min(offsets) >= 0:
        check_causality(draw(program, 40, seed=2), contiguous(made._infer_cpu), torch.float64)


@main_specs
def test_lengths_and_float32(name: str) -> None:
    program, made = compiled(name)
    for steps in (63, 64, 130):
        compare(draw(program, steps, hard=True, seed=steps), made._forward_cpu, made._backward_cpu, 1e-10)
    for steps in (1, 63, 65, 130):
        case = draw(program, steps, hard=True, seed=steps)
        compare(case, made._forward_cpu, made._backward_cpu, 2e-4, torch.float32)


@pytest.mark.parametrize("name", [x if x in ("gla", "gru") else pytest.param(x, marks=pytest.mark.long) for x in MAIN])
def test_several_panels_and_rows(name: str) -> None:
    """Dims that fill several vectors and end inside one; batches that end inside a block of rows."""
    program, made = compiled(name)
    for rows in (1, 7):
        case = draw(program, 33, {**WIDE, "B": rows}, seed=rows)
        compare(case, made._forward_cpu, made._backward_cpu, 1e-10)
        compare_steps(case, made._forward_cpu, contiguous(made._step_cpu), 1e-10)


@main_specs
def test_panels_of_unequal_width(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first-level cache of 2 KiB cuts 80 channels into panels of which the last one is not full."""
    program, made = apart(name)
    plain = made._native_defines
    monkeypatch.setattr(made, "_native_defines", lambda *sizes: {**plain(*sizes), "SEQC_L1": "2048"})
    case = draw(program, 33, WIDE, seed=5)
    compare(case, made._forward_cpu, made._backward_cpu, 1e-10)
    compare_steps(case, made._forward_cpu, contiguous(made._step_cpu), 1e-10)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are kinds of x86-64")
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize("name", ["gla", "lstm"])
def test_processors_with_shorter_vectors(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built as for a lesser processor: other vectors, panels and rows of the batch."""
    program, made = apart(name)
    flags, link = made._native_flags()
    lesser = [x for x in flags if x != "-march=native"] + [f"-march={level}"]
    monkeypatch.setattr(made, "_native_flags", lambda: (lesser, link))
    for rows in (1, 7):
        compare(draw(program, 9, {**WIDE, "B": rows}, seed=rows), made._forward_cpu, made._backward_cpu, 1e-10)


@main_specs
def test_threads_change_no_bit(name: str) -> None:
    program, made = compiled(name)
    case = draw(program, 40, {**WIDE, "B": 5}, seed=3)
    cotangents = [torch.tensor(case.cotangents[r]) for r in case.results]
    same_for(made, tensors(case), cotangents, (1, 2, 2))


def same_for(made: ModuleType, arguments: list[torch.Tensor], cotangents: list[torch.Tensor], counts: tuple[int, ...]) -> None:
    """Results and gradients are the same to the bit for all numbers of threads."""
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            results = made._forward_cpu(*arguments)
            seen.append([*results, *made._backward_cpu(*arguments, *results[len(cotangents) :], *cotangents)])
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*seen, strict=True):
        assert one.isfinite().all() and all(torch.equal(one, x) for x in others)


@pytest.mark.parametrize(("name", "width"), [("rnn", 371), ("layer_norm_lstm", 187)])
def test_teams_of_threads_change_no_bit(name: str, width: int) -> None:
    # matrices so large, and programs so few, that several threads share one: 2 programs and 4 threads, one of them left over
    program, made = compiled(name)
    case = draw(program, 4, {**WIDE, "D": width, "B": 3}, seed=4)
    cotangents = [torch.tensor(case.cotangents[r], dtype=torch.float32) for r in case.results]
    same_for(made, [x / 8 for x in tensors(case, torch.float32)], cotangents, (1, 5))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_programs_of_several_blocks_of_rows(name: str) -> None:
    """As many blocks a program as threads leave, the last program with fewer, and rows that fill none."""
    program, made = compiled(name)
    for rows in (13, 23):
        compare(draw(program, 9, {**WIDE, "B": rows}, seed=rows), made._forward_cpu, made._backward_cpu, 1e-10)
    case = draw(program, 3, {**WIDE, "D": 139, "B": 23}, seed=6)
    cotangents = [torch.tensor(case.cotangents[r], dtype=torch.float32) for r in case.results]
    same_for(made, [x / 8 for x in tensors(case, torch.float32)], cotangents, (1, 2, 3, 5))


@main_specs
def test_results_alone_are_the_same(name: str) -> None:
    program, made = compiled(name)
    arguments = tensors(draw(program, 35), torch.float32)
    for alone, saving in zip(made._infer_cpu(*arguments), made._forward_cpu(*arguments), strict=False):
        assert torch.equal(alone, saving)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_long_run_is_its_pieces(reverse: bool) -> None:
    """Arrays of more than 4 MiB, on large pages and stored past the caches, hold what short runs give, to the bit."""
    program, made = compiled("hgrn")
    x, g, h = tensors(draw(program, 16640, {"B": 1, "D": 64}, seed=6), torch.float32)
    d_o, d_h = torch.randn_like(x), torch.randn_like(h)
    o, h_T, *saved = made._forward_cpu(x, g, h, reverse=reverse)
    d_x, d_g, d_h_0 = made._backward_cpu(x, g, h, *saved, d_o, d_h, reverse=reverse)
    assert all(a.is_contiguous() and not a._is_view() for a in (o, d_x, d_g))
    pieces = [[a.contiguous() for a in part] for part in zip(*(a.split(520, 1) for a in (x, g, d_o, o, d_x, d_g)), strict=True)]
    states, kept = [h], []
    for own_x, own_g, _, own_o, *_ in pieces[:: -1 if reverse else 1]:
        found, end, *more = made._forward_cpu(own_x, own_g, states[-1], reverse=reverse)
        assert torch.equal(found, own_o)
        states.append(end)
        kept.append(more)
    assert torch.equal(states.pop(), h_T)
    for own_x, own_g, own_d, _, own_d_x, own_d_g in pieces[:: 1 if reverse else -1]:
        *found, d_h = made._backward_cpu(own_x, own_g, states.pop(), *kept.pop(), own_d, d_h, reverse=reverse)
        assert torch.equal(found[0], own_d_x) and torch.equal(found[1], own_d_g)
    assert torch.equal(d_h, d_h_0)
