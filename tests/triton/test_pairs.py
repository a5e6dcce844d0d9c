"""What kernels keep for each other: matrices over pairs of steps that need no state, for all blocks at once.

That results and gradients are right is `test_kernels`': each spec in phases as well, at lengths that fill no block.
"""

import re
from pathlib import Path

import pytest

from seqc.backends.triton_gpu.emit import triton_kernels
from seqc.backends.triton_gpu.kernel import Let, Store, walk
from seqc.backends.triton_gpu.pairs import CONTRACTIONS
from seqc.backends.triton_gpu.schedule import Schedule, schedule
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.graph import COL, ROW, leaves

SPECS = Path(__file__).parents[2] / "specs"


def plan(spec: str) -> Schedule:
    return schedule(lower(load(SPECS / f"{spec}.seq"), "chunkwise", 16))


def computed(plan: Schedule, kernel: str) -> list[str]:
    """The contractions over pairs of steps in a kernel that need no state and no cotangent."""
    nodes = [item.node for item in walk(plan.kernel(kernel).body) if isinstance(item, Let)]
    pairs = [n for n in nodes if n.op in CONTRACTIONS and {ROW, COL} <= set(n.dims)]
    return [n.op for n in pairs if not any(x.text("kind") in ("state", "cot") for x in leaves([n]))]


@pytest.mark.parametrize(
    ("spec", "forward", "backward"),
    [("gla", True, True), ("simple_gla", False, False), ("rebased", False, True), ("kda", True, True),
     ("delta_product", True, True)],
)  # fmt: skip
def test_a_walk_from_block_to_block_has_products_with_states_alone(spec: str, forward: bool, backward: bool) -> None:
    found = plan(spec)
    assert found.ways["forward"] == (("forward",), ("states", "outputs"))
    assert found.before["forward"] == (("pairs",) if forward else ())
    gradients = [name for name in found.kernels if name.startswith("gradients")]
    again = ("pairs", "again") if forward else ("again",)  # two blocks of 16 rows a span, but for a span of one
    first = found.before.get("backward", ())
    assert first in ((), again)
    (way,) = found.ways["backward"]
    assert way == (*["pairs"] * (backward and "pairs" not in first), "cotangents", *gradients)
    assert not computed(found, "states") and not computed(found, "cotangents")
    if spec == "gla":  # programs of pieces of V do not each compute the levels of A
        assert not computed(found, "forward") and not computed(found, "outputs") and not computed(found, "gradients_V")
    assert ("pairs" in found.kernels) == backward


def test_what_is_kept_is_stored_once_and_in_the_type_of_operands() -> None:
    """One program for all pieces of V: what it stores has no such dim. Matrix products alone take the inverse and A."""
    found = plan("delta_rule")
    pairs = found.kernel("pairs")
    stores = [item for item in walk(pairs.body) if isinstance(item, Store)]
    kept = {item.array.name: item.array.dtype for item in stores}
    assert kept == {"inverse_kept": "io", "A_kept": "io"} and len(stores) == len(kept)
    assert all(item.array.axes == ("B", "NT", "H", "t", "s") for item in stores)
    assert pairs.block_in_grid and "V" not in found.of("pairs").roles.split
    for kernel in ("states", "outputs", "cotangents", "again"):
        arrays = {a.name for a in found.kernel(kernel).arrays if a.role == "kept"}
        assert arrays >= ({"inverse_kept"} if kernel in ("states", "again") else {"inverse_kept", "A_kept"})


def test_a_value_that_is_not_only_multiplied_is_kept_in_full() -> None:
    """Of linear attention that is normalised, the sum of a row of A divides."""
    (kept,) = [a for a in plan("linear_attention_normalized").kernel("pairs").arrays if a.role == "kept"]
    assert kept.dtype == "carry"


def test_states_that_outputs_only_multiply_are_kept_so_where_no_gradient_follows() -> None:
    """The normaliser n[K] is summed with q as it is; a matrix S[K, V] is an operand."""
    assert plan("linear_attention_normalized").lean == {"S_in"}
    found = plan("gla")
    text = triton_kernels(lower(load(SPECS / "gla.seq"), "chunkwise", 16), plan=found).text
    allocated = re.findall(r" S_in = torch.empty\(.*, dtype=(.*), device=", text)
    assert allocated == ["q.dtype", "_state_type(q.dtype)"]  # forward and inference in one function; again, for gradients


def test_walks_load_operands_that_would_cost_sums_over_steps() -> None:
    """gla's walks take q and k with their decays, and the decay of a block; the delta rule has none, and takes k as it is."""
    found = plan("gla")
    for kernel, kept in (("forward", {"q_kept", "k_kept", "decay_kept", "A_kept"}), ("cotangents", {"q_kept", "decay_kept"})):
        arrays = found.kernel(kernel).arrays
        assert {a.name for a in arrays if a.role == "kept"} == kept
        assert not {a.name for a in arrays if a.role == "input"} - {"v"}
        ops = {item.node.op for item in walk(found.kernel(kernel).body) if isinstance(item, Let)}
        assert not ops & {"exp", "cumsum"}
    assert {a.name for a in plan("delta_rule").kernel("pairs").arrays if a.role == "kept"} == {"inverse_kept", "A_kept"}
