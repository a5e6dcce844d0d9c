"""What a command loads, how long it takes, and that its output is the same to the byte in every process."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "triton", "sympy", "matplotlib")  # z3 is needed: it chooses the tiles
TIMES = 20  # of the processor time of COUNTING, which takes about a third of a second: a busy machine slows both
COUNTING = "print(sum(i * i for i in range(5_000_000)))"


def python(*words: str, seed: str = "0") -> str:
    """stdout of a fresh interpreter in the repository's root."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return done.stdout


def children() -> float:
    """Processor seconds that finished child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_import_is_light() -> None:
    program = "import sys, seqc; print([m for m in ('numpy', 'lark', 'networkx', 'torch') if m in sys.modules])"
    assert python("-c", program).strip() == "[]"


def test_public_names_are_functions_whatever_is_imported_first() -> None:
    program = "import seqc.api, seqc.cli.main, seqc.check.verify_emitted, seqc; print(all(map(callable, "
    program += "(seqc.compile, seqc.oracle, seqc.explain))), sorted(set(seqc.__all__) - set(dir(seqc))))"
    assert python("-c", program).strip() == "True []"


@pytest.mark.parametrize("spec", ["gla", "lstm"])
def test_compile_loads_nothing_heavy_and_is_quick(spec: str) -> None:
    program = (
        "import sys; from seqc.cli.main import main; "
        f"code = main(['compile', 'specs/{spec}.seq', '-o', '-']); "
        f"print([m for m in {HEAVY} if m in sys.modules], code, file=sys.stderr)"
    )
    start = children()
    python("-c", COUNTING)
    counted = children()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert children() - counted < TIMES * (counted - start)
    assert done.stderr.strip() == "[] 0"


@pytest.mark.parametrize("spec", ["gla", "delta_rule", "lstm"])
def test_output_is_the_same_to_the_byte(spec: str) -> None:
    command = ("-m", "seqc", "compile", f"specs/{spec}.seq", "-o", "-")
    first, second = (python(*command, seed=seed) for seed in ("1", "4711"))
    assert first == second and first.count("\n") > 300


def test_a_bug_of_the_compiler_is_told_with_its_pass() -> None:
    program = (
        "import seqc.driver.pipeline as d; from dataclasses import replace; from seqc.cli.main import main\n"
        "def broken(*_): raise KeyError('lost')\n"
        "d.PIPELINE = tuple(replace(s, run=broken) if s.name == 'simplify' else s for s in d.PIPELINE)\n"
        "raise SystemExit(main(['compile', 'specs/gla.seq', '-o', '-']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3
    assert "seqc itself failed in simplify: KeyError at " in done.stderr and "Please report it" in done.stderr
    assert "Traceback" not in done.stderr
