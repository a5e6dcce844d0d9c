"""`stream`: a sequence in portions, against one call over all of it; another project's stream."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.diagnostics import Unsupported

CASE = Path(__file__).parents[1] / "planes" / "cases" / "streaming_fir.npz"
FIR = """spec fir
dim D, L = 9
input x[D]
param c[L, D]
output y = sum[L](c * x[t + 5 - index[L]])
"""
AHEAD = """spec ahead
dim D, L = 3
input x[D], a[D] in [0, 1]
param w[L, D]
state h[D] = 0.5
e = x * x[t+1] + 1
h = a * h[t-1] + e[t+2] - sum[L](w * x[t - 2*index[L]])
output y = h * e[t+1] + h[t-3]
"""
WINDOW = """spec window
dim J = 5
input x
output y = fold[J](0, r -> 0.5 * r + x[t + 4 - index[J]])
"""
WORDS = """spec words
dim V, D
input w index V
param E[V, D]
state h[D] = 0
h = tanh(h[t-1] + E[w[t+1]] - E[w[t-1]] + 0.1 * normal[D]())
output h
"""
CUTS = ([0, 40], [0, 1, 5, 12, 12, 32, 40], [*range(41)], [0, 17, 39, 40])


def portions(stream: Any, x: dict[str, torch.Tensor], cut: list[int]) -> Any:
    """All outputs of a stream, and the last states."""
    found = [stream.push(**{name: one[:, a:b] for name, one in x.items()}) for a, b in pairwise(cut)] + [stream.flush()]
    count = sum(not name.endswith("_T") for name in found[0]._fields)
    return type(found[-1])(*(torch.cat(rows, 1) for rows in zip(*(r[:count] for r in found), strict=True)), *found[-1][count:])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_another_projects_stream(backend: str) -> None:
    """Which gives what comes before the first step too."""
    with np.load(CASE) as file:
        data = {key: torch.tensor(file[key]) for key in file.files}
    x, c = data["in.x"], data["in.c"]
    stream = seqc.compile(FIR, backend).stream(latency=5, c=c)
    assert (stream.lookahead, stream.latency, stream.group, stream.buffer) == (5, 5, 1, {"x": 8})
    bounds = [0, *np.cumsum(data["in.piece_len"].numpy())]
    found = []
    for k, (a, b) in enumerate(pairwise(bounds)):
        found.append(stream.push(x[:, a:b]).y)
        want = data[f"out.s_{k}"]
        torch.testing.assert_close(found[-1], want[:, want.shape[1] - found[-1].shape[1] :], rtol=1e-12, atol=1e-12)
        assert sum(y.shape[1] for y in found) == max(0, b - 5)
    found.append(stream.flush().y)
    torch.testing.assert_close(found[-1], data["out.tail"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(found, 1), data["out.y"], rtol=1e-12, atol=1e-12)


def given(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs of 40 steps, and the rest."""
    torch.manual_seed(0)
    r = lambda *shape: torch.randn(*shape)  # noqa: E731
    return {
        "fir": ({"x": r(2, 40, 3)}, {"c": r(9, 3)}),
        "ahead": ({"x": r(2, 40, 3), "a": torch.rand(2, 40, 3)}, {"w": r(3, 3), "h_0": r(2, 3)}),
        "window": ({"x": r(2, 40)}, {}),
        "words": ({"w": torch.randint(0, 7, (2, 40))}, {"E": r(7, 3), "seed": 3}),
        "qrnn": ({"x": r(2, 40, 4)}, {k: r(5, 4) for k in ("W_z", "W_f", "W_o", "V_z", "V_f", "V_o")}
                 | {k: r(5) for k in ("b_z", "b_f", "b_o")}),
        "gla": ({"q": r(2, 40, 2, 4), "k": r(2, 40, 2, 4), "v": r(2, 40, 2, 4), "g": -torch.rand(2, 40, 2, 4)}, {}),
    }[name]  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("spec", [FIR, AHEAD, WINDOW, WORDS, "qrnn", "gla"])
def test_equals_one_call_for_every_cut(spec: str, backend: str) -> None:
    """To the bit, but for products and blocks over all steps: there to rounding, and to the bit for all cuts."""
    f = seqc.compile(spec, backend)
    x, rest = given(f.__name__)
    whole = f(**x, **rest)
    ahead = {"fir": 5, "ahead": 3, "window": 4, "words": 1}.get(f.__name__, 0)
    for latency in (None, ahead, ahead + 3):
        results = []
        for cut in CUTS:
            stream = f.stream(latency=latency, **rest)
            assert stream.lookahead == ahead
            results.append(portions(stream, x, cut))
        for name, one, *others in zip(whole._fields, *results, strict=True):
            assert all(torch.equal(one, other) for other in others), (name, latency)
            if stream.exact or (f.__name__ in ("fir", "window", "gla") and latency is None):
                assert torch.equal(one, getattr(whole, name)), (name, latency)
            torch.testing.assert_close(one, getattr(whole, name), rtol=1e-5, atol=1e-5)
    assert stream.exact == ((spec == WORDS) if backend == "torch" else (spec not in (WORDS, "qrnn")))


def test_a_layer_gradients_and_copies() -> None:
    f = seqc.compile(AHEAD, "torch")
    layer = f.Module(D=3).double()
    torch.nn.init.normal_(layer.w)
    x = {name: one.double().requires_grad_() for name, one in given("ahead")[0].items()}
    whole = layer(**x)
    found = portions(layer.stream(latency=5), x, CUTS[1])
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape) for y in whole]
    slopes = (torch.autograd.grad(list(r), [layer.w, *x.values()], weights) for r in (whole, found))
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    stream = layer.stream(latency=3)
    stream.push(**{name: one[:, :20] for name, one in x.items()})
    draft = copy.copy(stream)
    draft.push(**{name: -one[:, :9].abs() for name, one in x.items()})
    rest = stream.push(**{name: one[:, 20:] for name, one in x.items()})
    torch.testing.assert_close(torch.cat([rest.y, stream.flush().y], 1), whole.y[:, 17:])


def test_what_has_no_stream() -> None:
    f = seqc.compile(AHEAD, "torch")
    told = r"cannot answer 2 steps after an input(.|\n)*reads `x\[t\+3\]`(.|\n)*latency=3 or more"
    with pytest.raises(Unsupported, match=told):
        f.stream(latency=2, w=torch.ones(3, 3))
    with pytest.raises(TypeError, match=r"latency is a whole number of steps, not 2\.5"):
        f.stream(latency=2.5, w=torch.ones(3, 3))
    with pytest.raises(Unsupported, match=r"bidirectional_gru has no stream(.|\n)*one of its two runs begins at the last step"):
        seqc.compile("bidirectional_gru", "torch").stream()
    back = "spec back\nscan backward\ninput x\nstate h = 0\nh = 0.5 * h[t-1] + x\noutput h\n"
    with pytest.raises(Unsupported, match="begins at the last step"):
        seqc.compile(back, "torch").stream()
    stream = f.stream(w=torch.ones(3, 3))
    with pytest.raises(ValueError, match="nothing was pushed"):
        stream.flush()
    x, a = torch.ones(2, 5, 3), torch.ones(2, 5, 3)
    with pytest.raises(ValueError, match=r"one batch and one number of steps: x \[2, 5, 3\], a \[2, 4, 3\]"):
        stream.push(x, a[:, :4])
    stream.push(x, a)
    with pytest.raises(ValueError, match=r"x has shape \[1, 5, 3\], and came as \[2, 'n', 3\] before"):
        stream.push(x[:1], a[:1])
    stream.flush()
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.push(x, a)


def test_explained() -> None:
    told = " ".join(seqc.explain(AHEAD, "torch").split())
    want = "in a stream (`.stream(..)`) it answers 3 steps late (it reads `x[t+3]`); steps that are kept: 7 of x, 3 of a"
    assert want in told and "stream" not in seqc.explain("gla", "torch")
    assert "it answers at once; steps that are kept: 1 of x" in " ".join(seqc.explain("qrnn", "torch").split())
