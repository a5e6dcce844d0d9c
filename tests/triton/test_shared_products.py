"""One product where a graph has two: the same values, and fewer products."""

from pathlib import Path

import numpy as np
import pytest

from seqc.backends.triton_gpu.pairing import pair
from seqc.backends.triton_gpu.products import Products
from seqc.backends.triton_gpu.roles import assign_roles
from seqc.backends.triton_gpu.schedule import schedule
from seqc.backends.triton_gpu.shared_products import joined, reordered, shared
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.graph import const, leaf, leaves, node, renamed, topological, total
from seqc.ir.ops.elementwise import where
from seqc.semantics.evaluate import evaluate

SPECS = Path(__file__).parents[2] / "specs"
SIZES = {"B": 1, "t": 4, "s": 4, "t'": 4, "s'": 4, "H": 2, "K": 3, "V": 2, "J": 2, "G": 2, "P": 2, "N": 3, "^2": 2, "^2'": 2}


FEWER = {"gla": 0, "simple_gla": 0, "delta_rule": 1, "gated_delta_rule": 2, "kda": 1, "delta_product": 1, "mamba2": 0}


@pytest.mark.parametrize(("spec", "fewer"), FEWER.items())
def test_values_stay_and_sums_go(spec: str, fewer: int) -> None:
    block = lower(load(SPECS / f"{spec}.seq"), "chunkwise", 4)
    roles = assign_roles(block)
    both = {**{f"f {k}": n for k, n in block.forward.items()}, **{f"b {k}": n for k, n in block.backward.items()}}
    paired, _ = pair(both, roles)
    found, became = shared(paired)
    assert all(became[paired[key]] is found[key] for key in paired)
    sums = [sum(n.op == "sum" for n in topological(graph.values())) for graph in (paired, found)]
    assert sums[0] - sums[1] == fewer
    rng = np.random.default_rng(0)
    sizes = {d: SIZES[d] for n in topological(both.values()) for d in n.dims}
    values = {
        n: np.ones([sizes[d] for d in n.names("shape")], bool) if n.dtype == "bool"
        else rng.uniform(-0.9, -0.1, [sizes[d] for d in n.names("shape")]) for n in leaves(both.values())
    }
    one, other = evaluate(paired, values, sizes), evaluate(found, values, sizes)
    for key in paired:
        np.testing.assert_allclose(other[key], one[key], rtol=1e-9, atol=1e-12, err_msg=key)


def test_what_is_no_number_spoils_the_sum_over_rows_as_before() -> None:
    """Of two channels one has an infinity: its sum is no number either way, the other's is the same to the bit."""
    matrix, r, k = leaf("input", "m", ("B", "t", "s")), leaf("input", "r", ("B", "t", "V")), leaf("input", "k", ("B", "t", "K"))
    good = node("lt", node("abs", r), const(np.inf))
    plain = total(matrix * renamed(r, "t", "s"), ("s",))
    clean = total(matrix * renamed(where(good, r, 0.0), "t", "s"), ("s",))
    roots = {"state": total(k * plain, ("t",)), "output": clean, "plain": total(plain * plain, ("V",))}
    kept, _ = joined(roots)
    assert kept == roots, "something else than a sum over the rows takes it"
    del roots["plain"]
    found, _ = joined(roots)
    assert found["state"] is not roots["state"] and found["output"] is clean
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1, 4, 2))
    rows[0, 2, 1] = np.inf
    values = {matrix: rng.normal(size=(1, 4, 4)), r: rows, k: rng.normal(size=(1, 4, 3))}
    with np.errstate(invalid="ignore"):
        one, other = (evaluate(graph, values, SIZES)["state"] for graph in (roots, found))
    where_v = found["state"].dims.index("V")
    first, second = (np.take(other, i, where_v) for i in range(2))
    np.testing.assert_array_equal(first, np.take(one, 0, where_v))
    assert not np.isfinite(second).any() and not np.isfinite(np.take(one, 1, where_v)).any()


def test_a_factor_that_has_no_dim_of_a_sum_leaves_it() -> None:
    """Of a sum over heads and P, where each program has a head: a row's scale is multiplied once, after the product, though
    another sum takes the scaled rows too."""
    roles = assign_roles(lower(load(SPECS / "mamba2.seq"), "chunkwise", 4))
    x, scale = leaf("input", "x", ("B", "t", "H", "P")), leaf("input", "a", ("B", "t", "H"))
    h, b = leaf("state", "h", ("B", "H", "P", "N")), leaf("input", "b", ("B", "t", "N"))
    rows = scale * x
    paired, _ = pair({"gradient": total(rows * h, ("H", "P")), "state": total(rows * b, ("t",))}, roles)
    products = {frozenset(n.args[0].args) for n in topological([paired["gradient"]]) if n.op == "sum"}
    assert products == {frozenset((x, h))} and paired["gradient"].op == "mul"


def test_in_a_kernel_of_its_own_a_product_of_a_cotangent_goes_where_nothing_else_takes_it() -> None:
    """sum[P](x * sum[N](b * dS)) beside sum[P](x * dS), by numbers; where the inner sum is an output too, both stay."""
    x, b = leaf("input", "x", ("B", "t", "P")), leaf("input", "b", ("B", "t", "N"))
    d = leaf("cot", "S.next", ("B", "P", "N"))
    inner = total(b * d, ("N",))
    roots = {"d.b": total(x * d, ("P",)), "d.g": total(x * inner, ("P",))}
    assert reordered(roots)[0] == roots, "another kernel may have the first of them"
    assert reordered({**roots, "d.x": inner}, alone=True)[0]["d.g"] is roots["d.g"]
    found = reordered(roots, alone=True)[0]
    assert sum(n.op == "sum" for n in topological(found.values())) == 2 and found["d.b"] is roots["d.b"]
    rng = np.random.default_rng(2)
    values = {n: rng.normal(size=[SIZES[a] for a in n.names("shape")]) for n in (x, b, d)}
    axes = ("".join(n.names("shape")).lower() for n in (x, b, d))
    expected = np.einsum(f"{','.join(axes)}->bt", *values.values())
    np.testing.assert_allclose(evaluate(found, values, SIZES)["d.g"], expected, rtol=1e-12)


def test_mamba2_multiplies_by_the_cotangent_of_its_states_once_in_each_kernel() -> None:
    found = schedule(lower(load(SPECS / "mamba2.seq"), "chunkwise", 16))
    for name in ("gradients_P", "gradients_N"):
        products = Products(found.kernel(name), found.of(name).roles).of.values()
        assert sum(any(n.op == "leaf" and n.text("kind") == "cot" and "next" in n.text("name")
                       for n in (p.left.node, p.right.node)) for p in products) == 1, name
