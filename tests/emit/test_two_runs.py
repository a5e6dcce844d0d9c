"""`scan both`: against torch's bidirectional layers, against two runs of the one-way spec, and at every boundary of torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.check.sampling import sample, sample_sizes
from seqc.driver.load_emitted import load_emitted
from tests.emit import packed

ROOT = Path(__file__).parents[2]
GRU = ROOT / "specs" / "bidirectional_gru.seq"
LSTM = """
spec bilstm
dim M, D
scan both
input x[M]
param W_i[D, M], W_f[D, M], W_g[D, M], W_o[D, M], R_i[D, D], R_f[D, D], R_g[D, D], R_o[D, D]
param b_i[D], b_f[D], b_g[D], b_o[D]
state h[D] = 0, c[D] = 0
i = sigmoid(W_i @ x + R_i @ h[t-1] + b_i)
f = sigmoid(W_f @ x + R_f @ h[t-1] + b_f)
g = tanh(W_g @ x + R_g @ h[t-1] + b_g)
o = sigmoid(W_o @ x + R_o @ h[t-1] + b_o)
c = f * c[t-1] + i * g
output h = o * tanh(c)
"""
SUM = """
spec decayed
dim D
{scan}
input x[D], g[D] in [-inf, 0]
state h[D] = 0
h = exp(g) * h[t-1] + x
output y = h * x
output size = sum[D](h)
"""
M, D = 3, 4


@cache
def made(text: str | Path, backend: str) -> ModuleType:
    found = seqc.compile(text, backend=backend)
    return load_emitted(found.source, "two_runs")


def torch_layer(kind: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A bidirectional layer of torch in float64, and its weights by the names of the spec."""
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(M, D, batch_first=True, bidirectional=True, dtype=torch.float64)
    given = {}
    for end, mark in (("", ""), ("_reverse", "_reverse")):
        W, R, b, b_h = (getattr(layer, f"{part}_l0{end}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        for i, gate in enumerate("rzn" if kind == "GRU" else "ifgo"):
            rows = slice(i * D, (i + 1) * D)
            given |= {f"W_{gate}{mark}": W[rows], f"R_{gate}{mark}": R[rows], f"b_{gate}{mark}": b[rows] + b_h[rows]}
            if gate == "n":
                given |= {f"a_n{mark}": b[rows], f"b_n{mark}": b_h[rows]}
    return layer, given


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_is_torchs_bidirectional_layer(kind: str) -> None:
    layer, given = torch_layer(kind)
    x = torch.randn(2, 7, M, dtype=torch.float64, requires_grad=True)
    starts = torch.randn(2 if kind == "LSTM" else 1, 2, 2, D, dtype=torch.float64, requires_grad=True)  # what, run, batch
    theirs, ends = layer(x, starts[0] if kind == "GRU" else tuple(starts))
    spec = made(GRU if kind == "GRU" else LSTM, "torch")
    named = {f"{'hc'[i]}{mark}_0": starts[i, j] for i in range(len(starts)) for j, mark in enumerate(("", "_reverse"))}
    mine = getattr(spec, spec.__all__[2])(x, **given, **named)
    torch.testing.assert_close(mine.h, theirs)
    last = torch.stack([mine.h_T, mine.h_reverse_T])
    torch.testing.assert_close(last, ends if kind == "GRU" else ends[0])
    weights = torch.randn_like(theirs)
    wanted = [x, starts, *layer.parameters()]
    found = torch.autograd.grad((mine.h * weights).sum() + last.sum(), wanted)
    theirs_last = (ends if kind == "GRU" else ends[0]).sum()
    torch.testing.assert_close(found, torch.autograd.grad((theirs * weights).sum() + theirs_last, wanted))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_is_two_runs_of_the_one_way_spec(backend: str) -> None:
    """And `reverse` turns both around: the same as turning the arrays."""
    one, both = (made(SUM.format(scan=line), backend) for line in ("", "scan both"))
    x, g = torch.randn(2, 9, D), -torch.rand(2, 9, D)
    first, back = one.decayed(x, g), one.decayed(x, g, reverse=True)
    mine = both.decayed(x, g)
    assert mine._fields == ("y", "size", "h_T", "h_reverse_T")
    assert torch.equal(mine.y, torch.cat([first.y, back.y], -1)) and mine.size.shape == (2, 9, 2)
    assert torch.equal(mine.size, torch.stack([first.size, back.size], -1))
    assert torch.equal(mine.h_T, first.h_T) and torch.equal(mine.h_reverse_T, back.h_T)
    torch.testing.assert_close(both.decayed(x, g, reverse=True).y, both.decayed(x.flip(1), g.flip(1)).y.flip(1))


JOINED = """
spec joined
dim D
scan both {words}
input x[D], x_reverse[D]
param R[D, D], a[D]
state h[D] = a
h = tanh(R @ h[t-1] + x + 0.3 * x_reverse[t-1])
output h
output size = sum[D](h * a)
"""


@pytest.mark.parametrize("words", ["sum", "shared", "shared sum", "sum shared"])
def test_runs_joined_otherwise(words: str) -> None:
    """Against the plain loop with torch's autograd: one whole batch, and a pack; in both directions."""
    torch.manual_seed(0)
    x, z, a, b = (torch.randn(*s, dtype=torch.float64) for s in ((2, 6, D), (2, 6, D), (D,), (D,)))
    R, S = (torch.randn(D, D, dtype=torch.float64) / 2 for _ in range(2))
    own = [x, z, R, a, *(() if "shared" in words else (S, b))]
    for tensor in own:
        tensor.requires_grad_()

    def loop(x: torch.Tensor, z: torch.Tensor, R: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, rows, before = a.expand(x.shape[0], D), [], torch.zeros_like(z[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(h @ R.T + x[:, t] + 0.3 * before)
            rows.append(h)
            before = z[:, t]
        return torch.stack(rows, 1), torch.stack([(row * a).sum(-1) for row in rows], 1)

    def both(x: torch.Tensor, z: torch.Tensor, turn: bool) -> list[torch.Tensor]:
        first, second = (R, a), ((R, a) if "shared" in words else (S, b))
        runs = [loop(x, z, *first), loop(x.flip(1), z.flip(1), *second)]
        if turn:
            runs = [loop(x.flip(1), z.flip(1), *first), loop(x, z, *second)]
        runs[not turn] = tuple(y.flip(1) for y in runs[not turn])
        if "sum" in words:
            return [y + w for y, w in zip(*runs, strict=True)]
        return [torch.cat([runs[0][0], runs[1][0]], -1), torch.stack([runs[0][1], runs[1][1]], -1)]

    spec = made(JOINED.format(words=words), "cpu" if words == "sum shared" else "torch")
    given = dict(zip(("x", "x_reverse", "R", "a", "R_reverse", "a_reverse"), own, strict=False))
    for turn in (False, True):
        mine, want = spec.joined(**given, reverse=turn), both(x, z, turn)
        weights = [torch.randn_like(y) for y in want]
        torch.testing.assert_close(list(mine[:2]), want)
        slopes = (torch.autograd.grad(list(y), own, weights) for y in (mine[:2], want))
        torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)
    pack = {name: y.flatten(0, 1)[None] if name in ("x", "x_reverse") else y for name, y in given.items()}
    packed_run = spec.joined(**pack, cu_seqlens=torch.tensor([0, 6, 12]))
    torch.testing.assert_close(packed_run.h.view_as(mine.h), spec.joined(**given).h)
    arrays = {name: y.detach().numpy() for name, y in given.items()}
    truth = seqc.oracle(JOINED.format(words=words), **arrays)
    torch.testing.assert_close(torch.from_numpy(truth["h"]), spec.joined(**given).h)


def test_oracle_of_two_runs() -> None:
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 5, D)), -rng.random((2, 5, D))
    both, one = (seqc.oracle(SUM.format(scan=line), x=x, g=g) for line in ("scan both", ""))
    back = seqc.oracle(SUM.format(scan="scan backward"), x=x, g=g)
    np.testing.assert_array_equal(both["y"], np.concatenate([one["y"], back["y"]], -1))
    np.testing.assert_array_equal(both["size"], np.stack([one["size"], back["size"]], -1))
    np.testing.assert_array_equal(both["h_reverse_T"], back["h_T"])


def test_module_shares_what_it_is_told_to_share() -> None:
    torch.manual_seed(0)
    layer = made(GRU, "torch").BidirectionalGru(M=M, D=D)
    assert layer.R_n_reverse.shape == (D, D) and not torch.equal(layer.R_n, layer.R_n_reverse)
    layer.R_n_reverse = layer.R_n
    assert len(list(layer.parameters())) == 19
    x = torch.randn(2, 5, M)
    layer(x).h.sum().backward()
    both = layer.R_n.grad.clone()
    given = {n: p.detach().requires_grad_() for n, p in layer.named_parameters()} | {"R_n_reverse": layer.R_n.detach()}
    given["R_n_reverse"] = given["R_n_reverse"].clone().requires_grad_()
    made(GRU, "torch").bidirectional_gru(x, **given).h.sum().backward()
    torch.testing.assert_close(both, given["R_n"].grad + given["R_n_reverse"].grad)


@pytest.mark.parametrize("call", ["function", "module", "gradient"])
def test_a_step_is_refused(call: str) -> None:
    spec = made(GRU, "cpu")
    layer = spec.BidirectionalGru(M=M, D=D)
    if call == "gradient":
        layer.requires_grad_(True)
    why = "bidirectional_gru has no step, for one of its runs begins at the last"
    with torch.set_grad_enabled(call == "gradient"), pytest.raises(NotImplementedError, match=why):
        step: Any = layer.step if call != "function" else lambda x: spec.bidirectional_gru_step(x, *layer.parameters())
        step(torch.randn(2, M))


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad: bool) -> None:
    """A batch without gradients, and a pack with them."""
    program = packed.compiled("both_ways", "cpu").program
    arrays, _ = sample(program, sample_sizes(program), 5, rows=1 if grad else None)
    arguments = [torch.tensor(x, dtype=torch.float32, requires_grad=grad) for x in arrays.values()]
    bounds = torch.tensor([0, 2, 5]) if grad else None
    torch.library.opcheck(packed.module("both_ways", "cpu")._OPS.run.default, (*arguments, bounds, False))


def test_compiled_by_torch_without_a_break() -> None:
    spec = made(SUM.format(scan="scan both"), "cpu")

    def run(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        y, size, *_ = spec.decayed(x.sin(), g)
        return y.square().sum() + size.cos().sum()

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in (127, 193):
        args = [torch.randn(2, steps, D, requires_grad=True), (-torch.rand(2, steps, D)).requires_grad_()]
        mine, truth = compiled(*args), run(*args)
        torch.testing.assert_close(mine, truth)
        torch.testing.assert_close(torch.autograd.grad(mine, args), torch.autograd.grad(truth, args))
