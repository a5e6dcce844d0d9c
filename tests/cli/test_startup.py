"""What a command loads, how long it takes, and that its output is the same to the byte in every process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "triton", "z3", "networkx", "sympy", "matplotlib")
MOST_CALLS = {"gla": 3_300_000, "lstm": 1_080_000}  # a fifth above what they are where the parser has no tables yet


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


def test_import_is_light() -> None:
    program = "import sys, seqc; print([m for m in ('numpy', 'lark', 'networkx', 'torch') if m in sys.modules])"
    assert python("-c", program).strip() == "[]"


def test_public_names_are_functions_whatever_is_imported_first() -> None:
    program = "import seqc.api, seqc.cli.main, seqc.check.verify_emitted, seqc; print(all(map(callable, "
    program += "(seqc.compile, seqc.oracle, seqc.explain))), sorted(set(seqc.__all__) - set(dir(seqc))))"
    assert python("-c", program).strip() == "True []"


@pytest.mark.parametrize(("spec", "most"), MOST_CALLS.items())
def test_compile_loads_nothing_heavy_and_does_little(spec: str, most: int, tmp_path: Path) -> None:
    """Work is counted in calls of the compiler's functions, which is the same on every machine, busy or not."""
    program = (
        "import cProfile, sys; from seqc.cli.main import main; work = cProfile.Profile(subcalls=False, builtins=False); "
        f"work.enable(); code = main(['compile', 'specs/{spec}.seq', '-o', {str(tmp_path / 'out.py')!r}]); work.disable(); "
        f"print([m for m in {HEAVY} if m in sys.modules], code, file=sys.stderr); "
        "print('calls', sum(entry.callcount for entry in work.getstats()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.splitlines()[-1] == "[] 0"
    assert int(done.stdout.split()[-1]) < most


@pytest.mark.parametrize("spec", ["gla", *(pytest.param(name, marks=pytest.mark.long) for name in ("delta_rule", "lstm"))])
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
