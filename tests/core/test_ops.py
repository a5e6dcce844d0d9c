"""Every row of the operator table: derivative against finite differences, interval against samples, spellings."""

from typing import Any

import numpy as np
import pytest

from seqc.analysis.derivative import vjp
from seqc.backends.torch_eager.runtime import helper_texts
from seqc.ir.graph import Node, const, constant, index, leaf, leaves, node, renamed, size
from seqc.ir.intervals import Interval
from seqc.ir.ops import TABLE
from seqc.ir.ops.dense import solve
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.indexing import as_place, as_real, gather, put, scatter
from seqc.ir.ops.structure import affine_scan, cumsum, expanded, max_scan, shift, take, tri_inv
from seqc.semantics.evaluate import evaluate, to_order

PRINTERS = ("torch", "triton", "cpp")
SIZES = {"K": 3, "V": 2, "t": 8, "s": 8}
STEP = 1e-6

# Where an operator is smooth, per argument; anything not listed is smooth on [-2, 2].
DOMAIN = {
    "log": [(0.3, 3.0)], "log2": [(0.3, 3.0)], "log1p": [(-0.6, 3.0)], "sqrt": [(0.3, 3.0)],
    "div": [(-2.0, 2.0), (0.5, 3.0)], "pow": [(0.3, 3.0), (-2.0, 2.0)], "abs": [(0.2, 2.0)], "sign": [(0.2, 2.0)],
}
# Derivatives that are not those of the value, by intent.
BY_DECREE = {"stopgrad": "zero", "surrogate": "the slope that the spec gives",
             "gradclip": "cut to the bound", "draw": "zero: it is a hash"}
ONCE = ("expm_slope",)  # a derivative itself: second derivatives are torch's, of the spec's own step
# Arguments for intervals; half-open, unbounded and point intervals on both sides of zero.
INTERVALS = [
    (-np.inf, 0.0), (0.0, np.inf), (-2.0, 3.0), (0.5, 4.0), (-3.0, -0.25), (0.0, 0.0), (-np.inf, np.inf), (0.0, 1.0),
]


def argument(i: int, dims: tuple[str, ...]) -> Node:
    return leaf("param", f"x{i}", dims)


def samples() -> dict[str, list[Node]]:
    """Nodes that show each operator on arguments of several dims."""
    shapes = [("K",), ("K", "V"), ("V",)]
    found: dict[str, list[Node]] = {}
    for name, row in TABLE.items():
        if row.elementwise:
            args = [argument(i, shapes[i % 3]) for i in range(row.arity)]
            if name == "draw":
                args[4:] = [const(300.0), const(1.0)]
            if name == "where":
                args[0] = node("gt", argument(3, ("K",)), const(0.0))
            if name in ("and", "or", "not"):
                args = [node("gt", a, const(0.0)) for a in args]
            found[name] = [node(name, *args)]
    x, m = argument(0, ("K", "t")), argument(1, ("t", "s"))
    diagonal = m + where(node("eq", index("t"), index("s")), 9.0, 0.0)
    one, each = (leaf("input", name, dims, dtype="int") for name, dims in (("w5", ("t",)), ("w6", ("V", "t"))))
    a, b, h = argument(2, ("K", "t")), argument(3, ("V", "t")), argument(4, ("V",))
    found |= {
        "leaf": [x], "const": [const(2.5)], "size": [size("K")], "index": [index("t")],
        "block_index": [node("block_index", dim="t", block=4)],
        "sum": [node("sum", x, over=("K",)), node("sum", x, over=("K", "t"))],
        "amax": [node("amax", x, over=("t",))],
        "expand": [expanded(x, ("V", "K"))],
        "rename": [node("rename", x, old="K", new="K'")],
        "take": [take(x, "t", -1), take(x, "t", 2)],
        "cumsum": [cumsum(x, "t", block, reverse, exclusive)
                   for block in (0, 4) for reverse in (False, True) for exclusive in (False, True)],
        "shift": [shift(x, "t", by) for by in (1, -2, 9)],
        "affine_scan": [affine_scan(a, b, h, "t"), affine_scan(a, b, const(0.5), "t", reverse=True)],
        "max_scan": [max_scan(a, b, h, "t")],
        "tri_inv": [tri_inv(m, ("t",), ("s",)), tri_inv(m * b * renamed(b, "V", "V'") * 0.1, ("t", "V"), ("s", "V'"))],
        "solve": [solve(diagonal, a, "t", "s"), solve(diagonal, b * argument(2, ("K",)), "t", "s")],
        "logdet": [node("logdet", diagonal, row="t", col="s"), node("logdet", diagonal * b, row="t", col="s")],
        "expm": [node("expm", m * 0.2, row="t", col="s", phi=phi) for phi in (0, 1)],
        "expm_slope": [node("expm_slope", m, diagonal, row="t", col="s", phi=0)],
        "gather": [gather(x, one, "K"), gather(argument(0, ("K", "V")), each, "K")],
        "scatter": [scatter(b, each, "K", ("V",)), scatter(x, one, "V", ()), scatter(b, one, "K", ("t",))],
        "put": [put(argument(0, ("K", "V")), argument(2, ("K",)) * argument(3, ("t",)), one, "V")],
        "as_real": [as_real(one)],
        "as_place": [as_place(x)],
    }
    return found


SAMPLES = samples()


def values_for(n: Node, rng: np.random.Generator) -> dict[Node, np.ndarray]:
    domain = DOMAIN.get(n.op, [])
    found = {}
    for x in leaves([n]):
        at = int(x.text("name")[1:])
        low, high = domain[at] if at < len(domain) else (-2.0, 2.0)
        shape = [SIZES[d] for d in x.names("shape")]
        found[x] = rng.integers(0, SIZES["V"], shape) if x.dtype == "int" else rng.uniform(low, high, shape)
    return found


def test_every_operator_has_a_sample() -> None:
    assert set(SAMPLES) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_printer_spells_it_or_emits_it_by_code(name: str) -> None:
    row = TABLE[name]
    for printer in PRINTERS:
        assert (printer in row.spell) == row.elementwise, f"{name} for {printer}: spelled exactly when elementwise"
    for text in row.spell.values():
        filled = text.format(*(f"<{i}>" for i in range(row.arity)))
        assert filled, name


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row.elementwise])
def test_torch_spelling_is_the_reference(name: str) -> None:
    import torch

    (n,) = SAMPLES[name]
    given = values_for(n, np.random.default_rng(3))
    given = {x: np.resize(v, (3,)) for x, v in given.items()}
    ready = [constant(a) if a.op == "const" else v if a.op == "leaf" else v > 0
             for a in n.args for v in ([given[x] for x in leaves([a])] or [None])]
    text = TABLE[name].spell["torch"].format(*(f"x{i}" for i in range(len(ready))))
    helpers: dict[str, Any] = {"torch": torch}
    for helper in helper_texts([text.partition("(")[0]]):
        exec(helper, helpers)
    got = eval(text, helpers, {f"x{i}": x if isinstance(x, float) else torch.tensor(x) for i, x in enumerate(ready)})
    np.testing.assert_allclose(got.numpy(), TABLE[name].ref(*ready), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", [n for n in TABLE if TABLE[n].dtype is not TABLE["lt"].dtype])
def test_derivative_is_that_of_the_reference(name: str) -> None:
    row = TABLE[name]
    if name in ONCE:
        assert row.vjp is None
        return
    assert row.vjp is not None and len(row.vjp) == row.arity
    if name in BY_DECREE:
        return
    for seed, n in enumerate(SAMPLES[name]):
        rng = np.random.default_rng(seed)
        given = values_for(n, rng)
        sizes = {**SIZES, "K'": SIZES["K"], "V'": SIZES["V"]}
        cot = leaf("cot", "y", n.dims)
        weight = rng.standard_normal([sizes[d] for d in n.dims])
        real = {x: base for x, base in given.items() if x.dtype == "real"}
        rules = vjp({"y": n}, {"y": cot}, list(real))
        for x, base in real.items():
            got = evaluate({"g": rules[x]}, {**given, cot: weight}, sizes)["g"]
            got = to_order(got, rules[x].dims, x.names("shape"), sizes)
            want = np.zeros_like(base)
            for at in np.ndindex(base.shape):
                moved = []
                for sign in (1, -1):
                    here = base.copy()
                    here[at] += sign * STEP
                    moved.append((weight * evaluate({"y": n}, {**given, x: here}, sizes)["y"]).sum())
                want[at] = (moved[0] - moved[1]) / (2 * STEP)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7, err_msg=f"{n!r} by {x!r}")


def inside(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Points of an interval: its ends (far out where unbounded) and some between."""
    a, b = max(low, -50.0), min(high, 50.0)
    return np.concatenate([[low, high, a, b], rng.uniform(a, b, 12), np.clip(rng.standard_normal(8), a, b)])


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row.elementwise])
def test_interval_holds_every_sample(name: str) -> None:
    row = TABLE[name]
    rng = np.random.default_rng(0)
    for trial in range(60):
        chosen = [INTERVALS[i] for i in rng.integers(len(INTERVALS), size=row.arity)]
        if trial < len(INTERVALS):
            chosen[0] = INTERVALS[trial]
        args = [argument(i, ()) for i in range(row.arity)]
        claimed = row.interval(node(name, *args), tuple(Interval(*c) for c in chosen))
        points = [inside(rng, *c) for c in chosen]
        grids = list(np.meshgrid(*points)) if row.arity < 4 else points
        if name == "where":
            grids[0] = grids[0] > 0
        if name == "div":  # a division by zero has no value
            grids[1] = np.where(grids[1] == 0, np.nan, grids[1])
        with np.errstate(all="ignore"):
            got = np.asarray(row.ref(*grids), dtype=float)
        got = got[~np.isnan(got)]
        slack = 1e-12 * np.clip(np.abs(got), 1.0, 1e300)
        assert np.all(got >= claimed.lo - slack) and np.all(got <= claimed.hi + slack), (name, chosen, claimed)


def test_pow_interval_knows_constant_exponents() -> None:
    x = argument(0, ())
    for c in (0.0, 0.5, 1.0, 2.0, 3.0, -1.0, -0.5):
        n = node("pow", x, const(c))
        for low, high in INTERVALS:
            claimed = TABLE["pow"].interval(n, (Interval(low, high), Interval(c, c)))
            with np.errstate(all="ignore"):
                got = np.power(inside(np.random.default_rng(1), low, high), c)
            got = got[~np.isnan(got)]
            assert np.all(got >= claimed.lo) and np.all(got <= claimed.hi), (c, low, high, claimed)


def value(n: Node, given: dict[Node, np.ndarray]) -> np.ndarray:
    return np.asarray(evaluate({"y": n}, given, SIZES)["y"])


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row.laws])
def test_laws_hold_of_the_reference(name: str) -> None:
    """Laws that numbers can show, on samples: what is missing from a row is not asked for."""
    laws, rng = TABLE[name].laws, np.random.default_rng(5)
    for n in SAMPLES[name]:
        given = values_for(n, rng)
        found = value(n, given)
        reals = [a for a in leaves([n]) if a.dtype == "real"]
        if "zero" in laws:
            assert (value(n, {**given, n.args[0]: np.zeros_like(given[n.args[0]])}) == 0).all()
        if "zeros" in laws:
            assert (value(n, {a: np.zeros_like(given[a]) for a in n.args}) == 0).all()
        if "finite" in laws:
            assert np.isfinite(found).all()
        if "commutative" in laws:
            assert np.array_equal(found, value(node(name, *n.args[::-1]), given))
        if "additive" in laws and all(a.op == "leaf" for a in n.args):
            np.testing.assert_allclose(value(n, {**given, **{a: 3.0 * given[a] for a in reals}}), 3.0 * found, rtol=1e-14)
