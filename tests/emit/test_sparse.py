"""`sparse`: every rule and every backend against loops of plain torch that multiply by masks written out here, with every
gradient; what is left out has no effect, whatever it holds."""

import re
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch

import seqc
from seqc.api import Recurrence
from seqc.diagnostics import SpecError
from seqc.frontend.elaborate import load
from seqc.semantics import reference
from tests.triton import processes

H, D, WIDTH = 2, 8, 3
SPEC = """spec kept
dim I, H, D = 8
input x[I]
param W[H, D, I]
param N[H, D, D], S[H, D, D], L[H, D, D], P[H, D, D], G[H, D, D], M[H, D, D] complex
state h[H, D] = 0
h = tanh(W @ x + (N + S) @ h[t-1] + L @ h[t-1] - P @ h[t-1] + re(M @ h[t-1]) + G @ h[t-1])
output h
output y[H] = sum[D](P * h)[D' = 2]
sparse N by band 2 zero diagonal
sparse L by lower
sparse P by blocks 4
sparse G by graph watts_strogatz(k=4, p=0.3, seed=5)
sparse S, W by mask
sparse S by band 5
sparse M by magnitude keep 50%
"""


def _masks() -> dict[str, torch.Tensor]:
    """What the rules of SPEC mean, element by element."""
    rules: dict[str, Callable[[int, int], bool]] = {
        "N": lambda i, j: i != j and -2 <= i - j <= 2, "S": lambda i, j: -5 <= i - j <= 5, "L": lambda i, j: i >= j,
        "P": lambda i, j: (i < 4) == (j < 4),
    }
    masks = {name: torch.tensor([[float(rule(i, j)) for j in range(D)] for i in range(D)]).double()
             for name, rule in rules.items()}
    graph = torch.zeros(D, D, dtype=torch.float64)
    for i, j in nx.watts_strogatz_graph(D, 4, 0.3, seed=5).edges:
        graph[i, j] = graph[j, i] = 1.0
    return {**masks, "G": graph}


def arguments(steps: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    square = ("N", "S", "L", "P", "G", "M_re", "M_im")
    given = {"x": torch.randn(2, steps, WIDTH), "W": torch.randn(H, D, WIDTH)}
    given |= {name: torch.randn(H, D, D) for name in square}
    given = {name: (0.4 * x).double().requires_grad_() for name, x in given.items()}
    masks = {name: (torch.rand(given[of].shape) < 0.5) for name, of in
             (("S_mask", "S"), ("W_mask", "W"), ("M_mask", "M_re"))}
    return {**given, **masks}


def loop(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence of SPEC in plain torch."""
    masks = _masks()
    masks["S"] = masks["S"] * given["S_mask"]
    masks |= {"W": given["W_mask"].double(), "M_re": given["M_mask"].double()}
    w = {name: given[name] * mask for name, mask in masks.items()}
    R = w["N"] + w["S"] + w["L"] - w["P"] + w["M_re"] + w["G"]
    h = torch.zeros(2, H, D, dtype=torch.float64)
    out, read = [], []
    for t in range(given["x"].shape[1]):
        h = torch.tanh(torch.einsum("hdi,bi->bhd", w["W"], given["x"][:, t]) + torch.einsum("hij,bhj->bhi", R, h))
        out.append(h)
        read.append((w["P"][:, :, 2] * h).sum(-1))
    return torch.stack(out, 1), torch.stack(read, 1)


@pytest.fixture(scope="module", params=["torch", "cpu"])
def kept(request: Any) -> Recurrence:
    return seqc.compile(SPEC, backend=request.param)


def _slopes(results: Any, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(9)
    loss = torch.stack([(torch.randn_like(y) * y).sum() for y in results]).sum()
    wanted = {name: x for name, x in given.items() if x.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(x) if d is None else d for (name, x), d in zip(wanted.items(), found, strict=True)}


def test_against_torch(kept: Recurrence) -> None:
    given = arguments()
    want = loop(given)
    got = kept(**given)
    torch.testing.assert_close((got.h, got.y), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(_slopes((got.h, got.y), given), _slopes(want, given), rtol=0, atol=1e-10)
    h = None
    for t in range(4):
        one = kept.step(**{**given, "x": given["x"][:, t]}, **({} if h is None else {"h_0": h}))
        h = one.h_T
    torch.testing.assert_close(h, want[0][:, -1], rtol=0, atol=1e-12)


def test_the_oracle_agrees() -> None:
    given = arguments()
    want = loop(given)
    weights = [torch.randn_like(y) for y in want]
    arrays = {name: x.detach().numpy() for name, x in given.items()}
    results, slopes = reference.gradients(load(SPEC), arrays, {"h": weights[0].numpy(), "y": weights[1].numpy()})
    torch.testing.assert_close(torch.tensor(results["h"]), want[0].detach(), rtol=0, atol=1e-12)
    loss = torch.stack([(a * b).sum() for a, b in zip(want, weights, strict=True)]).sum()
    names = [name for name in given if given[name].requires_grad and name != "M_im"]
    for name, d in zip(names, torch.autograd.grad(loss, [given[name] for name in names]), strict=True):
        torch.testing.assert_close(torch.tensor(slopes[name]), d, rtol=0, atol=1e-10)


def test_what_is_left_out_may_hold_anything(kept: Recurrence) -> None:
    given = arguments()
    clean = kept(**given)
    rules = {**_masks(), "W": given["W_mask"], "M_re": given["M_mask"], "M_im": given["M_mask"]}
    rules["S"] = rules["S"] * given["S_mask"]
    spoilt = {name: torch.where(rules[name].bool(), x, torch.tensor([torch.nan, torch.inf]).double()[torch.randint(2, x.shape)])
              .detach().requires_grad_() if name in rules else x for name, x in given.items()}
    dirty = kept(**spoilt)
    assert torch.equal(dirty.h, clean.h) and torch.equal(dirty.y, clean.y)
    for name, d in _slopes((dirty.h, dirty.y), spoilt).items():
        assert torch.isfinite(d).all(), name
        if name in rules:
            assert (d == 0)[~rules[name].bool().expand(d.shape)].all(), name


def test_nothing_kept_is_legal(kept: Recurrence) -> None:
    given = arguments()
    given |= {name: torch.zeros_like(x) for name, x in given.items() if name.endswith("_mask")}
    want, got = loop(given), kept(**given)
    torch.testing.assert_close((got.h, got.y), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(_slopes((got.h, got.y), given), _slopes(want, given), rtol=0, atol=1e-10)


def test_shapes_of_masks_are_checked(kept: Recurrence) -> None:
    given = arguments()
    with pytest.raises(ValueError, match="W_mask"):
        kept(**{**given, "W_mask": given["W_mask"][:, :, :2]})
    with pytest.raises(ValueError, match="G"):
        kept(**{**given, "G": given["G"][:, :4, :4]})


def test_triton_in_its_interpreter() -> None:
    """Masks are applied before any kernel: one short run shows that they reach Triton's."""
    said = processes.run(["-m", "tests.emit.sparse_interpreted"])
    assert said.returncode == 0, said.stderr
    assert float(said.stdout.split()[-1]) < 2e-5


def test_both_directions_have_masks_of_their_own() -> None:
    text = "spec both\ndim D\nscan both\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\noutput h = tanh(x + R @ h[t-1])\n"
    both = seqc.compile(text + "sparse R by mask\n", backend="torch")
    one = seqc.compile(text.replace("scan both\n", ""), backend="torch")
    torch.manual_seed(0)
    x, R, back = torch.randn(2, 5, 4), torch.randn(4, 4), torch.randn(4, 4)
    masks = torch.rand(2, 4, 4) < 0.5
    got = both(x=x, R=R, R_reverse=back, R_mask=masks[0], R_mask_reverse=masks[1]).h
    want = torch.cat([one(x, R * masks[0]).h, one(x, back * masks[1], reverse=True).h], -1)
    torch.testing.assert_close(got, want)


def test_a_module_has_its_masks_as_buffers() -> None:
    module = seqc.compile(SPEC, backend="torch").Module(I=WIDTH, H=H)
    assert dict(module.named_buffers()).keys() == {"S_mask", "W_mask", "M_mask"}
    assert all(mask.all() for mask in module.buffers())
    assert module(torch.randn(2, 3, WIDTH)).h.shape == (2, 3, H, D)


def test_a_graph_fixes_its_dim() -> None:
    with pytest.raises(seqc.Unsupported, match="cannot be 16"):
        seqc.compile(SPEC, backend="torch", dims={"D": 16})


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_layers_of_one_graph(backend: str) -> None:
    """Blocks between layers of sizes of their own, of every gate, inside a layer, and back from a later one."""
    text = """spec layered
dim D = 7, E = 4, G = 2
input x[D]
param W[G, E, D], R[D, D], V[D, E]
state f[D] = 0, g[E] = 0
f = tanh(x + R @ f[t-1] + V @ g[t-1])
a = W @ f
output g = sigmoid(a[G = 0]) * tanh(a[G = 1] + g[t-1])
sparse W, R, V by graph watts_strogatz(k=4, p=0.5, seed=1) over D, E
sparse W by mask
"""
    torch.manual_seed(0)
    given = {name: torch.randn(shape).double().requires_grad_() for name, shape in
             {"x": (2, 5, 7), "W": (2, 4, 7), "R": (7, 7), "V": (7, 4)}.items()}
    mask = torch.rand(2, 4, 7) < 0.6
    graph = torch.tensor(nx.to_numpy_array(nx.watts_strogatz_graph(11, 4, 0.5, seed=1)))
    W, R, V = given["W"] * graph[7:, :7] * mask, given["R"] * graph[:7, :7], given["V"] * graph[:7, 7:]
    f, g, rows = torch.zeros(2, 7).double(), torch.zeros(2, 4).double(), []
    for x in given["x"].unbind(1):
        f = torch.tanh(x + f @ R.T + g @ V.T)
        a = torch.einsum("ged,bd->gbe", W, f)
        g = torch.sigmoid(a[0]) * torch.tanh(a[1] + g)
        rows.append(g)
    want, got = torch.stack(rows, 1), seqc.compile(text, backend)(**given, W_mask=mask).g
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(_slopes([got], given), _slopes([want], given), rtol=0, atol=1e-11)


def test_products_of_complex_states_may_be_sparse() -> None:
    text = """spec turned
dim N
input x[N]
param A[N, N] complex
state s[N] complex = 0
s = 0.5 * A @ s[t-1] + x
output y = re(s)
sparse A by mask
"""
    torch.manual_seed(0)
    x, parts, mask = torch.randn(2, 6, 4).double(), torch.randn(2, 4, 4).double(), torch.rand(4, 4) < 0.5
    s, rows = torch.zeros(2, 4, dtype=torch.complex128), []
    for now in x.unbind(1):
        s = 0.5 * s @ (torch.complex(*parts) * mask).T + now
        rows.append(s.real)
    for backend in ("torch", "cpu"):
        got = seqc.compile(text, backend)(x, *parts, A_mask=mask).y
        torch.testing.assert_close(got, torch.stack(rows, 1), rtol=0, atol=1e-12)


def test_taps_may_be_sparse_and_sums_of_nothing_may_not() -> None:
    taps = "spec ar\ndim L = 4\ninput x\nparam a[L]\noutput y = sum[L](a * x[t - index[L]])\nsparse a by mask\n"
    got = seqc.compile(taps, backend="torch")(torch.ones(1, 6), torch.ones(4), torch.tensor([1, 0, 1, 0])).y
    assert got.tolist() == [[1, 1, 2, 2, 2, 2]]
    with pytest.raises(SpecError, match="no product"):
        load("spec a\ndim D\ninput x[D]\nparam b[D]\noutput y = x * b\nsparse b by mask\n")


def test_steps_along_another_axis() -> None:
    given = arguments()
    kept = seqc.compile(SPEC, backend="torch")
    turned = {**given, "x": given["x"].movedim(1, 0)}
    torch.testing.assert_close(kept(**turned, axis=0).h.movedim(0, 1), kept(**given).h)


def test_explain_says_what_is_kept_and_what_it_saves(kept: Recurrence) -> None:
    told = " ".join(kept.explain().split())
    assert re.search(r"P: by blocks 4; rules keep [\d. kM]+ of [\d. kM]+ elements \(50%\); what is left out counts as 0", told)
    assert "W: by mask; the caller gives the mask, the argument and buffer W_mask" in told
    native = "_NATIVE_KERNELS" in kept.source
    assert bool(re.search(r"L: by lower; .*? a product with the state skips it in native code", told)) == native
    assert ("S: by mask; by band 5" in told) and ("it stands in no product by itself" in told) == native  # N + S
