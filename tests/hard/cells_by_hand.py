"""Cells, memories and what the language alone makes possible (folds of several values, histories, positions): see `by_hand`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.hard.by_hand import Given, between, by_hand, stacked


@by_hand(
    """spec folded
dim D, J = 3
input x[D], k[J, D]
state h[D] = 0
h = fold[J](a = h[t-1], r = x, a, r -> a + tanh(r * k), r * 0.5 + a)
r2 = fold[J](x, h[t-1], r, a -> r * 0.5 + a, a + tanh(r * k))
output h, r2[D]
""",
    D=2,
)
def _(g: Given) -> Given:
    h = g["h_0"]
    o = []
    p = []
    for t in range(g["x"].shape[1]):
        a, r = h, g["x"][:, t]
        for j in range(3):
            a, r = a + torch.tanh(r * g["k"][:, t, j]), r * 0.5 + a
        h = a
        o.append(h)
        p.append(r)
    return {"h": torch.stack(o, 1), "r2": torch.stack(p, 1), "h_T": h}


@by_hand(
    """spec fir_history
dim D, L = 4
input x[D]
param c[L, D]
history x 3
output y = sum[L](c * x[t - index[L]]), z[D] = x[t-3], w = y + z
""",
    D=2,
)
def _(g: Given) -> Given:
    X = torch.cat([g["x_lag3_0"][:, None], g["x_lag2_0"][:, None], g["x_lag1_0"][:, None], g["x"]], 1)
    T = g["x"].shape[1]
    y = sum(g["c"][level] * X[:, 3 - level : 3 - level + T] for level in range(4))
    z = X[:, :T]
    return {"y": y, "z": z, "w": y + z, "x_lag1_T": X[:, -1], "x_lag3_T": X[:, -3]}


@by_hand(
    """spec cumulative
dim N
input x[N]
state h[N] = 0
h = 0.5 * h[t-1] + cumsum[N](x)
output y = cumsum[N](softmax[N](h)), z = shift[N](h, -1)
""",
    N=4,
)
def _(g: Given) -> Given:
    h = g["h_0"]
    rows_ = [[], []]
    for t in range(g["x"].shape[1]):
        h = 0.5 * h + g["x"][:, t].cumsum(-1)
        rows_[0].append(torch.softmax(h, -1).cumsum(-1))
        rows_[1].append(torch.cat([h[:, 1:], 0 * h[:, :1]], 1))
    return {"y": torch.stack(rows_[0], 1), "z": torch.stack(rows_[1], 1)}


@by_hand(
    """spec clockwork
dim G = 3, D
input x[G, D]
param R[G, G, D]
state h[G, D] = 0, n = -1
n = n[t-1] + 1
on = mod(n, 2^index[G]) == 0
u = sum[G'](where(index[G'] >= index[G], R, 0) * h[t-1, G -> G'])
h = where(on, tanh(x + u), h[t-1])
output h
""",
    {"n_0": lambda x: 0 * x - 1},
    D=2,
)
def _(g: Given) -> Given:
    h = g["h_0"]
    rows_ = []
    for t in range(g["x"].shape[1]):
        mask = torch.triu(torch.ones(3, 3, dtype=h.dtype))
        u = torch.einsum("ijd,bjd->bid", mask[:, :, None] * g["R"], h)
        hn = torch.tanh(g["x"][:, t] + u)
        on = torch.tensor([t % (2**g) == 0 for g in range(3)])[None, :, None]
        h = torch.where(on, hn, h)
        rows_.append(h)
    return {"h": torch.stack(rows_, 1)}


@by_hand(
    """spec neural_stack
dim N = 4, V
input v[V], d in [0, 1], u in [0, 1]
state M[N, V] = 0, s[N] = 0, n = 0
n = n[t-1] + 1
above = sum[N'](where(index[N'] > index[N], s[t-1, N -> N'], 0))
rest = max(0, s[t-1] - max(0, u - above))
M = where(index[N] == n - 1, v, M[t-1])
s = where(index[N] == n - 1, d, rest)
over = sum[N'](where(index[N'] > index[N], s[N -> N'], 0))
output r[V] = sum[N](min(s, max(0, 1 - over)) * M)
""",
    {"d": between(0, 1), "u": between(0, 1), "s_0": lambda x: 0 * x, "n_0": lambda x: 0 * x},
    V=2,
)
def _(g: Given) -> Given:
    M, s = g["M_0"], g["s_0"]
    rows_ = []
    tri = torch.triu(torch.ones(4, 4, dtype=M.dtype), 1)
    for t in range(g["v"].shape[1]):
        d, u = g["d"][:, t, None], g["u"][:, t, None]
        above = s @ tri.T
        rest = torch.relu(s - torch.relu(u - above))
        at = (torch.arange(4) == t)[None]
        M = torch.where(at[..., None], g["v"][:, t, None, :], M)
        s = torch.where(at, d, rest)
        over = s @ tri.T
        rows_.append(torch.einsum("bn,bnv->bv", torch.minimum(s, torch.relu(1 - over)), M))
    return {"r": torch.stack(rows_, 1), "s_T": s}


@by_hand(
    """spec cde
dim H, X
input x[X]
param A[H, X, H], b[H, X]
state z[H] = 0
history x 1
f = tanh(sum[H'](A * z[t-1, H -> H']) + b)
z = z[t-1] + sum[X](f * (x - x[t-1]))
output z
""",
    H=3,
    X=2,
)
def _(g: Given) -> Given:
    z = g["z_0"]
    p = g["x_lag1_0"]
    rows_ = []
    for t in range(g["x"].shape[1]):
        f = torch.tanh(torch.einsum("hxg,bg->bhx", g["A"], z) + g["b"])
        z = z + torch.einsum("bhx,bx->bh", f, g["x"][:, t] - p)
        p = g["x"][:, t]
        rows_.append(z)
    return {"z": torch.stack(rows_, 1)}


@by_hand(
    """spec unitary
dim N
input x[N]
param th[N], ph[N], b[N]
state h[N] complex = 1
p = exp(1i * th) * h[t-1]
m = abs(p)
h = relu(m + b) * p / (m + 1e-5) + x
output y = re(h), z = im(h)
""",
    N=3,
)
def _(g: Given) -> Given:
    h = torch.complex(g["h_re_0"], g["h_im_0"])
    rows_ = [[], []]
    for t in range(g["x"].shape[1]):
        p = torch.exp(1j * g["th"]) * h
        m = p.abs()
        h = torch.relu(m + g["b"]) * p / (m + 1e-5) + g["x"][:, t]
        rows_[0].append(h.real)
        rows_[1].append(h.imag)
    return {"y": torch.stack(rows_[0], 1), "z": torch.stack(rows_[1], 1)}


@by_hand(
    """spec log_linear
dim K, V, L = 3
input q[K], k[K], v[V], lam[L]
state S[L, K, V] = 0, n = 0
n = n[t-1] + 1
low = where(mod(n, 2) == 1, 0, where(mod(n, 4) == 2, 1, 2))
merged = sum[L](where(index[L] <= low, S[t-1], 0)) + k * v
S = where(index[L] == low, merged, where(index[L] < low, 0, S[t-1]))
output o[V] = sum[L, K](lam * q * S)
""",
    {"n_0": lambda x: 0 * x},
    K=3,
    V=2,
)
def _(g: Given) -> Given:
    S = g["S_0"]
    o = []
    for n, t in enumerate(range(g["q"].shape[1]), 1):
        low = 0 if n % 2 == 1 else (1 if n % 4 == 2 else 2)
        kv = g["k"][:, t, :, None] * g["v"][:, t, None, :]
        m = S[:, : low + 1].sum(1) + kv
        rows = [torch.zeros_like(m) if level < low else m if level == low else S[:, level] for level in range(3)]
        S = torch.stack(rows, 1)
        o.append(torch.einsum("bl,bk,blkv->bv", g["lam"][:, t], g["q"][:, t], S))
    return {"o": torch.stack(o, 1)}


@by_hand(
    """spec ntm
dim N = 5, M, C
input x[C], k[M], beta in [0, inf], gate in [0, 1], s0 in [0, 1], s1 in [0, 1], gam in [1, inf], er[M] in [0, 1], ad[M]
state Mem[N, M] = 0.1, w[N] = 0.2
kn = k / (norm[M](k) + 1e-6)
sim = sum[M](kn * Mem[t-1]) / (norm[M](Mem[t-1]) + 1e-6)
wc = softmax[N](beta * sim)
wg = gate * wc + (1 - gate) * w[t-1]
ws = (1 - s0 - s1) * wg + s0 * sum[N'](where(index[N] == mod(index[N'] + 1, N), 1, 0) * wg[N -> N'])
    + s1 * sum[N'](where(mod(index[N] + 1, N) == index[N'], 1, 0) * wg[N -> N'])
wp = exp(gam * log(ws + 1e-9))
w = wp / sum[N](wp)
Mem = Mem[t-1] * (1 - w * er) + w * ad
output r[M] = sum[N](w * Mem)
""",
    {
        "beta": between(0.5, 2),
        "gate": between(0, 1),
        "s0": between(0, 0.3),
        "s1": between(0, 0.3),
        "gam": between(1, 2),
        "er": between(0, 1),
        "w_0": lambda x: torch.softmax(x, -1),
    },
    M=3,
    C=2,
)
def _(g: Given) -> Given:
    Mem, w = g["Mem_0"], g["w_0"]
    o = []
    for t in range(g["k"].shape[1]):

        def at(n: str, t: int = t) -> Tensor:
            return g[n][:, t] if g[n].dim() == 3 else g[n][:, t, None]

        kn = at("k") / (at("k").norm(dim=-1, keepdim=True) + 1e-6)
        sim = torch.einsum("bnm,bm->bn", Mem, kn) / (Mem.norm(dim=-1) + 1e-6)
        wc = torch.softmax(at("beta") * sim, -1)
        wg = at("gate") * wc + (1 - at("gate")) * w
        ws = (1 - at("s0") - at("s1")) * wg + at("s0") * torch.roll(wg, 1, -1) + at("s1") * torch.roll(wg, -1, -1)
        wp = torch.exp(at("gam") * torch.log(ws + 1e-9))
        w = wp / wp.sum(-1, keepdim=True)
        Mem = Mem * (1 - w[:, :, None] * at("er")[:, None]) + w[:, :, None] * at("ad")[:, None]
        o.append(torch.einsum("bn,bnm->bm", w, Mem))
    return {"r": torch.stack(o, 1), "Mem_T": Mem, "w_T": w}


@by_hand(
    """spec ttt_mlp
dim K, H = 4
input q[K], k[K], v[K], lr
param g[K] init 1, b[K]
state W1[H, K] = 0, W2[K, H] = 0
a = W1[t-1] @ k
z = gelu(a)
y = W2[t-1] @ z
mu = mean[K](y)
e = y - v
dW2 = e * z
dz = sum[K](e * W2[t-1])
da = dz * (0.5 * (1 + erf(a / sqrt(2))) + a * exp(-a^2 / 2) / sqrt(2 * pi))
W1 = W1[t-1] - lr * da * k
W2 = W2[t-1] - lr * dW2
output o[K] = q + layernorm[K](W2 @ gelu(W1 @ q), g, b)
""",
    {"lr": between(0, 0.1)},
    K=3,
    H=4,
)
def _(g: Given) -> Given:
    W1, W2 = g["W1_0"], g["W2_0"]
    o = []
    for t in range(g["q"].shape[1]):
        q, k, v, lr = g["q"][:, t], g["k"][:, t], g["v"][:, t], g["lr"][:, t, None, None]
        a = torch.einsum("bhk,bk->bh", W1, k)
        z = F.gelu(a)
        y = torch.einsum("bkh,bh->bk", W2, z)
        e = y - v
        dW2 = e[:, :, None] * z[:, None, :]
        dz = torch.einsum("bk,bkh->bh", e, W2)
        da = dz * (0.5 * (1 + torch.erf(a / math.sqrt(2))) + a * torch.exp(-a * a / 2) / math.sqrt(2 * math.pi))
        W1 = W1 - lr * da[:, :, None] * k[:, None, :]
        W2 = W2 - lr * dW2
        y = torch.einsum("bkh,bh->bk", W2, F.gelu(torch.einsum("bhk,bk->bh", W1, q)))
        o.append(q + F.layer_norm(y, (3,), g["g"], g["b"], 1e-5))
    return {"o": torch.stack(o, 1), "W1_T": W1, "W2_T": W2}


@by_hand(
    """spec ahead
dim D
input x[D]
param W[D, D], b[D]
state h[D] = 0
e = tanh(W @ x + b)
h = 0.5 * h[t-1] + e[t+1] - e[t+2]
output h, y = e[t-1] + e + e[t+1]
""",
    D=3,
)
def _(g: Given) -> Given:
    """Behind the last step e is 0, which is not what it makes of an input of 0."""
    e = torch.tanh(g["x"] @ g["W"].T + g["b"])
    later = torch.cat([e, torch.zeros_like(e[:, :2])], 1)
    h, before, rows = g["h_0"], g["e_lag1_0"], []
    for t in range(e.shape[1]):
        h = 0.5 * h + later[:, t + 1] - later[:, t + 2]
        rows.append((h, before + e[:, t] + later[:, t + 1]))
        before = e[:, t]
    h, y = stacked(rows)
    return {"h": h, "y": y}
