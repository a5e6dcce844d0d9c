"""How gradients are shared out among kernels: which dims they take pieces of, what is left in parts, what is kept.

That results are right is `test_kernels`': each spec in phases as well, at dims of more than one piece.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from seqc.backends.triton_gpu.parting import KNOWN, PART, UNKNOWN, can_cut, cheapest_cut, counted_once, held
from seqc.backends.triton_gpu.schedule import Schedule, schedule
from seqc.driver.pipeline import fix_dims, lower
from seqc.frontend.elaborate import load
from seqc.ir.graph import index, leaf, node, total
from seqc.semantics.evaluate import evaluate

SPECS = Path(__file__).parents[2] / "specs"
X, Y, V = leaf("input", "x", ("B", "t", "K")), leaf("input", "y", ("B", "t")), leaf("input", "v", ("B", "t", "V"))


def plan(spec: str) -> Schedule:
    return schedule(lower(load(SPECS / f"{spec}.seq"), "chunkwise", 16))


def gradients(found: Schedule) -> dict[str, dict[str, tuple[str, ...]]]:
    """By kernel of gradients: what it computes, and along which dims it leaves it in parts."""
    names = [name for name in found.way("backward", "cotangents") if name.startswith("gradients")]
    stored = {name: [a for a in found.kernel(name).arrays if a.role == "grad"] for name in names}
    assert all((a.dtype == "io") != bool(a.partial or "NT" in a.axes) for arrays in stored.values() for a in arrays)
    return {name: {a.name: a.partial for a in arrays} for name, arrays in stored.items()}


@pytest.mark.parametrize(
    ("spec", "free", "parts"),
    [("gla", {"d_q", "d_k", "d_g"}, set()), ("simple_gla", {"d_q", "d_k"}, {"d_g"}),
     ("delta_rule", {"d_q", "d_k"}, {"d_beta"}), ("kda", {"d_q", "d_k", "d_g"}, {"d_beta"})],
)  # fmt: skip
def test_what_keeps_k_apart_is_computed_in_pieces_of_k(spec: str, free: set[str], parts: set[str]) -> None:
    found = plan(spec)
    made = gradients(found)
    assert made["gradients_K"] == {**dict.fromkeys(free, ()), **dict.fromkeys(parts, ("K",))}
    assert found.of("gradients_K").roles.blocked == ("K",)
    if "gradients_V" in made:
        assert made["gradients_V"] == {"d_v": ()} and found.of("gradients_V").roles.blocked == ("V",)


@pytest.mark.parametrize("spec", ["delta_rule", "gated_delta_rule", "kda"])
def test_walks_that_have_all_rows_hand_them_to_the_gradients_that_take_pieces_of_k(spec: str) -> None:
    """The rows and their cotangents sum over K. `again` and `cotangents` have both on their way."""
    found = plan(spec)
    assert [*gradients(found)] == ["gradients_K"]
    kept = {
        name: {a.name: a.axes for a in found.kernel(name).arrays if a.role in ("kept", "grad")}
        for name in ("pairs", "again", "cotangents", "gradients_K")
    }
    rows, cotangents = ({*kept[name]} - {*kept["pairs"]} for name in ("again", "cotangents"))
    assert len(rows) == 1 and len(cotangents - {"d_v", "d_S_0"}) == 1 and "d_v" in cotangents
    handed = {name: axes for name, axes in kept["gradients_K"].items() if name in rows | cotangents}
    assert {tuple(sorted(axes)) for axes in handed.values()} <= {("B", "H", "NT", "V", x) for x in "st"} and len(handed) == 2
    assert "inverse_kept" not in kept["gradients_K"]


def test_where_a_span_is_one_block_a_kernel_computes_the_rows() -> None:
    """Then no walk of backward has the states."""
    program = load(SPECS / "delta_rule.seq")
    every = replace(program, wishes=replace(program.wishes, checkpoint=16))
    found = schedule(lower(every, "chunkwise", 16))
    assert [*gradients(found)] == ["gradients_V", "gradients_K"]


def test_one_kernel_where_no_dim_is_free() -> None:
    assert list(gradients(plan("oja"))) == ["gradients"] and not plan("oja").parts


def test_nothing_is_kept_where_kernels_hold_dims_in_pieces() -> None:
    """K whole beside V in pieces, and the other way round: no value of one kernel is one of the other."""
    long = {"K": 512, "V": 512}
    both = schedule(lower(fix_dims(load(SPECS / "gla.seq"), long), "chunkwise", 16))
    assert [*gradients(both)] == ["gradients_V", "gradients_K"]
    assert both.of("gradients_V").pieces == {"K"} and not both.of("gradients_K").pieces
    for dim in long:
        found = schedule(lower(fix_dims(load(SPECS / "delta_rule.seq"), {dim: 512}), "chunkwise", 16))
        assert [*gradients(found)] == ["gradients"], dim


def test_what_a_program_holds() -> None:
    summed = total(X * X, ("K",))
    kinds = held([(summed + Y) * Y, node("exp", summed), summed * X, node("exp", X)], "K")
    said = {n.op: kinds[n] for n in kinds if n.op in ("sum", "add", "exp") and n.args[0] is not X}
    assert said == {"sum": PART, "add": PART, "exp": UNKNOWN}
    assert kinds[summed * X] == UNKNOWN and kinds[node("exp", X)] == KNOWN
    assert held([node("exp", summed)], "K", [summed])[node("exp", summed)] == KNOWN, "where it is loaded"


def test_parts_add_up_and_whole_terms_count_once() -> None:
    root = node("where", node("gt", Y, Y * Y), Y - total(X * X, ("K",)) * Y, Y)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3))
    whole = evaluate({"r": root}, {X: x, Y: y}, {"B": 2, "t": 3, "K": 4})["r"]
    first = counted_once({"r": root}, "K")
    parts = []
    for piece in (slice(0, 2), slice(2, 4)):
        given = {X: x[:, :, piece], Y: y, index("K"): np.arange(4.0)[piece]}
        parts.append(evaluate(first, given, {"B": 2, "t": 3, "K": 2})["r"])
    np.testing.assert_allclose(sum(parts), whole, rtol=0, atol=1e-12)


def test_the_cut_is_the_cheapest_of_all() -> None:
    low = total(X * X, ("K",))
    wide = node("exp", low) * V
    back = total(wide * wide, ("V",)) + node("exp", low * Y)
    root = back * X
    for prices in ({low: 3, wide: 2, back: 9}, {wide: 2, back: 1}, {low * Y: 1, wide: 2, back: 4}, {wide: 1}):
        enough = [
            sum(map(prices.__getitem__, some))
            for count in range(len(prices) + 1)
            for some in combinations(prices, count)
            if held([root], "K", some)[root] == KNOWN
        ]
        assert can_cut(root, "K", (), prices) == bool(enough)
        if enough:
            found = cheapest_cut([root], "K", (), prices)
            assert held([root], "K", found)[root] == KNOWN and sum(map(prices.__getitem__, found)) == min(enough)
