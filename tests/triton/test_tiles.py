"""The solver's rows and tiles of real kernels: within what the roles allow, told why, bound by wishes and by verdicts."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seqc.analysis.workload import TILES, Workload
from seqc.backends.triton_gpu.emit import triton_kernels
from seqc.backends.triton_gpu.extents import Tiles
from seqc.backends.triton_gpu.kernel import Fetch, walk
from seqc.backends.triton_gpu.print_kernel import print_kernel
from seqc.backends.triton_gpu.report.figures import pruned
from seqc.backends.triton_gpu.roles import assign_roles
from seqc.backends.triton_gpu.schedule import prepared, schedule
from seqc.backends.triton_gpu.tuning.choose import choose
from seqc.backends.triton_gpu.tuning.jobs import Jobs
from seqc.backends.triton_gpu.tuning.kernel_summary import Tile
from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.pacing import pacing
from seqc.backends.triton_gpu.tuning.summary import summarize
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.tiles import Chosen, choose_tiles
from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Options, compile_program
from seqc.driver.explain.gpu_costs import Shape, costs
from seqc.driver.pipeline import lower, lowerings
from seqc.frontend.elaborate import load
from seqc.ir.graph import topological
from seqc.solver.problem import Clash

SPECS = Path(__file__).parents[2] / "specs"
SIZES = {"H": 8, "K": 64, "V": 64, "D": 64, "N": 16}
SPILL = Verdict(255, 64, 1024, 0, (("spill", 20),), "a toolchain")


EMPTY = VerdictTable()
PARTS = ("wait for each other", "shared memory of a unit")


def chosen(
    text: Path | str, target: str = "sm_90", table: VerdictTable = EMPTY, workload: Workload | None = None, **sizes: int
) -> Chosen:
    return choose_tiles([Lowered(block, SIZES | sizes, "bf16") for block in lowerings(load(text))], target, table, workload)


@pytest.mark.parametrize("target", ["sm_90", *(pytest.param(name, marks=pytest.mark.long) for name in ("sm_80", "gfx942"))])
@pytest.mark.parametrize("spec", ["gla", "mamba", "lstm"])
def test_tiles_of_every_kernel(spec: str, target: str) -> None:
    found = chosen(SPECS / f"{spec}.seq", target)
    plan = schedule(found.block)
    assert tuple(found.tiles) == plan.kernels and all(one.why for one in found.kernels.values())
    for name, tiles in found.tiles.items():
        assert set(tiles.blocks) == set(plan.of(name).roles.blocked)
        assert all(size & (size - 1) == 0 and size >= 16 for size in tiles.blocks.values())
        assert tiles.warps in (1, 2, 4, 8) and tiles.stages in (1, 2, 3)
    again = chosen(SPECS / f"{spec}.seq", target)
    assert again.tiles == found.tiles and again.block.rows == found.block.rows and again.trained == found.trained


def test_rows_are_those_of_least_time_of_forward_and_backward() -> None:
    found = chosen(SPECS / "retention.seq")
    assert found.block.rows in (16, 32, 64)
    for rows in {16, 32, 64} - {found.block.rows}:
        lowered = Lowered(lower(load(SPECS / "retention.seq"), rows=rows), SIZES, "bf16")
        other = choose_tiles([lowered], "sm_90", EMPTY)
        spills = any(name in one.choice.spilling for name, one in other.kernels.items())
        assert spills or other.trained >= found.trained
        assert f"{other.trained / 1000:.0f} us" in found.others()[rows]


def test_other_rows_are_asked_about_at_the_tiles_of_those_chosen() -> None:
    """The model knows rows least: what it takes for their best tiles may be far from it, and those chosen have been tried."""
    found = chosen(SPECS / "retention.seq")
    elsewhere = [job for job in found.beside() if dict(job.configuration.constants)["BT"] != found.block.rows]
    assert elsewhere
    for job in elsewhere:
        one = next(one for name, one in found.kernels.items() if job.kernel == f"retention_{name}_kernel")
        mine, told = (dict(x.configuration.constants) for x in (one.job, job))
        assert told == mine | {"BT": told["BT"]} and job.configuration.warps == one.tiles.warps


def test_phases_cut_dims_alike_only_where_they_hand_on_parts() -> None:
    """The states' kernel and that of outputs each have tiles of their own; not where one leaves parts of what others read."""
    plan = schedule(lower(load(SPECS / "retention.seq")))
    assert plan.alike(("states", "outputs")) == (("states",), ("outputs",))
    scan = schedule(lower(load(SPECS / "longhorn.seq"), form="scan"))
    way = scan.way("backward", "cotangents")
    assert scan.in_parts(way) and scan.alike(way) == (way,)


def test_the_spec_limits_rows_and_tiles() -> None:
    text = (SPECS / "retention.seq").read_text()
    found = chosen(text + "\nschedule chunk {16}\ntile V {32}\n")
    assert found.block.rows == 16 and all(t.blocks.get("V", 32) == 32 for t in found.tiles.values())


def test_wishes_that_clash_with_the_target_are_told() -> None:
    text = (SPECS / "retention.seq").read_text()
    with pytest.raises(Unsupported) as refused:
        chosen(text + "\ntile V {8}\n")
    told = refused.value.render()
    assert "the spec's `tile V {8}` allows at most 8, and a matrix product takes at least 16" in " ".join(told.split())
    with pytest.raises(Unsupported) as refused:
        chosen(text + "\nschedule chunk {128}\ntile V {64}\n", "gfx942")
    told = " ".join(refused.value.render().split())
    assert "a smaller dim may help, as `--dim " in told and "other sizes in `schedule` or `tile`" in told
    assert "65536 bytes of shared memory" in told and "`schedule chunk {128}` allows no other rows" in told
    with pytest.raises(Unsupported, match="asks for blocks whose values a program cannot hold"):
        chosen(text + "\nschedule chunk {512}\n")


def test_spills_have_a_price() -> None:
    """What the toolchain says of the best tiles makes them dearer, by how much they spill; rows stay those of least time."""
    free = chosen(SPECS / "retention.seq", workload=TILES)
    key = free.kernels["cotangents"].job.key
    many = replace(SPILL, spills=20_000, counts=(("spill", 10_000),))
    tables = (VerdictTable({key: said}) for said in (SPILL, many))
    few, found = (chosen(SPECS / "retention.seq", table=table, workload=TILES) for table in tables)
    assert free.trained < few.trained < found.trained
    for one in (few, found):
        assert all(float(text.partition(" us")[0]) * 1000 >= one.trained for text in one.others().values())


def test_a_turned_result_is_seen() -> None:
    """The gradient of the delta rule multiplies by transposed results: on Hopper four warps may take 32 rows of them."""
    found = chosen(SPECS / "delta_rule.seq")
    turned = {name: [dot for dot in one.summary.dots if dot.turned] for name, one in found.kernels.items()}
    assert any(turned.values())
    for name, dots in turned.items():
        lengths = {dim.name: dim.size for dim in found.kernels[name].summary.dims} | found.tiles[name].blocks
        assert found.tiles[name].warps <= 2 or all(lengths[dot.m[0]] < 64 for dot in dots)


def test_a_transposed_inverse_is_seen() -> None:
    """A triangular inverse has the layout of the product that it is made of."""
    block = lower(load(SPECS / "delta_rule.seq"), "chunkwise", 64)
    plan, made = schedule(block), prepared(block, block, assign_roles(block))
    printed = print_kernel(plan, made.backward_kernel("backward"))  # no kernel of the plan has it that computes it
    left = re.findall(r"(\w+) = tl\.dot\((?:tl\.trans\(b_inverse|b_rename_inverse)", printed.text)
    assert len(left) == 1 and [*printed.turned.values()] == ["s"]
    assert all("tri_inv" in {x.op for x in topological(n.args)} for n in printed.turned)
    dots = [dot for dot in summarize(plan, printed, SIZES, "bf16").dots if dot.turned]
    assert {dot.m for dot in dots} == {("s",)}


@pytest.mark.parametrize(("spec", "form"), [("hgrn", "scan"), ("mamba", "step"), ("lstm", "step"), ("gla", "chunkwise")])
def test_loops_whose_loads_feed_no_product_say_how_far_ahead_they_are_sent(spec: str, form: str) -> None:
    plan = schedule(lower(load(SPECS / f"{spec}.seq"), form, 16 if form != "step" else None))
    for name in (*plan.ways["infer"][0], "forward", *plan.ways["backward"][0][:1]):
        printed = print_kernel(plan, plan.kernel(name))
        inner = re.findall(r"for i_[nt] in tl\.range\(.*num_stages=STAGES\):", printed.text)
        ahead = spec == "mamba"  # loaded two steps ahead, in no stages
        assert any(isinstance(item, Fetch) for item in walk(printed.kernel.body)) == ahead
        unrolled = re.findall(r"for (i_\w) in .*loop_unroll_factor=2", printed.text)
        assert set(unrolled) == ({"i_t"} if ahead else set())  # and no loop around it
        assert bool(inner) == (form != "chunkwise" and not ahead) == ("STAGES: tl.constexpr" in printed.text), printed.text
        jobs = Jobs(plan, printed, "sm_90", {**SIZES, "P": 64}, "bf16")
        constants = dict(jobs.job(Tiles(dict.fromkeys(plan.roles.blocked, 32), 4, 3)).configuration.constants)
        assert constants.get("STAGES") == (3 if inner else None)


def test_stale_records_are_dropped_and_others_kept() -> None:
    """What stays: any text that rows at these extents have, other kernels, other targets, and other extents."""
    lowered = [Lowered(block, SIZES, "bf16") for block in lowerings(load(SPECS / "linear_attention.seq"))]
    texts = [{one.kernel(name)[0].text for one in lowered} for name in lowered[0].plan.kernels]
    assert max(map(len, texts)) > 1, "rows differ in their texts"
    keys = {jobs.job(Tiles({"K": 16, "V": 16, "N": 16}, 4, 1)).key for one in lowered for jobs in one.every("sm_90")}
    name, digest, rest = min(keys).split(" ", 2)
    stale, other = f"{name} {'0' * 16} {rest}", f"another_kernel {digest} {rest}"
    elsewhere, wider = min(keys).replace("sm_90", "sm_80"), stale.replace("K 64", "K 256")
    assert stale != wider
    table = VerdictTable(dict.fromkeys([*keys, stale, other, elsewhere, wider], SPILL))
    fresh = [Lowered(one.block, SIZES, "bf16") for one in lowered]
    assert set(pruned(table, [(fresh, "sm_90")])) == {*keys, other, elsewhere, wider}, "whatever has been asked about"


def test_matrices_that_stay_on_the_chip_from_step_to_step_are_counted() -> None:
    """Four matrices of 128 x 128 take 128 KiB of the 227 that a program has. Of 768 x 768 several programs share them out for
    each head, all of which run at once, each with 16 units; of 4096 x 4096 none has room for its part."""
    small, large = (chosen(SPECS / "lstm.seq", H=1, D=size) for size in (128, 768))
    assert [one.name for one in small.kernels.values()] == ["forward", "infer", "backward"]
    assert [one.name for one in large.kernels.values()] == ["team_forward", "team_infer", "team_backward"]
    for one in large.kernels.values():
        assert one.tiles.blocks["D"] == 16 and one.tiles.warps == 4 and one.summary.meets == 1
        assert 132 * one.choice.own(one.name, "resident") >= 768 // 16, "the programs of a head run at once"
    assert "triton" in compile_program(load(SPECS / "lstm.seq"), Options(dims={"D": 768})).blocks
    none = compile_program(load(SPECS / "lstm.seq"), Options(dims={"D": 4096}))
    assert set(none.blocks) == {"torch", "cpu"} and "no tiles" in none.missing["triton"]
    with pytest.raises(Unsupported, match="shared memory"):
        compile_program(load(SPECS / "lstm.seq"), Options("triton", dims={"D": 4096}))


def test_programs_that_wait_for_each_other_run_at_once() -> None:
    """A head of 2,048 units takes 128 programs: half as many multiprocessors, with room for one on each, do not run them."""
    lowered = [Lowered(block, {"H": 1, "D": 2048}, "bf16") for block in lowerings(load(SPECS / "rnn.seq"))]
    assert choose_tiles(lowered, "sm_90", EMPTY).kernels["forward"].name == "team_forward"
    summary = lowered[0].kernel("team_forward")[1]
    for units, runs in ((64, False), (128, True)):
        machine = replace(target_named("sm_90"), units=units, shared_per_unit=target_named("sm_90").shared_per_program + 1024)
        only = replace(summary, scratch=(*summary.scratch, Tile((), 60 * 1024)))  # no second program fits
        found = choose("forward", {"forward": {1: only}}, machine, lambda kernel, rows: ())
        assert isinstance(found, Clash) != runs, found
        if isinstance(found, Clash):
            assert all(any(part in sentence for sentence in found.sentences) for part in PARTS), found


def test_a_value_that_is_made_in_two_places_is_counted() -> None:
    found = chosen(SPECS / "momentum_delta_rule.seq")
    assert tuple(found.tiles) == schedule(found.block).kernels


def test_one_rule_says_when_blocks_run_in_parallel() -> None:
    """The launcher's text and the report's function agree; few programs and many blocks take phases, many take one kernel."""
    found = chosen(SPECS / "delta_rule.seq")
    rule = pacing(found)
    device = SimpleNamespace(multi_processor_count=132)
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_properties=lambda _: device))
    made: dict[str, Any] = {"torch": torch}
    exec(f"{rule.text(found.plan.ways)}\n{rule.function}", made)
    x = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    said = {}
    for kernel, programs, blocks in product(("forward", "infer"), (8, 128, 300, 4000), (1, 2, 8, 64, 512)):
        ways = [dict.fromkeys(way, programs) for way in found.plan.ways[kernel]]
        at = said[kernel, programs, blocks] = rule.way(blocks, 132, ways)
        assert made["_way"](made["_PACE"], x, blocks, *ways) == at
    for kernel in ("forward", "infer"):
        assert said[kernel, 8, 512] and not said[kernel, 4000, 1]


def test_what_passes_through_pieces_of_a_dim_is_moved_once() -> None:
    """A kernel that goes through V, 256 long, in pieces of 128, moves inputs, states and gradients once each."""
    shape = Shape(2, 2048, 4, 256)
    (found,) = costs(load(SPECS / "simple_gla.seq"), "sm_90", [shape], {}, EMPTY)
    (kernel,) = (one for one in found.training if "gradients_K" in one.kernel)
    tokens, elements = shape.batch * shape.steps * shape.heads, shape.width**2
    vectors = 2 * shape.width * 6 * tokens  # q, k, v, the cotangent of o; the gradients of q and k
    states = 2 * elements * 2 * tokens // found.rows
    assert vectors + states <= kernel.bytes <= 1.02 * (vectors + states)


def test_a_comment_brings_no_primitive() -> None:
    """A file has the primitives that its kernels call, whatever the lines of the spec beside them name."""
    text = triton_kernels(lower(load(SPECS.parent / "tests" / "recurrences" / "conv.seq"))).alone
    assert "# u = silu(" in text and "def silu(" not in text and "def sigmoid(" in text
