"""`down N: g = ..`: several rates in one spec, against loops in torch that move a slow state at its own steps alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import seqc
from seqc.driver.compile import Options, compile_spec
from seqc.driver.explain.text import explanation
from seqc.frontend.elaborate import load
from tests.triton import processes

Given = dict[str, Tensor]
TIERS = '''spec tiers
dim D, E, P = 4
input x[D]
param r[D], s[E], q[D], W[E, P, D], U[P, D, E]
state h[D] = 0, g[E] = 0, u[P, D] = 0, k[D] = 0
h = r * h[t-1] + x
y = x + h
z = sum[P](W @ down[P](y))
down 4: g = s * g[t-1] + z
down 4: u = U @ (z + g)
k = q * k[t-1] + y + up[P](u[t-1])
output o = k
output slow = g
'''
FRAMES = '''spec frames
dim D, E
input x[D]
param W[E, D], R[E, E]
state g[E] = 0, begun = 0
begun = 1
down 2 first 1: g = tanh(W @ ((x + x[t-1]) / (1 + begun[t-1])) + R @ g[t-1])
output o = g * sum[D](x[t-2])
'''
THREE = '''spec three
dim D, P = 2, Q = 3
input x[D]
param a[D], b[P, D], c[Q, D], e[P, D]
state h[D] = 0, g[D] = 0, f[Q, D] = 0, l[D] = 0, m[P, D] = 0
h = a * h[t-1] + x
down 2: g = 0.5 * g[t-1] + sum[P](b * down[P](h))
down 6: f = 0.3 * f[t-1] + c * down[Q](g)
down 2: l = 0.7 * l[t-1] + up[Q](f[t-1]) + g
down 2: m = e * tanh(l)
output o[D] = h + up[P](m[t-1])
'''
JOINED = '''spec joined
dim D
input x[D]
param R[D, D], S[D, D]
state h[D] = 0, g[D] = 0.5
h = tanh(R @ h[t-1] + x + g[t-1])
down 3: g = tanh(S @ g[t-1] + h)
output o = h + g
'''
SPECS = {"tiers": TIERS, "frames": FRAMES, "three": THREE, "joined": JOINED}
SIZES = {"tiers": {"D": 3, "E": 2}, "frames": {"D": 3, "E": 2}, "three": {"D": 3}, "joined": {"D": 3}}


def tiers(t: Given, x: Tensor, n: int, v: Given) -> Given:
    h = v["r"] * t["h"] + x
    y, now = x + h, dict(t, h=h)
    if n % 4 == 3:
        rows = torch.stack([t["y_lag3"], t["y_lag2"], t["y_lag1"], y], 1)
        z = torch.einsum("epd,bpd->be", v["W"], rows)
        now["g"] = v["s"] * t["g"] + z
        now["u"] = torch.einsum("pde,be->bpd", v["U"], z + now["g"])
    now["k"] = v["q"] * t["k"] + y + t["u"][:, n % 4]
    return now | {"y_lag1": y, "y_lag2": t["y_lag1"], "y_lag3": t["y_lag2"], "o": now["k"], "slow": now["g"]}


def frames(t: Given, x: Tensor, n: int, v: Given) -> Given:
    now = dict(t, begun=torch.ones_like(t["begun"]))
    past = t.get("x1", torch.zeros_like(x))
    if n % 2 == 1:
        mean = (x + past) / (1 + t["begun"][:, None])
        now["g"] = torch.tanh(mean @ v["W"].T + t["g"] @ v["R"].T)
    return now | {"x1": x, "x2": past, "o": now["g"] * t.get("x2", torch.zeros_like(x)).sum(-1, keepdim=True)}


def three(t: Given, x: Tensor, n: int, v: Given) -> Given:
    h = v["a"] * t["h"] + x
    now = dict(t, h=h, o=h + t["m"][:, n % 2])
    if n % 2 == 1:
        now["g"] = 0.5 * t["g"] + v["b"][0] * t["h"] + v["b"][1] * h
        if n % 6 == 5:
            now["f"] = 0.3 * t["f"] + v["c"] * torch.stack([t["g_lag4"], t["g_lag2"], now["g"]], 1)
        now["l"] = 0.7 * t["l"] + t["f"][:, n % 6 // 2] + now["g"]
        now["m"] = v["e"] * torch.tanh(now["l"])[:, None]
    return now | {"g_lag2": t["g"], "g_lag3": t["g_lag2"], "g_lag4": t["g_lag3"]}


def joined(t: Given, x: Tensor, n: int, v: Given) -> Given:
    h = torch.tanh(t["h"] @ v["R"].T + x + t["g"])
    g = torch.tanh(t["g"] @ v["S"].T + h) if n % 3 == 2 else t["g"]
    return dict(t, h=h, g=g, o=h + g)


LOOPS: dict[str, tuple[Callable[..., Given], int]] = {
    "tiers": (tiers, 4), "frames": (frames, 2), "three": (three, 6), "joined": (joined, 3),
}  # fmt: skip


def arguments(name: str, batch: int, steps: int, ragged: bool) -> tuple[Given, Given]:
    """Inputs and params; states before the first step. ragged: whether each sequence begins elsewhere in its group."""
    torch.manual_seed(3)
    program = load(SPECS[name])
    sizes = {**SIZES[name], **{d.name: d.default for d in program.dims.values() if d.default}}
    draw = lambda dims: torch.rand([sizes[d.rstrip("'")] for d in dims], dtype=torch.float64) - 0.3  # noqa: E731
    given = {"x": torch.randn(batch, steps, sizes["D"], dtype=torch.float64)}
    given |= {x: draw(d.dims) for x, d in program.params.items()}
    states = {f"{x.replace('.', '_')}_0": torch.stack([draw(d.dims) for _ in range(batch)]) for x, d in program.states.items()}
    for x in program.states:
        if x.startswith("down") or x == "begun":
            begins = torch.arange(batch) % (LOOPS[name][1] if ragged else 1) + (name == "frames")
            every = int(x.split(".")[1]) if x.startswith("down") else 2
            states[f"{x.replace('.', '_')}_0"] = (begins % every).double()
    return given, states


def looped(name: str, given: Given, states: Given) -> Given:
    """The loop, sequence by sequence."""
    step, group = LOOPS[name]
    count = next(x for x in (f"down_{group}_0", "down_2_1_0") if x in states)
    runs = []
    for b in range(len(given["x"])):
        now = {x.removesuffix("_0"): value[b : b + 1] for x, value in states.items()}
        n, rows = int(states[count][b]), list[Given]()
        for t in range(given["x"].shape[1]):
            now = step(now, given["x"][b : b + 1, t], n % group, given)
            n, rows = n + 1, [*rows, now]
        results = {x: torch.stack([row[x] for row in rows], 1) for x in ("o", "slow") if x in now}
        runs.append(results | {f"{x.removesuffix('_0')}_T": now[x.removesuffix("_0")] for x in states if "down" not in x})
    return {x: torch.cat([run[x] for run in runs]) for x in runs[0]}


@cache
def made(name: str, backend: str) -> Any:
    return seqc.compile(SPECS[name], backend, dims=SIZES[name] if backend == "cpu" else {})


def slopes(found: Given, moved: list[Tensor]) -> tuple[Tensor, ...]:
    weights = torch.Generator().manual_seed(0)
    ends = [(x * torch.randn(x.shape, generator=weights, dtype=x.dtype)).sum() for _, x in sorted(found.items())]
    return torch.autograd.grad(torch.stack(ends).sum(), moved, materialize_grads=True, allow_unused=True)


@pytest.mark.parametrize("ragged", [False, True], ids=("alike", "ragged"))
@pytest.mark.parametrize(("name", "backend"), [*((name, "torch") for name in SPECS), ("tiers", "cpu")])
@pytest.mark.parametrize("steps", [1, 13, 24])
def test_loops(name: str, backend: str, steps: int, ragged: bool) -> None:
    given, states = arguments(name, 3, steps, ragged)
    moved = [x.requires_grad_() for y, x in {**given, **states}.items() if not y.startswith(("down", "begun"))]
    want = looped(name, given, states)
    got = {x: y for x, y in made(name, backend)(**given, **states)._asdict().items() if x in want and x != "begun_T"}
    want = {x: want[x] for x in got}
    for x, y in want.items():
        torch.testing.assert_close(got[x], y, rtol=1e-11, atol=1e-11, msg=x)
    for a, b in zip(slopes(got, moved), slopes(want, moved), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def portions(stream: Any, x: Tensor, cut: list[int]) -> Tensor:
    found = [stream.push(x=x[:, a:b]) for a, b in pairwise(cut)] + [stream.flush()]
    return torch.cat([one.o for one in found], 1)


@pytest.mark.parametrize("name", SPECS)
def test_other_calls(name: str) -> None:
    """Parts, steps, states at positions, packs, the other direction and streams give what one call gives."""
    given, states = arguments(name, 3, 23, True)
    f, params = made(name, "torch"), {x: y for x, y in given.items() if x != "x"}
    x, whole = given["x"], f(**given, **states)
    ends = [y for y in whole._fields if y.endswith("_T")]
    if name != "frames":  # which reads inputs of other steps
        outs, now = [], states
        for a, b in ((0, 1), (1, 10), (10, 23)):
            part = f(x=x[:, a:b], **params, **now)
            outs, now = [*outs, part.o], {f"{y.removesuffix('_T')}_0": getattr(part, y) for y in ends}
        torch.testing.assert_close(torch.cat(outs, 1), whole.o, rtol=1e-12, atol=1e-12)
        outs, now = [], states
        for t in range(23):
            one = f.step(x=x[:, t], **params, **now)
            outs, now = [*outs, one.o], {f"{y.removesuffix('_T')}_0": getattr(one, y) for y in ends}
        torch.testing.assert_close(torch.stack(outs, 1), whole.o, rtol=1e-12, atol=1e-12)
    bounds = [0, 4, 4, 23]
    pack = f(x=x[:1], **params, **states, cu_seqlens=torch.tensor(bounds), reverse=True)
    for i, (a, b) in enumerate(pairwise(bounds)):
        own = {y: z[i : i + 1] for y, z in states.items()}
        if b > a:
            alone = f(x=x[:1, a:b], **params, **own, reverse=True)
            torch.testing.assert_close(pack.o[:, a:b], alone.o, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(pack.g_T[i], alone.g_T[0], rtol=1e-12, atol=1e-12)
    whole = f(**given)
    for cut in ([0, 23], [0, 1, 5, 5, 16, 23], [*range(24)]):
        torch.testing.assert_close(portions(f.stream(**params), x, cut), whole.o, rtol=1e-12, atol=1e-12)


def test_both_ways_and_a_closed_loop() -> None:
    given, _ = arguments("joined", 2, 11, False)
    both = seqc.compile(TIERS.replace("dim D, E", "scan both shared\ndim D, E"), "torch")
    given, _ = arguments("tiers", 2, 11, False)
    there, back = made("tiers", "torch")(**given), made("tiers", "torch")(**{**given, "x": given["x"].flip(1)})
    torch.testing.assert_close(both(**given).o, torch.cat([there.o, back.o.flip(1)], -1), rtol=1e-12, atol=1e-12)
    loop = seqc.compile(TIERS + "feedback x = o[t-1]\n", "torch")
    x = given["x"][:, :3]
    found = loop.generate(x=x, **{y: z for y, z in given.items() if y != "x"}, steps=11)
    fed = torch.cat([x, found.o[:, 2:-1]], 1)
    torch.testing.assert_close(made("tiers", "torch")(**{**given, "x": fed}).o, found.o, rtol=1e-12, atol=1e-12)


def test_slow_steps_are_taken_once_a_group() -> None:
    """The plan runs slow states over T / N steps; what feeds faster ones, and is fed by them, is held at every step."""
    for name, walks in (("tiers", ["clocks", "steps", "groups", "all", "steps", "steps"]), ("joined", ["steps"])):
        compiled = compile_spec(SPECS[name], Options(backend="torch"))
        assert [stage.walk for stage in compiled.plan.every()] == walks
    assert "feeds faster states and is fed by them" in str(compiled.plan.told)


def in_triton(names: list[str]) -> None:
    """The Triton form against the oracle, in a process whose Triton is the interpreter; prints what is wrong."""
    from tests.triton import interpreter

    interpreter.choose()
    from seqc.check.emitted_case import Case
    from seqc.check.sampling import sample_sizes
    from seqc.check.verify_emitted import against_oracle
    from seqc.driver.load_emitted import load_emitted

    for name in names:
        compiled = compile_spec(SPECS[name], Options(backend="triton"))
        module = load_emitted(compiled.text, compiled.signature.spec)
        vars(module)["_form"] = lambda *tensors, module=module: module._TRITON
        case = Case(compiled.program, module, {**sample_sizes(compiled.program), **SIZES[name]}, 9, "float32", False)
        wrong = [one for one in against_oracle(case) if not one.error <= one.allowed]
        print("".join(f"{name}: {one}" for one in wrong), end="")


def test_triton() -> None:
    pytest.importorskip("triton")
    done = processes.run(["-c", "from tests.emit.test_down import in_triton; in_triton(['tiers', 'three'])"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stdout.strip(), done.stdout


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_an_index_alone(backend: str) -> None:
    """Where no input is a number, an index tells how many steps there are: for the counts of groups, and for reads ahead."""
    text = """spec words
dim V, D, P = 3
input w index V
param E[V, D], r[D]
state g[D] = 0, h[D] = 0
e = E[w]
down 3: g = tanh(r * g[t-1] + sum[P](down[P](e)))
h = r * h[t-1] + e * g[t-1] + f[t+1]
f = e * E[w[t-1]]
output o = h
"""
    generator = torch.Generator().manual_seed(1)
    w = torch.randint(0, 4, (2, 11), generator=generator)
    E, r = torch.randn(4, 3, generator=generator).double(), torch.rand(3, generator=generator).double()
    moved, zero = [E.requires_grad_(), r.requires_grad_()], torch.zeros(2, 3, dtype=torch.float64)
    e = E[w]
    g, h, rows = zero, zero, []
    for t in range(11):
        ahead = e[:, t + 1] * e[:, t] if t < 10 else zero
        h = r * h + e[:, t] * g + ahead
        g = torch.tanh(r * g + e[:, t - 2 : t + 1].sum(1)) if t % 3 == 2 else g
        rows.append(h)
    f = seqc.compile(text, backend, dims={"D": 3} if backend == "cpu" else {})
    found, want = {"o": f(w=w, E=E, r=r).o}, {"o": torch.stack(rows, 1)}
    torch.testing.assert_close(found["o"], want["o"], rtol=1e-12, atol=1e-12)
    for a, b in zip(slopes(found, moved), slopes(want, moved), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_native_part_tells_of_its_own_recurrences() -> None:
    """Where rows that an index reads leave a recurrence of the part to torch, in blocks, it is none of native code's."""
    text = """spec words
dim V, D, P = 3
input w index V
param E[V, D], r[D]
state g[D] = 0
e = E[w]
down 3: g = tanh(r * g[t-1] + sum[P](down[P](e)))
output g
"""
    compiled = compile_spec(text, Options(backend="cpu"))
    assert {block.form for block in compiled.stages["cpu"].values()} == {"step", "scan"}
    assert compiled.blocks["cpu"].form == "step" and "g[D]: nonlinear" in explanation(compiled)
