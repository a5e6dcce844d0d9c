"""Emitted Triton kernels against the float64 reference, in Triton's interpreter: every spec, every form, forward and gradients.

Some specs at lengths around a block's rows, with extreme arguments, and dims that are odd, smaller than a tile, and longer
than one; every spec of `specs/` and `tests/recurrences/` step by step and in its parallel form, at lengths that end in the
middle of a block. Batches of two, each form in one kernel and in phases (states first); in phases packs too. `interpret.py`
states the tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path

import pytest

from tests import forms
from tests.forms import GPU_ROWS as ROWS
from tests.forms import PATHS
from tests.triton import processes

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
PARTS = 2  # processes: each takes seconds to begin
ODD = {"H": 2, "K": 35, "V": 35, "D": 7, "N": 3}  # K and V in two pieces of a tile
EVEN = {"H": 1, "K": 16, "V": 16, "D": 16, "N": 4}
LENGTHS = [(1, True), (ROWS - 1, False), (ROWS, True), (ROWS + 1, False), (2 * ROWS + 1, True)]
RUNS = [(steps, hard, ODD if i % 2 else EVEN) for i, (steps, hard) in enumerate(LENGTHS)]
EDGES: list[tuple[str, str | None]] = [
    ("gla", "chunkwise"),
    ("gla", "step"),
    ("delta_rule", "chunkwise"),
    ("retention", "chunkwise"),
    ("linear_attention", "chunkwise"),
    ("hgrn", "scan"),
    ("hgrn", "step"),
    ("mamba", "step"),
    ("mamba", "scan"),
    ("lstm", "step"),
    ("gru", "step"),
    ("conv", "scan"),
    ("shiftmix", "scan"),
    ("gsa", "chunkwise"),
    ("aaren", "scan"),
    ("lif", "step"),
    ("lru", "chunkwise"),
    ("mamba_complex", "scan"),
]
MOST = EDGES[:2] + EDGES[4:6] + EDGES[8:10] + EDGES[12:13] + EDGES[14:15] + EDGES[17:]
"""Of every form, with feedback, a maximum, inputs of other steps, complex values; the others are long ones."""
OF_EACH_KIND = (
    "aaren", "delta_rule", "gated_delta_product", "gla", "gsa", "hgrn", "hooked_delta", "kda", "mlstm", "rwkv7", "s5",
    "stuffed_mamba",
)  # fmt: skip
"""Parallel forms of every kind: the other specs are long ones."""
PARAMS = """spec params
dim H, K, V
input q[H, K], k[H, K], v[H, V]
param a[H, K] in [-inf, 0] per batch, w[H, V] per batch, c[H, K], u[H]
state S[H, K, V] = 0
S = exp(a) * S[t-1] + (k + c) * v
output o = sum[K](q * S) * w * u
"""
LAGGED = """spec lagged_keys
dim H, K, V
input p[H, K], q[H, K], v[H, V]
state S[H, K, V] = 0
a = tanh(p)
k = a + a[t-1] + 0.1 * q[t-2]
S = 0.9 * S[t-1] + k * v
output o = sum[K](q * S)
"""
SMALL = {"H": 1, "K": 3, "V": 5, "D": 4, "N": 3}


def parallel() -> list[str]:
    """The specs that a GPU takes in blocks of many steps, as `tests/forms.tsv` has them."""
    return [name for name in PATHS if len(forms.kept().get((name, "triton"), ())) > 1]


def interpret(
    cases: list[tuple[str, str | None]],
    runs: list[tuple[int, bool | str, dict[str, int]]],
    steps: int = 0,
    golden: Container[str] = (),
    packs: Sequence[tuple[Sequence[int], bool]] = (),
    team: bool = False,
    **dims: int,
) -> None:
    """Fails with what went wrong in any case (spec or path, form; None is the compiler's choice), each at all runs (length,
    whether arguments are extreme, or "half" of them, sizes), and in a loop of that many single steps. golden: the specs whose
    text is a golden one. packs: (lengths, whether reversed), in phases. team: several
    programs share out a head. dims: extents that the kernels are made for."""
    given = {"runs": runs, "steps": steps, "dims": dims, "packs": packs, "team": team}
    own = [{"path": str(PATHS.get(name, name)), "form": form, "golden": name in golden} for name, form in cases]
    own = [case | {"listed": forms.kept().get((name, "triton"))} for case, (name, _) in zip(own, cases, strict=True)]
    lines = [json.dumps(case | {"rows": None if case["form"] == "step" else ROWS} | given) for case in own]
    done = processes.run(["-m", "tests.triton.interpret"], "\n".join(lines))
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(cases), done.stderr[-3000:]
    wrong = {f"{name} {form}": what for (name, form), what in zip(cases, said, strict=True) if what}
    assert not wrong, wrong


@pytest.mark.parametrize("part", range(PARTS))
def test_lengths_dims_and_extreme_arguments(part: int) -> None:
    interpret(MOST[part::PARTS], RUNS, steps=3)


@pytest.mark.long
def test_lengths_dims_and_extreme_arguments_of_the_others() -> None:
    interpret([case for case in EDGES if case not in MOST], RUNS, steps=3)


@pytest.mark.parametrize("part", range(PARTS))
def test_parallel_forms_of_each_kind(part: int) -> None:
    packs = [((1, 0, 3 * ROWS), part == 0)]  # in the mean more than a block
    cases = [(name, None) for name in OF_EACH_KIND[part::PARTS]]
    interpret(cases, [(ROWS + 2, "half", SMALL)], golden=parallel(), packs=packs)


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_every_spec_in_its_parallel_form(part: int) -> None:
    packs = [((1, 0, 3 * ROWS), part == 0)]
    cases = [(name, None) for name in parallel() if name not in OF_EACH_KIND]
    interpret(cases[part::PARTS], [(ROWS + 2, "half", SMALL)], golden=parallel(), packs=packs)


@pytest.mark.parametrize("part", range(PARTS))
def test_specs_without_a_parallel_form(part: int) -> None:
    cases = [(name, "step") for name in PATHS if name not in (*parallel(), *forms.REPEATING)]
    interpret(cases[part::PARTS], [(3, False, SMALL)], golden={*PATHS} - {*parallel()})


@pytest.mark.long
def test_other_specs_step_by_step() -> None:
    interpret([(name, "step") for name in (*parallel(), *forms.REPEATING)], [(3, False, SMALL)])


def test_packs_in_phases(tmp_path: Path) -> None:
    """Sequences of one step, of none, of a block, of several, both ways: feedback, two states, and params, of all sequences
    and of one."""
    lengths = (1, 0, ROWS, 3 * ROWS + 1)  # in the mean more than a block
    (tmp_path / "params.seq").write_text(PARAMS)
    cases: list[tuple[str, str | None]] = [(x, "chunkwise") for x in ("kda", "gsa", str(tmp_path / "params.seq"))]
    interpret(cases, [(1, False, SMALL)], packs=[(lengths, False), (lengths, True)])


def test_dims_longer_than_a_tile(tmp_path: Path) -> None:
    """K in three pieces, the last of them short; lags of a definition and of an input are states and reads in pieces too."""
    (tmp_path / "lagged_keys.seq").write_text(LAGGED)
    cases: list[tuple[str, str | None]] = [("simple_gla", "chunkwise"), (str(tmp_path / "lagged_keys.seq"), "chunkwise")]
    interpret(cases, [(ROWS + 2, False, {"H": 1, "K": 300, "V": 17})], K=300)
