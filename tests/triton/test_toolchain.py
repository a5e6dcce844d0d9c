"""The toolchain's verdicts: real compiles for every target, refusals as data, and the table that records them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from seqc.backends.triton_gpu.tuning.kernel_problem import refusal
from seqc.backends.triton_gpu.tuning.quarantine import QUARANTINE, Use, quarantined
from seqc.backends.triton_gpu.tuning.targets import TARGETS, occupancy, target_named
from seqc.backends.triton_gpu.tuning.toolchain import Job, available, judge, refresh
from seqc.backends.triton_gpu.tuning.toolchain_worker import overwritten
from seqc.backends.triton_gpu.tuning.verdicts import Configuration, Verdict, VerdictTable, digest, family, key

GOLDEN = Path(__file__).parents[1] / "golden"
SOURCE = '''
import triton
import triton.language as tl


@triton.jit
def product_kernel(p_x, p_y, T, C: tl.constexpr, K: tl.constexpr):
    """Sums x x^T over T tiles."""
    o_c, o_k = tl.arange(0, C), tl.arange(0, K)
    b_y = tl.zeros((C, C), tl.float32)
    for i_t in range(T):  # one tile
        b_x = tl.load(p_x + i_t * C * K + o_c[:, None] * K + o_k[None, :])
        b_y += tl.dot(b_x, tl.trans(b_x))
    tl.store(p_y + o_c[:, None] * C + o_c[None, :], b_y)
'''


def _job(
    target: str, side: int = 64, width: int = 64, kernel: str = "product_kernel", warps: int = 4, stages: int = 2
) -> Job:
    signature = (("p_x", "*bf16"), ("p_y", "*fp32"), ("T", "i32"))
    return Job(SOURCE, kernel, target, Configuration(signature, (("C", side), ("K", width)), warps, stages))


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_every_target_answers() -> None:
    jobs = [_job(target) for target in TARGETS]
    for job, verdict in zip(jobs, judge(jobs), strict=True):
        target = target_named(job.target)
        assert verdict.error is None and verdict.fits, verdict
        assert 16 < verdict.registers <= target.registers_per_thread
        assert 0 < verdict.shared <= target.shared_per_program
        assert verdict.count("matrix") > 0 and verdict.count("all") > 50
        assert (verdict.tensor_memory > 0) == (job.target == "sm_100")
        assert occupancy(target, verdict.registers, verdict.shared, 4, verdict.tensor_memory).programs > 0


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_loads_ahead_of_their_turn_are_counted() -> None:
    """Stages are worth their name where the machine code copies without waiting: in an innermost loop, for a product."""
    loop = "    for i_t in range(T):"
    nested = SOURCE.replace(loop, f"{loop}\n        for _ in range(3):\n            b_y += 1.0")
    jobs = [_job("sm_90"), _job("sm_90", stages=1), replace(_job("sm_90"), source=nested)]
    ahead, one, outer = judge(jobs)
    assert ahead.prefetches and one.prefetches is False and outer.prefetches is False
    assert Verdict(96, 0, 1024, 0, (("all", 10),), "an older table").prefetches is None
    refused = refusal(outer, {"C": 64, "warps": 4, "stages": 2}, target_named("sm_90"))
    assert refused is not None and refused.by_stages and "stages hide nothing" in refused.sentence
    assert refusal(ahead, {"C": 64, "warps": 4, "stages": 2}, target_named("sm_90")) is None
    assert refusal(one, {"C": 64, "warps": 4, "stages": 1}, target_named("sm_90")) is None


def _machine_code(*lines: str) -> str:
    return "".join(f"        /*{16 * i:04x}*/                   {line} ;        /* 0x0 */\n" for i, line in enumerate(lines))


def test_operands_of_asynchronous_products_stay_until_these_end() -> None:
    """R4 to R7 are the left operand of a wgmma until a wait leaves no group under way that was begun with it or before."""
    product = "HGMMA.64x32x16.F32.BF16 R24, R4, gdesc[UR4].tnspB, R24, gsb0"
    wait, kept = "WARPGROUP.DEPBAR.LE gsb0, 0x0", "WARPGROUP.DEPBAR.LE gsb0, 0x1"
    assert overwritten(_machine_code("MOV R4, R8", product, "FMUL R8, R4, R4", "STS [R4], R7", wait, "MOV R4, R8")) == 0
    assert overwritten(_machine_code(product, "@!P1 FMUL R6, R9, R9", wait)) == 1
    assert overwritten(_machine_code(product, "LDS.128 R0, [R40]", "LDS.64 R2, [R40]", wait)) == 0
    assert overwritten(_machine_code(product, "LDS.128 R1, [R40]", wait)) == 1
    assert overwritten(_machine_code(product, product.replace("R4,", "R12,"), kept, "MOV R4, R8", "MOV R12, R8", wait)) == 1
    assert overwritten(_machine_code(product.replace(" R4,", " gdesc[UR8],"), "MOV R4, R8", wait)) == 0
    assert overwritten(_machine_code(product, "HGMMA.64x16x16.F32.BF16 R0, gdesc[UR8], gdesc[UR4], R0, gsb0", wait)) == 1


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_refusals_are_data() -> None:
    """A kernel that Triton refuses, an absent one, one that spills; the good one after them still answers."""
    jobs = [
        _job("sm_90", side=48),
        _job("sm_90", kernel="no_such_kernel"),
        _job("sm_80", side=128, warps=1, stages=1),
        _job("sm_90"),
    ]
    done: list[tuple[int, int]] = []
    refused, absent, spilled, good = judge(jobs, progress=lambda at, end: done.append((at, end)))
    assert refused.error is not None and "power of 2" in refused.error
    assert absent.error is not None and "no_such_kernel" in absent.error
    assert spilled.error is None and spilled.spills > 0 and not spilled.fits
    assert dict(spilled.counts)["spill"] > 0
    assert good.fits
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_refresh_asks_only_for_what_is_missing() -> None:
    job = _job("sm_90")
    known = Verdict(1, 2, 3, 0, (), "by hand")
    table = VerdictTable({job.key: known})
    assert refresh([job], table)[job.key] == known
    assert refresh([job], table, again=True)[job.key].registers > 16


def test_table_round_trip(tmp_path: Path) -> None:
    job, other = _job("sm_90"), _job("sm_90", stages=3)
    verdict = Verdict(96, 0, 1024, 0, (("all", 10), ("matrix", 2)), "triton 3.9.0")
    table = VerdictTable().with_verdicts([(job.key, verdict), (other.key, replace(verdict, spills=8, error="no"))])
    table.save(tmp_path / "table.json")
    again = VerdictTable.load(tmp_path / "table.json")
    assert again.get(job.key) == verdict and again.knows(family(SOURCE, "product_kernel", "sm_90"))
    assert again[other.key].error == "no" and not again[other.key].fits
    assert again.get(key(SOURCE, "product_kernel", "sm_80", job.configuration)) is None
    assert not again.knows(family(SOURCE, "product_kernel", "sm_80"))
    assert "C 64, K 64, 4 warps, 2 stages" in job.key
    assert len(again.only([job.key])) == 1 and len(VerdictTable.load(tmp_path / "absent.json")) == 0
    first = (tmp_path / "table.json").read_text()
    again.save(tmp_path / "table.json")
    assert (tmp_path / "table.json").read_text() == first


def test_tables_grow_beside_each_other(tmp_path: Path) -> None:
    """Four processes add thirty records each to one table, one at a time; one of them drops what stood there before."""
    path = tmp_path / "table.json"
    said = Verdict(1, 0, 0, 0, (), "by hand")
    VerdictTable({"k old sm_90: x": said}).save(path)
    code = (
        "import sys; from pathlib import Path; from seqc.backends.triton_gpu.tuning.verdicts import Verdict, VerdictTable\n"
        "who, said = sys.argv[1], Verdict(1, 0, 0, 0, (), 'by hand')\n"
        "old = ['k old sm_90: x'][int(who):]\n"
        "for i in range(30): VerdictTable.change(Path(sys.argv[2]), [(f'k {who} sm_90: {i}', said)], old)"
    )
    many = [subprocess.Popen([sys.executable, "-c", code, str(who), str(path)]) for who in range(4)]
    assert [one.wait() for one in many] == [0] * 4
    assert set(VerdictTable.load(path)) == {f"k {who} sm_90: {i}" for who in range(4) for i in range(30)}
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"], "no lock is left"


def test_records_of_another_text_are_told_from_none() -> None:
    """At the extents of a kernel: a text that is known at others says nothing."""
    job, wider, said = _job("sm_90"), _job("sm_90", width=128), Verdict(1, 2, 3, 0, (), "by hand")
    other = replace(job, source=job.source.replace("import triton\n", "import triton\nX = 1\n", 1))
    now, then = (family(one.source, one.kernel, one.target) for one in (job, other))
    assert now != then
    table = VerdictTable({other.key: said, wider.key: said})
    assert table.before(now, {"K": 64}) == {job.configuration.tiles: said}
    assert not table.before(then, {"K": 64}) and not table.before(now, {"K": 128}) and not table.before(now, {"K": 32})
    assert not VerdictTable().before(now, {"K": 64})


def test_digest_is_blind_to_comments_but_not_to_code() -> None:
    assert digest(SOURCE) == digest(SOURCE.replace("  # one tile", "").replace("Sums x x^T", "Adds up x x^T"))
    assert digest(SOURCE) == digest(
        SOURCE.replace("tl.dot(b_x, tl.trans(b_x))", "tl.dot(\n            b_x, tl.trans(b_x)\n        )")
    )
    assert digest(SOURCE) != digest(SOURCE.replace("b_y +=", "b_y -="))
    assert digest("if a:\n    b\nc\n") != digest("if a:\n    b\n    c\n")
    assert digest("f('a')\n") != digest("f('b')\n")


def test_occupancy() -> None:
    hopper = target_named("sm_90")
    assert occupancy(hopper, 128, 48 * 1024, 4).programs == 4
    assert occupancy(hopper, 168, 48 * 1024, 4).limit == "registers"
    assert occupancy(hopper, 32, 100 * 1024, 4) == occupancy(hopper, 33, 100 * 1024, 4)
    assert occupancy(hopper, 32, 100 * 1024, 4).limit == "shared memory"
    assert occupancy(hopper, 300, 0, 4).programs == 0 and occupancy(hopper, 32, 240 * 1024, 4).programs == 0
    assert occupancy(target_named("sm_100"), 32, 0, 4, tensor_memory=256).programs == 2
    assert occupancy(target_named("gfx942"), 128, 16 * 1024, 4).programs == 4
    with pytest.raises(KeyError, match="known: sm_80, sm_90, sm_100, gfx942"):
        target_named("sm_10")


def test_quarantine() -> None:
    chunk = Use("sm_100", warps=4, stages=2, carries_state=True)
    assert [entry.remedy for entry in quarantined(chunk)] == ["one stage, or two warps"]
    assert not list(quarantined(replace(chunk, stages=1))) and not list(quarantined(replace(chunk, target="sm_80")))
    assert not list(quarantined(chunk, version=(3, 8, 0))) and list(quarantined(chunk, version=(3, 7, 1)))
    assert list(quarantined(Use("sm_90", warps=8, stages=1, carries_state=True)))
    wide = Use("sm_90", warps=4, stages=1, carries_state=False, columns=frozenset({16, 32}))
    assert list(quarantined(wide)) and list(quarantined(wide, version=(3, 7, 1)))
    assert not list(quarantined(wide, version=(3, 8, 0))) and not list(quarantined(replace(wide, columns=frozenset({64}))))
    turned = Use("sm_90", warps=4, stages=1, carries_state=True, turned_rows=64)
    assert list(quarantined(turned)) and not list(quarantined(turned, version=(3, 7, 1)))
    assert not list(quarantined(replace(turned, warps=2))) and not list(quarantined(replace(turned, turned_rows=32)))
    assert all(entry.remedy and entry.source and set(entry.targets) <= set(TARGETS) for entry in QUARANTINE)


def test_what_a_kernel_knows_as_it_compiles_is_plain_arithmetic() -> None:
    """Triton 3.6 makes a tensor of what a function answers, `tl.cdiv` too: a product of constants with it does not compile."""
    texts = [path.read_text() for path in GOLDEN.glob("*_triton.py")]
    assert texts and any(": tl.constexpr = (" in text for text in texts)
    assert not any(": tl.constexpr = tl." in text for text in texts)
