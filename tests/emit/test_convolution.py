"""`convolution`: a linear time-invariant recurrence by FFT, against the recurrence, another project's convolution, and
loops.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.analysis.time_invariant import not_invariant
from seqc.diagnostics import Unsupported
from seqc.frontend.elaborate import load
from seqc.ir.both_ways import one_run

ROOT = Path(__file__).parents[2]
LINEAR = {"dss", "holt_winters", "lfilter", "lru", "lssl", "s4", "s4d", "s5"}  # of the shipped specs
MODES = """spec modes
dim N
input u
param A[N] complex, C[N] complex, dt
state x[N] complex = 0
x = zoh(A, dt) * x[t-1] + (zoh(A, dt) - 1) / A * u
output y = 2 * re(sum[N](C * x))
"""
DENSE = """spec dense
dim D, N
input u[D], v
param A[N, N], Bm[N, D], Cm[D, N], b[N]
state x[N] = 0
x = A @ x[t-1] + Bm @ u + b * v[t-1]
output y = Cm @ x[t-1] + 2 * u
output z = v
"""
SIDES = """spec sides
dim H, N, K
input u[H]
param A[N, N], F[K, N], P[N, K], G[H, K], b[H, N], c[H]
state x[H, N] = 0, z[K, H] = 0, m[H] = 0
x = A @ x[t-1] + P @ z[t-1] + b * u
z = F @ x[t-1] + c * z[t-1]
m = c * m[t-1] + sum[K](G * z)
output y = sum[N](b * x) + m
"""


def drawn(f: Any, sizes: dict[str, int], batch: int, steps: int) -> dict[str, torch.Tensor]:
    """An input and parameters of a shipped spec in float64, and an initial state."""
    torch.manual_seed(0)
    layer = f.Module(**sizes).double()
    given = {name: (p if p.abs().sum() else torch.randn_like(p) * 0.3) for name, p in layer.named_parameters()}
    given = {"u": torch.randn(batch, steps, sizes.get("H", sizes.get("D", 0)), dtype=torch.float64), **given}
    ends = f(**given)._asdict()
    given |= {f"{name[:-2]}_0": torch.randn_like(x) for name, x in ends.items() if name.endswith("_T")}
    return {name: x.detach().requires_grad_() for name, x in given.items()}


def compare(found: Any, want: Any, given: dict[str, torch.Tensor]) -> None:
    """Results and all gradients, to 1e-9."""
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in want]
    torch.testing.assert_close(list(found), list(want), rtol=1e-9, atol=1e-9)
    slopes = (torch.autograd.grad(list(y), list(given.values()), weights, materialize_grads=True) for y in (found, want))
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("spec", "sizes"), [
    ("s4d", {"M": 2, "H": 3, "N": 2}), ("lru", {"D": 3, "N": 4, "M": 2}), ("s4", {"M": 2, "H": 2, "N": 3}),
])  # fmt: skip
def test_is_the_recurrence(spec: str, sizes: dict[str, int]) -> None:
    f = seqc.compile(spec, "torch")
    given = drawn(f, sizes, 2, 37)
    whole = f(**given)
    compare(f.convolution(**given), whole, given)
    cut = {name: x[:, :20] if name == "u" else x for name, x in given.items()}
    state = {f"{name[:-2]}_0": x for name, x in f.convolution(**cut)._asdict().items() if name.endswith("_T")}
    step = f.step(**{name: x[:, 20] if name == "u" else x for name, x in given.items()} | state)
    torch.testing.assert_close(step.y, whole.y[:, 20], rtol=1e-9, atol=1e-9)


def test_a_long_sequence() -> None:
    f = seqc.compile("s4d", "torch")
    given = drawn(f, {"M": 1, "H": 1, "N": 2}, 1, 16384)
    compare(f.convolution(**given), f(**given), given)


@pytest.mark.long
@pytest.mark.parametrize(("spec", "sizes"), [
    ("s4d", {"M": 1, "H": 2, "N": 4}), ("s4", {"M": 1, "H": 2, "N": 4}), ("lssl", {"M": 1, "H": 2, "N": 6}),
])  # fmt: skip
def test_long_sequences_in_native_code(spec: str, sizes: dict[str, int]) -> None:
    """The recurrence in native code, its convolution, and a step that goes on from the latter's states; 16,384 steps."""
    f = seqc.compile(spec, "cpu")
    given = drawn(f, sizes, 1, 16384)
    found = f.convolution(**given)
    compare(found, f(**given), given)
    states = {f"{name[:-2]}_0": x.detach() for name, x in found._asdict().items() if name.endswith("_T")}
    again = {name: x[:, :1] if name == "u" else x for name, x in given.items()} | states
    one = f.step(**{name: x[:, 0] if name == "u" else x for name, x in again.items()})
    torch.testing.assert_close(one.y, f(**again).y[:, 0], rtol=1e-9, atol=1e-9)


def test_initial_values_of_state_spaces() -> None:
    """Those of the page, against the formulas of HiPPO, S4D and LRU, element by element."""
    blocks = (ROOT / "docs" / "calls.md").read_text(encoding="utf-8").split("```seq\n")
    text = next(x for x in blocks if x.startswith("spec starts"))
    made = dict(seqc.compile(text.split("```")[0], "torch").Module(N=5).named_parameters())
    N, root = 5, [math.sqrt(2 * n + 1) for n in range(5)]
    want = {
        "A_legs": [[-(n + 1) if n == k else -root[n] * root[k] if n > k else 0 for k in range(N)] for n in range(N)],
        "A_legt": [[-root[n] * root[k] * (1 if k <= n else (-1) ** (n - k)) for k in range(N)] for n in range(N)],
        "B_leg": root, "A_log": [math.log(0.5)] * N, "A_lin": [math.pi * n for n in range(N)],
        "A_inv": [10 / math.pi * (10 / (2 * n + 1) - 1) for n in range(N)],
    }  # fmt: skip
    for name, x in want.items():
        torch.testing.assert_close(made[name].double(), torch.tensor(x, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    sizes = torch.exp(-torch.exp(made["nu_log"]))
    assert sizes.min() > 0.9 and sizes.max() < 0.999
    torch.testing.assert_close((sizes**2).diff(), torch.full((4,), (0.999**2 - 0.9**2) / 5), rtol=1e-4, atol=1e-6)


def test_another_projects_convolution() -> None:
    f = seqc.compile(MODES, "torch")
    with np.load(ROOT / "tests" / "planes" / "cases" / "s4_long_convolution.npz") as file:
        data = {key: torch.tensor(file[key]) for key in file.files}
    given = {key[3:]: x.requires_grad_() for key, x in data.items() if key.startswith("in.")}
    y = f.convolution(given["u"][..., 0], **{name: x for name, x in given.items() if name != "u"}).y
    torch.testing.assert_close(y[..., None], data["out.y"], rtol=1e-9, atol=1e-9)
    slopes = torch.autograd.grad((y[..., None] * data["cot.y"]).sum(), list(given.values()))
    for name, slope in zip(given, slopes, strict=True):
        torch.testing.assert_close(slope, data[f"grad.{name}"], rtol=1e-9, atol=1e-9 * float(1 + slope.abs().max()))


def test_a_dense_system_with_several_inputs() -> None:
    """Against a plain loop: an output that reads the state before the step, and an input of the step before."""
    torch.manual_seed(0)
    shapes = {"u": (3, 9, 2), "v": (3, 9), "A": (3, 3), "Bm": (3, 2), "Cm": (2, 3), "b": (3,), "x_0": (3, 3)}
    given = {name: (torch.randn(shape, dtype=torch.float64) / 2).requires_grad_() for name, shape in shapes.items()}
    x, before, rows = given["x_0"], torch.zeros(3, dtype=torch.float64), []
    for t in range(9):
        rows.append(x @ given["Cm"].T + 2 * given["u"][:, t])
        x = x @ given["A"].T + given["u"][:, t] @ given["Bm"].T + before[:, None] * given["b"]
        before = given["v"][:, t]
    compare(seqc.compile(DENSE, "torch").convolution(**given), (torch.stack(rows, 1), given["v"] * 1, x), given)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 33, 64, 100])
def test_blocks_of_steps(steps: int) -> None:
    """Any number of steps, cut into blocks of powers of two, with inputs of up to three steps before, against a plain loop."""
    torch.manual_seed(steps)
    shapes = {"u": (2, steps, 2), "v": (2, steps), "A": (3, 3), "Bm": (3, 2), "Cm": (2, 3), "b": (3,), "x_0": (2, 3)}
    given = {name: (torch.randn(shape, dtype=torch.float64) / 3).requires_grad_() for name, shape in shapes.items()}
    x, rows = given["x_0"], []
    for t in range(steps):
        rows.append(x @ given["Cm"].T + 2 * given["u"][:, t])
        before = given["v"][:, t - 3] if t > 2 else torch.zeros(2, dtype=torch.float64)
        x = x @ given["A"].T + given["u"][:, t] @ given["Bm"].T + before[:, None] * given["b"]
    f = seqc.compile(DENSE.replace("v[t-1]", "v[t-3]").replace("output z = v\n", ""), "torch")
    compare(f.convolution(**given)[:2], (torch.stack(rows, 1), x), given)


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_states_side_by_side(steps: int) -> None:
    """States that share one dim, at different places, and have places of other dims, or none, against a plain loop."""
    torch.manual_seed(steps)
    shapes = {"u": (2, steps, 2), "A": (3, 3), "F": (4, 3), "P": (3, 4), "G": (2, 4), "b": (2, 3), "c": (2,)}
    shapes |= {"x_0": (2, 2, 3), "z_0": (2, 4, 2), "m_0": (2, 2)}
    given = {name: (torch.randn(shape, dtype=torch.float64) / 3).requires_grad_() for name, shape in shapes.items()}
    A, F, P, G, b, c = (given[name] for name in "AFPGbc")
    x, z, m, rows = given["x_0"], given["z_0"], given["m_0"], []
    for t in range(steps):
        new = x @ A.T + z.mT @ P.T + b * given["u"][:, t, :, None]
        x, z = new, F @ x.mT + c * z
        m = c * m + (G.T * z).sum(1)
        rows.append((b * x).sum(2) + m)
    compare(seqc.compile(SIDES, "torch").convolution(**given), (torch.stack(rows, 1), x, z, m), given)


@pytest.mark.parametrize("steps", [1, 6, 40])
def test_what_outputs_read_of_earlier_states(steps: int) -> None:
    """States of different dims, one of which reaches outputs through another alone, against a plain loop."""
    text = """spec through
dim H, N, D
input u[H]
param a[H, N], g[H, N], b[H, N], c[H], r[H], C[D, H]
state x[H, N] = 0, w[H] = 0, k[H] = 0
x = a * x[t-1] + g * w[t-1]
w = c * w[t-1] + u
k = r * k[t-1] + sum[N](b * x)
output y = C @ k
output z = x
output q = w[t-1]
"""
    torch.manual_seed(steps)
    shapes = {"u": (2, steps, 2), "a": (2, 3), "g": (2, 3), "b": (2, 3), "c": (2,), "r": (2,), "C": (4, 2)}
    shapes |= {"x_0": (2, 2, 3), "w_0": (2, 2), "k_0": (2, 2)}
    given = {name: (torch.randn(shape, dtype=torch.float64) / 2).requires_grad_() for name, shape in shapes.items()}
    a, g, b, c, r, C = (given[name] for name in "agbcrC")
    x, w, k, rows = given["x_0"], given["w_0"], given["k_0"], []
    for t in range(steps):
        x, before, w = a * x + g * w[:, :, None], w, c * w + given["u"][:, t]
        k = r * k + (b * x).sum(2)
        rows.append((k @ C.T, x, before))
    want = [torch.stack(y, 1) for y in zip(*rows, strict=True)]
    compare(seqc.compile(text, "torch").convolution(**given), (*want, x, w, k), given)


@pytest.mark.parametrize("steps", [129, 150, 257])
def test_lengths_of_transforms(steps: int) -> None:
    """Transforms of 3, 5 and 9 times a power of two, and sequences that are more than a cache holds at once."""
    f = seqc.compile(MODES, "torch")
    torch.manual_seed(0)
    given = {"u": torch.randn(1100, steps), "A_re": -torch.rand(3), "dt": torch.tensor(0.1)}
    given |= {name: torch.randn(3) for name in ("A_im", "C_re", "C_im")}
    given = {name: x.double().requires_grad_() for name, x in given.items()}
    length = f.module._length(2 * steps - 1)
    assert 2 * steps - 1 <= length < (1 << (2 * steps - 1).bit_length())
    compare(f.convolution(**given), f(**given), given)


def test_recognised_and_refused() -> None:
    """By the graph alone; what is none says which factor stands in the way."""
    programs = {path.stem: one_run(load(path)) for path in sorted((ROOT / "specs").glob("*.seq"))}
    assert {name for name, program in programs.items() if not not_invariant(program)} == LINEAR
    f = seqc.compile("hgrn", "torch")
    with pytest.raises(Unsupported, match="hgrn is not a linear time-invariant system"):
        f.convolution(torch.ones(1, 2, 3), -torch.ones(1, 2, 3))
    constant = "spec a\ninput x\nstate h = 0\nh = 0.5 * h[t-1] + x + 1\noutput h\n"
    assert not_invariant(load(constant)) == "`h` is not 0 where inputs and states are"
    summed = "spec b\ndim D\ninput x[D]\nstate h = 0\nh = 0.5 * h[t-1] + sum[D](where(D > 7, x, 1))\noutput h\n"
    assert not_invariant(load(summed)) == "`h` is not 0 where inputs and states are"
    assert "linear and time-invariant" in seqc.explain("s4d", "torch") and "time-invariant" not in seqc.explain("hgrn", "torch")
    with pytest.raises(TypeError, match="a convolution takes no `reverse`"):
        seqc.compile(MODES, "torch").convolution(*(torch.ones(1, 1),) * 1, *(torch.ones(1),) * 4, torch.ones(()), reverse=True)


def test_from_the_last_step_back() -> None:
    text = DENSE.replace("dim D", "scan backward\ndim D", 1)
    f = seqc.compile(text, "torch")
    torch.manual_seed(1)
    shapes = {"u": (2, 7, 2), "v": (2, 7), "A": (3, 3), "Bm": (3, 2), "Cm": (2, 3), "b": (3,), "x_0": (2, 3)}
    given = {name: (torch.randn(shape, dtype=torch.float64) / 2).requires_grad_() for name, shape in shapes.items()}
    compare(f.convolution(**given), f(**given), given)


def test_chosen_by_the_sizes_of_a_call() -> None:
    """Where the spec asks for it: many steps in plain torch; few never; and never a pack."""
    f = seqc.compile(MODES + "schedule convolution\n", "torch")
    torch.manual_seed(0)
    params = [-torch.rand(3).double(), torch.randn(3).double(), torch.randn(3).double(), torch.randn(3).double()]
    u, taken = torch.randn(2, 700, dtype=torch.float64), []
    own = f.module._convolved
    f.module._convolved = lambda *args, **more: taken.append(1) or own(*args, **more)
    given = (*params, torch.tensor(0.1).double())
    whole = f(u, *given)
    assert len(taken) == 1
    f.module.CONVOLUTION = False
    torch.testing.assert_close(f(u, *given), whole, rtol=1e-10, atol=1e-10)
    f.module.CONVOLUTION = True
    f(u[:, :20], *given), f(u[:1], *given, cu_seqlens=torch.tensor([0, 300, 700])), f(u, *given, reverse=True)
    assert len(taken) == 1
    assert "a call takes it where the model of its sizes says so" in " ".join(f.explain().split())
    with pytest.raises(Unsupported, match="a is not a linear time-invariant system"):
        seqc.compile("spec a\ninput x\nstate h = 0\nh = tanh(h[t-1] + x)\noutput h\nschedule convolution\n", "torch")


def test_one_number_a_step() -> None:
    """States, inputs and outputs without dims, in a graph of torch.compile too, where a call chooses."""
    f = seqc.compile("spec one\ninput u\nparam c\nstate h = 1\nh = c * h[t-1] + u\noutput h\nschedule convolution\n", "torch")
    u, c = torch.randn(2, 500, dtype=torch.float64).requires_grad_(), torch.tensor(0.9).double().requires_grad_()
    given = {"u": u, "c": c}
    f.module.CONVOLUTION = False
    whole = f(**given)
    compare(f.convolution(**given), whole, given)
    f.module.CONVOLUTION, f.module._convolution_pays = True, lambda device, batch, steps, *sizes: steps > 64
    traced = torch.compile(lambda u, c: f.module.one(u, c), backend="eager", fullgraph=True)
    compare(traced(u, c), f.convolution(**given), given)


def test_states_alone() -> None:
    """A recurrence without outputs."""
    f = seqc.compile("spec kept\ndim D\ninput u[D]\nparam c[D]\nstate h[D] = 0\nh = c * h[t-1] + u\n", "torch")
    given = {"u": torch.randn(2, 80, 3).double().requires_grad_(), "c": torch.rand(3).double().requires_grad_()}
    compare(f.convolution(**given), f(**given), given)


def test_a_layer_in_single_precision() -> None:
    torch.manual_seed(0)
    layer = seqc.compile("lru", "torch").Module(D=3, N=4, M=2)
    u = torch.randn(2, 100, 3)
    torch.testing.assert_close(layer.convolution(u), layer(u), rtol=1e-4, atol=1e-4)
