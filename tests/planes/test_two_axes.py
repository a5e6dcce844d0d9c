"""Two axes: numbers of other projects, and double loops in plain torch with torch's autograd. The oracle and every backend."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.frontend.elaborate import load
from seqc.semantics import reference
from tests.triton import processes

HERE = Path(__file__).parent
Tensors = dict[str, torch.Tensor]
BOUNDARY = {"h_u_0": "left", "h_0": "top", "h_t_u_0": "corner", "h_T": "last_t", "h_u_T": "last_u"}  # ours: theirs
backends = pytest.mark.parametrize("backend", ["torch", "cpu"])


@cache
def made(name: str, backend: str) -> Any:
    own = HERE / f"{name}.seq"
    return seqc.compile(own if own.exists() else name, backend)


def case(name: str) -> dict[str, dict[str, torch.Tensor]]:
    """The arrays of a case: "in", "out", "cot" and "grad"."""
    groups: dict[str, Tensors] = {"in": {}, "out": {}, "cot": {}, "grad": {}}
    with np.load(HERE / "cases" / f"{name}.npz") as file:
        for key in file.files:
            kind, _, word = key.partition(".")
            groups[kind][word] = torch.tensor(file[key], requires_grad=kind == "in" and f"grad.{word}" in file.files)
    return groups


def compare(data: dict[str, Tensors], found: Tensors) -> None:
    """Results, and gradients of those inputs that have one."""
    for name, want in data["out"].items():
        torch.testing.assert_close(found[name], want, rtol=1e-9, atol=1e-9)
    given = [data["in"][name] for name in data["grad"]]
    ends = [(found[name] * weight).sum() for name, weight in data["cot"].items()]
    slopes = torch.autograd.grad(torch.stack(ends).sum(), given)
    torch.testing.assert_close(dict(zip(data["grad"], slopes, strict=True)), data["grad"], rtol=1e-9, atol=1e-9)


@backends
@pytest.mark.parametrize("name", ["axes_linear", "axes_linear_boundary"])
def test_linear(name: str, backend: str) -> None:
    data = case(name)
    given = {ours: data["in"][theirs] for ours, theirs in BOUNDARY.items() if theirs in data["in"]}
    given |= {name: data["in"].get(name, torch.zeros_like(data["in"]["a"])) for name in "xabc"}
    found = made("plane", backend)(**given)._asdict()
    compare(data, {BOUNDARY.get(name, name): x for name, x in found.items()})


def test_oracle() -> None:
    data = case("axes_linear_boundary")
    own = {"h_u_0": "h.u_0", "h_t_u_0": "h.t.u_0", "h_u_T": "h.u_T"}
    names = {theirs: own.get(ours, ours) for ours, theirs in BOUNDARY.items()}
    arrays, weights = ({names.get(k, k): x.detach().numpy() for k, x in data[kind].items()} for kind in ("in", "cot"))
    found, slopes = reference.gradients(load(HERE / "plane.seq"), arrays, weights)
    for kind, got in (("out", found), ("grad", slopes)):
        for name, want in data[kind].items():
            np.testing.assert_allclose(got[names.get(name, name)], want.numpy(), rtol=1e-9, atol=1e-9)


@backends
def test_soft_dtw(backend: str) -> None:
    data = case("soft_dtw")
    x, y, gamma = (data["in"][name] for name in ("x", "y", "gamma"))
    R = made("soft_dtw", backend)((x[:, :, None] - y[:, None]).square().sum(-1), gamma).R
    compare(data, {"R": R, "loss": R[:, -1, -1]})


@backends
def test_chimera(backend: str) -> None:
    """A double loop: two states that feed each other, one along each axis."""
    torch.manual_seed(0)
    B, T, V, D, N = 2, 5, 4, 3, 2
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("x", "delta1", "delta2"), (B, T, V, D))
    shapes |= dict.fromkeys(("B1", "B2", "C1", "C2"), (B, T, V, N)) | dict.fromkeys(("A1", "A2", "A3", "A4"), (D, N))
    g = {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}
    zero = torch.zeros(B, D, N, dtype=torch.float64)
    h1, h2, rows = dict[tuple[int, int], Any](), dict[tuple[int, int], Any](), []
    for t in range(T):
        for v in range(V):
            dt1, dt2 = (torch.nn.functional.softplus(g[k][:, t, v])[..., None] for k in ("delta1", "delta2"))
            x = g["x"][:, t, v, :, None]
            left = [h.get((t - 1, v), zero) for h in (h1, h2)]
            below = [h.get((t, v - 1), zero) for h in (h1, h2)]
            a = [torch.exp(-dt * g[f"A{i}"].exp()) for i, dt in ((1, dt1), (2, dt1), (3, dt2), (4, dt2))]
            h1[t, v] = a[0] * left[0] + a[1] * left[1] + dt1 * g["B1"][:, t, v, None] * x
            h2[t, v] = a[2] * below[0] + a[3] * below[1] + dt2 * g["B2"][:, t, v, None] * x
            rows.append((h1[t, v] * g["C1"][:, t, v, None] + h2[t, v] * g["C2"][:, t, v, None]).sum(-1))
    want = torch.stack(rows, 1).unflatten(1, (T, V))
    found = made("chimera", backend)(**g).y
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)
    weight = torch.cos(torch.arange(want.numel(), dtype=torch.float64)).view(want.shape)
    slopes = (torch.autograd.grad((y * weight).sum(), list(g.values())) for y in (found, want))
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


def test_rnnt() -> None:
    """The loss of the RNN transducer, with a length on both axes for each sequence."""
    data = case("rnnt")
    log_p = data["in"]["logits"].log_softmax(-1)
    labels, t, u = (data["in"][name].long() for name in ("y", "t_len", "u_len"))
    batch, steps, width, _ = log_p.shape
    chosen = labels[:, None, :, None].expand(batch, steps, width - 1, 1)
    label = torch.nn.functional.pad(log_p[:, :, :-1].gather(-1, chosen)[..., 0], (0, 1), value=-1e9)
    first = torch.zeros_like(label)
    first[:, 0, 0] = 1
    A, rows = made("rnnt", "torch")(log_p[..., 0], label, first).A, torch.arange(batch)
    compare(data, {"loss": -(A[rows, t - 1, u] + log_p[..., 0][rows, t - 1, u])})


def cell(given: Tensors, reverse: bool) -> Tensors:
    """`plane_cell` cell by cell: both axes run from their last place on, the first from its first where `reverse`."""
    turns = [2] if reverse else [1, 2]
    x, y = (given[name].flip(turns) for name in "xy")
    g, w, start = given["g"].flip(turns), given["w"], given["start"]
    batch, steps, width, dim = x.shape
    top, left = given["h_0"].flip(1), given.get("h_freq_0", (0.5 * start).expand(batch, steps, dim)).flip(turns[:-1])
    c_top, h, c = given["c_0"].flip(1), dict[tuple[int, int], torch.Tensor](), dict[tuple[int, int], torch.Tensor]()
    z = {}
    for t in range(steps):
        for u in range(width):
            h_t, c_t = (h[t - 1, u], c[t - 1, u]) if t else (top[:, u], c_top[:, u])
            h_u = h[t, u - 1] if u else left[:, t]
            inside = t > 0 and u < width - 1
            other = y[:, t - 1, u + 1] if inside else torch.zeros_like(x[:, 0, 0])
            c[t, u] = torch.exp(g[:, t, u]) * c_t + 1
            h[t, u] = torch.tanh(h_t @ given["R"].T + h_u @ given["S"].T + x[:, t, u] + other * c[t, u][:, None])
            z[t, u] = (h[t, u] * w).sum(-1) + c_t

    def plane(values: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.stack([values[t, u] for u in range(width)], 1) for t in range(steps)], 1).flip(turns)

    last = {f"{name}_T": torch.stack([y[steps - 1, u] for u in range(width)], 1) for name, y in (("h", h), ("c", c))}
    ends = torch.stack([h[t, width - 1] for t in range(steps)], 1).flip(turns[:-1])
    return {"h": plane(h), "z": plane(z), "h_freq_T": ends, **{name: y.flip(1) for name, y in last.items()}}


def drawn(steps: int, width: int, edge: bool) -> Tensors:
    make = torch.Generator().manual_seed(steps * 10 + width)
    plane = (2, steps, width)
    shapes = {"x": (*plane, 3), "y": (*plane, 3), "g": plane, "R": (3, 3), "S": (3, 3), "start": (3,), "w": (2, 3),
              "h_0": (2, width, 3), "c_0": (2, width), **({"h_freq_0": (2, steps, 3)} if edge else {})}
    given = {name: torch.randn(shape, generator=make, dtype=torch.float64) for name, shape in shapes.items()}
    given["g"] = -given["g"].abs()
    return {name: x.requires_grad_() for name, x in given.items()}


@pytest.mark.parametrize(("backend", "steps", "width", "edge", "reverse"), [
    ("torch", 3, 5, False, False), ("torch", 1, 4, True, True), ("torch", 5, 1, True, False), ("torch", 1, 1, False, True),
    ("torch", 3, 4, False, True), ("cpu", 4, 3, True, False), ("cpu", 1, 3, False, True),  # one build
])  # fmt: skip
def test_cells(backend: str, steps: int, width: int, edge: bool, reverse: bool) -> None:
    given = drawn(steps, width, edge)
    found, want = made("plane_cell", backend)(**given, reverse=reverse)._asdict(), cell(given, reverse)
    make = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(y.shape, generator=make, dtype=torch.float64) for name, y in want.items()}
    slopes = []
    for made_ in (found, want):
        torch.testing.assert_close({name: made_[name] for name in want}, want, rtol=1e-11, atol=1e-11)
        ends = torch.stack([(made_[name] * weight).sum() for name, weight in weights.items()])
        slopes.append(torch.autograd.grad(ends.sum(), list(given.values()), materialize_grads=True))
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


def test_a_plane_may_be_cut_on_either_axis() -> None:
    data, plane = case("axes_linear_boundary"), made("plane", "torch")
    inputs = {name: data["in"][name].detach() for name in "xabc"}
    starts = {ours: data["in"][theirs].detach() for ours, theirs in BOUNDARY.items() if theirs in data["in"]}
    whole = plane(**inputs, **starts)
    one = plane(**{k: x[:, :2] for k, x in inputs.items()}, **{**starts, "h_u_0": starts["h_u_0"][:, :2]})
    two = plane(**{k: x[:, 2:] for k, x in inputs.items()}, h_0=one.h_T, h_t_u_0=one.h_t_u_T, h_u_0=starts["h_u_0"][:, 2:])
    torch.testing.assert_close(torch.cat([one.h, two.h], 1), whole.h, rtol=1e-12, atol=1e-12)
    one = plane(**{k: x[:, :, :2] for k, x in inputs.items()}, **{**starts, "h_0": starts["h_0"][:, :2]})
    after = {"h_0": starts["h_0"][:, 2:], "h_t_u_0": starts["h_0"][:, 1], "h_u_0": one.h_u_T}
    two = plane(**{k: x[:, :, 2:] for k, x in inputs.items()}, **after)
    torch.testing.assert_close(torch.cat([one.h, two.h], 2), whole.h, rtol=1e-12, atol=1e-12)
    rows, state = [], {name: starts[name] for name in ("h_0", "h_t_u_0")}
    for t in range(whole.h.shape[1]):
        row = plane.step(**{k: x[:, t] for k, x in inputs.items()}, **state, h_u_0=starts["h_u_0"][:, t])
        rows.append(row.h)
        state = {"h_0": row.h_T, "h_t_u_0": row.h_t_u_T}
    torch.testing.assert_close(torch.stack(rows, 1), whole.h, rtol=1e-12, atol=1e-12)


def test_edit_distance() -> None:
    """Levenshtein's distance: the boundary counts, and is said in the spec on one axis and passed on the other."""
    text = """spec edit
axis i, j
input differs
state D
before i: D = 1 + index[j]
before i, j: D = 0
D = min(D[i-1] + 1, D[j-1] + 1, D[i-1, j-1] + differs)
output D
"""
    a, b = "kitten", "sitting"
    differs = torch.tensor([[[float(x != y) for y in b] for x in a]])
    edit = seqc.compile(text, "torch")
    assert edit(differs, D_j_0=1 + torch.arange(6.0)[None]).D[0, -1, -1] == 3


def test_in_tritons_interpreter() -> None:
    """Results and gradients of the Triton form against the oracle, in a process of its own."""
    ran = processes.run(["-m", "tests.planes.in_triton", str(HERE / "plane_cell.seq")])
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["count"] == 2 and told["worst"] < 1.0


NOISY = """spec noisy_plane
axis t, u
dim D
input x[D], a[D] in [0, 0.5]
param size init 0.3
state h[D] = 0
e = normal[D]()
kept = bernoulli[D](0.5, once)
h = a * h[t-1] + 0.4 * kept * h[u-1] + x + size * e * h[t-1, u-1]
output h, e, kept
"""


@backends
def test_noise_is_drawn_at_every_place(backend: str) -> None:
    """The numbers of the oracle, of a run in parts and of single rows; a loop that is given them has all gradients."""
    draw = torch.Generator().manual_seed(0)
    x, a = (torch.rand(2, 4, 3, 2, generator=draw, dtype=torch.float64).div(2).requires_grad_() for _ in range(2))
    size = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    one = seqc.compile(NOISY, backend)
    found = one(x, a, size, seed=7)
    told = seqc.oracle(NOISY, x=x.detach(), a=a.detach(), size=size.detach(), seed=7)
    for name in ("h", "e", "kept"):
        np.testing.assert_allclose(getattr(found, name).detach().numpy(), told[name], rtol=0, atol=1e-12)
    e, kept = found.e.detach(), found.kept.detach()
    assert e.unique().numel() == e.numel() and torch.equal(kept, kept[:, :1].expand_as(kept)) and 0 < kept.mean() < 1
    h: dict[tuple[int, int], torch.Tensor] = {}
    zero = torch.zeros(2, 2, dtype=torch.float64)
    for t, u in ((t, u) for t in range(4) for u in range(3)):
        up, left, corner = (h.get(at, zero) for at in ((t - 1, u), (t, u - 1), (t - 1, u - 1)))
        h[t, u] = a[:, t, u] * up + 0.4 * kept[:, t, u] * left + x[:, t, u] + size * e[:, t, u] * corner
    want = torch.stack([torch.stack([h[t, u] for u in range(3)], 1) for t in range(4)], 1)
    torch.testing.assert_close(found.h, want, rtol=0, atol=1e-12)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), [x, a, size]) for y in (found.h, want)), strict=True)
    for mine, its in pairs:
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-11)
    first = one(x[:, :1], a[:, :1], size, seed=7)
    states = {f"{name[:-2]}_0": value for name, value in first._asdict().items() if name.endswith("_T") and name != "h_u_T"}
    rest = one(x[:, 1:], a[:, 1:], size, **states)
    assert torch.equal(torch.cat([first.e, rest.e], 1), found.e)
    assert torch.equal(one.step(x[:, 0], a[:, 0], size, seed=7).e, found.e[:, 0])
    assert not torch.equal(one(x, a, size, seed=8).e, found.e)


@pytest.mark.parametrize("name", ["plane", "rnnt"])
def test_explained(name: str) -> None:
    """What is said of a state is said of it in one run over one axis, which has states of its own."""
    told = made(name, "torch").explain()
    assert "transition of" in told and "no output depends on it" not in told
