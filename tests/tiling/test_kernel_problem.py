"""Rows and tiles of kernels of several kinds: sensible on every target, equal to enumeration, quick, led by verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from seqc.analysis.workload import Workload
from seqc.backends.triton_gpu.tuning.choose import Choice, choose, merged
from seqc.backends.triton_gpu.tuning.kernel_model import KernelModel
from seqc.backends.triton_gpu.tuning.kernel_problem import Kernel, Told, kernel_problem, refusal, tile_choices
from seqc.backends.triton_gpu.tuning.kernel_summary import Dim, Dot, KernelSummary, Limit, Tile, Work
from seqc.backends.triton_gpu.tuning.multiprocessor import MEMORY
from seqc.backends.triton_gpu.tuning.targets import TARGETS, Target, target_named
from seqc.backends.triton_gpu.tuning.verdicts import Verdict
from seqc.solver.enumerate import solve_by_enumeration
from seqc.solver.expression import evaluate
from seqc.solver.problem import Clash, Problem, Solution
from seqc.solver.solve import solve

ByRows = Mapping[int, KernelSummary]
GOOD = Verdict(128, 0, 50_000, 0, (("all", 100), ("matrix", 4)), "by hand")


def gated(key: int, value: int, bytes: int = 2, extra: int = 0) -> ByRows:
    """A chunkwise kernel with a matrix state [K, V] and gates of K, V in blocks, at 16, 32 and 64 rows. extra: more tiles."""
    rate = "bf16" if bytes == 2 else "fp32"
    rows, columns, square, state = Tile(("t", "K")), Tile(("t", "V")), Tile(("t", "s")), Tile(("K", "V"))
    small = [replace(tile, bytes=bytes) for tile in (rows, columns, square, state)]
    kernel = KernelSummary(
        name=f"gated K={key} V={value}",
        dims=(Dim("H", "grid", 8), Dim("t", "whole"), Dim("s", "whole"), Dim("K", "whole", key), Dim("V", "block", value)),
        live=(rows, rows, square, columns, *[rows] * extra),
        carried=(state,),
        staged=(small[0], small[0], small[1], rows),
        scratch=(small[0], small[2], small[3]),
        dots=(
            Dot(("t",), ("s",), ("K",), rate),
            Dot(("t",), ("V",), ("s",), rate),
            Dot(("t",), ("V",), ("K",), rate),
            Dot(("K",), ("V",), ("t",), rate),
        ),
        work=(Work(("t", "K"), 12), Work(("K", "V"), 2), Work(("t", "s"), 3)),
        read=(small[0], small[0], rows, small[1]),
        written=(small[1],),
    )
    return {c: at_rows(kernel, c) for c in (16, 32, 64)}


def at_rows(kernel: KernelSummary, rows: int) -> KernelSummary:
    """The same kernel with so many rows."""
    dims = tuple(replace(dim, size=rows) if dim.name in ("t", "s") else dim for dim in kernel.dims)
    return replace(kernel, dims=dims, rows=rows)


def cell(width: int) -> ByRows:
    """One step a turn: a recurrent matrix in shared memory, rows of the batch in blocks."""
    state, gates = Tile(("B", "J")), Tile(("B", "G"))
    kernel = KernelSummary(
        name=f"cell {width}",
        dims=(Dim("H", "grid", 4), Dim("B", "block", 8), Dim("J", "whole", width), Dim("G", "whole", 4 * width)),
        live=(gates, state),
        carried=(state, state),
        scratch=(Tile(("J", "G"), 2), Tile(("B", "J"), 2)),
        dots=(Dot(("B",), ("G",), ("J",), "bf16"),),
        read=(Tile(("B", "G"), 2),),
        written=(Tile(("B", "J"), 2),),
    )
    return {1: kernel}


def scan(width: int) -> ByRows:
    """Elementwise: no product, channels in blocks, a chunk a turn."""
    tile = Tile(("t", "D"))
    kernel = KernelSummary(
        name=f"scan {width}",
        dims=(Dim("t", "whole"), Dim("D", "block", width)),
        live=(tile, tile, tile),
        carried=(Tile(("D",)),),
        work=(Work(("t", "D"), 20),),
        read=(tile, tile),
        written=(tile,),
    )
    return {c: at_rows(kernel, c) for c in (32, 64, 128)}


KERNELS = [gated(64, 64), gated(60, 33), gated(128, 128), gated(128, 256, 4), cell(64), scan(1024)]


def name_of(kernel: ByRows) -> str:
    return next(iter(kernel.values())).name


def problem_of(kernel: ByRows, target: Target, told: Told = (), workload: Workload | None = None) -> Problem:
    return kernel_problem(name_of(kernel), {"it": Kernel(kernel, told)}, target, workload=workload)


def limited(kernel: ByRows, *limits: Limit) -> ByRows:
    return {c: replace(one, limits=limits) for c, one in kernel.items()}


def nothing(kernel: str, rows: int) -> Told:
    return ()


@pytest.mark.parametrize("kernel", KERNELS, ids=name_of)
@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_solution_is_the_enumerated_one_and_fits(kernel: ByRows, target: Target) -> None:
    problem = problem_of(kernel, target)
    answer = solve(problem)
    assert isinstance(answer, Solution) and answer == solve_by_enumeration(problem)
    parts = dict(answer.parts)
    assert parts["bytes of shared memory"] <= target.shared_per_program
    assert parts["tile registers a thread"] <= target.registers_per_thread
    assert answer.cost == max(parts["ns at the units"], parts["ns at the memory"]) == parts["ns"] > 0
    assert answer["C"] in kernel
    if name_of(kernel).startswith("gated"):
        assert 16 <= answer["BV"] <= 256
    if target.name in ("sm_90", "sm_100") and kernel[answer["C"]].dots:
        assert answer["warps"] <= 4, "eight warps are quarantined there"
    if target.name == "sm_100" and kernel[answer["C"]].dots:
        assert answer["warps"] <= 2 or answer["stages"] == 1


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_two_kernels_share_their_rows_and_the_sum_of_their_times_is_least(target: str) -> None:
    """The joint optimum is enumerated, and equals the least over rows of the sum of what each kernel needs by itself."""
    forward, backward = gated(64, 64), gated(64, 64, extra=12)
    machine = target_named(target)
    problem = kernel_problem("both", {"f": Kernel(forward), "b": Kernel(backward)}, machine)
    assert problem.size() > 100_000
    answer = solve(problem)
    assert isinstance(answer, Solution) and answer == solve_by_enumeration(problem)
    sums = {}
    for rows in forward:
        alone = [solve(problem_of({rows: kernel[rows]}, machine)) for kernel in (forward, backward)]
        if all(isinstance(one, Solution) for one in alone):
            sums[rows] = sum(one.cost for one in alone if isinstance(one, Solution))
    assert answer.cost == min(sums.values()) == sums[answer["C"]]
    assert dict(answer.parts)["f.ns"] + dict(answer.parts)["b.ns"] == answer.cost


def test_rows_follow_what_both_kernels_can_hold() -> None:
    """The forward kernel alone takes more rows than the backward kernel, whose tiles are many, lets it have."""
    target = target_named("sm_90")
    forward, backward = gated(64, 64), gated(64, 64, extra=14)
    alone = solve(problem_of(forward, target))
    both = choose("both", {"f": forward, "b": backward}, target, nothing)
    assert isinstance(alone, Solution) and isinstance(both, Choice)
    assert both.rows < alone["C"] and not both.spilling
    assert any(sentence.startswith("the live tiles fit") for sentence in both.binds("b"))
    assert both.tiles("f")["C"] == both.tiles("b")["C"] == both.rows


def test_dims_that_are_cut_alike() -> None:
    target = target_named("sm_90")
    kernels = {"one": Kernel(gated(64, 64)), "two": Kernel(gated(64, 64, extra=14))}
    problem = kernel_problem("both", kernels, target, shared=["V"])
    assert [v.name for v in problem.variables].count("BV") == 1
    assert solve(problem) == solve_by_enumeration(problem)


def test_solving_is_quick() -> None:
    """Well under 0.3 s of processor time each: the median of the kernels, with room for a busy machine."""
    took = []
    for kernel in KERNELS:
        problem = problem_of(kernel, target_named("sm_90"))
        start = time.process_time()
        solve(problem)
        took.append(time.process_time() - start)
    assert sorted(took)[len(took) // 2] < 0.6, took


def test_a_limit_binds_and_says_so() -> None:
    sentence = "the spec's `tile V {16}` allows at most 16"
    kernel = limited(gated(64, 64), Limit(sentence, "BV", "<=", 16))
    answer = solve(problem_of(kernel, target_named("gfx942")))
    assert isinstance(answer, Solution) and answer["BV"] == 16
    free = solve(problem_of(gated(64, 64), target_named("gfx942")))
    assert isinstance(free, Solution) and (free.cost < answer.cost) == (sentence in [b.sentence for b in answer.binding])


def test_impossible_kernel_is_refused_in_english() -> None:
    target = target_named("sm_90")
    answer = solve(problem_of(gated(2048, 64), target))
    assert isinstance(answer, Clash)
    assert answer.sentences == ("the live tiles fit the 215 registers that each thread of sm_90 has for them",)
    wide, narrow = Limit("at least 64 columns", "BV", ">=", 64), Limit("at most 16 columns", "BV", "<=", 16)
    clash = choose("it", {"it": limited(gated(64, 64), wide, narrow)}, target, nothing)
    assert clash == Clash(("at least 64 columns", "at most 16 columns"))


def looking(kernel: ByRows, verdict: Mapping[int, Mapping[int, Verdict]], target: Target) -> Told:
    """What a table says that holds a verdict by rows and block of V, whatever the warps and stages."""
    return tuple(
        ({"C": c, **tiles}, verdict[c][tiles["BV"]])
        for c, one in kernel.items()
        for tiles in tile_choices(one, target)
        if tiles["BV"] in verdict.get(c, {})
    )


def test_a_spill_leads_to_smaller_tiles() -> None:
    target, kernel = target_named("sm_90"), gated(64, 64)
    first = choose("it", {"it": kernel}, target, nothing)
    assert isinstance(first, Choice) and first.verdict("it") is None and first.asks("it") == first.tiles("it")
    spill = replace(GOOD, registers=255, spills=64)
    told = [(first.tiles("it"), spill)]

    def look(name: str, rows: int) -> Told:
        return tuple((tiles, said) for tiles, said in told if tiles["C"] == rows)

    for _ in range(8):
        choice = choose("it", {"it": kernel}, target, look)
        assert isinstance(choice, Choice)
        asked = choice.asks("it")
        if asked is None:
            break
        told.append((asked, GOOD if asked["BV"] <= 16 else spill))
    assert choice.verdict("it") == GOOD and choice.own("it", "BV") <= 16 and len(told) <= 4
    assert choose("it", {"it": kernel}, target, look) == choice


def test_where_all_spill_the_fastest_is_taken_but_no_broken_kernel() -> None:
    target, kernel = target_named("sm_90"), gated(64, 64)

    def spilling(c: int, width: int) -> Verdict:
        return replace(GOOD, registers=255, spills=c * width)

    told = looking(kernel, {c: {w: spilling(c, w) for w in (16, 32, 64)} for c in kernel}, target)
    choice = choose("it", {"it": kernel}, target, lambda name, rows: tuple(x for x in told if x[0]["C"] == rows))
    assert isinstance(choice, Choice) and choice.spilling == {"it"} and choice.asks("it") is None
    assert "of what spills, the fastest" in choice.binds("it")[0]
    wanted = {"it": Kernel(kernel, told, spilling=True, only_told=True)}
    problem = kernel_problem("it on sm_90", wanted, target)
    assert choice.solution == solve_by_enumeration(problem)
    plain = solve(kernel_problem("free", {"it": Kernel(kernel)}, target))
    assert isinstance(plain, Solution) and choice.solution.cost > plain.cost, "spills cost time"
    no = replace(GOOD, error="no such instruction")
    broken = looking(kernel, {c: dict.fromkeys((16, 32, 64), no) for c in kernel}, target)
    clash = choose("it", {"it": kernel}, target, lambda name, rows: tuple(x for x in broken if x[0]["C"] == rows))
    assert isinstance(clash, Clash) and any("no such instruction" in sentence for sentence in clash.sentences)


def test_tiles_that_were_made_and_fit_are_taken_whatever_spills() -> None:
    """How many registers a kernel takes does not always grow with its tiles."""
    target, kernel = target_named("sm_80"), {64: gated(64, 64)[64]}
    spill = replace(GOOD, registers=255, spills=4000)
    told = looking(kernel, {64: {16: spill, 32: GOOD, 64: spill}}, target)
    choice = choose("it", {"it": kernel}, target, lambda name, rows: told)
    assert isinstance(choice, Choice) and not choice.spilling
    assert choice.own("it", "BV") == 32 and choice.verdict("it") == GOOD and choice.asks("it") is None


def test_shared_memory_that_was_enough_is_there_whatever_is_counted() -> None:
    """The model counts no less than the toolchain takes, and may count more than there is."""
    target, kernel = target_named("sm_90"), {64: gated(2048, 64)[64]}
    told = (({"C": 64, "BV": 64, "warps": 4, "stages": 1}, GOOD),)
    model = KernelModel(kernel[64], target)
    assert evaluate(model.shared(), told[0][0]) > target.shared_per_unit
    choice = choose("it", {"it": kernel}, target, lambda name, rows: told)
    assert isinstance(choice, Choice) and choice.tiles("it") == told[0][0]
    large = ((told[0][0], replace(GOOD, shared=300_000)),)
    assert isinstance(choose("it", {"it": kernel}, target, lambda name, rows: large), Clash)


def test_shared_memory_rules_out_more_stages_too() -> None:
    target, kernel = target_named("sm_90"), gated(64, 64)
    tiles = {"C": 64, "BV": 64, "warps": 4, "stages": 2}
    large = replace(GOOD, shared=300_000)
    found = refusal(large, tiles, target)
    assert found is not None and found.by_stages and "300000 bytes of shared memory" in found.sentence
    smaller = solve(problem_of(kernel, target, ((tiles, large),)))
    assert isinstance(smaller, Solution)
    assert smaller["C"] < 64 or smaller["BV"] < 64 or smaller["stages"] < 2 or smaller["warps"] > 4


def test_stages_that_hide_nothing_are_refused_where_they_were_seen() -> None:
    """The other tiles stay: which loads are sent ahead depends on the kernel's products, whose shapes are others there."""
    target, kernel = target_named("sm_90"), gated(64, 64)
    free = choose("it", {"it": kernel}, target, nothing)
    assert isinstance(free, Choice) and free.own("it", "stages") > 1
    idle = replace(GOOD, counts=(*GOOD.counts, ("async", 0)))
    told = ((free.tiles("it"), idle),)
    found = choose("it", {"it": kernel}, target, lambda name, rows: tuple(x for x in told if x[0]["C"] == rows))
    assert isinstance(found, Choice) and found.tiles("it") != free.tiles("it") and not found.spilling
    same = all(found.own("it", x) == free.own("it", x) for x in ("C", "BV", "warps"))
    assert not same or found.own("it", "stages") < free.own("it", "stages")
    wanted = {"it": Kernel(kernel, told)}
    assert found.solution == solve_by_enumeration(kernel_problem("it on sm_90", wanted, target))


def test_blocks_of_many_rows_take_no_32_columns_on_hopper() -> None:
    """Triton 3.7.1 reads outside of shared memory there."""
    for kernel in (gated(64, 64), {64: gated(64, 64)[64]}):
        found = solve(problem_of(kernel, target_named("sm_90")))
        assert isinstance(found, Solution) and (found["C"] < 64 or found["BV"] != 32)
    tall = {64: gated(64, 64)[64]}
    constraints = problem_of(tall, target_named("sm_90")).constraints
    known = [one for one in constraints if "outside of its shared memory" in one.sentence]
    for width, fine in ((16, True), (32, False), (64, True)):
        assert all(one.holds({"C": 64, "BV": width, "warps": 4, "stages": 2, "resident": 1}) == fine for one in known) and known
    assert not any("outside of" in one.sentence for one in problem_of(tall, target_named("sm_80")).constraints)


def turned(kernel: ByRows, which: Callable[[Dot], bool]) -> ByRows:
    """The same kernel, some of whose products take a transposed result."""
    return {c: replace(one, dots=tuple(replace(dot, turned=which(dot)) for dot in one.dots)) for c, one in kernel.items()}


def test_a_turned_result_takes_fewer_rows_or_two_warps_on_hopper() -> None:
    """`tl.dot(tl.trans(cast(result)), x)` of 64 rows or more is miscompiled with four warps by Triton before 3.7.1."""
    kernel = turned(gated(64, 64), lambda dot: dot.m == ("K",))
    hopper = solve(problem_of(kernel, target_named("sm_90")))
    assert isinstance(hopper, Solution) and hopper["warps"] <= 2, "K, 64 long, is the side of its rows"
    assert any("miscompiled on Hopper" in one.sentence for one in hopper.binding)
    ampere = solve(problem_of(kernel, target_named("sm_80")))
    assert ampere == solve(problem_of(gated(64, 64), target_named("sm_80")))
    short = turned(gated(64, 64), lambda dot: dot.k == ("K",))
    answer = solve(problem_of(short, target_named("sm_90")))
    assert isinstance(answer, Solution) and (answer["C"] < 64 or answer["warps"] <= 2)
    assert answer == solve_by_enumeration(problem_of(short, target_named("sm_90")))


def test_workload_is_a_choice_of_the_model_and_batch_blocks_follow_it() -> None:
    target = target_named("sm_90")
    many = solve(problem_of(cell(64), target, workload=Workload(batch=8)))
    assert isinstance(many, Solution) and many["BB"] == 16
    wide = {1: replace(cell(64)[1], dims=tuple(Dim("B", "block", 256) if d.name == "B" else d for d in cell(64)[1].dims))}
    answer = solve(problem_of(wide, target))
    assert isinstance(answer, Solution) and answer["BB"] >= 16


def coded(cycles: float, spills: int = 0) -> Verdict:
    """A kernel whose load/store unit is busy for so many cycles in every turn of 64 steps."""
    return replace(GOOD, spills=spills, counts=(*GOOD.counts, ("async", 4)), work=(("issue", 10.0, 0.0), ("lsu", cycles, 0.0)))


def test_machine_code_is_believed_where_it_is_known() -> None:
    """Tiles that were made take what their machine code says, spills in it."""
    target = target_named("sm_90")
    kernel = limited({64: gated(64, 64)[64]}, Limit("four warps", "warps", "==", 4), Limit("two stages", "stages", "==", 2))
    told: Told = tuple(
        ({"C": 64, "BV": width, "warps": 4, "stages": 2}, coded(cycles, spills))
        for width, cycles, spills in ((64, 4000, 0), (16, 500, 40))
    )
    choice = choose("it", {"it": kernel}, target, lambda name, rows: told)
    assert isinstance(choice, Choice) and choice.own("it", "BV") == 16 and not choice.spilling
    problem = problem_of(kernel, target, told)
    assert choice.solution == solve_by_enumeration(problem)
    model = KernelModel(kernel[64], target)
    took = {tiles["BV"]: model.told(said, tiles) for tiles, said in told}
    assert all(one is not None for one in took.values()) and choice.part("it", "ns") == round(took[16].nanoseconds)  # type: ignore[union-attr]


def test_no_tiles_take_less_than_their_bytes() -> None:
    """Machine code of other tiles may say that the model is too slow, and not that memory is faster than it is."""
    model = KernelModel(gated(128, 128)[32], target_named("sm_90"))
    at = {"BV": 32, "warps": 4, "stages": 2, "resident": 1}
    whole = model.time()[0]
    memory = evaluate(model.traffic(), at) / (MEMORY * target_named("sm_90").bytes_per_ns)
    assert evaluate(model.scaled(whole, 100), at) == evaluate(whole, at)
    assert evaluate(model.scaled(whole, 300), at) == 3 * evaluate(whole, at)
    assert evaluate(model.scaled(whole, 1), at) == pytest.approx(memory, rel=1e-3)


def test_what_lies_beside_a_choice_is_asked_until_no_step_is_faster() -> None:
    target, kernel = target_named("sm_90"), {64: gated(64, 64)[64]}
    told: list[tuple[Mapping[str, int], Verdict]] = []

    def ask(tiles: Mapping[str, int]) -> None:
        told.append((tiles, coded(100 * tiles["BV"] + 1000 * abs(tiles["warps"] - 2) + 9000)))

    for _ in range(20):
        choice = choose("it", {"it": kernel}, target, lambda name, rows: tuple(told))
        assert isinstance(choice, Choice)
        first = choice.asks("it")
        wanted = choice.beside("it") if first is None else [first]
        if not wanted:
            break
        for tiles in wanted:
            differing = [name for name in tiles if tiles[name] != choice.own("it", name)]
            assert len(differing) == (first is None), "one step of one variable"
            ask(tiles)
    model = KernelModel(kernel[64], target)
    took = [model.told(said, tiles) for tiles, said in told]
    assert not choice.beside("it") and choice.part("it", "ns") == min(round(one.nanoseconds) for one in took if one)
    assert len(told) < len(list(tile_choices(kernel[64], target))) / 2
    known = looking(kernel, {64: {16: GOOD, 64: GOOD}}, target)
    old = choose("it", {"it": kernel}, target, lambda name, rows: known)
    assert isinstance(old, Choice) and old.asks("it") is None and old.beside("it") == [old.tiles("it")]


def test_sentences_that_say_the_same_of_several_tiles_are_one() -> None:
    several = [f"with C = 32, BV = {width}, warps = 8 nothing hides" for width in (32, 64)]
    said = ["lanes read 32 neighbours", *several]
    assert merged([*said, said[0]]) == [said[0], "with C = 32, warps = 8 and (BV = 32) or (BV = 64) nothing hides"]
    assert merged(said[:2]) == said[:2] and merged([]) == []
    assert merged(["with C = 16 it spills", "with BV = 8 it spills"]) == ["with (C = 16) or (BV = 8) it spills"]
