"""Small specs that the seeded bugs are looked for with: each shows one thing, in a form and on a backend of the mutant's."""

from __future__ import annotations

SPECS: dict[str, str] = {
    "smooth": """spec s
dim D
input x[D], y[D]
state h[D] = 0
h = 0.5 * h[t-1] + tanh(x)
output a[D] = h + x - y * x + (1 + x * x)^1.5 + expm1(-x * x) + y / (1 + x * x)
output b[D] = abs(x) * y + sigmoid(x) + softplus(x)
""",
    "smooth too": """spec s
dim D
input x[D], y[D]
state h[D] = 0
h = 0.5 * h[t-1] + logsigmoid(y)
output a[D] = h + log1p(y * y) + erf(y) + sin(x) * cos(y) + log(1 - sigmoid(y))
""",
    "decrees": """spec s
dim D
input x[D], y[D], u[D] in [0, 1]
param p
state h[D] = 0
h = 0.5 * h[t-1] + stopgrad(x) * y
output a[D] = h + withgrad(x >= y, 0.3) * y + withgrad(y < x, u) + x - (0 - y) * -p + -(x - y) * p
output b[D] = y - (-(u * x))
""",
    "sums": """spec s
dim D
input x[D], y[D], w
param p, r[D]
state h[D] = 0
h = 0.5 * h[t-1] + x
output a = sum[D](x * h / (1 + w * w)) + sum[D](p + x * y) + sum[D](exp(x)) + max[D](y)
output b[D] = layernorm[D](x, r) + bilinear(-w * w, x, r)
output c[D] = r
""",
    "ties": """spec s
dim D
input x[D] in [0, 1], y[D] in [0, 1]
state h[D] = 0
h = 0.5 * h[t-1] + max(x, y)
output a[D] = min(x, y) * h + relu(x) + abs(y) + logaddexp(x, y)
output b = max[D](x) + min[D](y)
""",
    "decayed": """spec s
dim K, V
input q[K], k[K], v[V], g[K] in [-10, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
output before = sum[K](k * S[t-1])
""",
    "gated": """spec s
dim K, V
input q[K], k[K], v[V], f[K], u in [0, 1], n[V] in [-5, 0], m[K] in [-1, 0]
state S[K, V] = 0
S = (1 - sigmoid(f)) * exp(m) * sqrt(exp(n)) / (1 + u) * S[t-1] + k * v
output o = sum[K](q * S)
""",
    "mild": """spec s
dim K, V
input q[K], k[K], v[V], g[K] in [-0.05, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
output before = sum[K](q * S[t-1])
""",
    "near": """spec s
dim K, V
input q[K], k[K], v[V], g[K] in [-0.5, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
""",
    "signed": """spec s
dim K, V
input q[K], k[K], v[V], a[K] in [-1, 1]
state S[K, V] = 0
S = a * S[t-1] - k * v
output o = sum[K](q * S)
output before = sum[K](k * S[t-1])
""",
    "delta": """spec s
dim K, V
input q[K], k[K] unit[K], v[V], b in [0, 1], g in [-1, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + b * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S)
""",
    "unequal": """spec s
dim K, V
input q[K], k[K] unit[K], v[V], b[V] in [0, 1], u[V] in [-1, 0]
state S[K, V] = 0
S = exp(u) * S[t-1] + b * k * (v - sum[K](k * S[t-1]))
output o = sum[K](q * S)
""",
    "momentum": """spec s
dim K, V
input q[K], k[K] unit[K], v[V], b in [0, 1], e in [0, 1]
state S[K, V] = 0, P[K, V] = 0
P = e * P[t-1] + b * k * (v - sum[K](k * S[t-1]))
S = S[t-1] + 0.3 * P
output o = sum[K](q * S)
output before = sum[K](q * S[t-1])
""",
    "element": """spec s
dim D
input x[D], a[D] in [0, 1]
param p[D], r
state h[D] = p, last[D] = 0
h = a * h[t-1] - r * x
last = x
output o = h + last[t-1]
output before = h[t-1] * x[t-1]
""",
    "maximum": """spec s
dim D
input x[D] in [0, 1], a[D] in [-inf, 0]
state m[D] = -inf
m = max(m[t-1] + a, x)
output o = m * x
output before = exp(-m[t-1]^2)
""",
    "complex": """spec s
dim D
input u[D], turn[D]
param rate[D]
state z[D] complex = 0
z = exp(-exp(rate) + 1i * turn) * z[t-1] + (1 + 0.5i) * u
output y = re(z) + im(z) * u
""",
    "oscillators": """spec s
dim K, V
input q[K], k[K], v[V], turn
param rate
state z[K, V] complex = 0
z = exp(-exp(rate) + 1i * turn) * z[t-1] + (1 + 0.5i) * k * v
output y = re(sum[K](q * z))
output w = im(sum[K](q * z))
""",
    "bounded": """spec s
dim K, V
input q[K], k[K], v[V], g in [-1, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S)
every 16: S = 0.1 * S
""",
    "hooked": """spec s
dim D
input x[D]
state h[D] = 0
h = 0.5 * h[t-1] + x
output h
every 3: h = -h
""",
    "lagged": """spec s
dim D, L = 3
input x[D]
param a[L, D]
state y[D] = 0
y = 0.4 * y[t-1] - 0.3 * y[t-3] + sum[L](a * x[t + 1 - index[L]])
output o = y * x[t-2]
""",
    "taps": """spec s
dim D, L = 40
input x[D]
param a[L, D]
state h[D] = 0
h = 0.5 * h[t-1] + sum[L](a * x[t + 2 - index[L]])
output h
""",
    "cell": """spec s
dim H, D
input x[H, D], z[H, D]
param R[H, D, D], U[D, D], b[D]
state h[H, D] = 0, c[H, D] = 0
f = sigmoid(z + R @ h[t-1] + b)
c = f * c[t-1] + (1 - f) * tanh(x + U @ h[t-1])
h = f * tanh(c)
output h
checkpoint 4
""",
    "layer": """spec s
dim D, M
input x[M]
param W[D, M], C[M, D], R[D, D]
state h[D] = 0
h = tanh(W @ x + R @ h[t-1])
output o = C @ h
""",
    "both": """spec s
dim D
scan both
input x[D]
param r[D]
state h[D] = 0
h = sigmoid(r) * h[t-1] + x * x
output h
""",
    "chosen": """spec s
dim D
input x[D], m in [0, 1], a[D] in [0, 1]
state h[D] = 0
h = where(m > 0.4, a * h[t-1] + x, 0.5 * h[t-1])
output h
""",
    "folded": """spec s
dim D, J = 3
input x[J, D], a[J, D] in [0, 1]
state h[D] = 0
h = fold[J](h[t-1], r -> a * r + index[J] * x)
output h
""",
    "neighbours": """spec s
dim S = 6, L = 5
input x[S]
state h[S] = 0, n = 0
n = round(n[t-1]) + 1
h = tanh(x + shift[S](h[t-1], 1) + shift[S](h[t-1], -1))
output o[S] = h * (mod(n, 2^index[L])[L = 3] == 0)
""",
    "transposed": """spec s
dim D, J = 3
input x[D], y[J]
param R[D, D]
state h[D] = 0
h = 0.3 * tanh(R)[D -> D', D' -> D] @ h[t-1] + x
output o = prod[J](y) + sum[J](scan[J](a = 0.5, a -> y * a + 0.1) * index[J] * flip[J](y))
output h
""",
}

__all__ = ["SPECS"]
