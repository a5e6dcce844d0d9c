"""Weights of torch.nn's recurrent modules in layers of specs with the same equations: told by numbers, not by names."""

from typing import Any

import pytest
import torch

from seqc import nn

CELLS = {
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
    "bidirectional_gru": (torch.nn.GRU, {"bidirectional": True}),
    "rnn": (torch.nn.RNN, {}),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}

OTHERWISE = '''
spec remembering
"""An LSTM whose gates have other names and another order, written otherwise, with some of its biases."""
dim N
input b[N], a[N], d[N], c[N]
param P[N, N], Q[N, N], W[N, N], Z[N, N], u[N] init 0, v[N] init 0
state y[N] = 0, m[N] = 0
keep = 1 / (1 + exp(-(a + Q @ y[t-1] + u)))
write = 2 * sigmoid(2 * (c + W @ y[t-1])) - 1
m = keep * (m[t-1] - write) + keep * write + sigmoid(b + v + Z @ y[t-1]) * write
output y = tanh(m) * (1 - sigmoid(-d - P @ y[t-1]))
'''
INSIDE = '''
spec inside
"""A GRU that projects its input itself, and has one bias where torch.nn.GRU has two."""
dim N, I
input x[I]
param A[N, I], B[N, I], C[N, I], P[N, N], Q[N, N], R[N, N]
param p[N] init 0, q[N] init 0, r[N] init 0, s[N] init 0
state h[N] = 0
z = sigmoid(A @ x + P @ h[t-1] + p)
n = tanh(B @ x + s + sigmoid(C @ x + R @ h[t-1] + r) * (Q @ h[t-1] + q))
output h = (1 - z) * n + z * h[t-1]
'''
RELU = '''
spec rectified
"""An RNN with relu."""
dim N
input x[N]
param R[N, N]
state h[N] = 0
output h = max(R @ h[t-1] + x, 0)
'''


STACKED = '''
spec stacked
"""An LSTM whose gates lie in one array, in another order than torch's, and which projects its input itself."""
dim M, D, G = 4
input x[M]
param W[G, D, M], R[D, G, D], b[G, D] init 0
state h[D] = 0, c[D] = 0
a = W @ x + R @ h[t-1] + b
c = sigmoid(a[G = 3]) * c[t-1] + sigmoid(a[G = 0]) * tanh(a[G = 1])
output h = sigmoid(a[G = 2]) * tanh(c)
'''
PROJECTED = '''
spec projected
"""A GRU of one head whose gates lie in one array; the layer projects its input."""
dim H, D, G = 3
input x[G, H, D]
param R[H, G, D, D], b[G, H, D] init 0
state h[H, D] = 0
p = R @ h[t-1] + b
r = sigmoid(x[G = 2] + p[G = 2])
z = sigmoid(x[G = 0] + p[G = 0])
output h = (1 - z) * tanh(x[G = 1] + r * p[G = 1]) + z * h[t-1]
'''


def stack(spec: str, module: Any) -> Any:
    found = nn.module(spec, backend="torch")
    return next(x for name, x in vars(found).items() if name.endswith("Stack")).from_torch(module)


@torch.no_grad()
def equal(spec: str, module: Any, dtype: torch.dtype) -> None:
    """A batch, its last states, and steps one by one."""
    made = stack(spec, module)
    x = torch.randn(3, 9, module.input_size, dtype=dtype)
    want, last = module(x)
    cache = made.cache()
    got = made(x, cache)
    assert float((got - want).abs().max()) < TOLERANCE[dtype]
    if not module.bidirectional:
        h = last[0] if isinstance(last, tuple) else last
        for i, one in enumerate(cache.layers):
            states = [s.flatten(1) for s in one.states.values()]
            assert min(float((s - h[i]).abs().max()) for s in states) < TOLERANCE[dtype]
        cache, steps = made.cache(), []
        for x_t in x.unbind(1):
            steps.append(made.step(x_t, cache))
        assert float((torch.stack(steps, 1) - want).abs().max()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("spec", CELLS)
def test_shipped_cells(spec: str, dtype: torch.dtype) -> None:
    kind, options = CELLS[spec]
    for layers, bias in ((1, True), (3, True), (2, False)):
        torch.manual_seed(layers)
        equal(spec, kind(5, 6, layers, batch_first=True, bias=bias, dtype=dtype, **options), dtype)


@pytest.mark.parametrize(
    ("spec", "module"),
    [
        (OTHERWISE, torch.nn.LSTM(4, 5, 2, batch_first=True, dtype=torch.float64)),
        (INSIDE, torch.nn.GRU(4, 5, 2, batch_first=True, dtype=torch.float64)),
        (STACKED, torch.nn.LSTM(4, 5, 2, batch_first=True, dtype=torch.float64)),
        (PROJECTED, torch.nn.GRU(4, 5, 2, batch_first=True, dtype=torch.float64)),
        (RELU, torch.nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True, dtype=torch.float64)),
    ],
)
def test_equations_decide_not_names(spec: str, module: Any) -> None:
    equal(spec, module, torch.float64)


@pytest.mark.parametrize("name", ["mgu", "layer_norm_lstm", "slstm", "sru", "indrnn", "gla", "min_lstm", "leaky_rnn"])
def test_other_equations_have_no_loader(name: str) -> None:
    assert not hasattr(nn.layer(name, 8, backend="torch"), "load_torch")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("keep * write +", "0.999 * keep * write +"),
        ("tanh(m)", "m"),
        ("m[N] = 0", "m[N] = 1"),
        ("output y", "param w[N] init 1\noutput o[N] = w * y\ny"),
        ("P @ y[t-1]", "(y[t-1] @ P)[N' -> N]"),
        ("sigmoid(b + v", "sigmoid(b + 2 * v"),
    ],
)
def test_nearly_the_same_is_not_the_same(old: str, new: str) -> None:
    assert old in OTHERWISE
    assert not hasattr(nn.layer(OTHERWISE.replace(old, new), 8, backend="torch"), "load_torch")


def test_what_does_not_fit_is_refused() -> None:
    def layer(**options: Any) -> Any:
        plain = {"H": 1, "D": 5, "norm": False, "gate": False, "out": False}
        return nn.layer("lstm", 4, backend="torch", **plain | options)

    lstm = torch.nn.LSTM(4, 5)
    layer().load_torch(lstm)
    with pytest.raises(TypeError, match=r"lstm has the equations of torch\.nn\.LSTM, and this is GRU"):
        layer().load_torch(torch.nn.GRU(4, 5))
    with pytest.raises(TypeError, match="nonlinearity='tanh'"):
        nn.layer("rnn", 4, backend="torch").load_torch(torch.nn.RNN(4, 4, nonlinearity="relu"))
    for options in ({"gate": True}, {"conv": 2}, {"D": 6}, {"H": 2}):
        with pytest.raises(ValueError, match=r"LSTM has no convolution|other sizes"):
            layer(**options).load_torch(lstm)
    for wrong in (torch.nn.LSTM(4, 5, proj_size=2), torch.nn.LSTM(4, 5, bidirectional=True)):
        with pytest.raises(ValueError, match="runs forward and projects no state"):
            layer().load_torch(wrong)


def test_gradients_of_loaded_weights() -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(4, 5, batch_first=True, dtype=torch.float64)
    made = stack("lstm", module)
    x = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 7, 5, dtype=torch.float64)
    (want,) = torch.autograd.grad(module(x)[0], x, weight)
    (got,) = torch.autograd.grad(made(x), x, weight)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
