"""Tiles of kernels of several kinds: sensible on every target, equal to enumeration, quick, and led by verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from seqc.targets import TARGETS, Target, target_named
from seqc.tiling.choose import Choice, choose
from seqc.tiling.enumerate import solve_by_enumeration
from seqc.tiling.kernel_problem import kernel_problem, refusal
from seqc.tiling.kernel_summary import Dim, Dot, KernelSummary, Limit, Tile, Workload
from seqc.tiling.problem import Clash, Solution
from seqc.tiling.solve import solve
from seqc.tiling.verdicts import Verdict


def gated(key: int, value: int, bytes: int = 2) -> KernelSummary:
    """A chunkwise kernel with a matrix state [K, V] and gates of K, V in blocks."""
    rate = "bf16" if bytes == 2 else "fp32"
    rows, columns, square, state = Tile(("t", "K")), Tile(("t", "V")), Tile(("t", "s")), Tile(("K", "V"))
    small = [replace(tile, bytes=bytes) for tile in (rows, columns, square, state)]
    return KernelSummary(
        name=f"gated K={key} V={value}",
        dims=(
            Dim("H", "grid", 8),
            Dim("t", "chunk"),
            Dim("s", "chunk"),
            Dim("K", "whole", key),
            Dim("V", "block", value),
        ),
        live=(rows, rows, square, columns),
        carried=(state,),
        staged=(small[0], small[0], small[1], rows),
        scratch=(small[0], small[2], small[3]),
        dots=(
            Dot(("t",), ("s",), ("K",), rate),
            Dot(("t",), ("V",), ("s",), rate),
            Dot(("t",), ("V",), ("K",), rate),
            Dot(("K",), ("V",), ("t",), rate),
        ),
        moved=(small[0], small[0], rows, small[1], small[1]),
        limits=(Limit("the range of g keeps exponents in range over 64 rows", "C", "<=", 64),),
    )


def cell(width: int) -> KernelSummary:
    """One step a turn: a recurrent matrix in shared memory, rows of the batch in blocks."""
    state, gates = Tile(("B", "J")), Tile(("B", "G"))
    return KernelSummary(
        name=f"cell {width}",
        dims=(Dim("H", "grid", 4), Dim("B", "block", 8), Dim("J", "whole", width), Dim("G", "whole", 4 * width)),
        live=(gates, state),
        carried=(state, state),
        scratch=(Tile(("J", "G"), 2), Tile(("B", "J"), 2)),
        dots=(Dot(("B",), ("G",), ("J",), "bf16"),),
        moved=(Tile(("B", "G"), 2), Tile(("B", "J"), 2)),
    )


def scan(width: int) -> KernelSummary:
    """Elementwise: no product, channels in blocks, a chunk a turn."""
    tile = Tile(("t", "D"))
    return KernelSummary(
        name=f"scan {width}",
        dims=(Dim("t", "chunk"), Dim("D", "block", width)),
        live=(tile, tile, tile),
        carried=(Tile(("D",)),),
        moved=(tile, tile, tile),
    )


KERNELS = [gated(64, 64), gated(60, 33), gated(128, 128), gated(128, 256, 4), cell(64), scan(1024)]


@pytest.mark.parametrize("summary", KERNELS, ids=lambda summary: summary.name)
@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_solution_is_the_enumerated_one_and_fits(summary: KernelSummary, target: Target) -> None:
    problem = kernel_problem(summary, target)
    answer = solve(problem)
    assert isinstance(answer, Solution) and answer == solve_by_enumeration(problem)
    parts = dict(answer.parts)
    assert parts["bytes of shared memory"] <= target.shared_per_program
    assert parts["tile registers a thread"] <= target.registers_per_thread
    assert answer.cost == max(parts["ns at the units"], parts["ns at the memory"]) > 0
    if summary.name.startswith("gated"):
        assert answer["C"] in (16, 32, 64) and 16 <= answer["BV"] <= 256
    if target.name in ("sm_90", "sm_100") and summary.dots:
        assert answer["warps"] <= 4, "eight warps are quarantined there"
    if target.name == "sm_100" and summary.dots:
        assert answer["warps"] <= 2 or answer["stages"] == 1


def test_solving_is_quick() -> None:
    """Well under 0.3 s each: the median of the kernels, with room for a busy machine."""
    took = []
    for summary in KERNELS:
        problem = kernel_problem(summary, target_named("sm_90"))
        start = time.perf_counter()
        solve(problem)
        took.append(time.perf_counter() - start)
    assert sorted(took)[len(took) // 2] < 0.6, took


def test_limit_of_the_numerics_binds_and_says_so() -> None:
    sentence = "the range of g keeps exponents in range over 16 rows"
    summary = replace(gated(64, 64), limits=(Limit(sentence, "C", "<=", 16),))
    answer = solve(kernel_problem(summary, target_named("sm_90")))
    assert isinstance(answer, Solution) and answer["C"] == 16
    assert answer.binding[0].sentence == sentence and answer.binding[0].cost_without < answer.cost


def test_impossible_kernel_is_refused_in_english() -> None:
    summary = replace(gated(2048, 64), limits=())
    answer = solve(kernel_problem(summary, target_named("sm_90")))
    assert isinstance(answer, Clash)
    assert answer.sentences == ("the live tiles fit the 215 registers that each thread of sm_90 has for them",)


def test_a_spill_leads_to_smaller_tiles() -> None:
    asked: list[Mapping[str, int]] = []
    good = Verdict(128, 0, 50_000, True, 0, (), "by hand")

    def ask(at: Mapping[str, int]) -> Verdict:
        asked.append(dict(at))
        return good if at["BV"] <= 32 else replace(good, registers=255, spills=64)

    target = target_named("sm_90")
    summary = gated(64, 64)
    first = solve(kernel_problem(summary, target))
    assert isinstance(first, Solution) and first["BV"] == 64
    choice = choose(summary, target, ask)
    assert isinstance(choice, Choice) and choice.solution["BV"] <= 32 and choice.verdict == good
    assert len(choice.refused) == len(asked) - 1 >= 1
    assert "spills 64 bytes" in choice.refused[0].sentence
    held = choice.occupancy(target)
    assert held is not None and held.programs == 4
    untold = choose(summary, target, lambda at: None)
    assert isinstance(untold, Choice) and untold.solution == first and untold.verdict is None
    assert untold.occupancy(target) is None


def test_the_least_spill_is_taken_where_all_spill_but_no_broken_kernel() -> None:
    verdict = Verdict(255, 64, 50_000, True, 0, (), "by hand")
    target = target_named("sm_90")
    choice = choose(gated(64, 64), target, lambda at: replace(verdict, spills=at["C"] * at["BV"]))
    assert isinstance(choice, Choice) and choice.verdict is not None
    asked = [dict(one.assignment) for one in choice.refused]
    assert choice.verdict.spills == min(at["C"] * at["BV"] for at in asked)
    broken = choose(gated(64, 64), target, lambda at: replace(verdict, spills=0, error="no such instruction"))
    assert isinstance(broken, Clash) and any("no such instruction" in sentence for sentence in broken.sentences)
    large = replace(verdict, spills=0, shared=300_000)
    found = refusal(large, {"C": 64, "BV": 64, "warps": 4, "stages": 2, "resident": 1}, target)
    assert found is not None and found.by_stages and "300000 bytes of shared memory" in found.sentence
    smaller = solve(kernel_problem(gated(64, 64), target, refused=[found]))
    assert isinstance(smaller, Solution)
    assert smaller["C"] < 64 or smaller["BV"] < 64 or smaller["stages"] < 2 or smaller["warps"] > 4


def test_workload_is_a_choice_of_the_model_and_batch_blocks_follow_it() -> None:
    target = target_named("sm_90")
    many = solve(kernel_problem(cell(64), target, workload=Workload(batch=8)))
    assert isinstance(many, Solution) and many["BB"] == 16
    wide = replace(cell(64), dims=tuple(Dim("B", "block", 256) if d.name == "B" else d for d in cell(64).dims))
    answer = solve(kernel_problem(wide, target))
    assert isinstance(answer, Solution) and answer["BB"] >= 16
