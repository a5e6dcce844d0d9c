"""Specs that draw noise, one for each form: for `test_noise`, and for the process that runs Triton's interpreter."""

from __future__ import annotations

CELL = '''spec noisy_cell
"""Masks on inputs and, once a sequence, on the state; additive noise whose size is learnt."""
dim D = 3, M = 2
input x[M]
param W[D, M], R[D, D], size[D]
state h[D] = 0
seen = bernoulli[M](0.75) / 0.75
kept = bernoulli[D](0.75, once) / 0.75
h = tanh(R @ (kept * h[t-1]) + W @ (seen * x) + size * normal[D]())
output h
'''
SCAN = '''spec noisy_scan
"""A linear state, each element by itself; noise whose mean is an input."""
dim D = 3
input x[D], a[D] in [0, 1]
state h[D] = 0
h = a * h[t-1] + uniform[D](-1, 1) * x + normal[D](x, 0.1)
output h
'''
CHUNK = '''spec noisy_chunk
"""A matrix state whose writes are masked."""
dim K = 3, V = 2
input q[K], k[K], v[V], g[K] in [-inf, 0]
state S[K, V] = 0
S = exp(g) * S[t-1] + k * v * bernoulli[V](0.5)
output o = sum[K](q * S)
'''
VARIATIONAL = '''spec variational_gru
"""GRU in the form of torch.nn.GRU with dropout: on the input anew in every step, on the state once a sequence."""
dim I, D
input x[I]
param W_r[D, I], W_z[D, I], W_n[D, I], R_r[D, D], R_z[D, D], R_n[D, D], b_r[D], b_z[D], b_n[D], c_r[D], c_z[D], c_n[D]
state h[D] = 0
seen = bernoulli[I](0.75) / 0.75
kept = bernoulli[D](0.75, once) / 0.75
u = seen * x
g = kept * h[t-1]
r = sigmoid(W_r @ u + b_r + R_r @ g + c_r)
z = sigmoid(W_z @ u + b_z + R_z @ g + c_z)
n = tanh(W_n @ u + b_n + r * (R_n @ g + c_n))
h = n + z * (h[t-1] - n)
output h
'''
FORMS = {"step": (CELL, None), "scan": (SCAN, 16), "chunkwise": (CHUNK, 16)}
"""Form -> a spec that has it, and rows of its blocks."""
