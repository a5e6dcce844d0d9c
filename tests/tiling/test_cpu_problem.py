"""Panels and rows for CPUs: the solver, enumeration and the C++ that a build runs give one answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from seqc.api import explain
from seqc.backends.native_cpu import loader, native_source
from seqc.backends.native_cpu.processors import PROCESSORS, Processor
from seqc.backends.native_cpu.tiles import processor_text, tile_problem, tiles_text
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.solver.enumerate import solve_by_enumeration
from seqc.solver.problem import Solution
from seqc.solver.solve import solve

ROOT = Path(__file__).parents[2]
SPECS = ("gla", "mamba", "hgrn", "lstm")
EXTENTS = ({"H": 4, "K": 64, "V": 64, "N": 16, "D": 128}, {"H": 1, "K": 33, "V": 300, "N": 17, "D": 1072},
           {"H": 3, "K": 4096, "V": 9, "N": 1, "D": 70000})
# what a processor of each kind tells: lanes of a vector, its registers, its cache
PROGRAM = """
#include <algorithm>
#include <cstdint>
#include <cstdio>
using i64 = std::int64_t;
using real = SEQC_REAL;
constexpr i64 W = VECTOR / sizeof(real);
constexpr i64 quotient(i64 n, i64 by) { return (n + by - 1) / by; }
PROCESSOR
PROBLEMS
int main() { PRINTED }
"""


def problem(spec: str, extents: dict[str, int], processor: Processor, size: int):  # type: ignore[no-untyped-def]
    source = native_source(lower(load(ROOT / "specs" / f"{spec}.seq"), "step"))
    found = tile_problem(source.plan, extents, processor, size)
    assert found is not None
    return source.plan, found


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.name)
@pytest.mark.parametrize("spec", SPECS)
def test_solver_equals_enumeration(spec: str, processor: Processor) -> None:
    for extents in EXTENTS:
        for size in (4, 8):
            _, asked = problem(spec, extents, processor, size)
            answer = solve(asked)
            assert isinstance(answer, Solution), answer
            assert answer == solve_by_enumeration(asked)


@pytest.mark.skipif(loader._native_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.name)
def test_the_build_chooses_the_same(processor: Processor, tmp_path: Path) -> None:
    """All problems in one program, each in a namespace of its own."""
    compiler = loader._native_compiler()
    assert compiler is not None
    problems, printed, wanted = [], [], []
    for number, (spec, extents) in enumerate((spec, extents) for spec in SPECS for extents in EXTENTS):
        plan, asked = problem(spec, extents, processor, 4)
        answer = solve_by_enumeration(asked)
        assert isinstance(answer, Solution)
        variable = asked.variables[0].name
        wanted.append(answer[variable])
        dims = [f"constexpr i64 {v.name} = {v.domain[0]};" for v in asked.variables if v.name.startswith("n_")]
        problems.append("\n".join([f"namespace p{number} {{", *dims, *tiles_text(plan), "}"]))
        printed.append(f'std::printf("%lld\\n", (long long)p{number}::chosen_{variable});')
    text = PROGRAM.replace("PROCESSOR", "\n".join(processor_text())).replace("PROBLEMS", "\n".join(problems))
    source, made = tmp_path / "chosen.cpp", tmp_path / "chosen"
    source.write_text(text.replace("PRINTED", "\n".join(printed)))
    kinds = [f"-U{p.macro}" for p in PROCESSORS if p.macro]
    macros = [f"-D{processor.macro}"] if processor.macro else []
    command = [*compiler[0], "-std=c++17", *kinds, "-DSEQC_REAL=float", f"-DVECTOR={processor.vector}", *macros]
    subprocess.run([*command, str(source), "-o", str(made)], check=True)
    told = subprocess.run([str(made)], capture_output=True, text=True, check=True).stdout
    assert [*map(int, told.split())] == wanted


def test_what_binds_is_told() -> None:
    _, asked = problem("mamba", {"D": 1024, "N": 16}, PROCESSORS[0], 4)
    answer = solve(asked)
    assert isinstance(answer, Solution)
    assert answer["panels"] == 4  # 256 of 1024 channels: 16 KiB of state
    assert [b.sentence for b in answer.binding] == [
        "a panel's part of h fills half of the first-level cache at most, or is one vector wide"
    ]
    _, asked = problem("lstm", {"H": 4, "D": 128}, PROCESSORS[1], 4)
    answer = solve(asked)
    assert isinstance(answer, Solution)
    assert answer["rows"] == 2  # four sums of four rows are more than twelve registers
    assert [b.sentence for b in answer.binding] == ["a sum of every row and matrix has a register"]


def test_explain_tells_the_choice_of_every_processor() -> None:
    mamba = " ".join(explain(ROOT / "specs" / "mamba.seq", "cpu", dims={"D": 1024, "N": 16}).split())
    alike = "x86-64-v4 (AVX-512), x86-64-v3 (AVX2), any other: D in 4 panels of 256 lanes"
    assert f"{alike}; binds: a panel's part of h fills half of the first-level cache" in mamba
    assert "arm64: D in 2 panels of 512 lanes; binds: " in mamba
    lstm = " ".join(explain(ROOT / "specs" / "lstm.seq", "cpu").split())
    assert "x86-64-v3 (AVX2), any other: 2 rows of the batch a block; binds: a sum of every row and matrix has a" in lstm
