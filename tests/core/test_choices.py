"""Which form each of several linear states takes: the search decides them one by one, and finds what trying all would."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from seqc.analysis.ranges import interval_of
from seqc.driver.pipeline import lowerings
from seqc.frontend import elaborate
from seqc.ir.both_ways import one_run
from seqc.ir.program import Program
from seqc.passes.blocks import choose
from seqc.passes.blocks.choose import EAGER, GPU, Machine
from seqc.passes.classify import classify
from seqc.passes.plan.products_outside import split_parallel

ROOT = Path(__file__).parents[2]
SEVERAL = {  # published recurrences of several linear states -> those that are no chunks on a GPU, and rows of its blocks
    "aaren": ("c a", 64), "based": ("S0 n0", 16), "gsa": ("", 32), "linear_attention_normalized": ("", 64), "mlstm": ("", 64),
    "rebased": ("", 16), "rwkv4": ("a b", 64),
}
LAYER = """spec gated_delta_layer
dim E, H, K, V, L = 4
input x[E]
param W_q[H, K, E], W_k[H, K, E], W_v[H, V, E], W_g[H, V, E], W_a[H, E], W_b[H, E], W_o[E, H, V]
param c_q[L, H, K], c_k[L, H, K], c_v[L, H, V], A[H], dt[H], gain[V]
u_q = W_q @ x
u_k = W_k @ x
u_v = W_v @ x
q = l2norm[K](silu(sum[L](c_q * u_q[t - index[L]])))
k = l2norm[K](silu(sum[L](c_k * u_k[t - index[L]])))
v = silu(sum[L](c_v * u_v[t - index[L]]))
state S[H, K, V] = 0
kept = exp(-exp(A) * softplus(W_a @ x + dt)) * S[t-1]
S = kept + sigmoid(W_b @ x) * k * (v - sum[K](k * kept))
output y = W_o @ (rmsnorm[V](sum[K](q * S), gain) * silu(W_g @ x))
"""  # Gated DeltaNet (arXiv:2412.06464) with its projections, short convolutions, norm and gate
TOGETHER = """spec squared
dim K, V
input q[K], k[K], v[V], g in [-inf, 0]
state P[K, V] = 0, Q[K, V] = 0, n[K] = 0
P = exp(g) * P[t-1] + k * v
Q = Q[t-1] + k * v
n = exp(g) * n[t-1] + k
output o = sum[K](q * P) / (1 + abs(sum[K](q * n)))
output e = sum[K](P * Q)
"""


def offers(program: Program, machine: Machine) -> choose.Offers:
    return choose.block_forms(program, classify(program), interval_of(program), machine=machine)


def all_tried(program: Program, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> choose.Offers:
    """The offers where every form of every component is lowered together with every one of the others."""
    linear = [c.states[0] for c in classify(program) if c.kind in choose.LINEAR]
    every = [dict(zip(linear, forms, strict=True)) for forms in product(choose.FORMS, repeat=len(linear))]
    with monkeypatch.context() as patched:
        patched.setattr(choose, "_choices", lambda *args: list(every))
        return offers(program, machine)


@pytest.mark.parametrize("name", SEVERAL)
def test_published(name: str) -> None:
    program = one_run(elaborate.load(ROOT / "specs" / f"{name}.seq"))
    best = choose.choose_form(program, offers(program, GPU))
    scans, rows = SEVERAL[name]
    assert {n for n, form in best.forms.items() if form == "scan"} == set(scans.split())
    assert best.rows == rows


@pytest.mark.parametrize("machine", [GPU, EAGER], ids=lambda m: m.name)
def test_a_whole_layer_runs_in_chunks(machine: Machine) -> None:
    """States of taps have the heads as their first dim of two: these stay programs of their own."""
    core = split_parallel(elaborate.load(LAYER)).core
    assert choose.choose_form(core, offers(core, machine)).form == "chunkwise"


@pytest.mark.parametrize("machine", [GPU, EAGER], ids=lambda m: m.name)
@pytest.mark.parametrize("text", [ROOT / "specs/mlstm.seq", ROOT / "specs/gsa.seq", TOGETHER], ids=["mlstm", "gsa", "squared"])
def test_same_as_trying_all(text: str | Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    program = one_run(elaborate.load(text))
    found, every = offers(program, machine), all_tried(program, machine, monkeypatch)
    for form in ("chunkwise", "scan"):
        times = [min((c.time for c in x.blocks if c.form == form), default=None) for x in (found, every)]
        assert times[0] == times[1]
    assert len(found.blocks) < len(every.blocks)


def test_product_of_two_states_leaves_one_to_a_scan() -> None:
    program = elaborate.load(TOGETHER)
    forms = [dict(c.forms) for c in offers(program, GPU).blocks if c.form == "chunkwise"]
    assert forms and all("scan" in (f["P"], f["Q"]) for f in forms)


def test_a_number_of_rows_that_is_not_the_cheapest_says_so() -> None:
    """The tiles of a GPU choose among several; the time beside it is that of the rows that the block has."""
    for block in lowerings(elaborate.load(ROOT / "specs/rwkv4.seq")):
        text = next(r.text for r in block.reasons if r.topic == "form")
        assert ("with 64 rows; rows are chosen with the tiles" in text) == (block.rows < 64), text


def test_the_reason_is_that_of_the_state_which_takes_no_form() -> None:
    """m is used whole, and takes a scan beside any chunk: what stands in the way is S."""
    text = "spec a\ndim W, K, V\ninput k[W, K], v[V], a[W] in [0, 1]\nstate m[W, K] = 0, S[K, V] = 0\n"
    text += "m = a * m[t-1] + k\nf = softmax[K](m)\nS = S[t-1] + sum[W](f * (v - sum[K](f * S[t-1])))\noutput o = sum[K](S)\n"
    program = elaborate.load(text)
    reason = choose.choose_form(program, offers(program, EAGER)).reasons[0]
    assert "S: its feedback has a row for each index of W" in str(reason)


def test_lowerings_grow_with_the_number_of_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered(count: int) -> int:
        names = range(count)
        text = "spec many\ndim D\ninput x[D], g[D] in [-inf, 0]\n"
        text += "".join(f"state S{i}[D] = 0\nS{i} = exp(g) * S{i}[t-1] + x\n" for i in names)
        program = elaborate.load(text + "output o = " + " + ".join(f"S{i}" for i in names) + "\n")
        calls = 0

        class Counted(choose.BlockForm):
            def __init__(self, *args: object) -> None:
                nonlocal calls
                calls += 1
                super().__init__(*args)  # type: ignore[arg-type]

        monkeypatch.setattr("seqc.passes.blocks.alone.BlockForm", Counted)
        offers(program, GPU)
        return calls

    assert lowered(16) <= 2.5 * lowered(8)
