"""One channel over a long time, a piece in each lane of a vector: the numbers of loops that are written by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqc
from seqc.backends.native_cpu.loader import _native_compiler

pytestmark = pytest.mark.skipif(_native_compiler() is None, reason="no C++ compiler")

FILTER = """spec filter
dim C = 3, L = 3
input x, u
param b[C], a[L], k
state y lag 3 = 0.5
y = sum[C](b * x[t - index[C]]) + exp(k) * u[t-4] - sum[L](a * y[t - 1 - index[L]])
output y
output e = 2 * y[t-1] - u
"""

GATES = """spec gates
input x, g
param w
state y = 0, z = 1
y = sigmoid(g) * y[t-1] + (1 - sigmoid(g)) * x[t-2]
z = w * z[t-1] + g * y[t-1] / (1 + w)
output z
"""

CHANNEL = """spec channel
dim D {1}, C = 3, L = 2
input x[D]
param b[C, D], a[D, L], k
state y[D] = 0
y = sum[C](b * x[t - index[C]]) - sum[L](a * y[t - 1 - index[L]]) * exp(k)
output y
"""

Values = dict[str, list[Any]]  # numbers, or tensors of one


def exp(x: Any) -> Any:
    return x.exp() if isinstance(x, torch.Tensor) else math.exp(x)


def filtered(g: Values, ends: dict[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    past, x, u = [ends["y_lag3_0"], ends["y_lag2_0"], ends["y_0"]], g["x"], g["u"]
    found: dict[str, list[Any]] = {"y": [], "e": []}
    b, a, k = g["b"], g["a"], exp(g["k"][0])
    for t in range(len(x)):
        now = sum(b[i] * x[t - i] for i in range(3) if t >= i) + (k * u[t - 4] if t >= 4 else 0.0)
        now -= a[0] * past[-1] + a[1] * past[-2] + a[2] * past[-3]
        found["e"].append(2 * past[-1] - u[t])
        past.append(now)
        found["y"].append(now)
    return found, {"y_T": past[-1], "y_lag2_T": past[-2], "y_lag3_T": past[-3]}


def gated(g: Values, ends: dict[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    y, z, w, x, rows = ends["y_0"], ends["z_0"], g["w"][0], g["x"], []
    for t, slope in enumerate(g["g"]):
        gate = 1 / (1 + exp(-slope))
        y, z = gate * y + (1 - gate) * (x[t - 2] if t >= 2 else 0.0), w * z + slope * y / (1 + w)
        rows.append(z)
    return {"z": rows}, {"y_T": y, "z_T": z}


def channel(g: Values, ends: dict[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    past, x, rows = [ends["y_lag2_0"], ends["y_0"]], g["x"], []
    scale = exp(g["k"][0])
    for t in range(len(x)):
        fir = sum(g["b"][i] * x[t - i] for i in range(3) if t >= i)
        past = [past[-1], fir - (g["a"][0] * past[-1] + g["a"][1] * past[-2]) * scale]
        rows.append(past[-1])
    return {"y": rows}, {"y_T": past[-1], "y_lag2_T": past[-2]}


ByHand = Callable[[Values, dict[str, Any]], Any]
CASES: dict[str, tuple[str, ByHand]] = {"filter": (FILTER, filtered), "gates": (GATES, gated), "channel": (CHANNEL, channel)}
PARAMS = {"b": [0.3, -0.2, 0.5], "a": [-0.9, 0.3, -0.1], "k": 0.2, "w": 0.7}
STEPS = 9001  # no multiple of the pieces


ADVANTAGES = """spec advantages
scan backward
input r, v, done in [0, 1]
param g init 0.9, l init 0.8
state A = 0, after = 0
kept = g * (1 - done)
A = r + kept * after[t-1] - v + l * kept * A[t-1]
after = v
output A
output returns = A + v
"""


def backwards(text: str) -> str:
    """The spec as a scan from the last step back."""
    head, rest = text.split("\n", 1)
    return f"{head}\nscan backward\n{rest}"


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Any, ByHand]:
    text, by_hand = CASES[request.param]
    return seqc.compile(text, "cpu"), by_hand


def arguments(f: Any, count: int, rows: int, steps: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(steps)
    given = {}
    for name, axes in f.module._AXES.items():
        sizes = {"B": rows if "T" in axes else count, "T": steps, "D": 1, "C": 3, "L": 2 if "D" in axes else 3}
        shape = [sizes[d] for d in axes.split()]
        if "B" in axes:
            given[name] = torch.rand(shape, generator=make, dtype=torch.float64) - 0.5 * ("T" in axes)
        else:
            numbers = torch.tensor(PARAMS[name], dtype=torch.float64).reshape(-1)
            given[name] = numbers[: math.prod(shape)].reshape(shape).clone()
    return given


def check(f: Any, by_hand: Any, given: dict[str, torch.Tensor], bounds: list[int], reverse: bool, r: Any) -> None:
    """Each sequence of a pack, or of a batch as the rows of one, is the loop."""
    timed = [n for n, axes in f.module._AXES.items() if "T" in axes]
    for i in range(len(bounds) - 1):
        own = slice(bounds[i], bounds[i + 1])
        values = {n: x.flatten().tolist() for n, x in given.items() if n not in timed and not n.endswith("_0")}
        values |= {n: (given[n].flatten()[own].flip(0) if reverse else given[n].flatten()[own]).tolist() for n in timed}
        outputs, ends = by_hand(values, {n: x[i].item() for n, x in given.items() if n.endswith("_0")})
        for name, row in outputs.items():
            got = getattr(r, name).flatten()[own]
            want = torch.tensor(row, dtype=torch.float64)
            torch.testing.assert_close(got.flip(0) if reverse else got, want, rtol=1e-12, atol=1e-12)
        for name, value in ends.items():
            assert getattr(r, name)[i].item() == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_sequences_are_loops_by_hand(case: Any, reverse: bool) -> None:
    f, by_hand = case
    assert "lanes_forward::run_lanes<true, false>" in f.source
    given = arguments(f, 2, 2, STEPS)
    with torch.no_grad():
        r = f(**given, reverse=reverse)
    check(f, by_hand, given, [0, STEPS, 2 * STEPS], reverse, r)


@pytest.mark.parametrize(("bounds", "reverse"), [([0, 5000], False), ([0, STEPS], True), ([0, 5, 5, STEPS + 5], False)])
def test_gradients_are_those_of_the_loops(case: Any, bounds: list[int], reverse: bool) -> None:
    """In lanes, and of a pack in which a sequence runs in lanes and others do not."""
    f, by_hand = case
    assert "lanes_backward::run_lanes" in f.source
    whole = len(bounds) == 2
    given = {n: x.requires_grad_() for n, x in arguments(f, len(bounds) - 1, 1, bounds[-1]).items()}
    r = f(**given, reverse=reverse) if whole else f(**given, cu_seqlens=bounds)
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in r]
    found = torch.autograd.grad(list(r), list(given.values()), weights)
    timed = [n for n, axes in f.module._AXES.items() if "T" in axes]
    loss: Any = 0.0
    for i in range(len(bounds) - 1):
        own = slice(bounds[i], bounds[i + 1])
        rows = {n: x[0, own].flip(0) if reverse else x[0, own] for n, x in given.items() if n in timed}
        values = {n: [*x.reshape(-1).unbind()] for n, x in {**given, **rows}.items() if not n.endswith("_0")}
        outputs, ends = by_hand(values, {n: x[i].reshape(()) for n, x in given.items() if n.endswith("_0")})
        for name, w in zip(r._fields, weights, strict=True):
            w = w[0, own].flip(0) if reverse and name in outputs else w[0, own] if name in outputs else w[i : i + 1]
            row = outputs.get(name, [ends.get(name)])
            loss = loss + (torch.stack(row) * w.reshape(-1)).sum() if row else loss
    wanted = torch.autograd.grad(loss, list(given.values()))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_a_backward_scan_is_the_scan_of_reversed_steps(case: Any) -> None:
    """With all gradients, bit for bit; a call with `reverse` then runs forward."""
    f, _ = case
    back = seqc.compile(backwards(next(text for text, by_hand in CASES.values() if by_hand is case[1])), "cpu")
    assert "lanes_forward::run_lanes" in back.source and "lanes_backward::run_lanes" in back.source
    found = []
    for run, reverse in ((f, True), (back, False), (f, False), (back, True)):
        given = {n: x.requires_grad_() for n, x in arguments(f, 2, 2, STEPS).items()}
        r = run(**given, reverse=reverse)
        weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in r]
        found.append([*r, *torch.autograd.grad(list(r), list(given.values()), weights)])
    for one, other in ((0, 1), (2, 3)):
        for x, y in zip(found[one], found[other], strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("rows", [1, 3])
def test_advantages_are_the_loop(rows: int) -> None:
    """A backward scan of two states, one of which is an input a step before; a batch; gradients of two parameters."""
    f = seqc.compile(ADVANTAGES, "cpu")
    assert "lanes_forward::run_lanes" in f.source and "lanes_backward::run_lanes" in f.source
    make, steps = torch.Generator().manual_seed(rows), 4099
    given = [torch.rand(rows, steps, generator=make, dtype=torch.float64).requires_grad_() for _ in range(3)]
    given += [torch.tensor(x, dtype=torch.float64).requires_grad_() for x in (0.9, 0.8)]
    given += [torch.rand(rows, generator=make, dtype=torch.float64).requires_grad_() for _ in range(2)]
    r, v, done, g, fade, A, after = given
    column: list[torch.Tensor] = []
    for t in reversed(range(steps)):
        A = r[:, t] + g * (1 - done[:, t]) * after - v[:, t] + fade * g * (1 - done[:, t]) * A
        after = v[:, t]
        column.insert(0, A)
    wanted = [torch.stack(column, 1), torch.stack(column, 1) + v, A, after]
    found = [*f(*given[:5], A_0=given[5], after_0=given[6])]
    weights = [torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in found]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(found, given, weights)
    torch.testing.assert_close(got, torch.autograd.grad(wanted, given, weights), rtol=1e-11, atol=1e-11)


def test_a_pack_is_its_sequences(case: Any) -> None:
    f, by_hand = case
    bounds = [0, 5, 5, STEPS + 5, STEPS + 100]
    given = arguments(f, 4, 1, STEPS + 100)
    with torch.no_grad():
        timed = [n for n, axes in f.module._AXES.items() if "T" in axes]
        r = f(**given, cu_seqlens=bounds)
        check(f, by_hand, given, bounds, False, r)
        one = {n: x[:, 5 : STEPS + 5] if n in timed else x[2:3] if n.endswith("_0") else x for n, x in given.items()}
        for name in r._fields:
            alone = getattr(f(**one), name)
            assert torch.equal(getattr(r, name)[:, 5 : STEPS + 5] if alone.numel() > 1 else getattr(r, name)[2:3], alone)


def test_what_stands_later_reaches_nothing_before(case: Any) -> None:
    f, _ = case
    given = arguments(f, 1, 1, STEPS)
    with torch.no_grad():
        plain = f(**given)
        given["x"][0, 5000] = torch.nan
        spoilt = f(**given)
    name = plain._fields[0]
    assert torch.equal(getattr(plain, name)[0, :5000], getattr(spoilt, name)[0, :5000])
    assert getattr(spoilt, name)[0, 5004:].isnan().all()


def test_explain_tells_and_others_are_left(case: Any) -> None:
    assert "one in each lane of a vector" in case[0].explain()
    for text in (FILTER.replace("- sum", "- abs(y[t-1]) - sum"), FILTER.replace("u[t-4]", "u[t-5]")):
        assert "run_lanes" not in seqc.compile(text, "cpu").source

SECOND = """spec second
dim L = 2
input x
param a[L]
state y lag 2 = 0.5
y = x - sum[L](a * y[t - 1 - index[L]])
output y
output e = y[t-2]
"""


@pytest.fixture(scope="module")
def second() -> Any:
    return seqc.compile(SECOND, "cpu", dims={"L": 2})


def by_loop(x: list[float], a: list[float]) -> tuple[list[float], list[float]]:
    y = [0.5, 0.5]
    for value in x:
        y.append(value - a[0] * y[-1] - a[1] * y[-2])
    return y[2:], y[:-2]


@pytest.mark.parametrize("steps", [255, 256, 257, 1023, 1024, 1025, 2049, 8191, 8192, 8193, 16385, 20000])
def test_every_length_is_the_loop(second: Any, steps: int) -> None:
    """Shorter than lanes, whole pieces and stretches, and what they leave."""
    x = torch.rand(1, steps, generator=torch.Generator().manual_seed(steps), dtype=torch.float64) - 0.5
    for a in ([-0.9, 0.4], [1e-3, 1e-9], [0.0, 0.0], [0.0, -0.8], [-1.9, 0.95]):  # two of them soon forget
        with torch.no_grad():
            got = second(x, torch.tensor(a, dtype=torch.float64))
        for name, want in zip(("y", "e"), by_loop(x[0].tolist(), a), strict=True):
            torch.testing.assert_close(getattr(got, name)[0], torch.tensor(want, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("a", [[0.0, -0.8], [-0.9, 0.4], [1e-3, 1e-9]])
@pytest.mark.parametrize("place", [0, 2047, 2048, 9000, 19990])
def test_what_is_no_number_stays_where_it_is(second: Any, a: list[float], place: int) -> None:
    """An earlier value of a state does not become NaN before the state was; with sums of inputs by answers, it would."""
    x = torch.rand(1, 20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[0, place] = torch.nan
    with torch.no_grad():
        got = second(x, torch.tensor(a, dtype=torch.float64))
    for name, want in zip(("y", "e"), by_loop(x[0].tolist(), a), strict=True):
        assert torch.equal(getattr(got, name)[0].isnan(), torch.tensor(want).isnan())


def test_threads_change_no_bit(second: Any) -> None:
    x = torch.rand(1, 300_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5
    given = x.requires_grad_(), torch.tensor([-0.9, 0.4], dtype=torch.float64).requires_grad_()
    found, weights, before = [], torch.cos(torch.arange(300_000, dtype=torch.float64))[None], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        y = second(*given).y
        found.append((y, *torch.autograd.grad(y, given, weights)))
    torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_slow_state_reaches_what_no_state_comes_of() -> None:
    """`z` forward, and backward what a lag of `x` is due, go on from piece to piece with all that `y` still has."""
    f = seqc.compile("""spec slow
input x
param b, c
state y, z
y = 0.99 * y[t-1] + b * x + c * x[t-1]
z = y[t-1] - x
output z
""", "cpu")
    make = torch.Generator().manual_seed(3)
    given = {n: torch.randn(s, generator=make, dtype=torch.float64) for n, s in {"x": (2, 700), "b": (), "c": ()}.items()}
    given |= {n: torch.randn(2, generator=make, dtype=torch.float64) for n in ("y_0", "z_0")}
    given = {n: v.requires_grad_() for n, v in given.items()}
    x, y, made = given["x"], given["y_0"], []
    for t in range(700):
        made.append(y - x[:, t])
        y = 0.99 * y + given["b"] * x[:, t] + (given["c"] * x[:, t - 1] if t else 0.0)
    want, weight = torch.stack(made, 1), torch.randn(2, 700, generator=make, dtype=torch.float64)
    got = f(**given)
    torch.testing.assert_close(got.z, want, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(got.z_T, want[:, -1], rtol=1e-11, atol=1e-11)
    names = ["x", "b", "c", "y_0"]
    found = torch.autograd.grad((got.z * weight).sum() + got.y_T.sum(), [given[n] for n in names])
    wanted = torch.autograd.grad((want * weight).sum() + y.sum(), [given[n] for n in names])
    for name, one, other in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
