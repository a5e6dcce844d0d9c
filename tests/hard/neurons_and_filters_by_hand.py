"""Neurons, optimisers, filters, dynamic programs and returns: see `by_hand`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.hard.by_hand import Given, between, by_hand


@by_hand(
    """spec izhikevich
dim D
input I[D]
param a[D], b[D], c[D], d[D], w[D, D]
state v[D] = -0.65, u[D] = -0.13, s[D] = 0
I_all = I + w @ s[t-1]
v_new = v[t-1] + 0.5 * (0.04 * v[t-1]^2 + 5 * v[t-1] + 1.4 - u[t-1] + I_all)
fired = v_new >= 0.30
s = withgrad(v_new > 0.30, 1 / (1 + abs(v_new - 0.3))^2)
v = where(fired, c, v_new)
u = where(fired, u[t-1] + d, u[t-1] + a * (b * v[t-1] - u[t-1]))
output s
output v
""",
    D=4,
)
def _(g: Given) -> Given:
    class S(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return (v > 0.3).double()

        @staticmethod
        def backward(ctx, g):
            (v,) = ctx.saved_tensors
            return g / (1 + (v - 0.3).abs()) ** 2

    v, u, s = g["v_0"], g["u_0"], g["s_0"]
    so, vo = [], []
    for t in range(g["I"].shape[1]):
        current = g["I"][:, t] + s @ g["w"].T
        vn = v + 0.5 * (0.04 * v**2 + 5 * v + 1.4 - u + current)
        f = vn >= 0.30
        s = S.apply(vn)
        un = torch.where(f, u + g["d"], u + g["a"] * (g["b"] * v - u))
        v = torch.where(f, g["c"], vn)
        u = un
        so.append(s)
        vo.append(v)
    return {"s": torch.stack(so, 1), "v": torch.stack(vo, 1), "v_T": v, "u_T": u, "s_T": s}


@by_hand(
    """spec stdp
dim N, M
input pre[N], post[M]
param Ap, Am, tp in [0, 1], tm in [0, 1]
state x[N] = 0, y[M] = 0, W[M, N] = 0.5
x = tp * x[t-1] + pre
y = tm * y[t-1] + post
W = clamp(W[t-1] + Ap * post * x - Am * y * pre, 0, 1)
output o[M] = W @ pre
""",
    {
        "pre": lambda x: (x > 0).double(),
        "post": lambda x: (x > 0.3).double(),
        "tp": between(0, 1),
        "tm": between(0, 1),
        "W_0": between(0, 1),
        "Ap": lambda x: 0.1 * x.abs(),
        "Am": lambda x: 0.1 * x.abs(),
    },
    N=3,
    M=4,
)
def _(g: Given) -> Given:
    X, Y, W = g["x_0"], g["y_0"], g["W_0"]
    o = []
    for t in range(g["pre"].shape[1]):
        p, q = g["pre"][:, t], g["post"][:, t]
        X = g["tp"] * X + p
        Y = g["tm"] * Y + q
        W = torch.clamp(W + g["Ap"] * q[:, :, None] * X[:, None, :] - g["Am"] * Y[:, :, None] * p[:, None, :], 0, 1)
        o.append(torch.einsum("bmn,bn->bm", W, p))
    return {"o": torch.stack(o, 1), "x_T": X, "y_T": Y, "W_T": W}


@by_hand(
    """spec adam
dim D
input g[D]
param lr, b1 in [0,1], b2 in [0,1]
state m[D] = 0, v[D] = 0, p1 = 1, p2 = 1, w[D] = 0
m = b1 * m[t-1] + (1 - b1) * g
v = b2 * v[t-1] + (1 - b2) * g^2
p1 = p1[t-1] * b1
p2 = p2[t-1] * b2
w = w[t-1] - lr * (m / (1 - p1)) / (sqrt(v / (1 - p2)) + 1e-8)
output w
""",
    {"b1": between(0.5, 0.9), "b2": between(0.8, 0.99), "v_0": torch.abs, "p1_0": between(0.2, 0.8), "p2_0": between(0.2, 0.8)},
    D=3,
)
def _(g: Given) -> Given:
    """Adam (arXiv:1412.6980) on gradients that are given."""
    m, v, p1, p2, w = (g[x + "_0"] for x in ("m", "v", "p1", "p2", "w"))
    o = []
    for slope in g["g"].unbind(1):
        m = g["b1"] * m + (1 - g["b1"]) * slope
        v = g["b2"] * v + (1 - g["b2"]) * slope**2
        p1, p2 = p1 * g["b1"], p2 * g["b2"]
        w = w - g["lr"] * (m / (1 - p1)[:, None]) / (torch.sqrt(v / (1 - p2)[:, None]) + 1e-8)
        o.append(w)
    return {"w": torch.stack(o, 1), "w_T": w, "m_T": m, "v_T": v, "p1_T": p1, "p2_T": p2}


@by_hand(
    """spec egarch
input r
param omega, alpha, gamma, beta in [-1, 1]
state h = omega / (1 - beta), z = 0
h = omega + alpha * (abs(z[t-1]) - sqrt(2 / pi)) + gamma * z[t-1] + beta * h[t-1]
z = r / exp(h / 2)
output v = exp(h)
""",
    {"beta": between(-0.9, 0.9)},
)
def _(g: Given) -> Given:
    h, z = g["h_0"], g["z_0"]
    o = []
    for t in range(g["r"].shape[1]):
        h = g["omega"] + g["alpha"] * (z.abs() - math.sqrt(2 / math.pi)) + g["gamma"] * z + g["beta"] * h
        z = g["r"][:, t] / torch.exp(h / 2)
        o.append(torch.exp(h))
    return {"v": torch.stack(o, 1), "h_T": h, "z_T": z}


@by_hand(
    """spec ctc_like
dim S = 5
input lp[S], skip[S]
state a[S] = where(index[S] == 0, 0, -inf)
stay = a[t-1]
one = shift[S](a[t-1], 1, -inf)
two = where(skip > 0, shift[S](a[t-1], 2), -inf)
a = lp + logaddexp(logaddexp(stay, one), where(index[S] >= 2, two, -inf))
output ll = logaddexp(a[S = -1], a[S = -2])
""",
    {"a_0": lambda x: x},
)
def _(g: Given) -> Given:
    a = g["a_0"]
    o = []
    ninf = float("-inf")
    for t in range(g["lp"].shape[1]):
        one = torch.cat([torch.full_like(a[:, :1], ninf), a[:, :-1]], 1)
        two = torch.cat([torch.full_like(a[:, :2], ninf), a[:, :-2]], 1)
        two = torch.where(g["skip"][:, t] > 0, two, torch.full_like(two, ninf))
        a = g["lp"][:, t] + torch.logaddexp(
            torch.logaddexp(a, one), torch.where(torch.isinf(two), torch.full_like(two, -1e30), two)
        )
        o.append(torch.logaddexp(a[:, -1], a[:, -2]))
    return {"ll": torch.stack(o, 1), "a_T": a}


@by_hand(
    """spec rk4
dim D, H
input u[D]
param W1[H, D], b1[H], W2[D, H], dt
state x[D] = 0
k1 = W2 @ tanh(W1 @ x[t-1] + b1) + u
k2 = W2 @ tanh(W1 @ (x[t-1] + dt / 2 * k1) + b1) + u
k3 = W2 @ tanh(W1 @ (x[t-1] + dt / 2 * k2) + b1) + u
k4 = W2 @ tanh(W1 @ (x[t-1] + dt * k3) + b1) + u
x = x[t-1] + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
output x
""",
    D=3,
    H=5,
)
def _(g: Given) -> Given:
    X = g["x_0"]
    o = []
    for t in range(g["u"].shape[1]):

        def f(y: Tensor, u: Tensor = g["u"][:, t]) -> Tensor:
            return torch.tanh(y @ g["W1"].T + g["b1"]) @ g["W2"].T + u

        dt = g["dt"]
        k1 = f(X)
        k2 = f(X + dt / 2 * k1)
        k3 = f(X + dt / 2 * k2)
        k4 = f(X + dt * k3)
        X = X + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        o.append(X)
    return {"x": torch.stack(o, 1), "x_T": X}
