"""What machine code says of how often a program runs what, and what the model of a multiprocessor makes of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gpu import code_table, scan_bounds
from benchmarks.gpu.peer_code import usual
from seqc.backends.triton_gpu.report import peer_kernels
from seqc.backends.triton_gpu.tuning.machine_code import CHAIN, MISS, Text, matched, trips, turns
from seqc.backends.triton_gpu.tuning.multiprocessor import BARRIER, MEMORY, OVERLAP, Code, spent
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.toolchain import available, judge
from seqc.frontend.elaborate import load
from seqc.frontend.sources import shipped
from tests.triton.test_toolchain import _job, _machine_code

IR = """
    %c-1_i32 = arith.constant -1 : i32
    %c0_i32 = arith.constant 0 : i32
    %c1_i32 = arith.constant 1 : i32
    %c4_i32 = arith.constant 4 : i32
    %c63_i32 = arith.constant 63 : i32
    %c64_i32 = arith.constant 64 : i32
    %pid = tt.get_program_id y : i32
    %go = arith.cmpi sge, %pid, %c4_i32 : i32
    cf.cond_br %go, ^bb1, ^bb2
  ^bb1:  // pred: ^bb0
    tt.return
  ^bb2:  // pred: ^bb0
    %1 = arith.addi %T, %c63_i32 : i32
    %2 = arith.divsi %1, %c64_i32 : i32
    %x = tt.splat %2 : i32 -> tensor<64xi32>
    %3 = arith.subi %2, %c1_i32 : i32
    %o = scf.for %i = %c-1_i32 to %3 step %c1_i32 iter_args(%b = %cst) -> (tensor<16x16xf32>)  : i32 {
      %p = scf.for %j = %c0_i32 to %pid step %c1_i32 iter_args(%d = %cst) -> (tensor<16x16xf32>)  : i32 {
"""


def test_loops_run_as_often_as_the_ir_says() -> None:
    """A loop that goes backwards over blocks of 64 steps, and one whose length is the program's number."""
    assert trips(IR, {"T": 640, ".y": 3}) == [10.0, 3.0]
    assert trips(IR, {"T": 577}) == [10.0, 0.0]
    assert trips(IR, {}) == [1.0, 0.0], "what depends on nothing known runs once"
    assert trips(IR, {"T": 640, ".y": 4}) is None, "such a program leaves"


SASS = _machine_code(
    "LDG.E.128 R4, desc[UR4][R2.64]",  # 0000
    "SHFL.BFLY PT, R8, R4, 0x1, 0x1f",  # 0010
    "LDS.64 R8, [R40]",  # 0020, the inner loop
    "@P1 BRA 0x20",  # 0030
    "HMMA.16816.F32.BF16 R8, R4, R6, R8",  # 0040
    "@P0 BRA 0x10",  # 0050
    "HGMMA.64x128x16.F32.BF16 R24, R4, gdesc[UR4], R24, gsb0",  # 0060
    "NOP",
    "BRA 0x80",  # 0080: what follows the end of a kernel
)


def test_what_a_warp_runs_is_counted_by_its_loops() -> None:
    run = Text(SASS).executed(IR, {"T": 640, ".y": 3})
    assert run["issue"] == 1 + 10 * (1 + 3 * 2 + 2) + 2
    assert run["shuffle"] == 10 and run["lsu"] == 4 + 10 * (1 + 3 * 2)
    assert run["mma"] == 10 * 4 and run["wgmma"] == 64 * 128 * 16 / 2048
    assert run["wait"] == 1 and run["bytes"] == 32 * 16
    told = turns(SASS, IR, ["T"])
    assert told["shuffle"] == (1.0, 0.0) and told["wgmma"] == (0.0, 64.0) and told["bytes"] == (0.0, 512.0)


@pytest.mark.parametrize(("between", "waits"), [(10, 1.0), (158, 0.5), (400, 0.0)])
def test_a_load_is_waited_for_less_where_its_value_is_taken_later(between: int, waits: float) -> None:
    """A loop that takes at its top what its last turn has loaded below, so many instructions before."""
    text = ("MOV R8, R4", "LDG.E.64 R4, desc[UR4][R2.64]", *["FADD R9, R9, R9"] * between, "@P0 BRA 0x0")
    run = Text(_machine_code(*text)).executed(IR, {"T": 64})
    assert run["wait"] == pytest.approx(waits, abs=0.01)
    used = Text(_machine_code("LDG.E.64 R4, desc[UR4][R2.64]", "FADD R9, R9, R5", *["FADD R9, R9, R9"] * 400, "@P0 BRA 0x0"))
    assert used.executed(IR, {"T": 64})["wait"] == 1, "the second of the registers that it fills is taken at once"


def test_loops_that_were_unrolled_or_split() -> None:
    loops = Text(SASS).loops
    assert [one.holds(0x20) for one in loops] == [True, True]
    assert matched(loops[:1], [10.0, 4.0]) == [10.0], "the shorter one was unrolled"
    assert matched(loops, [10.0]) == [10.0, 1.0], "the longer text is the loop of the IR"


def test_time_is_that_of_the_most_loaded_part() -> None:
    """By hand: two programs on each unit of four warps, 120 registers and no shared memory."""
    target = target_named("sm_90")
    run = {"issue": 1000.0, "lsu": 900.0, "mma": 100.0, "special": 10.0, "half": 100.0}
    code = Code(120, 0, 4, {kind: (0.0, n) for kind, n in run.items()})
    both = 2 * target.units
    took = spent(code, target, both, 0, 1000)
    assert took.resident == 4 and took.units == pytest.approx(OVERLAP * 2 * 900 * 4 / (target.clock_mhz / 1000))
    assert took.bound == "load/store" and took.nanoseconds == took.units
    waiting = code.work | {"lsu": (0.0, 10.0), "barrier": (0.0, 50.0), "wait": (0.0, 2.0)}
    alone = spent(replace(code, work=waiting), target, 1, 0, 0)
    assert alone.units == pytest.approx((CHAIN * 1000 + 50 * BARRIER + 2 * MISS) / (target.clock_mhz / 1000))
    much = spent(code, target, both, 0, 10**12)
    assert much.bound == "memory" and much.nanoseconds == pytest.approx(10**12 / (MEMORY * target.bytes_per_ns))


def test_a_walk_takes_as_long_as_its_sequence_and_waves_are_counted() -> None:
    target = target_named("sm_90")
    code = Code(255, 0, 4, {"issue": (500.0, 100.0)})
    first, twice = (spent(code, target, 10, steps, 0).nanoseconds for steps in (64 * 10, 64 * 20))
    assert twice - first == pytest.approx(10 * 500 * CHAIN / (target.clock_mhz / 1000))
    full, more = (spent(code, target, n, 640, 0).nanoseconds for n in (2 * target.units, 2 * target.units + 1))
    assert more > 1.4 * full, "one program more is one wave more"


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_waits_for_others_and_for_loads_are_at_once() -> None:
    """A step that meets waits for as long as the meeting or its own loads take, whichever is longer, and not for both."""
    target = target_named("sm_90")
    loads = 2 * 1000 * MISS / target.clock_mhz  # nanoseconds of two that nothing sent ahead, for each of 64 steps
    code = Code(64, 1024, 4, {"issue": (64.0, 0.0), "wait": (128.0, 0.0)})
    alone, short, longer = (spent(code, target, 1, 640, 0, 640 * w).nanoseconds for w in (0, loads - 100, loads + 100))
    assert alone == short and longer == pytest.approx(alone + 640 * 100)


def test_the_toolchain_tells_what_a_turn_runs() -> None:
    """A loop over T tiles of 64 x 64: a turn for every 64 steps has a product of 64 x 64 x 64, however many there are."""
    (said,) = judge([_job("sm_90", stages=1)])
    work = {kind: (each, once) for kind, each, once in said.work}
    assert work["wgmma"][0] == 64 * 64 * 64 * 64 / 2048, "T counts tiles here: 64 of them in 64 steps"
    assert work["wgmma"][1] == 0 and work["issue"][0] > 64 * 20 and work["barrier"][0] >= 64


def test_the_table_of_others_is_priced_by_the_same_model() -> None:
    target = target_named("sm_90")
    call = peer_kernels.peer_call("gla", "B1 T8192 H96 D128", target)
    assert call is not None and call.launches(True) > call.launches(False) > 3
    assert 1e6 < call.nanoseconds(False) < 4e6 and call.nanoseconds(True) > 2 * call.nanoseconds(False)
    (states,) = (one for one in call.of(False) if one.name == "chunk_fwd_kernel_h")
    assert states.spent is not None and states.data["work"]["wgmma"] > 0
    assert peer_kernels.peer_call("lstm", "B1 T8192 H96 D128", target) is None


def test_configurations_near_the_usual_one_are_tried_first() -> None:
    listed = [
        {"BK": block, "num_warps": warps, "num_stages": stages}
        for block in (32, 64, 128) for warps in (1, 4, 8) for stages in (2, 3)
    ]  # fmt: skip
    first, *others = usual(listed, 4)
    assert first == {"BK": 64, "num_warps": 4, "num_stages": 3} and len(others) == 3
    assert all(one["num_stages"] == 3 for one in others), "of those that differ in stages alone, one"

def test_published_times_stand_beside_modelled_ones() -> None:
    found = list(code_table.fitted())
    assert len(found) >= 6 and all(0.5 < modelled / published < 2 for *_, published, modelled in found)
    assert code_table.fit_text().count("\n| ") == len(found) + 1


@pytest.mark.parametrize("spec", [*code_table.SPECS, *(pytest.param(one, marks=pytest.mark.long) for one in code_table.WALKS)])
def test_the_page_names_the_verdicts_that_are_of_another_text(spec: str) -> None:
    """Where this fails, `python -m benchmarks.gpu.code_table` writes the page anew, after `--refresh` from new verdicts."""
    page = " ".join(code_table.PAGE.read_text(encoding="utf-8").split())
    named = page.split("Verdicts of another text than is emitted today: ")[1].split(". ## ")[0].split(", ")
    found = code_table.outdated(target_named("sm_90"), [spec])
    assert [one for one in named if one.startswith(f"{spec}_")] == ([] if found == "none" else found.split(", "))


def test_scans_stand_beside_what_memory_and_special_functions_allow() -> None:
    """By hand: u, z, delta and y of 4,096 channels, B and C of 16, in bf16; one exponential an element of the state, a channel
    one special function for its gate and one for its step size."""
    target = target_named("sm_90")
    program = load(shipped()["mamba"])
    memory, special = scan_bounds.bounds(program, {"D": 4096, "N": 16}, target)
    assert memory == pytest.approx(2 * 8 * 2048 * (4 * 4096 + 2 * 16) / target.bytes_per_ns)
    functions = 8 * 2048 * (4096 * 16 + 2 * 4096)
    assert special == pytest.approx(functions / (16 * target.units * target.clock_mhz / 1000))
