"""An emitted file alone names the argument that is no tensor, and says what it is instead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqc

X = torch.zeros(1, 6, 2, 4)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda f: f(X.numpy(), X, X, X), r"q is an array of numpy; it is a tensor \[B, T, H, K\]: torch.from_numpy\(q\)"),
        (lambda f: f(X, X, X.numpy(), X), r"v is an array of numpy; it is a tensor \[B, T, H, V\]: torch.from_numpy\(v\)"),
        (lambda f: f(X, X, X, X, cu_seqlens=[0, 6]), r"cu_seqlens is a list; it is a tensor: torch.tensor\(\[0, 6\]\)"),
    ],
)
def test_what_is_no_tensor_is_named(call: Callable[[Any], Any], told: str) -> None:
    function = seqc.compile("gla", backend="torch").module.gla
    assert function(X, X, X, X, cu_seqlens=torch.tensor([0, 6]))[0].shape == X.shape
    with pytest.raises(TypeError, match=f"^gla: {told}$"):
        call(function)


TABLED = """spec tabled
dim D, N
input x[D], i index N, g[D] in [-inf, 0]
param W[D, D], E[N, D]
state h[D] = 0
h = exp(g) * h[t-1] + W @ x + E[position[N](i)]
output h
"""
TAKES = r"it takes x \[B, T, D\], i \[B, T\], g \[B, T, D\], "


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m, x, i: m(x, i, G=x), rf"Tabled: there is no argument 'G'; {TAKES}"),
        (lambda m, x, i: m(x, i), rf"Tabled: missing a required argument: 'g'; {TAKES}"),
        (lambda m, x, i: m(x, i, x, x), rf"Tabled: too many positional arguments; {TAKES}"),
        (lambda m, x, i: m(x, i, x, x=x), rf"Tabled: multiple values for argument 'x'; {TAKES}"),
        (lambda m, x, i: m(x, i, None), r"tabled: g is None; it is a tensor \[B, T, D\]$"),
        (lambda m, x, i: m(x, None, x), r"tabled: i is None; it is a tensor \[B, T\]$"),
        (lambda m, x, i: m(x, i, x.tolist()), r"tabled: g is a list; it is a tensor \[B, T, D\]: torch.tensor\(g\)$"),
        (lambda m, x, i: m(x, i, x, h_0=0), r"tabled: h_0 is a int; it is a tensor \[B, D\]$"),
        (lambda m, x, i: type(m)(D=4), r"Tabled: missing a required argument: 'N'; it takes D=, N=, axis=, device=, dtype=$"),
        (lambda m, x, i: type(m)(D=4, N=3, K=4), "Tabled: there is no argument 'K'"),
        (lambda m, x, i: type(m)(4, 3), "Tabled: too many positional arguments"),
        (lambda m, x, i: m.step(x[:, 0], i[:, 0], None), r"tabled: g is None; it is a tensor"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "torch", "cpu", "triton"])
def test_a_call_of_a_module_that_does_not_fit(backend: str, call: Callable[..., Any], told: str) -> None:
    layer, x = seqc.compile(TABLED, backend=backend).Module(D=4, N=3), torch.zeros(1, 6, 4)
    with pytest.raises(TypeError, match=f"^{told}"):
        call(layer, x, torch.zeros(1, 6, dtype=torch.int64))


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_sizes_of_a_module(backend: str) -> None:
    """The sizes that it is made with are whole numbers, and those of its inputs, over a sequence and in the first step."""
    made = seqc.compile("gla", backend=backend).Module
    for size in (-1, 2.0, "2", True, None):
        with pytest.raises(ValueError, match=r"H is .*; a size is a whole number, 0 or more"):
            made(H=size, K=4, V=4)
    assert made(H=2, K=4, V=4)(X, X, X, X).o.shape == X.shape
    layer = made(H=2, K=4, V=8)
    told = r"^v has shape {} for \[B, T, H, V\]; V is 4 here and 8 in GLA\(H=2, K=4, V=8\)$"
    with pytest.raises(ValueError, match=told.format(r"\[1, 6, 2, 4\]")):
        layer(X, X, X, X)
    with pytest.raises(ValueError, match=told.format(r"\[6, 1, 2, 4\]")):
        layer(*[X.transpose(0, 1)] * 4, axis=0)
    with pytest.raises(ValueError, match=told.format(r"\[1, 2, 4\]")):
        layer.step(*[X[:, 0]] * 4)
    with pytest.raises(ValueError, match=r"^GLA: dim K is 4; it may be 16"):
        seqc.compile("gla", backend=backend, dims={"K": 16}).Module(H=2, K=4, V=8)


def test_a_module_is_compiled_and_traced() -> None:
    """What names wrong arguments stands around a call, and is no obstacle to torch's own tools."""
    layer = seqc.compile("gla", backend="torch").Module(H=2, K=4, V=4)
    q = torch.randn(1, 6, 2, 4)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(q, q, q, -q.abs()).o, layer(q, q, q, -q.abs()).o)
    assert torch.equal(torch.fx.symbolic_trace(layer)(q, q, q, -q.abs())[0], layer(q, q, q, -q.abs()).o)
    exported = torch.export.export(layer, (q, q, q, -q.abs())).module()
    assert torch.equal(exported(q, q, q, -q.abs())[0], layer(q, q, q, -q.abs()).o)
